"""Links of many visitors in few calls: full, in order, and one that fails harms no other."""

import asyncio
import json
import time

import pytest

from partnerenrich import (
    AuthError,
    BadResponse,
    Limits,
    LinkingKey,
    RequestRefused,
    Resolution,
    Unavailable,
    hookimpl,
)
from partnerenrich.bulk import BYTES_BESIDE
from partnerenrich.desk import FEW
from partnerenrich.store import CLAIM, Store

FULL = {"limits": {"bulk": 10, "attempts": 1}}


def visitor(name, **more):
    return {"anonymousId": f"d-{name}", "traits": {"email": f"{name}@example.test"}, **more}


def visitors(count, start=0):
    return [visitor(f"p{number}") for number in range(start, start + count)]


def told(event):
    return event["context"]["enrichment"]["toy"]["outcome"]


def ids(events):
    return [event["context"].get("vendor_ids", {}).get("toy") for event in events]


def expected(events):
    return [f"id-{event['traits']['email']}" for event in events]


def sizes(partner):
    return sorted(map(len, partner.calls))


# Together


async def test_the_misses_of_a_batch_go_out_in_one_call(open_enricher, bulk):
    partner = bulk()
    events = visitors(100)
    async with open_enricher(toy=partner) as enricher:
        enriched = await enricher.enrich(events)
        assert ids(enriched) == expected(events)
        assert {told(event) for event in enriched} == {"fresh"}
        assert {told(event) for event in await enricher.enrich(events)} == {"hit"}
    assert partner.calls == [[event["traits"]["email"] for event in events]]


@pytest.mark.parametrize("keys", [("email",), ("user_id", "email")])
async def test_the_misses_of_a_batch_that_is_worked_on_in_portions_go_out_in_one_call(open_enricher, bulk, keys):
    partner = bulk(*(LinkingKey(source, source) for source in keys))
    events = [visitor(f"p{number}", userId=f"u{number}") for number in range(FEW + 1)]
    async with open_enricher(toy=partner) as enricher:
        assert {told(event) for event in await enricher.enrich(events)} == {"fresh"}
        assert {told(event) for event in await enricher.enrich(events)} == {"hit"}
    assert sizes(partner) == [FEW + 1]


async def test_batches_that_come_within_a_few_milliseconds_share_a_call(open_enricher, bulk, monkeypatch):
    monkeypatch.setattr("partnerenrich.bulk.GATHER_SECONDS", 0.1)
    partner = bulk()
    async with open_enricher(toy=partner) as enricher:

        async def later(seconds, events):
            await asyncio.sleep(seconds)
            return await enricher.enrich(events)

        batches = await asyncio.gather(*(later(n * 0.005, visitors(5, 5 * n)) for n in range(4)))
    assert [ids(batch) for batch in batches] == [expected(visitors(5, 5 * n)) for n in range(4)]
    assert sizes(partner) == [20]


async def test_batches_that_come_later_do_not_wait_for_each_other(open_enricher, bulk):
    partner = bulk()
    async with open_enricher(toy=partner) as enricher:
        await enricher.enrich(visitors(2))
        await enricher.enrich(visitors(2, 2))
    assert sizes(partner) == [2, 2]


async def test_a_call_has_no_more_links_than_the_partner_takes(open_enricher, bulk):
    partner = bulk()
    events = visitors(95)
    async with open_enricher(toy=partner, integration=FULL) as enricher:
        assert ids(await enricher.enrich(events)) == expected(events)
    assert sizes(partner) == [5] + [10] * 9


async def test_a_call_has_no_more_bytes_than_the_partner_takes(open_enricher, bulk):
    partner = bulk()
    events = visitors(10)
    size = len("p0@example.test") + BYTES_BESIDE
    async with open_enricher(toy=partner, integration={"limits": {"bulk_bytes": 3 * size + 1}}) as enricher:
        assert ids(await enricher.enrich(events)) == expected(events)
    assert sizes(partner) == [1, 3, 3, 3]


