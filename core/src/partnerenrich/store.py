"""Redis behind a few methods that never raise and never block: when it is gone, the caller goes on without."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import secrets
import time
from binascii import crc_hqx
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import hiredis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisClusterException, RedisError, ResponseError

from partnerenrich.complaints import Complaints
from partnerenrich.errors import PartnerEnrichError
from partnerenrich.patience import in_time
from partnerenrich.roundtrips import RoundTrips, joined

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

log = logging.getLogger(__name__)

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]
"""One Redis command: its name, its key, further arguments."""
Claim = tuple[str, int, str]
"""The key of a lease, its life in milliseconds, and the key of the record that it is about, of the same bucket."""
Claimed = tuple[bool, bytes | None]
"""Whether the work is ours: False when another process has the lease. And the record as it is now, or a claim."""
CLAIM: Final = b"claimed by "
"""How the value of a lease begins. The rest names who has it."""

PAUSE_SECONDS: Final = 1.0
"""How long Redis is left alone after it failed."""
FEW_KEYS: Final = 32
"""Reads of so few keys, and so few claims, share a round trip with others of the same moment."""
AT_ONCE: Final = 4
"""Most round trips of small reads, or of a few claims, that are on their way."""
LINGER_SECONDS: Final = 0.01
"""How long a write waits for company when no batch takes it along."""
LOCAL_SECONDS: Final = 30.0
"""A local value is at most twice as old."""
LOCAL_ENTRIES: Final = 20_000
"""Most local values of one generation; there are two."""
OWED_ENTRIES: Final = 100_000
"""Most deletions that are kept for Redis to come back."""

SCRIPT_COMMANDS: Final = 500
"""Most commands in one run of the script: nobody else is served meanwhile, about half a millisecond."""

FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)
DELETIONS = frozenset({"DEL", "HDEL"})


SCRIPT: Final = """
local full = redis.pcall('SETRANGE', KEYS[1], 0, '')
if type(full) ~= 'table' or not full.err or not string.find(tostring(full.err), 'OOM', 1, true) then
    full = nil
end
local takes_memory = {SET = true, PSETEX = true, HSET = true, HSETNX = true, NOTE = true, INCR = true}
local ours = {}
function ours.CLAIM(key, claim, milliseconds)
    local granted = full or redis.pcall('SET', key, claim, 'NX', 'PX', milliseconds)
    if granted and granted.ok then
        return 1
    end
    local there = redis.pcall('GET', key)
    if granted and type(there) == 'string' and string.find(there, '^claimed by ') then
        return granted
    end
    return there or granted
end
function ours.RELEASE(key, claim)
    return redis.pcall('GET', key) == claim and redis.pcall('UNLINK', key) or 0
end
function ours.PROLONG(key, claim, milliseconds)
    return redis.pcall('GET', key) == claim and redis.pcall('PEXPIRE', key, milliseconds) or 0
end
function ours.NOTE(key, score, member, most, seconds)
    local added = redis.pcall('ZADD', key, score, member)
    redis.pcall('ZREMRANGEBYRANK', key, 0, -1 - most)
    redis.pcall('EXPIRE', key, seconds)
    return added
end
local replies, number, at = {}, 1, 1
while at < #ARGV do
    local name, words, last = ARGV[at], tonumber(ARGV[at + 1]), number + ARGV[at + 2] - 1
    local is_refused, own = full and takes_memory[name], ours[name]
    at = at + 3
    for i = number, last do
        local next_at = at + words
        if is_refused then
            replies[i] = full
        elseif own then
            replies[i] = own(KEYS[i], unpack(ARGV, at, next_at - 1))
        else
            replies[i] = redis.pcall(name, KEYS[i], unpack(ARGV, at, next_at - 1))
        end
        at = next_at
    end
    number = last + 1
end
return replies
"""
"""
Many commands in one, done by Redis itself: each runs by itself, and has its own reply or error.

A script that has written anything is past the check for a full memory, so the check comes first: by writing
nothing into a key, which is refused when Redis is full and else does nothing.

