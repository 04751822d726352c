"""Ship what was sealed: flush what is due, take up what is new, and see every batch through to its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich_server.delivery.database import LeaseLost, LedgerError
from partnerenrich_server.delivery.entries import DEAD, OPEN, Entry, State
from partnerenrich_server.delivery.pace import Pace
from partnerenrich_server.delivery.stage import Stage
from partnerenrich_server.delivery.step import Destination, Step
from partnerenrich_server.failures import told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path

    from partnerenrich.configuration import Integration
    from partnerenrich.governor import DailyBudget
    from partnerenrich_server.delivery.entries import Pause
    from partnerenrich_server.delivery.ledger import Ledger

AT_ONCE = 8
"""Deliveries that one process works on at the same moment."""
CLAIM_AGAIN = 0.5
"""Seconds after which a delivery that another worker was quicker to claim is looked at again."""
CLEAR_SECONDS = 3600.0
"""How often one process looks for files that are to be deleted."""
LONGEST_WAIT = 60.0
"""Seconds; `Shipper.once` leaves to a later run what is not due within them."""

Place = tuple[str, str]
"""Org and integration."""


@attrs.frozen
class Left:
    """
    A delivery that a run has left as it is.

    Attributes:
        entry: It.
        why: What it waits for.
        by_others: Whether another worker is at it, so that all is well.
    """

    entry: Entry
    why: str
    by_others: bool = False


@attrs.frozen
class Report:
    """
    What one run has done.

    Attributes:
        sealed: Ids of the batches that it sealed.
        settled: Deliveries that it brought to their end, good or bad.
        left: Deliveries that still have some way to go.
        problems: What could not be done at all, a line for each.
    """

    sealed: tuple[str, ...]
    settled: tuple[Entry, ...]
    left: tuple[Left, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nobody needs to look."""
        dead = any(entry.state in DEAD for entry in self.settled)
        waiting = any(not left.by_others for left in self.left)
        return not (dead or waiting or self.problems)


@attrs.define
class _Prospect:
    """When an open delivery can be worked on, and what it waits for until then."""

    entry: Entry
    at: float
    why: str = ""
    by_others: bool = False