async def test_bytes_are_those_of_utf_8(open_enricher, bulk):
    partner = bulk(LinkingKey("user_id", "user"))
    events = [{"userId": "é" * 50 + str(number)} for number in range(4)]
    limits = {"bulk_bytes": 2 * (101 + BYTES_BESIDE)}
    async with open_enricher(toy=partner, integration={"limits": limits}) as enricher:
        await enricher.enrich(events)
    assert sizes(partner) == [2, 2]


async def test_a_link_that_is_longer_than_the_limit_goes_alone(open_enricher, bulk):
    partner = bulk()
    events = visitors(3)
    async with open_enricher(toy=partner, integration={"limits": {"bulk_bytes": 1}}) as enricher:
        assert ids(await enricher.enrich(events)) == expected(events)
    assert sizes(partner) == [1, 1, 1]


async def test_only_so_many_calls_run_at_once(open_enricher, bulk):
    partner = bulk(latency=0.02)
    events = visitors(100)
    limits = {"bulk": 10, "concurrency": 3, "attempts": 1}
    async with open_enricher(toy=partner, integration={"limits": limits}) as enricher:
        assert ids(await enricher.enrich(events)) == expected(events)
    assert len(partner.calls) == 10
    assert partner.most_under_way == 3


async def test_full_calls_do_not_wait_for_the_rest(open_enricher, bulk, monkeypatch):
    monkeypatch.setattr("partnerenrich.bulk.GATHER_SECONDS", 0.3)
    partner = bulk()
    async with open_enricher(toy=partner, integration=FULL) as enricher:
        started = time.perf_counter()
        await enricher.enrich(visitors(30))
        assert time.perf_counter() - started < 0.3


async def test_a_partner_that_has_both_hooks_is_asked_in_bulk(open_enricher, bulk):
    class Both(bulk):
        @hookimpl
        async def resolve_id(self, link):
            raise AssertionError("not in bulk")

    partner = Both()
    async with open_enricher(toy=partner) as enricher:
        assert ids(await enricher.enrich(visitors(3))) == expected(visitors(3))
    assert sizes(partner) == [3]


async def test_a_partner_without_the_bulk_hook_sees_one_call_for_each_link(open_enricher, resolver):
    partner = resolver()
    async with open_enricher(toy=partner) as enricher:
        await enricher.enrich(visitors(3))
    assert sorted(partner.calls) == [("resolve", f"p{n}@example.test") for n in range(3)]


async def test_two_partners_are_asked_apart(open_enricher, bulk):
    one, other = bulk(), bulk()
    async with open_enricher(toy=one, club=other) as enricher:
        await enricher.enrich(visitors(3))
    assert sizes(one) == sizes(other) == [3]


# Once


async def test_a_link_stands_once_in_a_call_however_many_ask(open_enricher, bulk):
    partner = bulk(latency=0.05)
    async with open_enricher(toy=partner) as enricher:
        asking = [asyncio.create_task(enricher.enrich([visitor("pat")] * 10)) for _ in range(10)]
        await asyncio.sleep(0.03)
        asking.append(asyncio.create_task(enricher.enrich([visitor("pat"), visitor("kim")])))
        enriched = [event for batch in asking for event in await batch]
    assert ids(enriched) == ["id-pat@example.test"] * 101 + ["id-kim@example.test"]
    assert sorted(value for call in partner.calls for value in call) == ["kim@example.test", "pat@example.test"]


async def test_two_processes_ask_about_each_link_once(open_enricher, bulk):
    partner = bulk(latency=0.05)
    events = visitors(60)
    async with open_enricher(toy=partner) as here, open_enricher(toy=partner) as there:
        batches = await asyncio.gather(
            *(enricher.enrich(events[start:]) for start in (0, 20, 40) for enricher in (here, there))
        )
    for start, batch in zip((0, 0, 20, 20, 40, 40), batches):
        assert ids(batch) == expected(events[start:])
    assert sorted(value for call in partner.calls for value in call) == sorted(
        event["traits"]["email"] for event in events
    )


