"""What stands around every partner call of one integration: limits, retry, circuit breaker, plain errors."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import aiolimiter
import attrs
import httpx
import tenacity

from partnerenrich.errors import (
    BadResponse,
    BreakerEffect,
    NotCalled,
    PartnerError,
    PluginError,
    RateLimited,
    Unavailable,
)
from partnerenrich.http import quiet, status_error
from partnerenrich.models import Call

if TYPE_CHECKING:
    from partnerenrich.configuration import Integration

T = TypeVar("T")

AUTH_PAUSES = 6
"""How many times `Limits.pause` the breaker stays open after a refused credential."""

LONGEST_PAUSE = 300.0
"""Seconds up to which the pause of the breaker doubles while probes fail."""

LONGEST_WAIT = 3600.0
"""Seconds; a call never waits longer for its turn."""

_BACKOFF = tenacity.wait_exponential(multiplier=0.02, max=0.5) + tenacity.wait_random(0, 0.03)


@attrs.define
class CallStatistics:
    """
    What became of the calls of one integration since the start. Nothing personal.

    Attributes:
        calls: Attempts made.
        failures: Name of an error class to the number of attempts that ended in
            it. `NotCalled` counts what was held back, and is no attempt.
        seconds: Time spent in attempts.
    """

    calls: int = 0
    failures: Counter[str] = attrs.Factory(Counter)
    seconds: float = 0.0


class DailyBudget(Protocol):
    """How many calls a day (UTC) are left."""

    async def take(self) -> bool:
        """Take one call out of today's budget. False when none is left. Raises nothing."""
        ...


def _utc_today() -> date:
    return datetime.now(UTC).date()


@attrs.define(eq=False)
class LocalDailyBudget:
    """
    A daily budget of this process alone.

    Attributes:
        limit: Calls a day.
    """

    limit: int
    _today: Callable[[], date] = _utc_today
    _day: date | None = attrs.field(default=None, init=False)
    _taken: int = attrs.field(default=0, init=False)

    async def take(self) -> bool:
        """See `DailyBudget.take`."""
        if (today := self._today()) != self._day:
            self._day, self._taken = today, 0
        if self._taken >= self.limit:
            return False
        self._taken += 1
        return True


@attrs.define(eq=False)
class Breaker:
    """
    Holds calls back while the partner fails.

    Closed, it lets every call through. Some counted failures in a row, or one
    error that opens at once, open it for a pause. Then one call at a time is let
    through as a probe: its success closes the breaker, its failure opens it for
    twice as long. A call that began before the breaker opened has no say in when
    it closes. What is cancelled counts for nothing.

    Attributes:
        failures: Counted failures in a row that open it.
        pause: Seconds of the first pause.
    """

    failures: int
    pause: float
    _failed: int = attrs.field(default=0, init=False)
    _current_pause: float = attrs.field(default=0.0, init=False)
    _open_until: float = attrs.field(default=0.0, init=False)
    _openings: int = attrs.field(default=0, init=False)
    _probing: bool = attrs.field(default=False, init=False)

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """``half-open`` from the end of the pause until a probe has told more."""
        if not self._current_pause:
            return "closed"
        return "open" if time.monotonic() < self._open_until else "half-open"

    def check(self) -> None:
        """Raise `NotCalled` when a call would be held back now."""
        state = self.state
        if state == "open":
            seconds = self._open_until - time.monotonic()
            raise NotCalled(f"the circuit breaker is open for {seconds:.1f} s more, after failures of the partner")
        if self._probing:
            raise NotCalled("the circuit breaker is open: a single call finds out whether the partner is back")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """
        Learn from the call inside: from a `PartnerError`, and from none.

        Raises:
            NotCalled: The call is held back.
        """
        self.check()
        self._probing = self.state == "half-open"
        opening = self._openings
        effect: BreakerEffect | None = BreakerEffect.NONE
        try:
            yield
            effect = None
        except PartnerError as error:
            effect = error.breaker
            raise
        finally:
            if opening == self._openings:
                self._learn(effect)

    def _learn(self, effect: BreakerEffect | None) -> None:
        self._probing = False
        if effect is None:
            self._failed = 0
            self._current_pause = 0.0
        elif effect is not BreakerEffect.NONE:
            self._failed += 1
            if effect is BreakerEffect.OPENS or self._current_pause or self._failed >= self.failures:
                self._open(AUTH_PAUSES * self.pause if effect is BreakerEffect.OPENS else self.pause)

    def _open(self, pause: float) -> None:
        self._current_pause = min(max(pause, 2 * self._current_pause), max(LONGEST_PAUSE, self.pause))
        self._open_until = time.monotonic() + self._current_pause
        self._openings += 1
        self._failed = 0


@attrs.define(eq=False)
class Rate:
    """
    A client-side rate that knows before it waits whether waiting is of use.

    A tenth of a second's calls may come at once.

    Attributes:
        per_second: Calls per second.
    """

    per_second: float
    _limiter: aiolimiter.AsyncLimiter = attrs.field(init=False)
    _waiting: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        burst = max(1.0, self.per_second / 10)
        self._limiter = aiolimiter.AsyncLimiter(burst, burst / self.per_second)

    async def take(self, seconds: float) -> bool:
        """Wait for a turn. False, at once, when it would not come within so many seconds."""
        freed = seconds * self.per_second
        if not self._limiter.has_capacity(1 + self._waiting - freed):
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._limiter.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True


