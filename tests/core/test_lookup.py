"""Asking a partner: once for each link however many wait, in order, and with a memory of what went wrong."""

import asyncio
import time
from datetime import date

import msgspec
import pytest

from partnerenrich import (
    AuthError,
    BadResponse,
    Link,
    LinkingKey,
    NotSupported,
    Resolution,
    Unavailable,
    UnknownPartnerId,
    Visitor,
    memory,
)
from partnerenrich.lookup import MAX_ATTRIBUTES_BYTES, Question
from partnerenrich.memory import Verdict, judge, read_answer
from partnerenrich.models import Outcome
from partnerenrich.store import CLAIM, is_claim

LIMITS = {"limits": {"attempts": 1}}


class Desk:
    """A lookup and the questions that are put to it."""

    def __init__(self, enricher, redis):
        (self.running,) = enricher._orgs["acme"].running
        self.lookup, self.store, self.redis = self.running.lookup, enricher._store, redis
        self.version = self.running.integration.version

    def question(self, value, known=None, source="email", stamp="", is_new=True):
        return Question(self.key(value), Link(source, source, value), known, is_new and known is None, stamp)

    def key(self, value):
        return f"{{b1}}:toy:acme:~{value}"

    async def ask(self, *questions, seconds=1.0):
        return await self.lookup.resolve(questions, Visitor(), time.monotonic() + seconds, None)

    async def record(self, value):
        await self.store.flush()
        return read_answer(await self.redis.get(self.key(value)), self.version)


@pytest.fixture(name="desk")
async def _desk(open_enricher, redis):
    opened = []

    async def open_desk(partner, **integration):
        context = open_enricher(toy=partner, integration=LIMITS | integration)
        opened.append(context)
        return Desk(await context.__aenter__(), redis)

    yield open_desk
    for context in opened:
        await context.__aexit__(None, None, None)


def expired(answer):
    """The same answer, past its time but not too old to serve; its resolution has ended, too."""
    now = time.time()
    answer.fresh_until = answer.refresh_at = answer.resolved_until = now - 1
    answer.usable_until = now + 1000
    return answer


async def test_what_the_partner_finds_is_fresh_and_remembered(desk, resolver):
    here = await desk(resolver())
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step, reply.answer.source) == (Outcome.FRESH, "", "email")
    assert reply.latency >= 0
    record = await here.record("pat")
    assert bytes(record.attributes) == b'{"name":"pat"}'
    assert judge(record, time.time()) is Verdict.HIT
    assert 0 < await here.redis.ttl(here.key("pat")) <= 900 + 3600


@pytest.mark.parametrize(
    ("said", "outcome", "seconds"),
    [
        (Resolution.absent(), Outcome.ABSENT, 300),
        (Resolution.invalid(), Outcome.ABSENT, 300),
        (Resolution.opted_out(), Outcome.OPTED_OUT, 86_400),
    ],
)
async def test_what_the_partner_does_not_know_is_remembered_too(desk, resolver, said, outcome, seconds):
    partner = resolver()
    partner.answers["pat"] = said
    here = await desk(partner)
    assert (await here.ask(here.question("pat"))).outcome is outcome
    assert await here.record("pat")
    assert 0.9 * seconds - 2 < await here.redis.ttl(here.key("pat")) <= seconds


async def test_a_thousand_who_ask_at_once_make_one_call(desk, resolver):
    partner = resolver(latency=0.02)
    here = await desk(partner)
    replies = await asyncio.gather(*(here.ask(here.question("pat")) for _ in range(1000)))
    assert {reply.outcome for reply in replies} == {Outcome.FRESH}
    assert len(partner.calls) == 1


async def test_a_link_that_is_part_of_two_searches_is_asked_about_once(desk, resolver):
    partner = resolver(latency=0.02)
    partner.answers["u1"] = Resolution.absent()
    here = await desk(partner)
    user, email = here.question("u1", source="user_id"), here.question("pat")
    replies = await asyncio.gather(here.ask(user, email), here.ask(email), here.ask(user))
    assert replies[0].outcome in {Outcome.FRESH, Outcome.HIT}
    assert [reply.outcome for reply in replies[1:]] == [Outcome.FRESH, Outcome.ABSENT]
    assert sorted(value for _, value in partner.calls) == ["pat", "u1"]