async def test_links_that_another_process_has_hold_up_no_others(open_enricher, bulk, redis):
    partner = bulk()
    async with open_enricher(toy=partner) as enricher:
        org = enricher._orgs["acme"]
        key = org.keys.link("toy", org.reader.fingerprint("email", "p0@example.test"))
        await redis.set(key, CLAIM + b"another", px=150)
        events = await enricher.enrich(visitors(3))
    assert ids(events) == expected(visitors(3))
    assert [sorted(call) for call in partner.calls] == [["p1@example.test", "p2@example.test"], ["p0@example.test"]]


async def test_what_another_process_has_just_found_out_is_not_asked_again(open_enricher, bulk, redis, monkeypatch):
    partner = bulk()
    async with open_enricher(toy=partner) as here, open_enricher(toy=partner) as there:
        read, met = Store.read, asyncio.Event()

        async def before_the_other_writes(store, keys):
            records = await read(store, keys)
            if store is there._store:
                await met.wait()
            return records

        monkeypatch.setattr(Store, "read", before_the_other_writes)
        late = asyncio.create_task(there.enrich(visitors(3)))
        await asyncio.sleep(0.01)
        await here.enrich(visitors(2))
        met.set()
        assert [told(event) for event in await late] == ["hit", "hit", "fresh"]
    assert sizes(partner) == [1, 2]
    assert [key for key in await redis.keys("*") if key.endswith(b"~lease")] == []


async def test_leases_end_with_the_answer(open_enricher, bulk, redis):
    partner = bulk()
    partner.answers = {"p1@example.test": Resolution.absent(), "p2@example.test": Unavailable("down")}
    async with open_enricher(toy=partner) as enricher:
        await enricher.enrich(visitors(4))
    assert [key for key in await redis.keys("*") if key.endswith(b"~lease")] == []


# One that is different


async def test_each_link_has_its_own_answer(open_enricher, bulk):
    partner = bulk()
    partner.answers = {
        "p1@example.test": Resolution.absent(),
        "p2@example.test": Resolution.invalid(),
        "p3@example.test": Resolution.opted_out(),
        "p4@example.test": RequestRefused("this one"),
        "p5@example.test": "nonsense",
        "p6@example.test": None,
        "p7@example.test": Resolution("p", expires_at=1.0),
        "p8@example.test": Resolution("id-p8", attributes=["no", "mapping"]),
    }
    async with open_enricher(toy=partner) as enricher:
        enriched = await enricher.enrich(visitors(10))
        outcomes = ["fresh", "absent", "absent", "opted_out", "error", "error", "error", "error", "error", "fresh"]
        assert [told(event) for event in enriched] == outcomes
        assert ids(enriched) == ["id-p0@example.test", *[None] * 7, "id-p8", "id-p9@example.test"]
        again = await enricher.enrich(visitors(10))
        assert [told(event) for event in again] == ["hit", *outcomes[1:9], "hit"]
    assert sizes(partner) == [10]


async def test_an_item_that_failed_says_nothing_of_the_partner(open_enricher, bulk):
    partner = bulk()
    partner.answers = {f"p{n}@example.test": Unavailable("this one") for n in range(30)}
    async with open_enricher(toy=partner, integration={"limits": {"failures": 1}}) as enricher:
        await enricher.enrich(visitors(30))
        assert ids(await enricher.enrich(visitors(1, 50))) == expected(visitors(1, 50))


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: [*a, a[0]], lambda a: [], lambda a: None])
async def test_answers_that_cannot_be_told_apart_are_none(open_enricher, bulk, change):
    class Miscounts(bulk):
        @hookimpl
        async def resolve_ids(self, links):
            return change(await super().resolve_ids(links))

    partner = Miscounts()
    async with open_enricher(toy=partner) as enricher:
        enriched = await enricher.enrich(visitors(3))
        assert enricher.statistics.partners["toy"].calls.failures == {BadResponse.__name__: 1}
    assert [told(event) for event in enriched] == ["error"] * 3
    assert sizes(partner) == [3]


