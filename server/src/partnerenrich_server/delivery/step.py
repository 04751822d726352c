"""
One step of one delivery: claim it, call the plugin once, write down what came of it.

The promise is kept here. Before a call that may hand a batch over, ``submitting``
is durable in the ledger, and a mark beside the staged files says that it was
begun. Who finds ``submitting`` therefore knows that a call was cut off, and asks
the partner or a person; nobody simply tries again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich import (
    AuthError,
    Batch,
    NotCalled,
    NotSupported,
    PartnerError,
    RateLimited,
    RequestRefused,
    Unavailable,
    UnknownPartnerId,
)
from partnerenrich import http as partner_http
from partnerenrich.governor import Governor
from partnerenrich_server.delivery.database import LeaseLost, LedgerError
from partnerenrich_server.delivery.entries import DEAD, WITH_PARTNER, Entry, State
from partnerenrich_server.failures import told

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from partnerenrich import Call, Receipt
    from partnerenrich.configuration import DeliverSettings, Integration
    from partnerenrich.governor import DailyBudget
    from partnerenrich_server.delivery.ledger import Ledger
    from partnerenrich_server.delivery.manifest import Manifest
    from partnerenrich_server.delivery.pace import Pace
    from partnerenrich_server.delivery.stage import Stage

REQUEST_SECONDS = 60.0
"""For how long a partner may be silent within one request of a delivery, unless its own limit is longer."""
CALL_SECONDS = 3600.0
"""For how long one call of a plugin may last, such as the upload of a large batch."""
LAST_CALL_SECONDS = 60.0
"""For how long the partner is asked once more about a batch whose deadline passed while no worker was there."""
TURN_SECONDS = 60.0
"""For how long a call waits for its turn below the integration's rate limit."""
BAD_ANSWERS = 5
"""After so many answers in a row that cannot be understood, a person is needed."""

_CHUNK = 1 << 20

_REFUSALS = (AuthError, RateLimited, NotCalled, RequestRefused, NotSupported, UnknownPartnerId)
"""Errors that say: this call has handed nothing over."""
_FINAL = (RequestRefused, NotSupported, UnknownPartnerId)
"""Of these, the ones that time does not heal."""


class Destination:
    """
    One integration that takes batches, with what it needs.

    Attributes:
        integration: Which one.
        settings: How batches are made and delivered.
        stage: Where its batches are.
        resumes: Whether the plugin finds out what became of a call that was cut off.
    """

    def __init__(
        self, integration: Integration, settings: DeliverSettings, stage: Stage, budget: DailyBudget | None = None
    ) -> None:
        facts = integration.partner.facts.delivery
        self.integration = integration
        self.settings = settings
        self.stage = stage
        self.resumes = facts is not None and facts.resumes
        limits = integration.limits
        self.http: httpx.AsyncClient = partner_http.open_client(
            attrs.evolve(limits, timeout=max(limits.timeout, REQUEST_SECONDS)),
            allowed_hosts=partner_http.hosts_of(integration.config),
        )
        patient = attrs.evolve(limits, timeout=CALL_SECONDS, attempts=1)
        self._governor = Governor(attrs.evolve(integration, limits=patient), budget=budget)

    @property
    def place(self) -> tuple[str, str]:
        """Org and integration."""
        return self.integration.org, self.integration.name

    def entry(self, manifest: Manifest) -> Entry:
        """A sealed batch as the ledger knows it first."""
        return Entry(
            id=manifest.batch_id,
            org=manifest.org,
            integration=manifest.integration,
            provider=self.integration.provider,
            mode=manifest.mode,
            replaces=self.settings.collect == "snapshot",
            rows=manifest.rows,
            bytes=sum(file.bytes for file in manifest.files),
            files=len(manifest.files),
            rejected=dict(manifest.rejected),
        )

    async def deliver(self, batch: Batch) -> Receipt:
        """
        Call the plugin once.

        Raises:
            PartnerError: It failed, in whatever way.
        """
        partner, config = self.integration.partner, self.integration.config

        async def attempt(call: Call) -> Receipt:
            return await partner.deliver_batch(config, self.http, batch, call)

        wait_until = time.monotonic() + TURN_SECONDS
        return await self._governor.call(attempt, wait_until=wait_until, hook="deliver_batch")

    async def close(self) -> None:
        """Disconnect."""
        await self.http.aclose()