@pytest.mark.parametrize(
    ("first", "outcome", "calls"),
    [
        (Resolution.absent(), Outcome.FRESH, 2),
        (Resolution.invalid(), Outcome.FRESH, 2),
        (Resolution.opted_out(), Outcome.OPTED_OUT, 1),
        (Unavailable("down"), Outcome.ERROR, 1),
        (BadResponse("nonsense"), Outcome.ERROR, 1),
        (NotSupported("no"), Outcome.SKIPPED, 1),
    ],
)
async def test_absent_and_invalid_go_on_to_the_next_link_and_all_else_ends_the_search(
    desk, resolver, first, outcome, calls
):
    partner = resolver()
    partner.answers["u1"] = first
    here = await desk(partner)
    assert (await here.ask(here.question("u1", source="user_id"), here.question("pat"))).outcome is outcome
    assert len(partner.calls) == calls


async def test_a_link_that_is_remembered_as_absent_is_passed_over(desk, resolver):
    partner = resolver()
    here = await desk(partner)
    absent = memory.nothing(here.version, "user_id", "absent", here.running.integration.ttl, time.time())
    reply = await here.ask(here.question("u1", absent, "user_id"), here.question("pat"))
    assert reply.outcome is Outcome.FRESH
    assert partner.calls == [("resolve", "pat")]


async def test_a_failure_is_an_error_that_says_where_and_is_remembered_for_30_seconds(desk, resolver):
    partner = resolver()
    partner.answers["pat"] = Unavailable("down")
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step) == (Outcome.ERROR, "resolve")
    record = await here.record("pat")
    assert judge(record, time.time()) is Verdict.FAILED
    assert 26 < await here.redis.pttl(here.key("pat")) / 1000 <= 30


async def test_a_failure_leaves_what_was_known_as_stale_and_spares_the_partner(desk, resolver):
    partner = resolver()
    here = await desk(partner)
    known = expired((await here.ask(here.question("pat"))).answer)
    partner.answers["pat"] = Unavailable("down")
    reply = await here.ask(here.question("pat", known))
    assert (reply.outcome, reply.step) == (Outcome.STALE, "resolve")
    assert bytes(reply.answer.attributes) == b'{"name":"pat"}'
    assert judge(await here.record("pat"), time.time()) is Verdict.DAMPED


async def test_a_failure_does_not_bring_back_what_the_partner_said_had_ended(desk, resolver):
    partner = resolver()
    here = await desk(partner)
    known = expired((await here.ask(here.question("pat"))).answer)
    known.usable_until = known.expires_at = time.time() - 0.5
    partner.answers["pat"] = Unavailable("down")
    reply = await here.ask(here.question("pat", known))
    assert reply.outcome is Outcome.ERROR
    assert reply.answer.state == "failed"


async def test_an_answer_of_now_replaces_the_old_one_also_when_it_is_absent(desk, resolver):
    partner = resolver()
    here = await desk(partner)
    known = expired((await here.ask(here.question("pat"))).answer)
    partner.answers["pat"] = Resolution.absent()
    assert (await here.ask(here.question("pat", known))).outcome is Outcome.ABSENT
    assert (await here.record("pat")).state == "absent"


# Two steps


async def test_attributes_are_fetched_where_the_resolution_brings_none(desk, fetcher):
    partner = fetcher()
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, bytes(reply.answer.attributes)) == (Outcome.FRESH, b'{"name":"pat"}')
    assert partner.calls == [("resolve", "pat"), ("fetch", "id-pat")]


