"""One plugin on the bench: its hooks, called as in production, over a real socket, and watched."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import attrs
import httpx

from partnerenrich import recipes
from partnerenrich.blueprint import Blueprint
from partnerenrich.configuration import Integration
from partnerenrich.errors import BadResponse, PartnerError
from partnerenrich.governor import Governor
from partnerenrich.http import hosts_of, open_client
from partnerenrich.models import Batch, Link, LinkingKey, Resolution, StagedFile, Visitor
from partnerenrich.plugins import BoundPartner
from partnerenrich.settings import structure
from partnerenrich.testing.faults import ASGIApp, Fault, FaultMiddleware
from partnerenrich.testing.handlers import HandlerApp, LoopbackTransport
from partnerenrich.testing.leaks import Canaries, debug_log, planted
from partnerenrich.testing.loopback import SeenRequest, Witness, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from partnerenrich.models import Call

OPERATIONS = ("check", "resolve_id", "resolve_ids", "fetch_attributes", "personalize", "deliver_batch")
"""The hooks that the bench can call."""

PATIENT = 10.0
"""Seconds for a call that is meant to be answered."""
HURRIED = 0.2
"""Seconds for a call that is meant to run out of time."""
GRACE = 2.0
"""Seconds by which a call may end after its deadline or its cancellation; machines are busy."""
HANG = 2.5
"""Seconds after which a hanging answer lets go even of a plugin that blocks. More than `HURRIED` and `GRACE`."""
RETRY_AFTER = 7
"""Seconds that the rate-limited fault asks for."""
RESPONSE_BYTES = 1 << 18
"""Cap on a response. The oversized fault sends more."""

_MARK = "x-partnerenrich-client"
_ELSEWHERE = "/redirected-elsewhere"


class NoPartnerId(Exception):
    """An operation needs a partner id, and the first known visitor did not yield one."""


@attrs.frozen
class Observed:
    """
    What came of one operation.

    Attributes:
        result: What the hook returned, if it did.
        error: What was raised, if anything was.
        seconds: How long it took.
        said: All that was logged or printed meanwhile.
        strays: Tasks that were still pending afterwards.
        requests: What reached the socket.
        unanswered: Requests that were still open on the socket afterwards.
        progress: What `deliver_batch` saved last.
    """

    result: Any = attrs.field(repr=False)
    error: BaseException | None = attrs.field(repr=False)
    seconds: float
    said: str = attrs.field(repr=False)
    strays: int
    requests: tuple[SeenRequest, ...] = attrs.field(repr=False)
    unanswered: int
    progress: Mapping[str, Any] | None = attrs.field(repr=False)

    @property
    def followed_redirect(self) -> bool:
        """Whether a request went where the redirect fault points to."""
        return any(request.path.endswith(_ELSEWHERE) for request in self.requests)

    @property
    def foreign_requests(self) -> int:
        """Requests that were not made with the client that the core lends."""
        return sum(_MARK not in request.headers for request in self.requests)


@attrs.define(eq=False, slots=False)
class Bench:
    """
    A partner, its settings, and its imitation on a socket.

    Attributes:
        partner: The plugin's hooks.
        settings: Good ones.
        sample: ``known``, ``unknown`` and ``opted_out`` visitors, as in `partnerenrich.Sandbox`.
        linking_keys: Which identifiers of a visitor to send, in order.
    """

    partner: BoundPartner
    settings: Mapping[str, Any] = attrs.field(repr=False)
    sample: Mapping[str, Sequence[Mapping[str, str]]] = attrs.field(repr=False)
    linking_keys: tuple[LinkingKey, ...]
    _app: ASGIApp
    _faults: FaultMiddleware
    _witness: Witness
    _base_url: str
    _observed: dict[tuple[object, ...], Observed] = attrs.Factory(dict)

    @property
    def has_sandbox(self) -> bool:
        """Whether an imitation answers, which looks at credentials, or two handlers do."""
        return not isinstance(self._app, HandlerApp)

    def config(self, **changes: Any) -> Any:
        """A new instance of the settings class, good but for the changes."""
        return structure(self.partner.facts.config, {**self.settings, **changes}, "settings")

    def visitors(self, kind: str) -> list[Visitor]:
        """The sample visitors of a kind, each with what the linking keys send of it."""
        return [Visitor(tuple(self._links(identifiers))) for identifiers in self.sample.get(kind, ())]

    @cached_property
    def records(self) -> list[dict[str, str]]:
        """What a batch holds of the known visitors: what the partner's own blueprint makes of them."""
        delivery = self.partner.facts.delivery
        if delivery is None:
            return []
        blueprint = Blueprint.from_yaml(delivery.default_blueprint)
        events = [
            {"type": "identify", "userId": visitor.get("user_id"), "traits": dict(visitor)}
            for visitor in self.sample.get("known", ())
        ]
        made = [blueprint.payload(event) for event in events]
        return [{column: str(value) for column, value in record.items()} for record in made if record]

    @cached_property
    def canaries(self) -> Canaries:
        """The secrets of the settings, and every personal value that calls for the first known visitor meet."""
        found = planted("settings", self.config()) | planted("known", list(self.sample.get("known", ()))[:1])
        for visitor in self.visitors("known")[:1]:
            found |= planted("sent", {link.key: link.value for link in visitor.links})
        found |= planted("record", self.records[:1])
        if self.partner.resolves:
            resolution = self.observe("resolve_id").result or Resolution.absent()
            found |= planted("partner_id", resolution.partner_id) | planted("profile", resolution.attributes)
            if resolution.partner_id and self.partner.supports("fetch_attributes"):
                found |= planted("attributes", self.observe("fetch_attributes").result)
        return found

    def observe(
        self,
        operation: str,
        *,
        of: str = "known",
        index: int = 0,
        links: Sequence[Link] | None = None,
        config: Any = None,
        fault: str | None = None,
        timeout: float = PATIENT,
        cancel: bool = False,
    ) -> Observed:
        """
        Let the plugin do one thing, in an event loop of its own. The same thing is not done twice.

        Args:
            operation: One of `OPERATIONS`. A partner that is asked in bulk alone is asked about
                one link at a time for ``resolve_id``.
            of: Kind of visitor, a key of `sample`.
            index: Which one of that kind.
            links: What ``resolve_ids`` is asked about; by default, the links of that visitor.
            config: Settings; the good ones by default.
            fault: One of `partnerenrich.testing.faults.MODES`, for all requests of the operation.
            timeout: Seconds for the call.
            cancel: Cancel the call as soon as a request of it is on the socket.

        Raises:
            NoPartnerId: The operation needs one.
        """
        thing = (operation, of, index, None if links is None else tuple(links), fault, timeout, cancel)
        if config is None and thing in self._observed:
            return self._observed[thing]
        if isinstance(self._app, HandlerApp):
            self._app.knows = of == "known"
        visitors = self.visitors(of)
        visitor = visitors[index] if visitors else Visitor()
        if links is not None:
            visitor = Visitor(tuple(links))
        integration = self._integration(self.config() if config is None else config, timeout, fault)
        observed = asyncio.run(self._observe(operation, visitor, integration, fault, cancel=cancel))
        if config is None:
            self._observed[thing] = observed
        return observed

    async def _observe(
        self, operation: str, visitor: Visitor, integration: Integration, fault: str | None, *, cancel: bool
    ) -> Observed:
        limits = integration.limits
        patient = attrs.evolve(integration, limits=attrs.evolve(limits, timeout=PATIENT))
        async with self._calls(patient, visitor) as before, self._calls(integration, visitor) as calls:
            call = await calls.ready(operation, before)
            seen = len(self._witness.seen)
            printed = io.StringIO()
            with debug_log() as log, redirect_stdout(printed), redirect_stderr(printed), self._failing(fault):
                started = time.monotonic()
                task = asyncio.ensure_future(call())
                if cancel:
                    await _until(lambda: self._witness.under_way > 0, GRACE)
                    started = time.monotonic()
                    task.cancel()
                await asyncio.wait({task}, timeout=limits.timeout + GRACE)
                seconds = time.monotonic() - started
                await _until(lambda: self._witness.under_way == 0, GRACE)
            result, error = _outcome(task)
            return Observed(
                result=result,
                error=error,
                seconds=seconds,
                said="\n".join([*log.lines, printed.getvalue()]),
                strays=len(asyncio.all_tasks()) - 1,
                requests=tuple(self._witness.seen[seen:]),
                unanswered=self._witness.under_way,
                progress=calls.batch.saved,
            )

    @asynccontextmanager
    async def _calls(self, integration: Integration, visitor: Visitor) -> AsyncIterator[_Calls]:
        transport = None if self.has_sandbox else LoopbackTransport(self._base_url)
        hosts = hosts_of(integration.config)
        async with open_client(integration.limits, allowed_hosts=hosts, transport=transport) as http:
            http.headers[_MARK] = "1"
            batch = _SavedBatch(self.partner, self.records)
            yield _Calls(self.partner, integration.config, http, Governor(integration), visitor, batch)

    def new_links(self, count: int) -> list[Link]:
        """So many links of people who are not in the sample, all different, by the linking keys in turn."""
        keys = [key for key in self.linking_keys if key.source in {link.source for link in self._links(_stranger(0))}]
        links = []
        for number in range(count if keys else 0):
            key = keys[number % len(keys)]
            value = recipes.apply(key.hash, key.source, _stranger(number)[key.source])
            assert value is not None
            links.append(Link(key.source, key.key, value, key.hash))
        return links

    def _links(self, identifiers: Mapping[str, str]) -> Iterator[Link]:
        for key in self.linking_keys:
            if key.source in identifiers:
                value = recipes.apply(key.hash, key.source, identifiers[key.source])
                if value is not None:
                    yield Link(key.source, key.key, value, key.hash)

    def _integration(self, config: Any, timeout: float, fault: str | None) -> Integration:
        facts = self.partner.facts
        limits = attrs.evolve(
            facts.limits,
            timeout=timeout,
            attempts=1,
            calls_per_second=None,
            calls_per_day=None,
            response_bytes=facts.limits.response_bytes if fault is None else RESPONSE_BYTES,
        )
        return Integration(
            org="conformance",
            name=self.partner.key,
            partner=self.partner,
            config=config,
            linking_keys=self.linking_keys,
            allowlist=frozenset(),
            attributes=None,
            consent=(),
            ttl=facts.ttl,
            limits=limits,
            version="",
        )

    @contextmanager
    def _failing(self, mode: str | None) -> Iterator[None]:
        if mode is not None:
            self._faults.arm(
                Fault(
                    mode=mode,
                    times=None,
                    retry_after=RETRY_AFTER,
                    location=_ELSEWHERE,
                    size=4 * RESPONSE_BYTES,
                    interval=HURRIED / 10,
                    lasts=HANG,
                )
            )
        try:
            yield
        finally:
            self._faults.clear()


