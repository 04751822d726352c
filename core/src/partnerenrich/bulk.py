"""Ask about many links in one call: what is wanted within a few milliseconds goes out together."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import msgspec

from partnerenrich.desk import in_portions
from partnerenrich.errors import BadResponse, PartnerError
from partnerenrich.lookup import POLL_SECONDS, Lookup, Question, Reply, lease_after
from partnerenrich.models import Outcome, Resolution

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from partnerenrich.configuration import Integration
    from partnerenrich.erasure import Eraser
    from partnerenrich.events import Event
    from partnerenrich.governor import DailyBudget
    from partnerenrich.models import Limits, Link, Visitor
    from partnerenrich.store import Store

T = TypeVar("T")

_OPTED_OUT = Outcome.OPTED_OUT  # a member of an enumeration takes its time to be found

GATHER_SECONDS: Final = 0.003
"""How long a link waits for company."""
BYTES_BESIDE: Final = 32
"""What a link takes in a request beside its value: quotes, a comma, the name of its kind. See `Limits.bulk_bytes`."""


def size_of(link: Link) -> int:
    """What a link takes of `Limits.bulk_bytes`."""
    return len(link.value.encode()) + BYTES_BESIDE


def new_lookup(
    integration: Integration, store: Store, daily_budget: DailyBudget | None, eraser: Eraser | None = None
) -> Lookup:
    """The lookup that suits the integration's partner. See `Lookup`."""
    kind = BulkLookup if integration.partner.supports("resolve_ids") else Lookup
    return kind(integration, store, daily_budget, eraser)


@contextmanager
def together(lookups: Iterable[Lookup]) -> Iterator[None]:
    """What is asked inside goes out in as few calls as the partners allow, however long it takes to ask."""
    held = [lookup for lookup in lookups if isinstance(lookup, BulkLookup)]
    for lookup in held:
        lookup.hold()
    try:
        yield
    finally:
        for lookup in held:
            lookup.let_go()


class Gatherer(Generic[T]):
    """
    Collects items and hands them on together: at once when no more fit, else after a moment.

    Args:
        limits: `Limits.bulk` and `Limits.bulk_bytes` say how much fits.
        hand_on: Takes the items, in the order in which they came.
    """

    def __init__(self, limits: Limits, hand_on: Callable[[list[T]], object]) -> None:
        self._most, self._most_bytes = limits.bulk, limits.bulk_bytes
        self._hand_on = hand_on
        self._items: list[T] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T, size: int) -> None:
        """Let an item of so many bytes wait for company. One that is too large for any company goes alone."""
        if self._items and self._bytes + size > self._most_bytes:
            self._go()
        self._items.append(item)
        self._bytes += size
        if len(self._items) >= self._most:
            self._go()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._go)

    def take(self) -> list[T]:
        """What waits, and is not handed on any more."""
        if self._timer is not None:
            self._timer.cancel()
        items, self._items, self._bytes, self._timer = self._items, [], 0, None
        return items

    def _go(self) -> None:
        self._hand_on(self.take())


class _Asked(msgspec.Struct, eq=False, gc=False):
    """A link that is wanted, and all who wait for it."""

    question: Question
    name: str
    lease: str
    wait_until: float
    event: Event | None
    flight: asyncio.Future[Reply]
    started: float = 0.0