async def test_a_known_id_whose_attributes_are_due_is_not_resolved_again(desk, fetcher):
    partner = fetcher()
    here = await desk(partner, ttl={"attributes": 60})
    known = (await here.ask(here.question("pat"))).answer
    known.fresh_until = time.time() - 1
    partner.calls.clear()
    assert (await here.ask(here.question("pat", known))).outcome is Outcome.FRESH
    assert partner.calls == [("fetch", "id-pat")]


async def test_an_id_in_the_last_fifth_of_its_time_is_resolved_again(desk, fetcher):
    partner = fetcher()
    here = await desk(partner)
    known = (await here.ask(here.question("pat"))).answer
    known.resolved_until = time.time() + 170
    partner.calls.clear()
    reply = await here.ask(here.question("pat", known))
    assert partner.calls == [("resolve", "pat"), ("fetch", "id-pat")]
    assert reply.answer.resolved_until > time.time() + 800


async def test_an_id_that_the_partner_has_dropped_is_resolved_anew(desk, fetcher):
    partner = fetcher()
    here = await desk(partner)
    known = (await here.ask(here.question("pat"))).answer
    partner.answers |= {"id-pat": UnknownPartnerId("merged"), "pat": Resolution("id-merged")}
    reply = await here.ask(here.question("pat", known))
    assert (reply.outcome, reply.answer.partner_id) == (Outcome.FRESH, b'"id-merged"')


@pytest.mark.parametrize("failure", [Unavailable("down"), BadResponse("nonsense"), UnknownPartnerId("dropped at once")])
async def test_an_id_survives_the_failure_of_its_attributes(desk, fetcher, failure):
    partner = fetcher()
    partner.answers["id-pat"] = failure
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step) == (Outcome.ERROR, "attributes")
    assert (reply.answer.partner_id, reply.answer.attributes) == (b'"id-pat"', b"")
    assert judge(await here.record("pat"), time.time() + 31) is Verdict.EXPIRED


async def test_a_partner_that_has_no_attributes_after_all_gives_its_id(desk, fetcher):
    partner = fetcher()
    partner.answers["id-pat"] = NotSupported("no profiles in this plan")
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step, reply.answer.state) == (Outcome.FRESH, "", "found")
    assert judge(await here.record("pat"), time.time() + 31) is Verdict.HIT


async def test_old_attributes_of_the_same_id_serve_as_stale_while_new_ones_fail(desk, fetcher):
    partner = fetcher()
    here = await desk(partner)
    known = expired((await here.ask(here.question("pat"))).answer)
    partner.answers["id-pat"] = Unavailable("down")
    reply = await here.ask(here.question("pat", known))
    assert (reply.outcome, reply.step, bytes(reply.answer.attributes)) == (
        Outcome.STALE,
        "attributes",
        b'{"name":"pat"}',
    )


async def test_old_attributes_of_another_id_do_not(desk, fetcher):
    partner = fetcher()
    here = await desk(partner)
    known = expired((await here.ask(here.question("pat"))).answer)
    partner.answers |= {"pat": Resolution("id-other"), "id-other": Unavailable("down")}
    reply = await here.ask(here.question("pat", known))
    assert (reply.outcome, reply.answer.attributes) == (Outcome.ERROR, b"")


# Nonsense


@pytest.mark.parametrize(
    "said",
    [
        None,
        "text",
        {},
        Resolution(["no", "text"]),
        Resolution(7),
        Resolution("p", expires_at="tomorrow"),
        Resolution("p", refresh_at="soon"),
        Resolution("\ud800"),
        Resolution("p", expires_at=1.0),
        ValueError("no"),
        KeyError("no"),
        RecursionError(),
    ],
    ids=repr,
)
async def test_nonsense_is_an_error_of_the_partner(desk, resolver, said):
    partner = resolver()
    partner.answers["pat"] = said
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step) == (Outcome.ERROR, "resolve")
    assert len(partner.calls) == 1


