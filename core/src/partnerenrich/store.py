"""Redis behind a few methods that never raise and never block: when it is gone, the caller goes on without."""

from __future__ import annotations

import asyncio
import logging
import time
from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

import hiredis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from partnerenrich.errors import PartnerEnrichError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

log = logging.getLogger(__name__)

Command = tuple[str | bytes | int, ...]
"""One Redis command: its name, its key, further arguments."""

CONNECT_SECONDS: Final = 0.05
"""How long a connection may take, and a quarter of a round trip where that is more."""
PAUSE_SECONDS: Final = 1.0
"""How long Redis is left alone after it failed."""
LINGER_SECONDS: Final = 0.01
"""How long a write waits for company when no batch takes it along."""
LOCAL_SECONDS: Final = 30.0
"""A local value is at most twice as old."""
LOCAL_ENTRIES: Final = 20_000
"""Most local values of one generation; there are two."""
OWED_ENTRIES: Final = 100_000
"""Most deletions that are kept for Redis to come back."""

FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)
DELETIONS = frozenset({"DEL", "HDEL"})


class StoreFailed(PartnerEnrichError):
    """The store did not do what it was asked, and the caller cannot go on without."""


_BUCKETS: Final = [f"{{b{number}}}" for number in range(256)]


def bucket(name: str) -> str:
    """
    Hash tag of one of 256 buckets.

    In a cluster, all keys of a bucket share a node, so a batch needs about one
    round trip for each node.
    """
    return _BUCKETS[crc_hqx(name.encode(), 0) & 255]


class LocalTier:
    """
    What this process read and wrote last, for the time when Redis is down.

    Two generations: a full or old one makes room as a whole, so that keeping
    the tier filled costs next to nothing.
    """

    def __init__(self) -> None:
        self._young: dict[str, bytes | None] = {}
        self._old: dict[str, bytes | None] = {}
        self._since = time.monotonic()
        self._old_since = self._since

    def keep(self, pairs: Mapping[str, bytes | None] | Iterable[tuple[str, bytes | None]]) -> None:
        """Remember these values; None for a key that has none."""
        if len(self._young) > LOCAL_ENTRIES or time.monotonic() - self._since > LOCAL_SECONDS:
            self._rotate()
        self._young.update(pairs)

    def get(self, key: str) -> bytes | None:
        """The value of a key; None when it is not known here."""
        if time.monotonic() - self._since > LOCAL_SECONDS:
            self._rotate()
        if key in self._young:
            return self._young[key]
        return self._old.get(key) if time.monotonic() - self._old_since <= 2 * LOCAL_SECONDS else None

    def _rotate(self) -> None:
        self._old, self._young = self._young, {}
        self._old_since, self._since = self._since, time.monotonic()


class _Packed:
    """A connection that packs commands in C, which redis-py does for its blocking connections only."""

    def pack_command(self, *command: Any) -> list[bytes]:
        return [hiredis.pack_command(command)]


