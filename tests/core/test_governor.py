"""What stands around a partner call: order of the limits, retry, breaker, and errors that tell nothing private."""

import asyncio
import contextlib
import logging
import math
import time
import traceback
from datetime import date
from types import SimpleNamespace

import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import (
    AuthError,
    BadResponse,
    Call,
    Limits,
    NotCalled,
    NotSupported,
    Partner,
    PartnerError,
    PluginError,
    RateLimited,
    RequestRefused,
    Unavailable,
    UnknownPartnerId,
)
from partnerenrich import governor as governor_module
from partnerenrich.configuration import TTL, Integration
from partnerenrich.governor import Breaker, Governor, LocalDailyBudget, Rate
from partnerenrich.plugins import BoundPartner

SOON = math.inf
SECRET = "canary-token-83b1 pat.canary@example.test"


@pytest.fixture(name="waits")
def _waits(monkeypatch):
    """Seconds slept between attempts; nobody really sleeps."""
    waits = []

    async def note(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    # Only for the governor: servers that run in threads of this process sleep, too.
    monkeypatch.setattr(governor_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": note}))
    return waits


@attrs.frozen
class Settings:
    pass


def governor(*, budget=None, **limits):
    partner = BoundPartner("example", "here", Partner(title="Example", config=Settings), {})
    integration = Integration(
        org="acme",
        name="main",
        partner=partner,
        config=Settings(),
        linking_keys=(),
        allowlist=frozenset(),
        attributes=None,
        consent=(),
        ttl=TTL(),
        limits=Limits(**limits),
        version="1",
    )
    return Governor(integration, budget=budget)


class Attempts:
    """An attempt that answers from a list: errors are raised, anything else is returned. The last stays."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    async def __call__(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def outcome(caller, attempt, wait_until=SOON, **options):
    """What a call came to: its answer, or its error as a value."""
    try:
        return await caller.call(attempt, wait_until=wait_until, **options)
    except PartnerError as error:
        return error


class TestCall:
    async def test_returns_the_answer(self):
        assert await governor().call(Attempts("answer"), wait_until=SOON) == "answer"

    async def test_tells_the_hook_on_whose_behalf(self, clock):
        """Org, partner, integration, event, and the moment until which this attempt may take."""
        attempt = Attempts("answer")

        await governor(timeout=1.5).call(attempt, wait_until=SOON, event_id="e-1")

        assert [Call("acme", "example", "main", pytest.approx(clock.now + 1.5), "e-1")] == attempt.calls

    async def test_attempt_ends_at_its_deadline(self):
        """Whatever the attempt does, and although each of its steps is short."""

        async def drip(call):
            for _ in range(1000):
                await asyncio.sleep(0.01)

        started = time.monotonic()
        error = await outcome(governor(timeout=0.05, attempts=1), drip)

        assert str(error) == "the partner did not answer within 0.05 s"
        assert Unavailable is type(error)
        assert time.monotonic() - started < 1

    async def test_counts(self, clock):
        """Attempts, failures by class, seconds; what is held back is no attempt."""

        async def attempt(call):
            clock.now += 0.25
            raise RequestRefused("no")

        caller = governor(budget=LocalDailyBudget(2))
        for _ in range(3):
            await outcome(caller, attempt)

        assert caller.statistics.calls == 2
        assert caller.statistics.failures == {"RequestRefused": 2, "NotCalled": 1}
        assert caller.statistics.seconds == 0.5

    async def test_wait_without_end_is_no_wait_without_end(self, monkeypatch):
        """A caller that sets no limit still gets an answer."""
        monkeypatch.setattr(governor_module, "LONGEST_WAIT", 0.01)
        caller = governor(concurrency=1)
        running = asyncio.create_task(caller.call(lambda call: asyncio.sleep(0.2), wait_until=SOON))
        await asyncio.sleep(0)

        assert isinstance(await outcome(caller, Attempts(1)), NotCalled)
        await running


class TestErrors:
    @pytest.mark.parametrize(
        ("raised", "error", "message"),
        [
            (TimeoutError(SECRET), Unavailable, "the partner did not answer within 1 s"),
            (httpx.ReadTimeout(SECRET), Unavailable, "the partner did not answer within 1 s"),
            (httpx.PoolTimeout(SECRET), Unavailable, "the partner did not answer within 1 s"),
            (httpx.ConnectError(SECRET), Unavailable, "the connection to the partner failed (ConnectError)"),
            (httpx.ReadError(SECRET), Unavailable, "the connection to the partner failed (ReadError)"),
            (httpx.DecodingError(SECRET), BadResponse, "example: resolve_id failed with DecodingError"),
            (httpx.InvalidURL(SECRET), BadResponse, "example: resolve_id failed with InvalidURL"),
            (ValueError(SECRET), BadResponse, "example: resolve_id failed with ValueError"),
            (KeyError(SECRET), BadResponse, "example: resolve_id failed with KeyError"),
            (ExceptionGroup(SECRET, [ValueError()]), BadResponse, "example: resolve_id failed with ExceptionGroup"),
            (SystemExit(SECRET), BadResponse, "example: resolve_id failed with SystemExit"),
            (asyncio.CancelledError(SECRET), BadResponse, "example: resolve_id failed with CancelledError"),
            (PluginError("x: resolve_id must return a Resolution, not dict"), BadResponse,
             "x: resolve_id must return a Resolution, not dict"),
            (NotSupported("no such hook"), NotSupported, "no such hook"),
            (UnknownPartnerId("gone"), UnknownPartnerId, "gone"),
            (AuthError("refused"), AuthError, "refused"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )  # fmt: skip
    async def test_everything_leaves_as_a_partner_error(self, raised, error, message, caplog):
        """The text of what was raised is not in it, and what was raised cannot be reached from it."""
        caplog.set_level(logging.DEBUG)

        async def attempt(call):
            try:
                {}[SECRET]
            except LookupError as reason:
                raise raised from reason

        with pytest.raises(PartnerError) as caught:
            await governor(attempts=1).call(attempt, wait_until=SOON, hook="resolve_id")

        assert error is type(caught.value)
        assert message == str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        told = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert SECRET not in told
        assert "in attempt" not in told

    @pytest.mark.parametrize(
        ("status", "error"), [(401, AuthError), (404, RequestRefused), (429, RateLimited), (500, Unavailable)]
    )
    async def test_status_error_of_httpx_means_what_ours_means(self, status, error):
        """A plugin that calls httpx's own `raise_for_status` gets the same treatment."""

        async def attempt(call):
            httpx.Response(status, request=httpx.Request("GET", f"https://x.example.test/{SECRET}")).raise_for_status()

        raised = await outcome(governor(attempts=1), attempt)

        assert error is type(raised)
        assert SECRET not in str(raised)

    async def test_error_after_a_retry_is_clean_too(self, waits):
        async def attempt(call):
            try:
                {}[SECRET]
            except LookupError as reason:
                raise Unavailable("down") from reason

        error = await outcome(governor(), attempt)

        assert error.__cause__ is None
        assert error.__context__ is None
        assert "in attempt" not in "".join(traceback.format_exception(error))

    async def test_unnamed_hook(self):
        assert str(await outcome(governor(), lambda call: 1 / 0)) == "example: the plugin failed with ZeroDivisionError"

    @pytest.mark.parametrize("end", [KeyboardInterrupt, GeneratorExit, type("Exit", (BaseException,), {})])
    async def test_end_of_the_process_is_not_held_up(self, end):
        """What is no `Exception` passes, but for those with which a plugin may end itself."""
        running = governor().call(Attempts(end()), wait_until=SOON)

        with pytest.raises(end):
            running.send(None)


class TestCancellation:
    @pytest.mark.parametrize("begun", [1, 2], ids=["first attempt", "retry"])
    async def test_cancelled_call_counts_for_nothing(self, begun, waits):
        """It ends as cancelled, opens no breaker, and gives its place back."""
        started = asyncio.Event()
        calls = []

        async def attempt(call):
            calls.append(call)
            if len(calls) < begun:
                raise Unavailable("down")
            started.set()
            await asyncio.Event().wait()

        caller = governor(concurrency=1, failures=2, timeout=30)
        running = asyncio.create_task(caller.call(attempt, wait_until=SOON))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert caller.breaker.state == "closed"
        assert await caller.call(Attempts(1), wait_until=time.monotonic()) == 1
        assert begun - 1 == caller.statistics.failures.total()

    async def test_cancellation_that_nobody_asked_for_is_a_failure(self):
        """As of a future of the plugin's own that was cancelled."""

        async def attempt(call):
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        caller = governor(attempts=1, failures=1)

        assert BadResponse is type(await outcome(caller, attempt))
        assert caller.breaker.state == "open"

    async def test_cancelled_call_stays_cancelled_whatever_the_plugin_makes_of_it(self):
        started = asyncio.Event()

        async def attempt(call):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncio.CancelledError(SECRET) from None

        running = asyncio.create_task(governor(timeout=30).call(attempt, wait_until=SOON))
        await started.wait()
        running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_end_by_a_timeout_is_told_as_one_whatever_the_plugin_makes_of_it(self):
        async def attempt(call):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncio.CancelledError from None

        assert Unavailable is type(await outcome(governor(timeout=0.05, attempts=1), attempt))

    async def test_cancelled_wait_gives_its_place_back(self):
        caller = governor(concurrency=1, calls_per_second=1000)
        release = asyncio.Event()
        running = asyncio.create_task(caller.call(lambda call: release.wait(), wait_until=SOON))
        waiting = asyncio.create_task(caller.call(Attempts(1), wait_until=SOON))
        await asyncio.sleep(0.01)
        waiting.cancel()
        release.set()
        await running

        assert await caller.call(Attempts(1), wait_until=time.monotonic() + 1) == 1
        assert waiting.cancelled()


class TestRetry:
    @pytest.mark.parametrize("error", [Unavailable("down"), RateLimited(), httpx.ConnectError("x"), TimeoutError()])
    async def test_transient_error_is_tried_again(self, error, waits):
        attempt = Attempts(error, "answer")

        assert await governor().call(attempt, wait_until=SOON) == "answer"
        assert len(attempt.calls) == 2
        assert 0.02 <= waits[0] <= 0.05

    @pytest.mark.parametrize(
        "error",
        [AuthError("x"), RequestRefused("x"), BadResponse("x"), NotSupported("x"), UnknownPartnerId("x"), ValueError()],
    )
    async def test_other_errors_are_not(self, error, waits):
        attempt = Attempts(error, "answer")

        assert isinstance(await outcome(governor(attempts=5), attempt), PartnerError)
        assert len(attempt.calls) == 1
        assert waits == []

    @pytest.mark.parametrize("attempts", [1, 2, 4])
    async def test_attempts_are_limited(self, attempts, waits):
        attempt = Attempts(Unavailable("down"))

        assert str(await outcome(governor(attempts=attempts), attempt)) == "down"
        assert attempts == len(attempt.calls)

    async def test_last_error_counts(self, waits):
        assert BadResponse is type(await outcome(governor(), Attempts(Unavailable("down"), BadResponse("nonsense"))))

    async def test_each_attempt_has_its_own_deadline(self, clock, waits):
        async def attempt(call):
            deadlines.append(call.deadline)
            clock.now += 0.4
            raise Unavailable("down")

        deadlines = []
        await outcome(governor(timeout=1), attempt)

        assert deadlines == pytest.approx([clock.now + 0.2, clock.now + 0.6])

    async def test_retry_after_is_kept(self, clock, waits):
        attempt = Attempts(RateLimited(retry_after=3.0), "answer")

        assert await governor().call(attempt, wait_until=clock.now + 3) == "answer"
        assert waits == [3.0]

    @pytest.mark.parametrize("retry_after", [3.1, math.inf, math.nan])
    async def test_retry_after_that_is_too_late_ends_the_call(self, retry_after, clock, waits):
        attempt = Attempts(RateLimited(retry_after=retry_after), "answer")

        assert isinstance(await outcome(governor(), attempt, clock.now + 3), RateLimited)
        assert len(attempt.calls) == 1
        assert waits == []

    async def test_every_attempt_costs_budget(self, waits):
        """When none is left for the retry, the failure that was seen is the answer."""
        caller = governor(budget=LocalDailyBudget(3))
        attempt = Attempts(Unavailable("down"))

        errors = [await outcome(caller, attempt) for _ in range(3)]

        assert [Unavailable, Unavailable, NotCalled] == [type(error) for error in errors]
        assert len(attempt.calls) == 3

    async def test_every_attempt_counts_for_the_breaker(self, waits):
        caller = governor(failures=3)

        await outcome(caller, Attempts(Unavailable("down")))
        error = await outcome(caller, Attempts(Unavailable("still down")))

        assert str(error) == "still down"
        assert caller.statistics.calls == 3
        assert caller.breaker.state == "open"

    async def test_place_is_free_between_attempts(self):
        """A partner that asks for patience holds no other call back."""
        caller = governor(concurrency=1)
        patient = asyncio.create_task(
            caller.call(Attempts(RateLimited(retry_after=0.2), "late"), wait_until=time.monotonic() + 5)
        )
        await asyncio.sleep(0.01)

        assert await caller.call(Attempts("now"), wait_until=time.monotonic()) == "now"
        assert await patient == "late"


class TestConcurrency:
    async def test_no_more_than_the_cap_at_once(self):
        caller = governor(concurrency=3)
        running, most = 0, 0

        async def attempt(call):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1

        await asyncio.gather(*(caller.call(attempt, wait_until=time.monotonic() + 5) for _ in range(20)))

        assert most == 3

    async def test_wait_for_a_place_ends_in_time(self):
        caller = governor(concurrency=1)
        release = asyncio.Event()
        running = asyncio.create_task(caller.call(lambda call: release.wait(), wait_until=SOON))
        await asyncio.sleep(0)

        error = await outcome(caller, Attempts(1), time.monotonic() + 0.02)
        release.set()
        await running

        assert NotCalled is type(error)
        assert "limits.concurrency" in str(error)


class TestRate:
    async def test_call_that_would_wait_too_long_fails_at_once(self):
        """The next turn is in two seconds; a quarter of a second is left."""
        caller = governor(calls_per_second=0.5)
        await caller.call(Attempts(1), wait_until=time.monotonic())
        started = time.monotonic()

        error = await outcome(caller, Attempts(1), started + 0.25)

        assert NotCalled is type(error)
        assert "limits.calls_per_second" in str(error)
        assert time.monotonic() - started < 0.1

    async def test_call_waits_for_its_turn(self):
        caller = governor(calls_per_second=10)
        await caller.call(Attempts(1), wait_until=time.monotonic())
        started = time.monotonic()

        assert await caller.call(Attempts(1), wait_until=started + 1) == 1
        assert 0.05 < time.monotonic() - started < 0.5

    async def test_those_who_wait_already_are_reckoned_with(self):
        """At 20 a second, two may go at once and five more within a quarter of a second; the rest know at once."""
        rate = Rate(20)
        refused_after = []

        async def take():
            started = time.monotonic()
            turn = await rate.take(0.26)
            if not turn:
                refused_after.append(time.monotonic() - started)
            return turn

        turns = await asyncio.gather(*(take() for _ in range(20)))

        assert turns == [True] * 7 + [False] * 13
        assert max(refused_after) < 0.1

    async def test_rate_over_time(self):
        """A tenth of a second's calls at once, then the rate."""
        rate = Rate(200)
        started = time.monotonic()

        for _ in range(60):
            assert await rate.take(1)

        assert 0.19 <= time.monotonic() - started < 0.6

    async def test_retry_counts_for_the_rate(self, waits):
        caller = governor(calls_per_second=0.5)
        attempt = Attempts(Unavailable("down"))

        assert Unavailable is type(await outcome(caller, attempt, time.monotonic()))
        assert len(attempt.calls) == 1


class TestDailyBudget:
    async def test_new_day_new_budget(self):
        today = date(2026, 3, 1)
        budget = LocalDailyBudget(2, lambda: today)

        first = [await budget.take() for _ in range(3)]
        today = date(2026, 3, 2)

        assert first == [True, True, False]
        assert await budget.take()

    async def test_days_are_those_of_utc(self):
        assert await LocalDailyBudget(1).take()
        assert not await LocalDailyBudget(0).take()

    async def test_used_up_budget_makes_no_call(self):
        attempt = Attempts(1)

        error = await outcome(governor(budget=LocalDailyBudget(0)), attempt)

        assert NotCalled is type(error)
        assert "limits.calls_per_day" in str(error)
        assert attempt.calls == []

    async def test_what_other_limits_hold_back_costs_no_budget(self, clock):
        budget = LocalDailyBudget(1)
        caller = governor(budget=budget, failures=1)
        caller.breaker._open(5.0)

        await outcome(caller, Attempts(1))

        assert await budget.take()


def fail(breaker, error=None):
    with pytest.raises(PartnerError), breaker.watching():
        raise error or Unavailable("down")


def succeed(breaker):
    with breaker.watching():
        pass


class TestBreaker:
    def test_opens_after_failures_in_a_row(self, clock):
        breaker = Breaker(3, 10)
        fail(breaker)
        fail(breaker)
        succeed(breaker)
        fail(breaker)
        fail(breaker)
        assert breaker.state == "closed"

        fail(breaker)

        assert breaker.state == "open"
        with pytest.raises(NotCalled, match=r"open for 10\.0 s more"):
            breaker.check()

    @pytest.mark.parametrize("error", [RequestRefused("x"), UnknownPartnerId("x"), NotSupported("x"), NotCalled("x")])
    def test_errors_without_effect(self, error, clock):
        """They neither count nor end a row of failures."""
        breaker = Breaker(2, 10)
        fail(breaker)
        fail(breaker, error)
        assert breaker.state == "closed"

        fail(breaker)

        assert breaker.state == "open"

    def test_refused_credential_opens_at_once_and_for_longer(self, clock):
        breaker = Breaker(10, 10)

        fail(breaker, AuthError("refused"))

        clock.now += 59.9
        assert breaker.state == "open"
        clock.now += 0.2
        assert breaker.state == "half-open"

    def test_probe_that_succeeds_closes(self, clock):
        breaker = Breaker(1, 10)
        fail(breaker)
        clock.now += 10

        succeed(breaker)

        assert breaker.state == "closed"

    def test_pause_doubles_up_to_five_minutes(self, clock):
        """And is short again once the partner was back."""
        breaker = Breaker(1, 10)
        pauses = []
        for _ in range(8):
            fail(breaker)
            pauses.append(breaker._open_until - clock.now)
            clock.now = breaker._open_until
        succeed(breaker)
        fail(breaker)

        assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
        assert breaker._open_until - clock.now == 10

    def test_long_pause_is_kept(self, clock):
        """Five minutes are no cap for an operator who asks for more."""
        breaker = Breaker(1, 900)

        fail(breaker)

        assert breaker._open_until - clock.now == 900

    def test_one_probe_at_a_time(self, clock):
        breaker = Breaker(1, 10)
        fail(breaker)
        clock.now += 10

        with breaker.watching(), pytest.raises(NotCalled, match="single call"):
            breaker.check()

        assert breaker.state == "closed"

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), RequestRefused("x"), NotCalled("x")])
    def test_probe_that_tells_nothing_frees_its_place(self, error, clock):
        breaker = Breaker(1, 10)
        fail(breaker)
        clock.now += 10

        with pytest.raises(type(error)), breaker.watching():
            raise error

        assert breaker.state == "half-open"
        breaker.check()

    @pytest.mark.parametrize("error", [None, Unavailable("down"), AuthError("refused")])
    def test_call_from_before_the_opening_has_no_say(self, error, clock):
        """Calls under way when the partner goes down end later, in whatever way."""
        breaker = Breaker(1, 10)

        with contextlib.suppress(PartnerError), breaker.watching():
            fail(breaker)
            clock.now += 5
            if error:
                raise error

        assert breaker.state == "open"
        assert breaker._open_until == 1010.0

    def test_any_order_of_calls(self, clock):
        """While open nobody passes, while half-open one at most, and it is never stuck."""

        @given(st.lists(st.sampled_from(["call", "succeed", "fail", "refuse", "cancel", "wait"]), max_size=60))
        def holds(steps):
            breaker = Breaker(2, 10)
            running = []
            ends = {"fail": Unavailable("x"), "refuse": AuthError("x"), "cancel": asyncio.CancelledError()}
            for step in steps:
                state = breaker.state
                if step == "wait":
                    clock.now += 7
                elif step == "call":
                    call = breaker.watching()
                    try:
                        call.__enter__()
                    except NotCalled:
                        assert state != "closed"
                    else:
                        assert state != "open"
                        running.append((call, state))
                        assert sum(was == "half-open" for _, was in running) <= 1
                elif running:
                    call, _ = running.pop(0)
                    error = ends.get(step)
                    assert not call.__exit__(error and type(error), error, None)
            for call, _ in running:
                call.__exit__(None, None, None)
            clock.now += 1000
            succeed(breaker)
            assert breaker.state == "closed"

        holds()