@pytest.mark.parametrize(
    "attributes",
    [
        ["no", "mapping"],
        "text",
        7,
        {"a": object()},
        {"a": "x" * MAX_ATTRIBUTES_BYTES},
        {"a": "\ud800"},
        {"a": float("nan")},
        {"a": [{"b": (None, float("-inf"))}]},
    ],
    ids=lambda value: type(value).__name__ + repr(value)[:20],
)
async def test_attributes_that_cannot_be_kept_cost_the_attributes_alone(desk, resolver, attributes):
    partner = resolver()
    partner.answers["pat"] = Resolution("id-pat", attributes=attributes)
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step) == (Outcome.ERROR, "attributes")
    assert (reply.answer.partner_id, reply.answer.attributes) == (b'"id-pat"', b"")


async def test_attributes_that_are_null_are_kept(desk, resolver):
    partner = resolver()
    given = {"a": None, "b": [{"c": 1.5, "d": date(2026, 9, 1)}], "e": "null", "f": msgspec.Raw(b"1.10")}
    partner.answers["pat"] = Resolution("id-pat", attributes=given)
    here = await desk(partner)
    reply = await here.ask(here.question("pat"))
    assert reply.answer.attributes == b'{"a":null,"b":[{"c":1.5,"d":"2026-09-01"}],"e":"null","f":1.10}'


async def test_attributes_of_16_kilobytes_pass(desk, resolver):
    partner = resolver()
    partner.answers["pat"] = Resolution("id-pat", attributes={"a": "x" * (MAX_ATTRIBUTES_BYTES - 8)})
    here = await desk(partner)
    assert (await here.ask(here.question("pat"))).outcome is Outcome.FRESH


async def test_only_the_attributes_that_are_named_are_kept(desk, resolver):
    partner = resolver()
    partner.answers["pat"] = Resolution("id-pat", attributes={"a": 1, "b": "x" * MAX_ATTRIBUTES_BYTES, "c": 3})
    here = await desk(partner, attributes=["c", "a", "missing"])
    assert bytes((await here.ask(here.question("pat"))).answer.attributes) == b'{"a":1,"c":3}'


# Limits


async def test_what_our_own_limits_hold_back_is_limited_and_leaves_no_trace(desk, resolver):
    partner = resolver()
    here = await desk(partner, limits={"attempts": 1, "calls_per_day": 1})
    assert (await here.ask(here.question("pat"))).outcome is Outcome.FRESH
    started = time.perf_counter()
    for _ in range(3):
        assert (await here.ask(here.question("kim"))).outcome is Outcome.LIMITED
        assert await here.record("kim") is None
    assert time.perf_counter() - started < 0.5, "who is held back must not wait for a lease of its own"
    assert len(partner.calls) == 1


async def test_what_is_known_serves_as_stale_when_our_own_limits_hold_the_call_back(desk, resolver):
    partner = resolver()
    here = await desk(partner, limits={"attempts": 1, "calls_per_day": 1})
    known = expired((await here.ask(here.question("pat"))).answer)
    reply = await here.ask(here.question("pat", known))
    assert (reply.outcome, bytes(reply.answer.attributes)) == (Outcome.STALE, b'{"name":"pat"}')


async def test_attributes_that_our_own_limits_hold_back_are_limited_at_that_step(desk, fetcher):
    here = await desk(fetcher(), limits={"attempts": 1, "calls_per_day": 1})
    reply = await here.ask(here.question("pat"))
    assert (reply.outcome, reply.step, reply.answer.partner_id) == (Outcome.LIMITED, "attributes", b'"id-pat"')


async def test_a_refused_credential_opens_the_breaker_at_once(desk, resolver):
    partner = resolver()
    partner.answers["pat"] = AuthError("refused")
    here = await desk(partner)
    assert (await here.ask(here.question("pat"))).outcome is Outcome.ERROR
    assert (await here.ask(here.question("kim"))).outcome is Outcome.LIMITED
    assert len(partner.calls) == 1