class Shipper:
    """
    Ships the batches of some integrations. Many may work on one ledger.

    Args:
        ledger: Where every delivery stands.
        destinations: Where batches go.
        tell: Told of every delivery after each step.
        warn: Told of every problem, once, until it changes.
        pace: How long to wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        destinations: Sequence[Destination],
        *,
        tell: Callable[[Entry], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        self._ledger = ledger
        self._destinations: Mapping[Place, Destination] = {each.place: each for each in destinations}
        self._tell = tell
        self._warn = warn
        self._pace = pace or Pace()
        self._sweeps: dict[Place, asyncio.Task[None]] = {}
        self._next_sweep: dict[Place, float] = {}
        self._next_clearing: dict[Place, float] = {}
        self._steps: dict[str, asyncio.Task[None]] = {}
        self._ledger_error: LedgerError | None = None
        self._sealed: list[str] = []
        self._settled: dict[str, Entry] = {}
        self._problems: dict[str, str] = {}
        self._foreign_leases: dict[str, float] = {}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish what is under way, and end."""
        self._stopping.set()

    async def once(self, *, flush: bool = False) -> Report:
        """
        Flush what is due, and see every batch that is there through to its end.

        What is not due within `LONGEST_WAIT` is left to a later run; so is what
        another worker is at.

        Args:
            flush: Seal what has collected whether it is due or not.

        Raises:
            LedgerError: The ledger failed.
        """
        try:
            self._start_sweeps(flush=flush)
            await asyncio.wait(list(self._sweeps.values()))
            while not self._stopping.is_set():
                prospects = await self._prospects()
                self._raise_ledger_error()  # of a step that has ended meanwhile: it must not be taken again
                now = self._ledger.clock()
                self._start_steps(prospects, now)
                soon = [each.at for each in prospects if each.at <= now + LONGEST_WAIT and not each.by_others]
                if not soon and not self._steps:
                    break
                await self._wait_until(min([now + self._pace.sweep, *(moment for moment in soon if moment > now)]))
        finally:
            await self._finish()
        self._raise_ledger_error()
        left = [each for each in await self._prospects() if each.entry.id not in self._settled]
        return Report(
            tuple(self._sealed),
            tuple(self._settled.values()),
            tuple(Left(each.entry, each.why or "this run was ended", each.by_others) for each in left),
            tuple(self._problems.values()),
        )

    async def forever(self) -> None:
        """Go on until `stop`. What fails is tried again."""
        try:
            while not self._stopping.is_set():
                try:
                    moment = await self._pass()
                except LedgerError as error:
                    self._heard("ledger", str(error))
                    moment = self._ledger.clock() + self._pace.sweep
                else:
                    self._heard("ledger", None)
                await self._wait_until(moment)
        finally:
            await self._finish()

    async def _pass(self) -> float:
        """Start all that is due. Returns when there is more to start."""
        self._raise_ledger_error()
        self._start_sweeps()
        prospects = await self._prospects()
        now = self._ledger.clock()
        self._start_steps(prospects, now)
        later = [each.at for each in prospects if each.at > now]
        return min([*later, *self._next_sweep.values(), now + self._pace.sweep])

    # What is there

    def _start_sweeps(self, *, flush: bool = False) -> None:
        now = self._ledger.clock()
        for place, destination in self._destinations.items():
            if place not in self._sweeps and self._next_sweep.get(place, now) <= now:
                self._next_sweep[place] = now + self._pace.sweep
                self._sweeps[place] = asyncio.create_task(self._sweep(destination, flush=flush))

    async def _sweep(self, destination: Destination, *, flush: bool) -> None:
        """Seal what is due, take up what was sealed, and delete what is over."""
        place = "/".join(destination.place)
        try:
            await self._attempt(f"{place}: sealing", self._flush(destination, force=flush))
            await self._attempt(f"{place}: taking up batches", self._take_up(destination))
        finally:
            del self._sweeps[destination.place]

    async def _attempt(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it; a problem is told, and stops nothing else."""
        try:
            await work
        except LeaseLost as error:
            self._heard(name, f"{name}: {error}")
        except LedgerError as error:
            self._ledger_error = error
        except Exception as error:  # noqa: BLE001 - one integration's storage is no other one's trouble
            self._heard(name, f"{name}: {told(error)}")
        else:
            self._heard(name, None)

    async def _flush(self, destination: Destination, *, force: bool) -> None:
        async with self._ledger.lease(*destination.place) as held:
            if held and (manifest := await destination.stage.flush(now=self._ledger.clock(), force=force)):
                self._sealed.append(manifest.batch_id)

    async def _take_up(self, destination: Destination) -> None:
        known = await self._ledger.known(*destination.place)
        batches = await destination.stage.batches()
        for batch_id in batches:
            if batch_id not in known:
                manifest = await destination.stage.manifest(batch_id)
                entry = destination.entry(manifest)
                if await self._ledger.take_up(entry, supersedes=manifest.supersedes):
                    self._tell(entry)
        place, now = destination.place, self._ledger.clock()
        if batches and self._next_clearing.get(place, now) <= now:
            await self._attempt(f"{'/'.join(place)}: deleting files", self._clear(destination, batches[-1]))
            self._next_clearing[place] = now + CLEAR_SECONDS

    async def _clear(self, destination: Destination, newest: str) -> None:
        """Delete the files of batches that are over; never those of the newest one, which the next one is built on."""
        until = self._ledger.clock() - destination.settings.keep_seconds
        if without := await self._ledger.delete_files(*destination.place, until=until, spared=newest):
            await destination.stage.delete(without)

    async def _prospects(self) -> list[_Prospect]:
        """All open deliveries of our integrations, each with the moment from which it can be worked on."""
        pauses = {(pause.org, pause.integration): pause for pause in await self._ledger.pauses()}
        ahead: dict[Place, Entry] = {}
        prospects = []
        for entry in await self._ledger.entries(states=[*OPEN, State.UNCERTAIN]):
            if entry.place in self._destinations:
                if entry.state in OPEN:
                    prospects.append(self._prospect(entry, pauses.get(entry.place), ahead.get(entry.place)))
                ahead.setdefault(entry.place, entry)
        return prospects

    def _prospect(self, entry: Entry, pause: Pause | None, ahead: Entry | None) -> _Prospect:
        now = self._ledger.clock()
        if entry.replaces and ahead is not None:
            waits_for = f"waits for {ahead.id}, which is {ahead.state}"
            return _Prospect(entry, float("inf"), waits_for, by_others=self._is_held(ahead, now))
        if self._is_held(entry, now):
            seen = self._foreign_leases.setdefault(entry.id, entry.lease_until)
            alive = seen != entry.lease_until
            return _Prospect(entry, entry.lease_until, f"{entry.owner} is at it", by_others=alive)
        if pause is not None:
            return _Prospect(entry, max(pause.until, entry.next_attempt), pause.why)
        return _Prospect(entry, entry.next_attempt, entry.error or "")

    def _is_held(self, entry: Entry, now: float) -> bool:
        return entry.owner not in {None, self._ledger.owner} and entry.lease_until > now

    # What is done

    def _start_steps(self, prospects: Sequence[_Prospect], now: float) -> None:
        for prospect in prospects:
            entry = prospect.entry
            if prospect.at <= now and entry.id not in self._steps and len(self._steps) < AT_ONCE:
                self._steps[entry.id] = asyncio.create_task(self._step(entry))

    async def _step(self, seen: Entry) -> None:
        try:
            await self._attempt(f"{'/'.join(seen.place)} {seen.id}", self._advance(seen))
        finally:
            del self._steps[seen.id]

    async def _advance(self, seen: Entry) -> None:
        entry = await Step(self._ledger, self._destinations[seen.place], self._pace).take(seen.id)
        if entry is None:
            await asyncio.sleep(CLAIM_AGAIN)
            return
        if entry.state not in OPEN:
            self._settled[entry.id] = entry
        self._tell(entry)

    async def _wait_until(self, moment: float) -> None:
        """Or until some work ends, or `stop` is called."""
        stopping = asyncio.create_task(self._stopping.wait())
        ends = [stopping, *self._sweeps.values(), *self._steps.values()]
        seconds = max(moment - self._ledger.clock(), 0)
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _finish(self) -> None:
        while running := [*self._sweeps.values(), *self._steps.values()]:
            await asyncio.wait(running)

    def _raise_ledger_error(self) -> None:
        error, self._ledger_error = self._ledger_error, None
        if error is not None:
            raise error

    def _heard(self, name: str, problem: str | None) -> None:
        """Tell of a problem once, until it changes or goes."""
        if problem is None:
            self._problems.pop(name, None)
        elif self._problems.get(name) != problem:
            self._problems[name] = problem
            self._warn(problem)


@contextlib.asynccontextmanager
async def open_destinations(
    integrations: Iterable[Integration],
    local: Path,
    budget_of: Callable[[Integration], DailyBudget | None] = lambda _: None,
) -> AsyncIterator[list[Destination]]:
    """
    Open the stages of all integrations that deliver.

    Args:
        integrations: Others are left out.
        local: Folder for scratch files.
        budget_of: How many calls a day an integration has left.

    Raises:
        ConfigError: Staging of one is wrong.
    """
    destinations: list[Destination] = []
    try:
        for integration in integrations:
            if integration.delivery is not None:
                settings = integration.delivery.settings
                stage = Stage.open(integration, settings, local=local)
                destinations.append(Destination(integration, settings, stage, budget_of(integration)))
        yield destinations
    finally:
        for destination in destinations:
            await destination.close()