``KEYS`` has the key of each command; ``ARGV``, for each row of commands of one name and length, the name, how many
words follow the key in each, how many commands these are, and then those words. Four commands are ours: ``CLAIM key
claim milliseconds`` puts a claim where nothing is, and has 1 for reply, else what stands there, or the error when
Redis takes nothing, since then no claim counts; ``RELEASE key claim`` and ``PROLONG key claim milliseconds`` do nothing
where another value stands; ``NOTE key score member most seconds`` adds to a sorted set, of which no more than the
greatest are kept, for so long.
"""

_DIGEST: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""By which Redis knows the script."""

BUCKETS: Final = [f"{{b{number}}}" for number in range(256)]
"""Hash tags, among which the keys are spread; see `bucket`."""


def is_cluster(url: str) -> bool:
    """Whether a URL is that of a cluster."""
    return "+cluster://" in url


def client_of(url: str) -> Any:
    """
    A client that connects with its first command.

    Args:
        url: See `Store`.

    Raises:
        ValueError: It is no such URL. The message may hold the password.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,  # see `in_time`
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # with 3 redis-py takes a connection that the server has closed for one that has news
    }
    if is_cluster(url):  # its client looks at no connection before it uses it
        options["retry"] = Retry(NoBackoff(), 1)
        return RedisCluster.from_url(url.replace("+cluster", ""), **options)
    client = Redis.from_url(url, **options)
    pool = client.connection_pool
    pool.connection_class = type("PackedConnection", (_Packed, pool.connection_class), {})
    return client


class StoreFailed(PartnerEnrichError):
    """The store did not do what it was asked, and the caller cannot go on without."""


def bucket(name: str) -> str:
    """
    Hash tag of one of 256 buckets.

    In a cluster, all keys of a bucket share a node, so a batch needs about one
    round trip for each node.
    """
    return BUCKETS[bucket_number(name)]


def bucket_number(name: str) -> int:
    """Which of `BUCKETS` a name belongs to."""
    return crc_hqx(name.encode(), 0) & 255


class LocalTier:
    """
    What this process read and wrote last, for the time when Redis is down.

    Two generations: a full or old one makes room as a whole. Pairs are sorted in
    when the first value is asked for, so that keeping the tier filled costs next
    to nothing.
    """

    def __init__(self) -> None:
        self._young = _Generation()
        self._old = _Generation()

    def keep(self, keys: Collection[str], values: Collection[bytes | None]) -> None:
        """Remember these values; None for a key that has none. Neither list may be changed later."""
        if self._young.is_over:
            self._rotate()
        self._young.add(keys, values)

    def get(self, key: str) -> bytes | None:
        """The value of a key; None when it is not known here."""
        if self._young.age > LOCAL_SECONDS:
            self._rotate()
        young = self._young.values
        if key in young:
            return young[key]
        return self._old.values.get(key) if self._old.age <= 2 * LOCAL_SECONDS else None

    def _rotate(self) -> None:
        self._old, self._young = self._young, _Generation()


class _Generation:
    def __init__(self) -> None:
        self._since = time.monotonic()
        self._unsorted: list[tuple[Collection[str], Collection[bytes | None]]] = []
        self._sorted: dict[str, bytes | None] = {}
        self._count = 0

    @property
    def age(self) -> float:
        return time.monotonic() - self._since

    def __len__(self) -> int:
        return self._count

    @property
    def is_over(self) -> bool:
        return self._count > LOCAL_ENTRIES or self.age > LOCAL_SECONDS

    @property
    def values(self) -> dict[str, bytes | None]:
        for keys, values in self._unsorted:
            self._sorted.update(zip(keys, values))
        self._unsorted.clear()
        return self._sorted

    def add(self, keys: Collection[str], values: Collection[bytes | None]) -> None:
        self._unsorted.append((keys, values))
        self._count += len(keys)


class _Packed:
    """A connection that packs commands in C, which redis-py does for its blocking connections only."""

    def pack_command(self, *command: Any) -> list[bytes]:
        return [hiredis.pack_command(command)]


class Store:
    """
    The shared memory of all processes.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://`` or ``rediss+cluster://``.
        command_seconds: How long one round trip may take, with a new connection where one is needed.
    """

    def __init__(self, url: str, *, command_seconds: float) -> None:
        self._command_seconds = command_seconds
        self._cluster = is_cluster(url)
        self._client = client_of(url)
        self._claim: Final = CLAIM + secrets.token_hex(8).encode()
        self._local = LocalTier()
        self._complaints = Complaints(log)
        self._down_until = 0.0
        self._outbox: list[Command] = []
        self._timer: asyncio.TimerHandle | None = None
        self._owed: dict[Command, None] = {}
        self._reads = RoundTrips(partial(joined, self._read), at_once=AT_ONCE)
        self._claims = RoundTrips(partial(joined, self._write), at_once=AT_ONCE)
        self._sends = RoundTrips(self._send)
        self._making_up: asyncio.Task[None] | None = None
        self.failures = 0

    @property
    def down(self) -> bool:
        """Whether Redis failed a moment ago and is left alone."""
        return time.monotonic() < self._down_until

    @property
    def owes_deletions(self) -> bool:
        """Whether Redis has missed deletions that are not made up for yet."""
        return bool(self._owed)

    async def close(self) -> None:
        """Send what is queued and disconnect."""
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._making_up is not None:
            self._making_up.cancel()
            await asyncio.gather(self._making_up, return_exceptions=True)
        for round_trips in (self._reads, self._claims, self._sends):
            await round_trips.over()
        if self._owed:
            log.warning(
                "deletions that the store missed are lost (%d): what they were to take away is still there",
                len(self._owed),
            )
        await self._client.aclose()

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """
        The values of all keys, in their order, in one round trip.

        Reads of a few keys share it with others. From the local tier
        when Redis does not answer. Redis is not believed before it has made up
        for the deletions that it missed.
        """
        if not keys:
            return ()
        if len(keys) > FEW_KEYS:  # a batch: others would wait for it, and it for them
            return await self._read(keys)
        return await self._reads.send(keys)

    async def _read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        if self._owed and not self.down:
            await self.flush()
        if not self.down:
            try:
                values: Sequence[bytes | None] = await in_time(
                    self._read_cluster(keys) if self._cluster else self._client.mget(keys), self._command_seconds
                )
            except FAILURES as error:
                self._failed(error)
            else:
                self._local.keep(keys, values)
                return values
        return [self._local.get(key) for key in keys]

    def queue(self, commands: Iterable[Command]) -> None:
        """Write these soon: with the next `flush`, at the latest after a moment."""
        self._outbox.extend(commands)
        if self._outbox and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end_linger)

    def _end_linger(self) -> None:
        self._timer = None
        if self._outbox:
            self._sends.send(())

    async def flush(self, keys: Sequence[str] = ()) -> Sequence[bytes | None]:
        """
        Send all queued writes in one round trip; come back when they and those that are on their way have landed.

        A value that Redis refuses or misses is lost to it, not to this process.
        A deletion is made up for.

        Args:
            keys: To be read after these writes, in the same round trip.

        Returns:
            The values of the keys in their order; all None when Redis does not answer.
        """
        if not (keys or self._outbox or (self._owed and not self.down)):
            await self._sends.landed()
            return ()
        replies = await self._sends.send([("GET", key) for key in keys])
        return [reply if isinstance(reply, bytes) else None for reply in replies or [None] * len(keys)]

    async def _send(self, asked: Sequence[Sequence[Command]]) -> list[list[Any]]:
        """Send all queued writes, then what is asked. Never two at a time: no write may overtake an earlier one."""
        queued, self._outbox = self._outbox, []
        writes = queued if self.down else [*self._owed, *queued]
        written: list[Any] = []
        try:
            written, *told = await joined(self._write, [writes, *asked])
        finally:  # a deletion is owed whatever happens
            self._settle_deletions(writes, written)
            self._keep(queued)
        return told

    def _settle_deletions(self, commands: Sequence[Command], replies: Sequence[Any]) -> None:
        settled = zip(commands, replies or [RedisError()] * len(commands))
        for command, reply in [(command, reply) for command, reply in settled if command[0] in DELETIONS]:
            if not isinstance(reply, Exception):
                self._owed.pop(command, None)
            elif len(self._owed) < OWED_ENTRIES:
                self._owed[command] = None
        if self._owed and self._making_up is None:
            self._making_up = asyncio.get_running_loop().create_task(self._make_up())

    async def _make_up(self) -> None:
        while self._owed:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - whatever it is, they have to be made up for
                log.warning("deletions that the store missed are still owed (%s)", type(error).__name__)
        self._making_up = None

    async def lease(self, claim: Claim) -> Claimed:
        """Claim the work on one record. See `leases`."""
        [claimed] = await self.leases([claim])
        return claimed

    async def leases(self, claims: Sequence[Claim]) -> list[Claimed]:
        """
        Claim the work on records among all processes, and read each record as it is now.

        All go in one round trip, a few together with the writes that are queued, unless others are on their way, for
        which these wait. Every lease is ours when Redis cannot tell.
        """
        commands = self._claiming(claims)
        if len(claims) > FEW_KEYS:
            return _claimed(claims, await self._write(commands))
        return _claimed(claims, await (self._claims if self._sends.is_out else self._sends).send(commands))

    def release(self, key: str) -> None:
        """Give a claim back, once the writes that are queued have landed. A release that is lost only costs time."""
        self.queue([("RELEASE", key, self._claim)])

    def prolong(self, keys: Iterable[str], milliseconds: int) -> None:
        """Let our claims last so long from now on."""
        self.queue(("PROLONG", key, self._claim, milliseconds) for key in keys)

    async def count(self, key: str, seconds: int) -> int | None:
        """Count one more under a key that lives so long; None when Redis cannot tell."""
        replies = await self._write([("INCR", key), ("EXPIRE", key, seconds)])
        return replies[0] if replies and isinstance(replies[0], int) else None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """
        The replies to commands, sent in their order after all queued writes.

        Raises:
            StoreFailed: Redis does not answer, or refuses one of them.
        """
        await self.flush()
        replies = await self._run(commands, self._each)
        if len(replies) < len(commands):
            raise StoreFailed("the store does not answer")
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is not None:
            raise StoreFailed(f"the store refuses a command: {error_name(refused)}")
        self._keep(commands)
        return replies

    async def eviction_policy(self) -> str | None:
        """What Redis drops when it is full, its ``maxmemory-policy``; None when it does not tell."""
        try:
            told = await in_time(self._client.info("memory"), self._command_seconds)
        except FAILURES:
            return None
        policy = told.get("maxmemory_policy")
        return policy if isinstance(policy, str) else None

    def _claiming(self, claims: Sequence[Claim]) -> list[Command]:
        """The commands that make these claims. `_claimed` reads what comes of them."""
        claiming: list[Command] = [("CLAIM", lease, self._claim, milliseconds) for lease, milliseconds, _ in claims]
        return claiming + [("GET", record) for lease, _, record in claims if lease != record]

    async def _write(self, commands: Sequence[Command]) -> list[Any]:
        """The reply of each command, an exception where Redis refused it; nothing at all when Redis is gone."""
        return await self._run(commands, self._in_scripts)

    async def _run(self, commands: Sequence[T], send: Callable[[Sequence[T]], Awaitable[list[Any]]]) -> list[Any]:
        if self.down or not commands:
            return []
        try:
            replies = await in_time(send(commands), self._command_seconds)
        except FAILURES as error:
            self._failed(error)
            return []
        if errors := [reply for reply in replies if isinstance(reply, Exception)]:
            self._note(errors, len(replies))
        return replies

    def _note(self, errors: Sequence[Exception], commands: int) -> None:
        """Tell of errors among the replies to so many commands."""
        refused = [error for error in errors if isinstance(error, ResponseError)]
        if len(refused) < len(errors):  # a cluster tells so of the commands of one node
            self._failed(next(error for error in errors if not isinstance(error, ResponseError)))
        if refused:
            self.failures += len(refused)
            reason = error_name(refused[0])
            self._complaints.tell(reason, "the store refused %d of %d writes: %s", len(refused), commands, reason)

    async def _in_scripts(self, commands: Sequence[Command]) -> list[Any]:
        """The replies as Redis gives them, for little work in this process."""
        replies: list[Any] = [None] * len(commands)
        portions = self._portions([str(command[1]) for command in commands])
        runs = [_arguments([commands[index] for index in portion]) for portion in portions]
        for portion, answer in zip(portions, await self._evaluate(runs)):
            each = [answer] * len(portion) if isinstance(answer, Exception) else answer
            for index, reply in zip(portion, each):
                replies[index] = reply
        return replies

    async def _evaluate(self, runs: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """The answers to so many runs of the script, whose text goes to nodes that do not know it yet."""
        answers = await self._each([("EVALSHA", _DIGEST, *arguments) for arguments in runs])
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._each([("EVAL", SCRIPT, *runs[number]) for number in unknown])
            for number, answer in zip(unknown, again):
                answers[number] = answer
        return answers

    async def _each(self, commands: Sequence[Command]) -> list[Any]:
        """The reply or the error of each command, in the shape that redis-py gives, such as a mapping for a hash."""
        if len(commands) == 1:  # without the work that a pipeline takes
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    def _pipeline(self) -> Any:
        return self._client.pipeline(**({} if self._cluster else {"transaction": False}))

    def _portions(self, keys: Sequence[str]) -> list[Sequence[int]]:
        """Positions of keys that are seen to together: not too many, and in a cluster those of one bucket."""
        together = _by_bucket(keys) if self._cluster else [range(len(keys))]
        return [
            portion[start : start + SCRIPT_COMMANDS]
            for portion in together
            for start in range(0, len(portion), SCRIPT_COMMANDS)
        ]

    async def _read_cluster(self, keys: Sequence[str]) -> list[bytes | None]:
        buckets = _by_bucket(keys)
        pipeline = self._pipeline()
        for indices in buckets:
            pipeline.execute_command("MGET", *(keys[i] for i in indices))
        values: list[bytes | None] = [None] * len(keys)
        for indices, found in zip(buckets, await pipeline.execute()):
            for index, value in zip(indices, found):
                values[index] = value
        return values

    def _keep(self, commands: Iterable[Command]) -> None:
        written = _values(commands)
        self._local.keep(list(written), list(written.values()))

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        tell_failing(self._complaints, error)
        self._down_until = time.monotonic() + PAUSE_SECONDS


def _arguments(commands: Sequence[Command]) -> list[str | bytes | int]:
    """What the script is told of these commands. Every word costs Redis time, so a name is not said again and again."""
    told: list[str | bytes | int] = [len(commands)]
    told += [command[1] for command in commands]
    for (name, length), alike in itertools.groupby(commands, _name_and_length):
        row = list(alike)
        told += (name, length - 2, len(row))
        for command in row:
            told += command[2:]
    return told


def _name_and_length(command: Command) -> tuple[str | bytes | int, int]:
    return command[0], len(command)


def _claimed(claims: Sequence[Claim], replies: Sequence[Any]) -> list[Claimed]:
    """What came of claims, by the replies to `Store._claiming`; none of these when Redis is gone."""
    if not replies:
        return [(True, None)] * len(claims)
    elsewhere = itertools.islice(replies, len(claims), None)
    claimed = []
    for (lease, _, record), reply in zip(claims, replies):
        there = reply if lease == record else next(elsewhere)
        claimed.append((not isinstance(reply, bytes), there if isinstance(there, bytes) else None))
    return claimed


def is_claim(record: bytes | None) -> bool:
    """Whether somebody is at work on what is to stand here."""
    return record is not None and record.startswith(CLAIM)


def _by_bucket(keys: Sequence[str]) -> Sequence[Sequence[int]]:
    """Positions of the keys of each bucket: what has the same hash tag is on the same node, and what has none alone."""
    buckets: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        buckets.setdefault(key[: key.index("}")] if key.startswith("{") else key, []).append(index)
    return list(buckets.values())


def _values(commands: Iterable[Command]) -> dict[str, bytes | None]:
    """What each key holds after these commands; None for nothing."""
    values: dict[Any, Any] = {}
    for command in commands:
        if command[0] == "SET":
            values[command[1]] = command[2]
        elif command[0] == "PSETEX":
            values[command[1]] = command[3]
        elif command[0] == "DEL":
            values[command[1]] = None
    return values


def tell_failing(complaints: Complaints, error: Exception) -> None:
    """Log that the store does not answer, and why."""
    what = f"does not answer ({error_name(error)})"
    cause: BaseException | None = error
    while cause is not None:  # the client wraps what it meets while it connects
        if isinstance(cause, AuthenticationError):
            what = "refuses the user or the password of its URL"
        cause = cause.__cause__
    complaints.tell(what, "the store %s; going on without it", what)


def error_name(error: Exception) -> str:
    """What failed, in one word, such as OOM: the others that Redis has for it could repeat what was sent."""
    code = str(error).partition(" ")[0] if isinstance(error, ResponseError) else ""
    return code if code.isupper() else type(error).__name__