async def test_while_the_store_is_down_a_quarter_of_the_usual_calls_may_run_at_once(desk, resolver, monkeypatch):
    partner = resolver(latency=0.02)
    here = await desk(partner, limits={"attempts": 1, "concurrency": 20})
    monkeypatch.setattr(type(here.store), "down", property(lambda _: True))
    replies = await asyncio.gather(*(here.ask(here.question(f"p{n}")) for n in range(50)))
    outcomes = [reply.outcome for reply in replies]
    assert outcomes.count(Outcome.FRESH) == 5
    assert outcomes.count(Outcome.LIMITED) == 45
    assert (await here.ask(here.question("later"))).outcome is Outcome.FRESH


# Another process


@pytest.fixture(name="two_desks")
async def _two_desks(desk):
    async def open_two(partner, **integration):
        return await desk(partner, **integration), await desk(partner, **integration)

    return open_two


async def test_two_processes_make_one_call(two_desks, resolver):
    partner = resolver(latency=0.05)
    here, there = await two_desks(partner)
    replies = await asyncio.gather(*(one.ask(one.question("pat")) for one in (here, there) * 20))
    assert {reply.outcome for reply in replies} <= {Outcome.FRESH, Outcome.HIT}
    assert len(partner.calls) == 1


async def test_two_processes_make_one_call_for_a_link_that_is_unknown(two_desks, resolver):
    partner = resolver(latency=0.05)
    partner.answers["pat"] = Resolution.absent()
    here, there = await two_desks(partner)
    replies = await asyncio.gather(here.ask(here.question("pat")), there.ask(there.question("pat")))
    assert [reply.outcome for reply in replies] == [Outcome.ABSENT] * 2
    assert len(partner.calls) == 1


async def test_what_another_process_has_just_found_out_is_not_asked_again(two_desks, resolver):
    partner = resolver()
    here, there = await two_desks(partner)
    question = there.question("pat")  # read before the other one wrote
    await here.ask(here.question("pat"))
    await here.store.flush()
    assert (await there.ask(question)).outcome is Outcome.HIT
    assert len(partner.calls) == 1


async def test_the_work_of_a_process_that_died_is_taken_over_when_its_lease_ends(desk, resolver):
    partner = resolver()
    here = await desk(partner)
    await here.redis.set(here.question("pat").lease, CLAIM + b"another", px=150)
    started = time.perf_counter()
    assert (await here.ask(here.question("pat"))).outcome is Outcome.FRESH
    assert 0.1 < time.perf_counter() - started < 0.8


async def test_a_lease_lasts_as_long_as_its_call_may_and_ends_with_the_answer(desk, resolver):
    partner = resolver(latency=0.05)
    here = await desk(partner, limits={"attempts": 2, "timeout": 1.5})
    asking = asyncio.create_task(here.ask(here.question("pat")))
    await asyncio.sleep(0.02)
    assert is_claim(await here.redis.get(here.key("pat")))
    assert 3900 < await here.redis.pttl(here.key("pat")) <= 4000
    await asking
    await here.store.flush()
    assert memory.read_answer(await here.redis.get(here.key("pat")), here.version).state == "found"
    assert await here.redis.keys("*~lease") == []


async def test_the_lease_of_a_renewal_stands_beside_the_record(desk, resolver):
    partner = resolver(latency=0.05)
    here = await desk(partner)
    asking = asyncio.create_task(here.ask(here.question("pat", is_new=False)))
    await asyncio.sleep(0.02)
    assert is_claim(await here.redis.get(memory.lease_key(here.key("pat"))))
    await asking
    await here.store.flush()
    assert await here.redis.keys("*~lease") == []


async def test_what_other_settings_left_in_the_place_of_a_record_is_no_claim(desk, resolver):
    partner = resolver()
    here = await desk(partner)
    answer = memory.nothing("another", "email", "absent", here.running.integration.ttl, time.time())
    await here.redis.set(here.key("pat"), memory.pack(answer))
    started = time.perf_counter()
    assert (await here.ask(here.question("pat"))).outcome is Outcome.FRESH
    assert time.perf_counter() - started < 0.5