class Governor:
    """
    Makes the partner calls of one integration, within its limits.

    Attributes:
        breaker: The circuit breaker of the integration.
        statistics: What became of the calls.
    """

    def __init__(
        self,
        integration: Integration,
        *,
        budget: DailyBudget | None = None,
    ) -> None:
        """
        Args:
            integration: Its limits hold; its org, provider and name are told to the partner's hooks.
            budget: Today's calls; None for no limit.
        """
        limits = integration.limits
        self.breaker = Breaker(limits.failures, limits.pause)
        self.statistics = CallStatistics()
        self._integration = integration
        self._limits = limits
        self._budget = budget
        self._rate = Rate(limits.calls_per_second) if limits.calls_per_second is not None else None
        self._slots = asyncio.Semaphore(limits.concurrency)

    async def call(
        self,
        attempt: Callable[[Call], Awaitable[T]],
        *,
        wait_until: float,
        event_id: str | None = None,
        hook: str = "the plugin",
    ) -> T:
        """
        Call the partner, a second time where that makes sense.

        Each attempt passes the breaker, the rate, the concurrency cap and the
        daily budget, and has `Limits.timeout` seconds.

        Args:
            attempt: Makes one attempt; called again for a retry.
            wait_until: Moment of `time.monotonic` up to which the call may wait for its turn.
            event_id: The event that caused the call.
            hook: Name of the hook, for messages.

        Returns:
            What the attempt returned.

        Raises:
            NotCalled: No attempt was made.
            PartnerError: The last attempt failed. No other exception, which might
                hold a URL or a value, can be reached from it.
        """

        async def once() -> T | PartnerError:
            return await self._attempt(attempt, wait_until, event_id, hook)

        with quiet():
            outcome = await once()
            if isinstance(outcome, PartnerError) and outcome.retry:
                outcome = await self._retry(outcome, once, wait_until)
        if isinstance(outcome, PartnerError):
            raise outcome
        return outcome

    async def _retry(
        self, first: PartnerError, once: Callable[[], Awaitable[T | PartnerError]], wait_until: float
    ) -> T | PartnerError:
        """Hand over to tenacity, which meets the first failure again: only calls that fail pay for its bookkeeping."""
        made = [first]

        async def next_outcome() -> T | PartnerError:
            return made.pop() if made else await once()

        retrying = tenacity.AsyncRetrying(
            sleep=asyncio.sleep,
            stop=tenacity.stop_after_attempt(self._limits.attempts),
            wait=_pause,
            retry=tenacity.retry_if_result(lambda outcome: self._deserves_retry(outcome, wait_until)),
            retry_error_callback=_last_outcome,
        )
        outcome: T | PartnerError = await retrying(next_outcome)
        return first if isinstance(outcome, NotCalled) else outcome

    def _deserves_retry(self, outcome: object, wait_until: float) -> bool:
        if isinstance(outcome, RateLimited):
            return time.monotonic() + (outcome.retry_after or 0.0) <= wait_until
        return isinstance(outcome, PartnerError) and outcome.retry

    async def _attempt(
        self, attempt: Callable[[Call], Awaitable[T]], wait_until: float, event_id: str | None, hook: str
    ) -> T | PartnerError:
        """One attempt. Its error is returned, so that no other one can become its context."""
        try:
            self.breaker.check()
            await self._take_turn(wait_until)
            await self._take_slot(wait_until)
            try:
                with self.breaker.watching():
                    await self._take_from_budget()
                    return await self._run(attempt, event_id, hook)
            finally:
                self._slots.release()
        except PartnerError as error:
            self.statistics.failures[type(error).__name__] += 1
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)

    async def _take_turn(self, wait_until: float) -> None:
        if self._rate is not None and not await self._rate.take(self._seconds_until(wait_until)):
            raise NotCalled(
                "the rate limit (limits.calls_per_second) has no turn within the time that the event may wait"
            )

    async def _take_slot(self, wait_until: float) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._seconds_until(wait_until)):
                await self._slots.acquire()
        except TimeoutError:
            raise NotCalled("all calls that may run at once (limits.concurrency) are under way") from None

    async def _take_from_budget(self) -> None:
        if self._budget is not None and not await self._budget.take():
            raise NotCalled("the calls of today (limits.calls_per_day, UTC) are used up")

    async def _run(self, attempt: Callable[[Call], Awaitable[T]], event_id: str | None, hook: str) -> T:
        started = time.monotonic()
        integration, timeout = self._integration, self._limits.timeout
        call = Call(integration.org, integration.provider, integration.name, started + timeout, event_id)
        self.statistics.calls += 1
        try:
            async with asyncio.timeout(timeout):
                return await attempt(call)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # a plugin may raise anything
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            raise self._partner_error(error, hook) from None
        finally:
            self.statistics.seconds += time.monotonic() - started

    def _partner_error(self, error: BaseException, hook: str) -> PartnerError:
        match error:
            case PartnerError():
                return error
            case PluginError():
                return BadResponse(str(error))
            case TimeoutError() | httpx.TimeoutException():
                return Unavailable(f"the partner did not answer within {self._limits.timeout:g} s")
            case httpx.TransportError():
                return Unavailable(f"the connection to the partner failed ({type(error).__name__})")
            case httpx.HTTPStatusError() if refusal := status_error(error.response):
                return refusal
            case _:
                return BadResponse(f"{self._integration.provider}: {hook} failed with {type(error).__name__}")

    def _seconds_until(self, moment: float) -> float:
        return min(max(moment - time.monotonic(), 0.0), LONGEST_WAIT)


def _is_cancelled() -> bool:
    """Whether somebody wants the running task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _pause(state: tenacity.RetryCallState) -> float:
    error = _last_outcome(state)
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after
    return _BACKOFF(state)


def _last_outcome(state: tenacity.RetryCallState) -> object:
    assert state.outcome is not None
    outcome: object = state.outcome.result()
    return outcome