@contextmanager
def open_bench(
    partner: BoundPartner,
    *,
    app: ASGIApp,
    settings: Mapping[str, Any],
    sample: Mapping[str, Sequence[Mapping[str, str]]],
    linking_keys: Sequence[LinkingKey],
) -> Iterator[Bench]:
    """
    Serve an imitation and put the partner in front of it.

    Args:
        partner: The plugin's hooks.
        app: The imitation. A `HandlerApp` is reached whatever host the plugin calls; for
            all others ``base_url`` is added to the settings.
        settings: Good ones.
        sample: As in `partnerenrich.Sandbox`.
        linking_keys: Which identifiers of a visitor to send, in order.
    """
    faults = FaultMiddleware(app)
    witness = Witness(faults, prefix=f"/{partner.key}")
    with served(witness) as port:
        base_url = f"http://127.0.0.1:{port}/{partner.key}"
        if not isinstance(app, HandlerApp):
            settings = {**settings, "base_url": base_url}
        yield Bench(partner, settings, sample, tuple(linking_keys), app, faults, witness, base_url)


@attrs.define(eq=False)
class _SavedBatch:
    """A new batch of these records, in one CSV file that lies nowhere but here, and what is saved about it."""

    partner: BoundPartner
    records: Sequence[Mapping[str, str]]
    saved: Mapping[str, Any] | None = None

    def batch(self) -> Batch:
        """As the core hands it over first."""
        delivery = self.partner.facts.delivery
        columns = tuple(dict.fromkeys(column for record in self.records for column in record))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        content = text.getvalue().encode()
        identifier = f"conformance-{uuid.uuid4().hex}"
        url = f"file:///conformance/batches/{identifier}/part-00001.csv"
        return Batch(
            id=identifier,
            org="conformance",
            integration=self.partner.key,
            mode=next(iter(delivery.modes), "") if delivery else "",
            files=(StagedFile(url, len(self.records), len(content), hashlib.sha256(content).hexdigest()),),
            columns=columns,
            open=lambda _: io.BytesIO(content),
            rows=lambda: iter(self.records),
            progress={},
            save=self.save,
        )

    async def save(self, progress: Mapping[str, Any]) -> None:
        """`Batch.save`."""
        self.saved = progress


