"""What has been done with every sealed batch: kept in a database, changed by compare-and-set, shared by all workers."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from partnerenrich_server.delivery.database import (
    LeaseLost,
    LedgerError,
    connect,
    deliveries,
    explained,
    leases,
    pauses,
    transitions,
)
from partnerenrich_server.delivery.entries import BEGUN, DONE, OPEN, SETTLED, Entry, Pause, State, Transition

# below the module that tells what to install when it is missing
import sqlalchemy as sa  # isort: skip
from sqlalchemy.dialects import postgresql, sqlite  # isort: skip
from sqlalchemy.exc import SQLAlchemyError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

T = TypeVar("T")

LEASE_SECONDS = 60.0
"""After so long without a word a worker is taken for dead, and others may go on with what it held."""


class Ledger:
    """
    The ledger. Every change is durable when the call returns.

    The clocks of workers that share a ledger must agree to within a few seconds.

    Attributes:
        owner: This worker's name in leases.
        lease_seconds: For how long what is claimed is held, unless renewed.
    """

    def __init__(self, engine: sa.Engine, lease_seconds: float, clock: Callable[[], float]) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.lease_seconds = lease_seconds
        self.clock = clock
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ledger")
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        create: bool = True,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Ledger]:
        """
        Connect to the database, and make the tables where there are none.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql://...``.
            create: False to refuse a database without a ledger.
            lease_seconds: See the attribute.
            clock: Unix seconds.

        Raises:
            ConfigError: The URL is wrong.
            LedgerError: The database does not open, or is of another version.
        """
        ledger = cls(await asyncio.to_thread(connect, url, create=create), lease_seconds, clock)
        try:
            yield ledger
        finally:
            await asyncio.to_thread(ledger._close)

    # What is there

    async def entry(self, batch_id: str) -> Entry | None:
        """One batch; None if the ledger does not know it."""
        return next(iter(await self._select(deliveries.c.id == batch_id)), None)

    async def entries(
        self,
        *,
        org: str | None = None,
        integration: str | None = None,
        states: Collection[State] = (),
        limit: int | None = None,
    ) -> list[Entry]:
        """Batches, oldest first; with a limit, the newest so many."""
        wanted: dict[sa.Column[Any], str | None] = {deliveries.c.org: org, deliveries.c.integration: integration}
        conditions = [column == value for column, value in wanted.items() if value is not None]
        if states:
            conditions.append(deliveries.c.state.in_(states))
        return await self._select(*conditions, limit=limit)

    async def known(self, org: str, integration: str) -> set[str]:
        """The ids of all batches that the ledger knows of one integration."""
        query = sa.select(deliveries.c.id).where(_of(deliveries, org, integration))
        return set(await self._run(lambda connection: connection.scalars(query).all()))

    async def history(self, batch_id: str) -> list[Transition]:
        """What became of one batch, oldest first."""
        query = (
            sa.select(transitions.c.at, transitions.c.state, transitions.c.why, transitions.c.owner)
            .where(transitions.c.delivery == batch_id)
            .order_by(transitions.c.number)
        )
        return [Transition(*row) for row in await self._run(lambda connection: connection.execute(query).all())]

    async def pauses(self) -> list[Pause]:
        """The integrations that are left alone now."""
        query = sa.select(pauses.c.org, pauses.c.integration, pauses.c.until, pauses.c.why)
        query = query.where(pauses.c.until > self.clock())
        return [Pause(*row) for row in await self._run(lambda connection: connection.execute(query).all())]

    # What a worker does

    async def take_up(self, entry: Entry, *, supersedes: str | None = None) -> bool:
        """
        Write down a batch that was sealed.

        Args:
            entry: As it is at first.
            supersedes: The batch that it stands for. It takes its turn.

        Returns:
            False when it is known already, or when the batch that it stands for
            is beyond recall or in other hands: then it must not go.
        """
        now = self.clock()
        last = sa.select(sa.func.coalesce(sa.func.max(deliveries.c.turn), 0) + 1)
        theirs = sa.select(deliveries.c.turn).where(deliveries.c.id == supersedes)
        turn = sa.func.coalesce(theirs.scalar_subquery(), last.scalar_subquery())
        values = {**attrs.asdict(entry), "created": now, "updated": now, "turn": turn}
        insert = self._insert(deliveries).values(**values).on_conflict_do_nothing().returning(deliveries.c.id)

        def work(connection: sa.Connection) -> bool:
            if supersedes is not None and not self._supersede(connection, supersedes, entry.id):
                return False
            if connection.scalar(insert) is None:
                return False
            self._note(connection, entry.id, entry.state, f"for {supersedes}" if supersedes else "")
            return True

        return await self._run(work)

    async def claim(self, batch_id: str) -> Entry | None:
        """
        Take one batch to work on.

        Returns:
            It, as it is now; None when it is not open, not due, held by somebody
            else, of a paused integration, or not yet its turn: where a publish
            replaces the dataset an earlier batch must be settled first.
        """
        now = self.clock()
        earlier = deliveries.alias("earlier")
        paused = sa.exists().where(_same_place(pauses, deliveries), pauses.c.until > now)
        blocked = sa.exists().where(
            _same_place(earlier, deliveries),
            sa.tuple_(earlier.c.turn, earlier.c.id) < sa.tuple_(deliveries.c.turn, deliveries.c.id),
            earlier.c.state.in_([*OPEN, State.UNCERTAIN]),
        )
        claim = (
            sa.update(deliveries)
            .where(
                deliveries.c.id == batch_id,
                deliveries.c.state.in_(OPEN),
                deliveries.c.next_attempt <= now,
                sa.or_(self._is_free(now), deliveries.c.owner == self.owner),
                ~paused,
                sa.or_(~deliveries.c.replaces, ~blocked),
            )
            .values(owner=self.owner, lease_until=now + self.lease_seconds)
            .returning(*deliveries.c)
        )
        row = await self._run(lambda connection: connection.execute(claim).mappings().one_or_none())
        return None if row is None else Entry(**row)

    async def renew(self, batch_id: str) -> None:
        """
        Go on holding a batch.

        Raises:
            LeaseLost: It is no longer this worker's.
        """
        lease_until = self.clock() + self.lease_seconds
        await self._run(lambda connection: self._change(connection, batch_id, {"lease_until": lease_until}))

    async def record(
        self, entry: Entry, *, state: State | None = None, why: str = "", release: bool = False, **values: Any
    ) -> Entry:
        """
        Write down what became of a batch that this worker holds.

        Args:
            entry: As it was.
            state: Its new state; a line in its history.
            why: For the history.
            release: Whether the worker is done with it for now.
            values: Other fields of the entry.

        Returns:
            The entry as it is now.

        Raises:
            LeaseLost: It is no longer this worker's; nothing is written.
        """
        change = {**values, "updated": self.clock()}
        if state is not None:
            change["state"] = state
        if release:
            change |= {"owner": None, "lease_until": 0.0}

        def work(connection: sa.Connection) -> None:
            self._change(connection, entry.id, change)
            if state is not None and (state != entry.state or why):
                self._note(connection, entry.id, state, why)

        await self._run(work)
        return attrs.evolve(entry, **change)

    @asynccontextmanager
    async def lease(self, org: str, integration: str) -> AsyncIterator[bool]:
        """
        Hold an integration's stage alone, such as to seal what has collected.

        Yields whether it is held. When it cannot be renewed the work inside is
        cancelled, and `LeaseLost` raised.
        """
        name = f"{org}/{integration}"
        if not await self._take_lease(name):
            yield False
            return
        try:
            async with self.renewed(lambda: self._renew_lease(name)):
                yield True
        finally:
            mine = sa.delete(leases).where(leases.c.name == name, leases.c.owner == self.owner)
            await self._run(lambda connection: connection.execute(mine))

    @asynccontextmanager
    async def renewed(self, renew: Callable[[], Any]) -> AsyncIterator[None]:
        """
        Renew a lease for as long as the work inside lasts.

        Raises:
            LeaseLost: The lease was lost or not renewed in time, and the work
                was cancelled.
        """
        loop = asyncio.get_running_loop()

        async def keep_renewing(limit: asyncio.Timeout) -> None:
            while True:
                await asyncio.sleep(self.lease_seconds / 3)
                asked = loop.time()
                try:
                    await renew()
                except LeaseLost:
                    limit.reschedule(asked)
                    return
                except LedgerError:
                    continue  # it may be back before the lease ends
                limit.reschedule(asked + self.lease_seconds)

        try:
            async with asyncio.timeout(self.lease_seconds) as limit:
                renewing = asyncio.create_task(keep_renewing(limit))
                try:
                    yield
                finally:
                    renewing.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            raise LeaseLost("this worker did not renew its lease in time; another one goes on") from None

    async def pause(self, org: str, integration: str, seconds: float, why: str) -> None:
        """Have all workers leave an integration alone for a while."""
        values = {"until": self.clock() + seconds, "why": why}
        insert = self._insert(pauses).values(org=org, integration=integration, **values)
        upsert = insert.on_conflict_do_update(index_elements=[pauses.c.org, pauses.c.integration], set_=values)
        await self._run(lambda connection: connection.execute(upsert))

    async def delete_files(self, org: str, integration: str, *, until: float, spared: str) -> list[str]:
        """
        Note that the files of batches which are over are deleted: before they are, so that nobody sends them again.

        Args:
            org: Slug of the organisation.
            integration: Name of the integration.
            until: Unix seconds; a batch that was settled later keeps its files, one that is superseded does not.
            spared: A batch that keeps them in any case.

        Returns:
            The ids of all batches without files, also those that were noted before.
        """
        now = self.clock()
        settled = sa.and_(deliveries.c.state.in_(SETTLED), deliveries.c.updated <= until)
        mark = (
            sa.update(deliveries)
            .where(
                _of(deliveries, org, integration),
                sa.or_(settled, deliveries.c.state == State.SUPERSEDED),
                deliveries.c.files_deleted.is_(None),
                deliveries.c.id != spared,
            )
            .values(files_deleted=now, updated=now)
        )
        query = sa.select(deliveries.c.id).where(
            _of(deliveries, org, integration), deliveries.c.files_deleted.is_not(None)
        )

        def work(connection: sa.Connection) -> list[str]:
            connection.execute(mark)
            return list(connection.scalars(query))

        return await self._run(work)

    # What a person decides

    async def decide(
        self, entry: Entry, state: State, why: str, *, only_if_latest: bool = False, **values: Any
    ) -> Entry | None:
        """
        Change the state of a batch that nobody is working on, if it is still as it was seen.

        The pause of its integration ends.

        Args:
            entry: As it was seen.
            state: The new one.
            why: For the history.
            only_if_latest: Whether nothing is done when a later batch, which replaces it, has been begun.
            values: Other fields of the entry.

        Returns:
            The entry as it is now; None when it has changed meanwhile, or a worker is at it.
        """
        now = self.clock()
        later = deliveries.alias("later")
        overtaken = sa.exists().where(
            _same_place(later, deliveries), later.c.turn > deliveries.c.turn, later.c.state.in_([*BEGUN, *DONE])
        )
        change = {**values, "state": state, "updated": now, "owner": None, "lease_until": 0.0}
        update = (
            sa.update(deliveries)
            .where(
                deliveries.c.id == entry.id,
                deliveries.c.state == entry.state,
                deliveries.c.updated == entry.updated,
                self._is_free(now),
                ~overtaken if only_if_latest and entry.replaces else sa.true(),
            )
            .values(**change)
        )

        def work(connection: sa.Connection) -> bool:
            if not connection.execute(update).rowcount:
                return False
            self._note(connection, entry.id, state, why, by_person=True)
            connection.execute(sa.delete(pauses).where(_of(pauses, entry.org, entry.integration)))
            return True

        return attrs.evolve(entry, **change) if await self._run(work) else None

    # Inside

    async def _select(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[Entry]:
        query = (
            sa.select(deliveries)
            .where(*conditions)
            .order_by(deliveries.c.turn.desc(), deliveries.c.id.desc())
            .limit(limit)
        )
        rows = await self._run(lambda connection: connection.execute(query).mappings().all())
        return [Entry(**row) for row in reversed(rows)]

    async def _take_lease(self, name: str) -> bool:
        now = self.clock()
        values = {"owner": self.owner, "until": now + self.lease_seconds}
        insert = self._insert(leases).values(name=name, **values)
        upsert = insert.on_conflict_do_update(index_elements=[leases.c.name], set_=values, where=leases.c.until <= now)
        taken = upsert.returning(leases.c.name)
        return await self._run(lambda connection: connection.scalar(taken)) is not None

    async def _renew_lease(self, name: str) -> None:
        renew = (
            sa.update(leases)
            .where(leases.c.name == name, leases.c.owner == self.owner)
            .values(until=self.clock() + self.lease_seconds)
        )
        if not await self._run(lambda connection: connection.execute(renew).rowcount):
            raise LeaseLost(f"another worker has taken over {name}")

    def _supersede(self, connection: sa.Connection, old: str, new: str) -> bool:
        """Take a batch out of the line if nothing of it can be with the partner; one that nobody knows is out of it."""
        now = self.clock()
        update = (
            sa.update(deliveries)
            .where(
                deliveries.c.id == old,
                deliveries.c.state == State.STAGED,
                sa.or_(self._is_free(now), deliveries.c.owner == self.owner),
            )
            .values(state=State.SUPERSEDED, superseded_by=new, owner=None, lease_until=0.0, updated=now)
        )
        if connection.execute(update).rowcount:
            self._note(connection, old, State.SUPERSEDED, f"by {new}")
            return True
        return not connection.scalar(sa.select(sa.exists().where(deliveries.c.id == old)))

    @staticmethod
    def _is_free(now: float) -> sa.ColumnElement[bool]:
        return sa.or_(deliveries.c.owner.is_(None), deliveries.c.lease_until <= now)

    def _change(self, connection: sa.Connection, batch_id: str, values: Mapping[str, Any]) -> None:
        mine = sa.update(deliveries).where(deliveries.c.id == batch_id, deliveries.c.owner == self.owner)
        if not connection.execute(mine.values(**values)).rowcount:
            raise LeaseLost(f"another worker has taken over {batch_id}")

    def _note(
        self, connection: sa.Connection, batch_id: str, state: State, why: str, *, by_person: bool = False
    ) -> None:
        owner = None if by_person else self.owner
        values = {"delivery": batch_id, "at": self.clock(), "state": state, "why": why, "owner": owner}
        connection.execute(transitions.insert().values(**values))

    async def _run(self, work: Callable[[sa.Connection], T]) -> T:
        """One transaction, in a thread."""

        def transaction() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, transaction)
        except SQLAlchemyError as error:
            problem = explained(error)
        raise LedgerError(problem)  # outside `except`: the error of the database holds what was to be written

    def _close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()


def _of(table: sa.Table, org: str, integration: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.org == org, table.c.integration == integration)


def _same_place(one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(one.c.org == other.c.org, one.c.integration == other.c.integration)