class TestBreakerAroundCalls:
    async def test_open_breaker_makes_no_call(self, clock):
        caller = governor(failures=2, attempts=1)
        attempt = Attempts(Unavailable("down"))

        errors = [await outcome(caller, attempt) for _ in range(4)]

        assert [Unavailable, Unavailable, NotCalled, NotCalled] == [type(error) for error in errors]
        assert "breaker" in str(errors[-1])

    async def test_open_breaker_lets_nobody_wait_for_a_turn(self):
        """What will not be called takes no turn of the rate."""
        caller = governor(failures=1, attempts=1, calls_per_second=1)
        await outcome(caller, Attempts(Unavailable("down")))
        started = time.monotonic()

        error = await outcome(caller, Attempts(1), started + 5)

        assert "breaker" in str(error)
        assert time.monotonic() - started < 0.5

    async def test_those_who_waited_for_a_place_meet_an_open_breaker(self):
        """A queue does not run into a partner that went down meanwhile."""
        caller = governor(concurrency=1, failures=1, attempts=1)

        async def attempt(call):
            await asyncio.sleep(0.01)
            raise Unavailable("down")

        errors = await asyncio.gather(*(outcome(caller, attempt) for _ in range(10)))

        assert caller.statistics.calls == 1
        assert [Unavailable] + [NotCalled] * 9 == [type(error) for error in errors]

    async def test_half_open_breaker_lets_one_of_many_through(self, clock):
        caller = governor(failures=1, attempts=1)
        await outcome(caller, Attempts(Unavailable("down")))
        clock.now += 10

        async def attempt(call):
            await asyncio.sleep(0.01)
            return "back"

        answers = await asyncio.gather(*(outcome(caller, attempt) for _ in range(10)))

        assert answers[0] == "back"
        assert [NotCalled] * 9 == [type(answer) for answer in answers[1:]]
        assert await caller.call(attempt, wait_until=SOON) == "back"

    async def test_cancelled_probe_lets_the_next_one_try(self, clock):
        caller = governor(failures=1, attempts=1)
        await outcome(caller, Attempts(Unavailable("down")))
        clock.now += 10
        probe = asyncio.create_task(caller.call(lambda call: asyncio.Event().wait(), wait_until=SOON))
        await asyncio.sleep(0)
        probe.cancel()
        await asyncio.wait([probe])

        assert await caller.call(Attempts("back"), wait_until=SOON) == "back"
        assert caller.breaker.state == "closed"