async def test_who_waits_and_finds_what_other_settings_left_claims_beside_it(desk, resolver):
    partner = resolver(latency=0.05)
    desks = [await desk(partner) for _ in range(3)]
    key = desks[0].key("pat")
    answer = memory.nothing("another", "email", "absent", desks[0].running.integration.ttl, time.time())
    await desks[0].redis.set(key, CLAIM + b"another")
    asking = [asyncio.create_task(one.ask(one.question("pat"), seconds=2)) for one in desks]
    await asyncio.sleep(0.05)
    await desks[0].redis.set(key, memory.pack(answer))
    assert {(await one).outcome for one in asking} <= {Outcome.FRESH, Outcome.HIT}
    assert len(partner.calls) == 1


async def test_a_claim_that_ends_without_an_answer_takes_nobody_elses_away(desk, resolver):
    partner = resolver(latency=0.05)
    partner.answers["pat"] = NotSupported("no")
    here = await desk(partner)
    asking = asyncio.create_task(here.ask(here.question("pat")))
    await asyncio.sleep(0.02)
    answer = memory.nothing(here.version, "email", "opted_out", here.running.integration.ttl, time.time())
    await here.redis.set(here.key("pat"), memory.pack(answer))
    await asking
    assert (await here.record("pat")).state == "opted_out"


async def test_a_reason_that_is_none_is_an_error_and_ends_the_claim(desk, resolver):
    partner = resolver()
    partner.answers["pat"] = Resolution(None, reason=["odd"])
    here = await desk(partner)
    assert (await here.ask(here.question("pat"))).outcome is Outcome.ERROR


async def test_a_claim_that_brings_nothing_leaves_nothing(desk, resolver):
    partner = resolver()
    partner.answers["pat"] = NotSupported("no")
    here = await desk(partner)
    assert (await here.ask(here.question("pat"))).outcome is Outcome.SKIPPED
    await here.store.flush()
    assert await here.redis.keys("*") == []


async def test_a_new_fetch_for_one_person_is_not_shared_with_the_next_person_on_the_device(desk, fetcher):
    partner = fetcher(latency=0.05)
    here = await desk(partner)
    ttl, now = here.running.integration.ttl, time.time()
    key = "{b1}:toy:acme:device"
    pat, kim = (memory.found(here.version, "email", Resolution(f"id-{name}"), b"", ttl, now) for name in ("pat", "kim"))
    pat.stamp, kim.stamp = "s1", "s2"
    until = time.monotonic() + 1
    replies = await asyncio.gather(here.lookup.refetch(key, pat, until), here.lookup.refetch(key, kim, until))
    assert [bytes(reply.answer.attributes) for reply in replies] == [b'{"name":"pat"}', b'{"name":"kim"}']


async def test_a_new_fetch_does_not_take_what_another_process_wrote_for_the_next_person(desk, fetcher):
    partner = fetcher()
    here = await desk(partner)
    ttl, now = here.running.integration.ttl, time.time()
    key = "{b1}:toy:acme:device"
    pat, kim = (memory.found(here.version, "email", Resolution(f"id-{name}"), b"", ttl, now) for name in ("pat", "kim"))
    pat.stamp, kim.stamp, kim.at = "s1", "s2", now + 5
    await here.redis.set(memory.lease_key(f"{key}:s1"), 1, px=100)
    await here.redis.set(key, memory.pack(kim))
    reply = await here.lookup.refetch(key, pat, time.monotonic() + 1)
    assert bytes(reply.answer.attributes) == b'{"name":"pat"}'


# Nothing shows


async def test_nothing_private_is_in_a_log_or_a_repr(desk, resolver, canaries):
    partner = resolver(LinkingKey("email", "email"))
    email = "pat.canary@example.test"
    here = await desk(partner)
    question = here.question(email)
    replies = [await here.ask(question)]
    for said in (
        ValueError(email),
        Resolution("attribute-canary", attributes={"a": object()}),
        Resolution("attribute-canary", attributes={"attribute-canary": email}),
    ):
        partner.answers[email] = said
        replies.append(await here.ask(here.question(email)))
    canaries(repr(replies), repr([reply.answer for reply in replies]))
    assert "canary" not in repr(question.link)