async def test_a_call_that_failed_failed_for_all_and_is_remembered(open_enricher, bulk):
    partner = bulk()
    partner.fails = [Unavailable("down")]
    async with open_enricher(toy=partner) as enricher:
        assert [told(event) for event in await enricher.enrich(visitors(3))] == ["error"] * 3
        assert [told(event) for event in await enricher.enrich(visitors(3))] == ["error"] * 3
    assert len(partner.calls) == 1


async def test_what_is_known_serves_as_stale_when_the_call_fails(open_enricher, bulk, grow_old):
    partner = bulk()
    async with open_enricher(toy=partner) as enricher:
        await enricher.enrich(visitors(2))
        await grow_old(1000)
        partner.fails = [Unavailable("down")]
        enriched = await enricher.enrich(visitors(3))
    assert [told(event) for event in enriched] == ["stale", "stale", "error"]
    assert ids(enriched)[:2] == expected(visitors(2))


# Several linking keys


TWO_KEYS = (LinkingKey("user_id", "user"), LinkingKey("email", "email"))


async def test_the_next_links_of_those_that_are_not_known_go_out_together_too(open_enricher, bulk):
    partner = bulk(*TWO_KEYS)
    partner.answers = {"u1": Resolution.absent(), "u2": Resolution.invalid(), "u3": Resolution.opted_out()}
    partner.answers |= {"u4": Unavailable("this one")}
    events = [visitor(f"p{number}", userId=f"u{number}") for number in range(5)]
    async with open_enricher(toy=partner) as enricher:
        enriched = await enricher.enrich(events)
    assert partner.calls == [[f"u{n}" for n in range(5)], ["p1@example.test", "p2@example.test"]]
    assert [told(event) for event in enriched] == ["fresh", "fresh", "fresh", "opted_out", "error"]
    assert ids(enriched) == ["id-u0", "id-p1@example.test", "id-p2@example.test", None, None]


# Attributes


async def test_profiles_are_fetched_one_by_one_after_ids_that_came_in_bulk(open_enricher, bulk):
    class WithProfiles(bulk):
        @hookimpl
        async def fetch_attributes(self, partner_id):
            if partner_id == "id-p1@example.test":
                raise Unavailable("down")
            return {"name": partner_id}

        def answer_one(self, value):
            return Resolution(f"id-{value}")

    async with open_enricher(toy=WithProfiles()) as enricher:
        enriched = await enricher.enrich(visitors(3))
    assert [told(event) for event in enriched] == ["fresh", "error", "fresh"]
    assert ids(enriched) == expected(visitors(3))
    assert enriched[2]["context"]["partner_attrs"]["toy"] == {"name": "id-p2@example.test"}


async def test_a_known_id_whose_profile_is_due_is_not_resolved_again(open_enricher, bulk, grow_old):
    class WithProfiles(bulk):
        fetched = 0

        @hookimpl
        async def fetch_attributes(self, partner_id):
            self.fetched += 1
            return {"fetched": self.fetched}

        def answer_one(self, value):
            return Resolution(f"id-{value}")

    partner = WithProfiles()
    async with open_enricher(toy=partner, integration={"ttl": {"attributes": 60}}) as enricher:
        await enricher.enrich(visitors(2))
        await grow_old(100)
        assert [told(event) for event in await enricher.enrich(visitors(3))] == ["fresh"] * 3
    assert sizes(partner) == [1, 2]
    assert partner.fetched == 5


# Budget and governor


async def test_events_that_cannot_wait_leave_and_the_call_goes_on(open_enricher, bulk):
    partner = bulk(latency=0.1)
    async with open_enricher(toy=partner, config={"budget_ms": 30}) as enricher:
        assert [told(event) for event in await enricher.enrich(visitors(3))] == ["late"] * 3
        await asyncio.sleep(0.15)
        assert [told(event) for event in await enricher.enrich(visitors(3))] == ["hit"] * 3
        pages = [{"anonymousId": f"d-p{n}"} for n in range(3)]
        assert [told(event) for event in await enricher.enrich(pages)] == ["hit"] * 3
    assert sizes(partner) == [3]