class Store:
    """
    The shared memory of all processes.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://`` or ``rediss+cluster://``.
        command_seconds: How long one round trip may take.
    """

    def __init__(self, url: str, *, command_seconds: float) -> None:
        options: dict[str, Any] = {
            "socket_timeout": command_seconds,
            "socket_connect_timeout": min(max(CONNECT_SECONDS, command_seconds / 4), command_seconds),
            "retry": Retry(NoBackoff(), 0),
        }
        self._cluster = "+cluster://" in url
        self._client: Any
        if self._cluster:
            self._client = RedisCluster.from_url(url.replace("+cluster", ""), **options)
        else:
            client = Redis.from_url(url, **options)
            pool = client.connection_pool
            pool.connection_class = type("PackedConnection", (_Packed, pool.connection_class), {})
            self._client = client
        self._local = LocalTier()
        self._down_until = 0.0
        self._outbox: list[Command] = []
        self._timer: asyncio.TimerHandle | None = None
        self._owed: dict[Command, None] = {}
        self._makes_up = False
        self._writing = asyncio.Lock()
        self._leases: list[tuple[str, int, str, asyncio.Future[tuple[bool, bytes | None]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    @property
    def down(self) -> bool:
        """Whether Redis failed a moment ago and is left alone."""
        return time.monotonic() < self._down_until

    async def close(self) -> None:
        """Send what is queued and disconnect."""
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """
        The values of all keys, in their order, in one round trip.

        From the local tier when Redis does not answer. Redis is not believed
        before it has made up for the deletions that it missed.
        """
        if not keys:
            return ()
        if self._owed and not self.down:
            await self.flush()
        if not self.down:
            try:
                values = await (self._read_cluster(keys) if self._cluster else self._client.mget(keys))
            except FAILURES as error:
                self._failed(error)
            else:
                self._local.keep(zip(keys, values))
                return values
        return [self._local.get(key) for key in keys]

    def queue(self, commands: Iterable[Command]) -> None:
        """Write these soon: with the next `flush`, at the latest after a moment."""
        alone = not self._outbox
        self._outbox.extend(commands)
        if alone and self._outbox:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._spawn, self.flush)

    async def flush(self) -> None:
        """
        Send all queued writes in one round trip; come back when they and those that are on their way have landed.

        A value that Redis refuses or misses is lost to it, not to this process.
        A deletion is made up for.
        """
        if self._outbox or (self._owed and not self.down) or self._writing.locked():
            await asyncio.shield(self._spawn(self._send))  # others' writes too: who waits for it may be cancelled

    async def _send(self) -> None:
        async with self._writing:  # one at a time: a later write of a key must not overtake an earlier one
            queued, self._outbox = self._outbox, []
            commands = queued if self.down else [*self._owed, *queued]
            if commands:
                self._settle_deletions(commands, await self._pipeline(commands))
                self._local.keep(_values(queued))

    def _settle_deletions(self, commands: Sequence[Command], replies: Sequence[Any]) -> None:
        for command, reply in zip(commands, replies or [RedisError()] * len(commands)):
            if command[0] not in DELETIONS:
                continue
            if not isinstance(reply, Exception):
                self._owed.pop(command, None)
            elif len(self._owed) < OWED_ENTRIES:
                self._owed[command] = None
        if self._owed and not self._makes_up:
            self._makes_up = True
            self._spawn(self._make_up)

    async def _make_up(self) -> None:
        while self._owed:
            await asyncio.sleep(PAUSE_SECONDS)
            await self.flush()
        self._makes_up = False

    async def lease(self, key: str, milliseconds: int, record: str) -> tuple[bool, bytes | None]:
        """
        Claim the work on a record among all processes, and read the record as it is now.

        Leases that are asked for at the same moment share a round trip.

        Returns:
            Whether it is ours: False when another process has it, True also when
            Redis cannot tell. And the value of the record.
        """
        granted: asyncio.Future[tuple[bool, bytes | None]] = asyncio.get_running_loop().create_future()
        self._leases.append((key, milliseconds, record, granted))
        if len(self._leases) == 1:
            asyncio.get_running_loop().call_soon(self._spawn, self._grant)
        return await granted

    def release(self, key: str) -> None:
        """Give a claim back, once the writes that are queued have landed. A release that is lost only costs time."""
        self.queue([("UNLINK", key)])

    async def count(self, key: str, seconds: int) -> int | None:
        """Count one more under a key that lives so long; None when Redis cannot tell."""
        replies = await self._pipeline([("INCR", key), ("EXPIRE", key, seconds)])
        return replies[0] if replies and isinstance(replies[0], int) else None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """
        The replies to commands, sent in their order after all queued writes.

        Raises:
            StoreFailed: Redis does not answer, or refuses one of them.
        """
        await self.flush()
        replies = await self._pipeline(commands) if commands else []
        if len(replies) < len(commands):
            raise StoreFailed("the store does not answer")
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is not None:
            reason = _kind(refused) if isinstance(refused, ResponseError) else type(refused).__name__
            raise StoreFailed(f"the store refuses a command: {reason}")
        self._local.keep(_values(commands))
        return replies

    async def eviction_policy(self) -> str | None:
        """What Redis drops when it is full, its ``maxmemory-policy``; None when it does not tell."""
        try:
            told = await self._client.info("memory")
        except FAILURES:
            return None
        policy = told.get("maxmemory_policy")
        return policy if isinstance(policy, str) else None

    async def _grant(self) -> None:
        leases, self._leases = self._leases, []
        commands: list[Command] = []
        for key, life, record, _ in leases:
            commands += [("SET", key, 1, "NX", "PX", life), ("GET", record)]
        replies = await self._pipeline(commands) or [True, None] * len(leases)
        for (_, _, _, granted), reply, value in zip(leases, replies[::2], replies[1::2]):
            if not granted.done():
                granted.set_result((reply is not None, value if isinstance(value, bytes) else None))

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if self.down:
            return []
        try:
            pipeline = self._client.pipeline(**({} if self._cluster else {"transaction": False}))
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except FAILURES as error:
            self._failed(error)
            return []
        for reply in replies:  # a cluster tells so of the commands of one node
            if isinstance(reply, FAILURES) and not isinstance(reply, ResponseError):
                self._failed(reply)
                break
        refused = [reply for reply in replies if isinstance(reply, ResponseError)]
        if refused:
            self.failures += len(refused)
            log.warning("the store refused %d of %d writes: %s", len(refused), len(replies), _kind(refused[0]))
        return replies

    async def _read_cluster(self, keys: Sequence[str]) -> list[bytes | None]:
        by_bucket: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            by_bucket.setdefault(key[: key.index("}")], []).append(index)
        pipeline = self._client.pipeline()
        for indices in by_bucket.values():
            pipeline.execute_command("MGET", *(keys[i] for i in indices))
        values: list[bytes | None] = [None] * len(keys)
        for indices, found in zip(by_bucket.values(), await pipeline.execute()):
            for index, value in zip(indices, found):
                values[index] = value
        return values

    def _failed(self, error: Exception) -> None:
        if not self.down:
            log.warning("the store does not answer (%s); going on without it", type(error).__name__)
        self.failures += 1
        self._down_until = time.monotonic() + PAUSE_SECONDS

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _values(commands: Iterable[Command]) -> dict[str, bytes | None]:
    """What each key holds after these commands; None for nothing."""
    values: dict[Any, Any] = {}
    for command in commands:
        if command[0] == "SET":
            values[command[1]] = command[2]
        elif command[0] == "DEL":
            values[command[1]] = None
    return values


def _kind(error: ResponseError) -> str:
    """The error code that Redis puts first, such as OOM; the rest could repeat an argument."""
    return type(error).__name__ if not str(error).split(" ", 1)[0].isupper() else str(error).split(" ", 1)[0]