class BulkLookup(Lookup):
    """
    Everything that is asked of the partner of one integration, which takes many links in one call.

    Links are claimed together, asked about together and remembered together; each has an end of its own.
    """

    wants_visitor: ClassVar[bool] = False

    def __init__(
        self, integration: Integration, store: Store, daily_budget: DailyBudget | None, eraser: Eraser | None = None
    ) -> None:
        super().__init__(integration, store, daily_budget, eraser)
        self._unclaimed: list[_Asked] = []
        self._claims_soon = False
        self._held = 0
        self._gatherer: Gatherer[_Asked] = Gatherer(integration.limits, lambda asked: self._spawn(self._ask_all(asked)))
        self._tasks: set[asyncio.Task[None]] = set()

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def close(self) -> None:
        """End what is under way and disconnect."""
        self._gatherer.take()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().close()

    def _look_up(
        self,
        question: Question,
        visitor: Visitor | None,  # noqa: ARG002 - a call is about many visitors
        wait_until: float,
        event: Event | None,
    ) -> asyncio.Future[Reply]:
        name = question.flight
        flight = self._flights.get(name)
        if flight is None:
            flight = self._flights[name] = self._loop.create_future()
            self._unclaimed.append(_Asked(question, name, question.lease, wait_until, event, flight))
            if not self._held:
                self._claim_soon()
        return flight

    def hold(self) -> None:
        """Let the links that are asked about from now on wait for more."""
        self._held += 1

    def let_go(self) -> None:
        """Take a `hold` back: there are no more."""
        self._held -= 1
        self._claim_soon()

    def _claim_soon(self) -> None:
        if self._unclaimed and not self._held and not self._claims_soon:
            self._claims_soon = True
            self._spawn(self._claim_all())

    async def _claim_all(self) -> None:
        """See to the links that are ours to ask about; wait for those that another process asks about."""
        self._claims_soon = False
        asked, self._unclaimed = self._unclaimed, []
        pause = POLL_SECONDS
        while True:
            claims = [(one.lease, self._lease_ms, one.question.key) for one in asked]
            elsewhere = []
            for one, claimed in zip(asked, await self._store.leases(claims)):
                is_ours, theirs = self._granted(one.question, one.lease, claimed, one.wait_until)
                if theirs is not None:
                    self._land(one, theirs)
                elif is_ours:
                    self._start(one)
                else:
                    one.lease = lease_after(one.question, one.lease, claimed)
                    elsewhere.append(one)
            if not elsewhere:
                return
            asked = elsewhere
            await asyncio.sleep(pause)
            pause = min(2 * pause, 10 * POLL_SECONDS)

    def _start(self, one: _Asked) -> None:
        one.started = time.perf_counter()
        known = one.question.known
        if known is not None and self._id_is_good(known):
            self._spawn(self._renew(one))
        else:
            self._gather(one)

    def _gather(self, one: _Asked) -> None:
        self._gatherer.add(one, size_of(one.question.link))

    async def _renew(self, one: _Asked) -> None:
        try:
            reply = await self._renewed(one.question, one.wait_until, one.event)
        except PartnerError as error:
            self._conclude(one, error)
        else:
            if reply is None:
                self._gather(one)
            else:
                self._conclude(one, reply)

    async def _ask_all(self, asked: Sequence[_Asked]) -> None:
        """Make one call."""
        integration = self.integration
        links = [one.question.link for one in asked]
        said: Sequence[Any]
        try:
            said = await self._call(
                "resolve_ids",
                lambda call: integration.partner.resolve_ids(integration.config, self._http, links, call),
                max(one.wait_until for one in asked),
                asked[0].event if len(asked) == 1 else None,
            )
        except PartnerError as error:
            said = [error] * len(asked)
        await in_portions(list(zip(asked, said)), self._take_answers)

    def _take_answers(self, answers: Sequence[tuple[_Asked, Any]]) -> None:
        for one, answer in answers:
            if isinstance(answer, Resolution) and self._lacks_attributes(answer):
                self._spawn(self._complete(one, answer))
            else:
                self._conclude(one, self._reply_to(one, answer))

    def _reply_to(self, one: _Asked, answer: Any) -> Reply | PartnerError:
        if isinstance(answer, PartnerError):
            return answer
        try:
            if isinstance(answer, Resolution):
                return self._understood(one.question, answer)
        except BadResponse as error:
            return error
        return BadResponse(f"an answer of resolve_ids is neither a Resolution nor a PartnerError: {type(answer)}")

    async def _complete(self, one: _Asked, resolution: Resolution) -> None:
        try:
            reply = await self._completed(one.question, resolution, one.wait_until, one.event)
        except PartnerError as error:
            self._conclude(one, error)
        else:
            self._conclude(one, reply)

    def _conclude(self, one: _Asked, said: Reply | PartnerError) -> None:
        reply = self._concluded(one.question, one.lease, said, one.started)
        if reply.outcome is _OPTED_OUT:
            self._spawn(self._land_erased(one, reply))
        else:
            self._land(one, reply)

    async def _land_erased(self, one: _Asked, reply: Reply) -> None:
        await self._erase(one.question)
        self._land(one, reply)

    def _land(self, one: _Asked, reply: Reply) -> None:
        del self._flights[one.name]
        if not one.flight.done():
            one.flight.set_result(reply)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