@attrs.frozen
class _Calls:
    """The calls that one visitor causes, made by a governor."""

    partner: BoundPartner
    config: Any
    http: httpx.AsyncClient
    governor: Governor
    visitor: Visitor
    batch: _SavedBatch

    async def ready(self, operation: str, before: _Calls) -> Callable[[], Awaitable[Any]]:
        """An operation, with all that has to come before it done through other, more patient calls."""
        partner, config, http = self.partner, self.config, self.http
        if operation == "check":
            return lambda: self._governed(operation, lambda call: partner.check(config, http, call))
        if operation == "resolve_id":
            return self._resolve
        if operation == "resolve_ids":
            return lambda: self._governed(
                operation, lambda call: partner.resolve_ids(config, http, self.visitor.links, call)
            )
        if operation == "deliver_batch":
            batch = self.batch.batch()
            return lambda: self._governed(operation, lambda call: partner.deliver_batch(config, http, batch, call))
        partner_id = await before.partner_id()
        if operation == "fetch_attributes":
            return lambda: self._governed(
                operation, lambda call: partner.fetch_attributes(config, http, partner_id, call)
            )
        if operation == "personalize":
            return lambda: self._governed(
                operation, lambda call: partner.personalize(config, http, partner_id, {}, call)
            )
        raise ValueError(operation)

    async def _resolve(self) -> Resolution:
        """Link by link, as in production: the search ends when one is found or opted out."""

        async def one(link: Link, call: Call) -> Resolution:
            if self.partner.supports("resolve_id"):
                return await self.partner.resolve_id(self.config, self.http, link, self.visitor, call)
            (said,) = await self.partner.resolve_ids(self.config, self.http, [link], call)
            if isinstance(said, PartnerError):
                raise said
            if not isinstance(said, Resolution):
                raise BadResponse(f"an answer of resolve_ids is no Resolution but {type(said).__name__}")
            return said

        resolution = Resolution.absent()
        for link in self.visitor.links:
            resolution = await self._governed("resolve_id", partial(one, link))
            if resolution.reason in {"found", "opted_out"}:
                break
        return resolution

    async def partner_id(self) -> str:
        """Of the visitor; raises `NoPartnerId` where the partner names none."""
        try:
            resolution = await self._resolve()
        except PartnerError:
            resolution = Resolution.absent()
        if resolution.partner_id is None:
            raise NoPartnerId
        return resolution.partner_id

    async def _governed(self, hook: str, attempt: Callable[[Call], Awaitable[Any]]) -> Any:
        return await self.governor.call(attempt, wait_until=time.monotonic() + PATIENT, hook=hook)


def _stranger(number: int) -> dict[str, str]:
    """Identifiers that all differ from those of any other number."""
    return {
        "canonical_id": f"device-{number:08}",
        "anonymous_id": f"device-{number:08}",
        "user_id": f"customer-{number:08}",
        "email": f"stranger-{number:08}@example.test",
        "phone": f"+1202555{number:04}",
    }


def _outcome(task: asyncio.Future[Any]) -> tuple[Any, BaseException | None]:
    if not task.done():
        return None, TimeoutError("the call did not end")
    if task.cancelled():
        return None, asyncio.CancelledError()
    error = task.exception()
    return (None, error) if error else (task.result(), None)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something to become true, no longer than so many seconds."""
    gives_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < gives_up:  # noqa: ASYNC110 - happens in the server's thread
        await asyncio.sleep(0.002)
