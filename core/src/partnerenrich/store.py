"""Redis behind a few methods that never raise and never block: when it is gone, the caller goes on without."""

from __future__ import annotations

import asyncio
import logging
import time
from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = logging.getLogger(__name__)

Command = tuple[str | bytes | int, ...]
"""One Redis command: its name, its key, further arguments."""

CONNECT_SECONDS: Final = 0.05
PAUSE_SECONDS: Final = 1.0
"""How long Redis is left alone after it failed."""
LINGER_SECONDS: Final = 0.01
"""How long a write waits for company when no batch takes it along."""
LOCAL_SECONDS: Final = 30.0
"""A local value is at most twice as old."""
LOCAL_ENTRIES: Final = 20_000
"""Most local values of one generation; there are two."""

FAILURES = (RedisError, OSError, TimeoutError)


def bucket(name: str) -> str:
    """
    Hash tag of one of 256 buckets.

    In a cluster, all keys of a bucket share a node, so a batch needs about one
    round trip for each node.
    """
    return f"{{b{crc_hqx(name.encode(), 0) & 255}}}"


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

    def keep(self, pairs: Iterable[tuple[str, bytes | None]]) -> None:
        """Remember these values; None for a key that has none."""
        if len(self._young) > LOCAL_ENTRIES or time.monotonic() - self._since > LOCAL_SECONDS:
            self._rotate()
        self._young.update(pairs)

    def get(self, key: str) -> bytes | None:
        """The value of a key; None when it is not known here."""
        if time.monotonic() - self._since > LOCAL_SECONDS:
            self._rotate()
        return self._young[key] if key in self._young else self._old.get(key)

    def _rotate(self) -> None:
        self._old, self._young = self._young, {}
        if time.monotonic() - self._since > 2 * LOCAL_SECONDS:
            self._old = {}
        self._since = time.monotonic()


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
            "socket_connect_timeout": min(CONNECT_SECONDS, command_seconds),
            "retry": Retry(NoBackoff(), 0),
        }
        self._cluster = "+cluster://" in url
        self._client: Any = (
            RedisCluster.from_url(url.replace("+cluster", ""), cluster_error_retry_attempts=0, **options)
            if self._cluster
            else Redis.from_url(url, **options)
        )
        self._command_seconds = command_seconds
        self._local = LocalTier()
        self._down_until = 0.0
        self._outbox: list[Command] = []
        self._writing = asyncio.Lock()
        self._leases: list[tuple[str, int, asyncio.Future[bool]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    @property
    def down(self) -> bool:
        """Whether Redis failed a moment ago and is left alone."""
        return time.monotonic() < self._down_until

    async def close(self) -> None:
        """Send what is queued and disconnect."""
        await self.flush()
        for task in self._tasks:
            task.cancel()
        await self._client.aclose()

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """
        The values of all keys, in their order, in one round trip.

        From the local tier when Redis does not answer.
        """
        if not keys:
            return ()
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
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._spawn_flush)

    async def flush(self) -> None:
        """Send all queued writes in one round trip. What Redis refuses or misses is lost to it, not to this process."""
        if not self._outbox:
            return
        async with self._writing:  # one at a time: a later write of a key must not overtake an earlier one
            commands, self._outbox = self._outbox, []
            if commands:
                await self._send(commands)

    async def _send(self, commands: Sequence[Command]) -> None:
        self._local.keep((c[1], c[2]) for c in commands if c[0] == "SET")  # type: ignore[misc] # key, value
        self._local.keep((c[1], None) for c in commands if c[0] == "DEL")  # type: ignore[misc]
        await self._pipeline(commands)

    async def lease(self, key: str, milliseconds: int) -> bool:
        """
        Claim a piece of work among all processes.

        Leases that are asked for at the same moment share a round trip.

        Returns:
            False when another process has it. True when it is ours, or when Redis cannot tell.
        """
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._leases.append((key, milliseconds, granted))
        if len(self._leases) == 1:
            asyncio.get_running_loop().call_soon(self._spawn, self._grant)
        return await granted

    async def count(self, key: str, seconds: int) -> int | None:
        """Count one more under a key that lives so long; None when Redis cannot tell."""
        replies = await self._pipeline([("INCR", key), ("EXPIRE", key, seconds)])
        return replies[0] if replies and isinstance(replies[0], int) else None

    async def _grant(self) -> None:
        leases, self._leases = self._leases, []
        replies = await self._pipeline([("SET", key, 1, "NX", "PX", life) for key, life, _ in leases])
        for (_, _, granted), reply in zip(leases, replies or [True] * len(leases)):
            if not granted.done():
                granted.set_result(reply is not None)

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

    def _spawn_flush(self) -> None:
        self._spawn(self.flush)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _kind(error: ResponseError) -> str:
    """The error code that Redis puts first, such as OOM; the rest could repeat an argument."""
    return type(error).__name__ if not str(error).split(" ", 1)[0].isupper() else str(error).split(" ", 1)[0]