async def test_a_call_counts_once_in_the_daily_budget(open_enricher, bulk):
    partner = bulk()
    async with open_enricher(toy=partner, integration={"limits": {"bulk": 10, "calls_per_day": 2}}) as enricher:
        assert [told(event) for event in await enricher.enrich(visitors(20))] == ["fresh"] * 20
        assert [told(event) for event in await enricher.enrich(visitors(5, 20))] == ["limited"] * 5
        assert enricher.statistics.partners["toy"].calls.calls == 2
    assert sizes(partner) == [10, 10]


async def test_a_call_counts_once_in_the_rate(open_enricher, bulk):
    partner = bulk()
    async with open_enricher(toy=partner, integration={"limits": {"bulk": 10, "calls_per_second": 0.1}}) as enricher:
        outcomes = [told(event) for event in await enricher.enrich(visitors(20))]
    assert sorted(outcomes) == ["fresh"] * 10 + ["limited"] * 10
    assert sizes(partner) == [10]


async def test_a_call_is_tried_again_as_a_whole(open_enricher, bulk):
    partner = bulk(limits=Limits(attempts=2))
    partner.fails = [Unavailable("down")]
    async with open_enricher(toy=partner) as enricher:
        assert ids(await enricher.enrich(visitors(3))) == expected(visitors(3))
    assert sizes(partner) == [3, 3]


async def test_a_refused_credential_opens_the_breaker(open_enricher, bulk):
    partner = bulk()
    partner.fails = [AuthError("refused")]
    async with open_enricher(toy=partner) as enricher:
        assert [told(event) for event in await enricher.enrich(visitors(3))] == ["error"] * 3
        assert [told(event) for event in await enricher.enrich(visitors(3, 3))] == ["limited"] * 3
    assert len(partner.calls) == 1


async def test_the_event_is_named_when_a_call_is_about_one_alone(open_enricher, bulk):
    class Listens(bulk):
        heard = ()

        @hookimpl
        async def resolve_ids(self, links, call):
            self.heard = (*self.heard, call.event_id)
            return await super().resolve_ids(links)

    partner = Listens()
    async with open_enricher(toy=partner) as enricher:
        await enricher.enrich([visitor("pat", messageId="m1")])
        await enricher.enrich([visitor("kim", messageId="m2"), visitor("lee", messageId="m3")])
    assert partner.heard == ("m1", None)


async def test_without_the_store_calls_are_as_full(open_enricher, bulk, server):
    partner = bulk()
    server.connected = False
    async with open_enricher(toy=partner) as enricher:
        assert ids(await enricher.enrich(visitors(20))) == expected(visitors(20))
    assert sizes(partner) == [20]


# The end


async def test_what_is_under_way_and_what_waits_for_company_ends_with_the_enricher(
    open_enricher, bulk, redis, monkeypatch
):
    partner = bulk(latency=10)
    async with open_enricher(toy=partner, config={"budget_ms": 20}, integration={"limits": {"bulk": 3}}) as enricher:
        await enricher.enrich(visitors(3))
        async with asyncio.timeout(10):
            while not partner.under_way:  # noqa: ASYNC110 - the partner has no event
                await asyncio.sleep(0.01)
        monkeypatch.setattr("partnerenrich.bulk.GATHER_SECONDS", 10)
        await enricher.enrich(visitors(2, 3))
    assert partner.under_way == 0
    assert len(partner.calls) == 1
    assert [key for key in await redis.keys("*") if key.endswith(b"~lease")] == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nothing_private_is_in_a_log(open_enricher, bulk, canaries):
    email = "pat.canary@example.test"

    class Chatty(bulk):
        @hookimpl
        async def resolve_ids(self, links):
            raise ValueError(links[0].value)

    async with open_enricher(toy=Chatty()) as enricher:
        (event,) = await enricher.enrich([{"traits": {"email": email}}])
    canaries(json.dumps(event["context"]))