class Step:
    """
    Takes one delivery one step further.

    Args:
        ledger: Where it stands.
        destination: Where it goes.
        pace: When the next step is due.
    """

    def __init__(self, ledger: Ledger, destination: Destination, pace: Pace) -> None:
        self._ledger = ledger
        self._destination = destination
        self._pace = pace
        self._entry: Entry
        self._lost: LedgerError | None = None

    async def take(self, batch_id: str) -> Entry | None:
        """
        Claim the batch and do what is next.

        Returns:
            The entry after it; None when the batch was not to be had.

        Raises:
            LedgerError: The ledger failed. The delivery is found again as it was last written.
        """
        entry = await self._ledger.claim(batch_id)
        if entry is None:
            return None
        self._entry = entry
        async with self._ledger.renewed(lambda: self._ledger.renew(batch_id)):
            await self._advance()
        return self._entry

    async def _advance(self) -> None:
        entry = self._entry
        if entry.state is State.SUBMITTING and not self._destination.resumes:
            await self._leave_to_a_person("the call that handed it over was cut off, and the partner cannot be asked")
            return
        try:
            batch = await self._prepare()
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever keeps the files from being read, nothing was sent
            as_it_was = {"recheck": entry.recheck, "calls": entry.calls, "deadline": entry.deadline}
            await self._stay(entry.state, f"the stage: {told(error)}", **as_it_was)
        else:
            if batch is not None:
                await self._call(batch)

    async def _prepare(self) -> Batch | None:
        """See to it that the batch may go, and write down that it goes. None when it does not go."""
        stage, entry = self._destination.stage, self._entry
        manifest = await stage.manifest(entry.id)
        if entry.state is State.STAGED and entry.recheck:
            checked = await stage.recheck(manifest)
            if checked.batch_id != entry.id:
                await self._replace_by(checked)
                return None
        if manifest.rows == 0:
            await self._record(state=State.CANCELLED, why="no record is left in it", release=True)
            return None
        if entry.calls == 0:
            await asyncio.to_thread(_read_through, stage, manifest)
        settings = self._destination.settings
        mark = entry.mark or secrets.token_hex(16)
        await self._record(
            state=State.SUBMITTING if entry.state is State.STAGED else entry.state,
            mark=mark,
            recheck=False,
            calls=entry.calls + 1,
            deadline=entry.deadline or self._ledger.clock() + settings.deadline,
        )
        found = await stage.begin(entry.id, mark)
        if found != mark:
            await self._leave_to_a_person(
                "it was begun before, and this ledger knows nothing of it: by another ledger, or before this one was "
                "lost or restored",
                mark=found,
            )
            return None
        return Batch(
            id=entry.id,
            org=entry.org,
            integration=entry.integration,
            mode=entry.mode,
            files=manifest.files,
            columns=manifest.columns,
            open=stage.open_file,
            rows=lambda: stage.rows(manifest),
            progress=entry.progress,
            save=self._save,
        )

    async def _replace_by(self, manifest: Manifest) -> None:
        """Another batch, without those who do not want to be in it any more, takes the place of this one."""
        old = self._entry
        if not await self._ledger.take_up(self._destination.entry(manifest), supersedes=old.id):
            raise LeaseLost(f"another worker has taken over {old.id}")
        self._entry = attrs.evolve(old, state=State.SUPERSEDED, superseded_by=manifest.batch_id)

    async def _save(self, progress: Mapping[str, Any]) -> None:
        """`Batch.save`. Once it has failed the plugin gets no further."""
        plain = json.loads(json.dumps(dict(progress)))
        try:
            await self._record(progress=plain, polls=0)
        except LedgerError as error:
            self._lost = error
            raise

    async def _call(self, batch: Batch) -> None:
        before = self._entry
        assert before.deadline is not None
        seconds = before.deadline - self._ledger.clock()
        try:
            async with asyncio.timeout(seconds if seconds > 0 else LAST_CALL_SECONDS):
                receipt = await self._destination.deliver(batch)
        except TimeoutError:
            await self._leave_to_a_person(self._too_late)
        except PartnerError as error:
            if self._lost is not None:
                raise self._lost from None
            await self._settle_error(error)
        else:
            await self._settle_receipt(receipt, before)

    async def _settle_receipt(self, receipt: Receipt, before: Entry) -> None:
        state, kept = State(receipt.state), attrs.asdict(receipt)
        if state is State.UNCERTAIN:
            await self._leave_to_a_person(receipt.message or "the partner cannot tell whether it has it", receipt=kept)
            return
        if state in WITH_PARTNER and self._is_late:
            await self._leave_to_a_person(self._too_late, receipt=kept)
            return
        entry = self._entry
        news = state is not before.state or entry.progress != before.progress
        polls = 0 if news else entry.polls + 1
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in receipt.reasons.items())
        told = receipt.message or reasons
        await self._record(
            state=state,
            why=told,
            error=(told or f"the partner says no more than {state}") if state in DEAD else None,
            receipt=kept,
            polls=polls,
            failures=0,
            next_attempt=self._ledger.clock() + self._pace.poll(polls),
            release=True,
        )

    async def _settle_error(self, error: PartnerError) -> None:
        entry, told = self._entry, str(error)
        if isinstance(error, _FINAL) and self._is_surely_out:
            await self._record(state=State.FAILED, why=told, error=told, release=True)
        elif isinstance(error, _FINAL):
            await self._leave_to_a_person(told)
        elif isinstance(error, _REFUSALS) or self._has_sent_nothing:
            await self._pause(error)
            await self._back_to_staged(error)
        elif entry.state is State.SUBMITTING and not self._destination.resumes:
            await self._leave_to_a_person(f"{told}; it may have come through, and the partner cannot be asked")
        elif not isinstance(error, Unavailable) and entry.failures + 1 >= BAD_ANSWERS:
            await self._leave_to_a_person(told)
        elif self._is_late:
            await self._leave_to_a_person(f"{self._too_late}; {told}")
        else:
            await self._stay(entry.state, told)

    @property
    def _is_surely_out(self) -> bool:
        """Whether nothing of it is in use at a partner that refuses it now."""
        entry = self._entry
        return entry.state not in WITH_PARTNER and (self._destination.resumes or not entry.progress)

    @property
    def _has_sent_nothing(self) -> bool:
        """A plugin that resumes saves its progress before it sends anything that counts."""
        entry = self._entry
        return entry.state is State.SUBMITTING and self._destination.resumes and not entry.progress

    async def _pause(self, error: PartnerError) -> None:
        """Keep all workers from repeating for other batches what was refused for this one."""
        org, integration = self._destination.place
        if isinstance(error, AuthError):
            await self._ledger.pause(org, integration, self._pace.refused, str(error))
        elif isinstance(error, RateLimited):
            seconds = error.retry_after or self._pace.retry(self._entry.failures + 1)
            await self._ledger.pause(org, integration, seconds, str(error))

    async def _back_to_staged(self, error: PartnerError) -> None:
        entry, told = self._entry, str(error)
        if entry.state is not State.SUBMITTING:
            await self._stay(entry.state, told)
        elif not isinstance(error, (*_REFUSALS, Unavailable)) and entry.failures + 1 >= BAD_ANSWERS:
            await self._record(state=State.FAILED, why=told, error=told, release=True)
        else:
            await self._stay(State.STAGED, told, deadline=None, recheck=not entry.progress)

    async def _stay(self, state: State, told: str, **values: Any) -> None:
        """Try again later."""
        failures = self._entry.failures + 1
        await self._record(
            state=state,
            why=told,
            error=told,
            failures=failures,
            next_attempt=self._ledger.clock() + self._pace.retry(failures),
            release=True,
            **values,
        )

    async def _leave_to_a_person(self, why: str, **values: Any) -> None:
        advice = (
            f"{why}; look at the partner whether it has {self._entry.id}, then: "
            f"partnerenrich deliveries resolve {self._entry.id} --as published (or failed)"
        )
        await self._record(state=State.UNCERTAIN, why=why, error=advice, release=True, **values)

    @property
    def _is_late(self) -> bool:
        deadline = self._entry.deadline
        return deadline is not None and deadline <= self._ledger.clock()

    @property
    def _too_late(self) -> str:
        return f"it was not settled within {self._destination.settings.deadline:g} s (deliver.deadline)"

    async def _record(self, **change: Any) -> None:
        self._entry = await self._ledger.record(self._entry, **change)


def _read_through(stage: Stage, manifest: Manifest) -> None:
    """See that the files are what was sealed, before a partner is told to take them. Raises `StorageError`."""
    for file in manifest.files:
        with stage.open_file(file) as content:
            while content.read(_CHUNK):
                pass
