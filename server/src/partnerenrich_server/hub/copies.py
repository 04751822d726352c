"""
The browser copies, read within limits: one script, one round trip.

The script counts a request against each of its limits and reads the copy when none is passed. A minute begins with the
first request in it. Requests of one moment share the round trip. In a cluster, the counter of a visitor lies beside the
visitor's copy; that of an address cannot, and is counted by a second call at the same time.

When Redis is gone nobody waits for it: a reader goes on without, and it is left alone for a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
from redis.exceptions import NoScriptError, ResponseError

from partnerenrich.browser import belongs
from partnerenrich.complaints import Complaints
from partnerenrich.patience import in_time
from partnerenrich.roundtrips import RoundTrips
from partnerenrich.store import PAUSE_SECONDS, client_of, is_cluster, tell_failing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from partnerenrich.store import Command

log = logging.getLogger(__name__)

WINDOW_MS: Final = 60_000

SCRIPT: Final = """
-- KEYS: a copy, then counters. ARGV: milliseconds of the window, a limit for each counter, the fields to read.
-- Gives the number of the limit that is passed and the milliseconds that are left; or 0 and the fields.
for i = 2, #KEYS do
  local count = redis.call('INCR', KEYS[i])
  if count == 1 then redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
  if count > tonumber(ARGV[i]) then return {i - 1, redis.call('PTTL', KEYS[i])} end
end
if #ARGV == #KEYS then return {0, {}} end
return {0, redis.call('HMGET', KEYS[1], unpack(ARGV, #KEYS + 1))}
"""
_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class StoreDown(Exception):
    """Redis did not answer, or is being left alone because it did not."""


@attrs.frozen
class Limit:
    """
    One limit and where it is counted.

    Attributes:
        name: ``visitor`` or ``address``.
        key: Of the counter.
        per_minute: Requests in a minute.
    """

    name: str
    key: str = attrs.field(repr=False)
    per_minute: int


@attrs.frozen
class LimitPassed(Exception):
    """
    Too many requests in this minute.

    Attributes:
        limit: The name of the limit that was passed.
        seconds: Until the next minute begins.
    """

    limit: str
    seconds: float


class BrowserCopies:
    """
    A connection to the browser copies.

    Args:
        url: As in `partnerenrich.store.Store`.
        command_seconds: How long one round trip may take, with a new connection where one is needed.

    Attributes:
        failures: How often Redis did not answer as it should.
    """

    def __init__(self, url: str, *, command_seconds: float) -> None:
        self._cluster = is_cluster(url)
        self._client = client_of(url)
        self._command_seconds = command_seconds
        self._down_until = 0.0
        self._complaints = Complaints(log)
        self._round_trips = RoundTrips(self._evaluate)
        self.failures = 0

    async def close(self) -> None:
        """Disconnect."""
        await self._round_trips.over()
        await self._client.aclose()

    async def read(self, key: str, fields: Sequence[str], limits: Sequence[Limit]) -> list[bytes | None]:
        """
        Fields of a copy, if no limit is passed.

        Args:
            key: Of the copy.
            fields: None to count only.
            limits: Each is counted, in this order, until one is passed.

        Raises:
            LimitPassed: There were too many requests.
            StoreDown: Redis does not tell.
        """
        if not self._cluster:
            return self._understood(await self._run(key, fields, limits), limits)
        near = [limit for limit in limits if limit.key.startswith(f"{{{key}}}")]
        far = [limit for limit in limits if limit not in near]
        calls = [self._run(limit.key, (), [limit]) for limit in far]
        *counted, found = await asyncio.gather(*calls, self._run(key, fields, near))
        for limit, reply in zip(far, counted):
            self._understood(reply, [limit])
        return self._understood(found, near)

    async def count(self, limits: Sequence[Limit]) -> None:
        """Count a request that reads nothing. Raises as `read`."""
        await self.read(limits[0].key, (), limits)

    async def retire(self, key: str, seconds: int) -> None:
        """
        Take a copy out of use: it belongs to nobody any more, and what is written into it later is not served.

        Args:
            key: Of the copy.
            seconds: How long this is remembered.

        Raises:
            StoreDown: Redis did not do it.
        """
        replies = await self._pipeline([("UNLINK", key), *belongs(key, secrets.token_hex(8), seconds)])
        for reply in replies:
            if isinstance(reply, Exception):
                self._failed(reply)
                raise StoreDown

    async def answers(self) -> bool:
        """Whether Redis is there."""
        try:
            await self._ask(self._client.ping)
        except StoreDown:
            return False
        return True

    def _understood(self, reply: list[Any], limits: Sequence[Limit]) -> list[bytes | None]:
        number, rest = reply
        if number:
            raise LimitPassed(limits[number - 1].name, max(rest, 0) / 1000)
        values: list[bytes | None] = rest
        return values

    async def _run(self, key: str, fields: Sequence[str], limits: Sequence[Limit]) -> list[Any]:
        keys = (key, *(limit.key for limit in limits))
        call: Command = (len(keys), *keys, WINDOW_MS, *(limit.per_minute for limit in limits), *fields)
        reply: list[Any] | Exception = await self._round_trips.send(call)
        if isinstance(reply, Exception):
            raise StoreDown
        return reply

    async def _evaluate(self, calls: Sequence[Command]) -> list[Any]:
        """Run the script once for each call. An exception stands in the place of a reply that failed."""
        replies = await self._pipeline([("EVALSHA", _SHA, *call) for call in calls])
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._pipeline([("EVAL", SCRIPT, *calls[index]) for index in unknown])
            for index, reply in zip(unknown, again):
                replies[index] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                self._failed(reply)
        return replies

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together. An exception stands in the place of a reply that is an error."""
        if len(commands) == 1:  # what a pipeline adds would be in vain
            return [await self._ask(self._alone, *commands[0])]
        pipeline = self._client.pipeline(**({} if self._cluster else {"transaction": False}))
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await self._ask(pipeline.execute, raise_on_error=False)
        return replies

    async def _alone(self, *command: str | bytes | int) -> Any:
        try:
            return await self._client.execute_command(*command)
        except ResponseError as error:
            return error

    async def _ask(self, command: Callable[..., Awaitable[Any]], *arguments: Any, **options: bool) -> Any:
        if time.monotonic() < self._down_until:
            raise StoreDown
        try:
            return await in_time(command(*arguments, **options), self._command_seconds)
        except Exception as error:  # noqa: BLE001 - also a mistake in the client
            self._failed(error)
        raise StoreDown

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not isinstance(error, ResponseError):
            self._down_until = time.monotonic() + PAUSE_SECONDS
        tell_failing(self._complaints, error)
