"""What one event needs, in the order of the events of its device: hits, refreshes, stale answers, consent, opt-out."""

import asyncio
import hashlib
import time

import pytest

from partnerenrich import LinkingKey, Resolution, Unavailable, UnknownPartnerId, hookimpl
from partnerenrich.desk import FEW

DEVICE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"
COPY = f"partnerenrich:browser_attrs:acme:{DEVICE}"
MINUTE, HOUR, DAY = 60, 3600, 86_400
MARKETING = {"consent": ["marketing"], "browser_attribute_allowlist": "name"}
TRUSTED = {"hub": {"browser_identity": "trusted"}}


def page(device=DEVICE, **context):
    return {"type": "page", "anonymousId": device, "context": context}


def identify(email, device=DEVICE, user=None, **context):
    event = {
        "type": "identify",
        "anonymousId": device,
        "traits": {"email": f"{email}@example.test"},
        "context": context,
    }
    return event | ({"userId": user} if user else {})


def granted(event, decision=True):
    return event | {"context": event["context"] | {"consent": {"marketing": decision}}}


async def told(enricher, *events):
    """Outcome, name and step of each event."""
    result = []
    for event in await enricher.enrich(list(events)):
        context = event["context"]
        enrichment = context["enrichment"]["toy"]
        name = context.get("partner_attrs", {}).get("toy", {}).get("name", "").partition("@")[0]
        result.append(" ".join(filter(None, (enrichment["outcome"], name, enrichment.get("step")))))
    return result


async def settle(enricher):
    """Until nothing is under way in the background."""
    for _ in range(2):  # what is looked up, then what is remembered of it
        await asyncio.gather(
            *(t for running in enricher._orgs["acme"].running for t in running.lookup._flights.values())
        )
        await asyncio.gather(*enricher._tasks)
    await enricher._store.flush()


# Order


async def test_an_identify_counts_for_the_later_events_of_its_device_in_the_same_batch(open_enricher, resolver):
    async with open_enricher(toy=resolver()) as enricher:
        assert await told(enricher, page(), identify("ann"), page(), page("other"), identify("bob"), page()) == [
            "skipped",
            "fresh ann",
            "fresh ann",
            "skipped",
            "fresh bob",
            "fresh bob",
        ]
        assert await told(enricher, page()) == ["hit bob"]


async def test_an_identify_counts_for_batches_that_overlap(open_enricher, resolver):
    async with open_enricher(toy=resolver(latency=0.02)) as enricher:
        batches = [[identify("ann")], [page()], [identify("bob"), page()], [page()]]
        assert await asyncio.gather(*(told(enricher, *batch) for batch in batches)) == [
            ["fresh ann"],
            ["fresh ann"],
            ["fresh bob", "fresh bob"],
            ["fresh bob"],
        ]


async def test_an_identify_in_a_batch_that_is_worked_on_in_portions_counts_for_a_small_one_behind_it(
    open_enricher, resolver
):
    async with open_enricher(toy=resolver()) as enricher:
        large = [page(f"d{number}") for number in range(FEW)] + [identify("ann")]
        first, second = await asyncio.gather(told(enricher, *large), told(enricher, page()))
        assert (first[-1], second) == ("fresh ann", ["fresh ann"])


async def test_every_hit_of_a_batch_that_is_worked_on_in_portions_is_counted_once(open_enricher, resolver):
    async with open_enricher(toy=resolver()) as enricher:
        await told(enricher, identify("ann"))
        assert await told(enricher, *[page()] * (2 * FEW)) == ["hit ann"] * (2 * FEW)
        assert enricher.statistics.as_dict()["partners"]["toy"]["outcomes"] == {"fresh": 1, "hit": 2 * FEW}


async def test_a_batch_that_runs_out_of_time_does_not_decide_for_the_next_one(open_enricher, resolver):
    async with open_enricher(toy=resolver(latency=0.15), config={"budget_ms": 100}) as enricher:
        first = asyncio.create_task(told(enricher, identify("ann")))
        await asyncio.sleep(0.08)
        assert await told(enricher, page(), identify("ann")) == ["fresh ann", "fresh ann"]
        assert await first == ["late"]


async def test_what_one_person_was_told_helps_their_other_ids(open_enricher, resolver):
    partner = resolver(LinkingKey("user_id", "user"), LinkingKey("email", "email"))
    partner.answers["u1"] = Resolution.absent()
    async with open_enricher(toy=partner) as enricher:
        user = {"anonymousId": DEVICE, "userId": "u1"}
        assert await told(enricher, user) == ["absent"]
        assert await told(enricher, identify("ann", user="u1")) == ["fresh ann"]
        assert await told(enricher, user, identify("ann")) == ["hit ann", "hit ann"]


async def test_a_chain_of_thousands_of_events_of_one_cold_visitor_is_no_trouble(open_enricher, resolver):
    partner = resolver(LinkingKey("user_id", "user"), LinkingKey("email", "email"), latency=0.01)
    async with open_enricher(toy=partner, config={"budget_ms": 30_000}) as enricher:
        events = [identify("ann", user="u1"), identify("ann"), page()] * 1000
        outcomes = await told(enricher, *events)
        assert {outcome.split()[0] for outcome in outcomes} == {"fresh"} | ({"hit"} & {o.split()[0] for o in outcomes})
        assert len(partner.calls) <= 2


async def test_an_event_without_any_id_passes_as_skipped(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver()) as enricher:
        (event,) = await enricher.enrich([{"type": "page", "anonymousId": True, "x": [1]}])
    assert event == {
        "type": "page",
        "anonymousId": True,
        "x": [1],
        "context": {"enrichment": {"toy": {"outcome": "skipped"}}},
    }
    assert await redis.keys("*") == []


async def test_a_person_without_a_device_is_looked_up_and_remembered_by_link_alone(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver()) as enricher:
        event = {"traits": {"email": "ann@example.test"}}
        assert await told(enricher, event) == ["fresh ann"]
        assert await told(enricher, event) == ["hit ann"]
    assert len(await redis.keys("*")) == 1


async def test_an_event_whose_recipes_fit_none_of_its_ids_is_skipped(open_enricher, resolver):
    partner = resolver(LinkingKey("phone", "phone", "sha1_national_hex"))
    async with open_enricher(toy=partner) as enricher:
        assert await told(enricher, {"anonymousId": DEVICE, "traits": {"phone": "+447700900123"}}) == ["skipped"]
    assert partner.calls == []


async def test_the_links_before_and_after_one_that_cannot_be_sent_are_still_asked_about(open_enricher, resolver):
    partner = resolver(LinkingKey("phone", "phone", "sha1_national_hex"), LinkingKey("email", "email"))
    async with open_enricher(toy=partner) as enricher:
        event = identify("ann")
        event["traits"]["phone"] = "+447700900123"
        assert await told(enricher, event) == ["fresh ann"]


async def test_two_recipes_for_one_source_are_two_links(open_enricher, resolver):
    partner = resolver(LinkingKey("email", "hashed", "sha256"), LinkingKey("email", "plain"))
    partner.answers[hashlib.sha256(b"ann@example.test").hexdigest()] = Resolution.absent()
    async with open_enricher(toy=partner) as enricher:
        assert await told(enricher, identify("ann")) == ["fresh ann"]
        assert await told(enricher, identify("ann")) == ["hit ann"]
    assert len(partner.calls) == 2


# Time


@pytest.mark.parametrize("partner", ["resolver", "fetcher"])
async def test_a_hit_is_served_without_a_call_until_its_last_fifth(open_enricher, grow_old, request, partner):
    partner = request.getfixturevalue(partner)()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        calls = len(partner.calls)
        await grow_old(0.79 * 0.9 * 15 * MINUTE)
        assert await told(enricher, identify("ann"), page()) == ["hit ann", "hit ann"]
        await settle(enricher)
        assert len(partner.calls) == calls


@pytest.mark.parametrize(
    ("partner", "event", "call"),
    [
        ("resolver", identify("ann"), "resolve"),
        ("fetcher", page(), "fetch"),
    ],
)
async def test_the_last_fifth_refreshes_once_in_the_background(open_enricher, grow_old, request, partner, event, call):
    partner = request.getfixturevalue(partner)()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(0.85 * 15 * MINUTE)
        partner.calls.clear()
        partner.latency = 0.02
        assert await told(enricher, *[event] * 20) == ["hit ann"] * 20
        assert await told(enricher, event) == ["hit ann"]
        await settle(enricher)
        assert [kind for kind, _ in partner.calls] == [call]
        await grow_old(10 * MINUTE)
        assert await told(enricher, event) == ["hit ann"], "the new answer is remembered"
        await settle(enricher)
        assert len(partner.calls) == 1


async def test_a_refresh_that_fails_keeps_the_hit_and_is_not_repeated_for_30_seconds(open_enricher, grow_old, fetcher):
    partner = fetcher()
    async with open_enricher(toy=partner, integration={"limits": {"attempts": 1}}) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(0.85 * 15 * MINUTE)
        partner.calls.clear()
        partner.answers["id-ann@example.test"] = Unavailable("down")
        for _ in range(3):
            assert (await told(enricher, page()))[0].startswith("hit ann")
            await settle(enricher)
        assert len(partner.calls) == 1
        await grow_old(31)
        await told(enricher, page())
        await settle(enricher)
        assert len(partner.calls) == 2


@pytest.mark.parametrize(
    ("partner", "event"), [("resolver", identify("ann")), ("fetcher", identify("ann")), ("fetcher", page())]
)
async def test_after_its_time_an_answer_is_asked_for_in_the_foreground(
    open_enricher, grow_old, request, partner, event
):
    partner = request.getfixturevalue(partner)()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(16 * MINUTE)
        assert await told(enricher, event) == ["fresh ann"]
        assert await told(enricher, event, page()) == ["hit ann", "hit ann"]


@pytest.mark.parametrize("event", [identify("ann"), page()], ids=["identify", "page"])
async def test_a_late_lookup_serves_the_old_answer_as_stale_and_then_warms_the_memory(
    open_enricher, grow_old, fetcher, event
):
    partner = fetcher()
    async with open_enricher(toy=partner, config={"budget_ms": 40}) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(16 * MINUTE)
        partner.latency = 0.06
        assert await told(enricher, event) == ["stale ann"]
        await settle(enricher)
        assert await told(enricher, event, page()) == ["hit ann", "hit ann"]


@pytest.mark.parametrize("event", [identify("ann"), page()], ids=["identify", "page"])
async def test_a_failed_lookup_serves_the_old_answer_as_stale_with_one_call_in_30_seconds(
    open_enricher, grow_old, fetcher, event
):
    partner = fetcher()
    async with open_enricher(toy=partner, integration={"limits": {"attempts": 1}}) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(16 * MINUTE)
        partner.calls.clear()
        partner.answers |= dict.fromkeys(["ann@example.test", "id-ann@example.test"], Unavailable("down"))
        for _ in range(3):
            (outcome,) = await told(enricher, event)
            assert outcome.startswith("stale ann")
        assert len(partner.calls) == 1
        await grow_old(31)
        await told(enricher, event)
        assert len(partner.calls) == 2


async def test_a_late_first_lookup_is_late_and_then_a_hit_for_the_whole_device(open_enricher, resolver):
    async with open_enricher(toy=resolver(latency=0.06), config={"budget_ms": 30}) as enricher:
        assert await told(enricher, identify("ann"), page()) == ["late", "late"]
        await settle(enricher)
        assert await told(enricher, page(), identify("ann")) == ["hit ann", "hit ann"]


async def test_stale_ends_after_an_hour(open_enricher, grow_old, fetcher):
    partner = fetcher()
    async with open_enricher(toy=partner, integration={"limits": {"attempts": 1}}) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(76 * MINUTE)
        partner.answers |= dict.fromkeys(["ann@example.test", "id-ann@example.test"], Unavailable("down"))
        assert await told(enricher, page()) == ["error attributes"]
        assert await told(enricher, identify("ann")) == ["error resolve"]


async def test_a_visitor_who_returns_with_a_cookie_alone_is_recognised_for_a_day(open_enricher, grow_old, fetcher):
    partner = fetcher()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(20 * HOUR)
        partner.calls.clear()
        assert await told(enricher, page()) == ["fresh ann"]
        assert partner.calls == [("fetch", "id-ann@example.test")]
        assert await told(enricher, page()) == ["hit ann"]


async def test_a_returning_visitor_whose_partner_fails_costs_one_call_in_30_seconds(open_enricher, grow_old, fetcher):
    partner = fetcher()
    async with open_enricher(toy=partner, integration={"limits": {"attempts": 1}}) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(20 * HOUR)
        partner.calls.clear()
        partner.answers["id-ann@example.test"] = Unavailable("down")
        assert [await told(enricher, page()) for _ in range(3)] == [["error attributes"]] * 3
        assert len(partner.calls) == 1
        partner.answers.clear()
        await grow_old(31)
        assert await told(enricher, page()) == ["fresh ann"]


async def test_the_records_of_a_visitor_live_a_day(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver()) as enricher:
        await told(enricher, identify("ann"))
    visitor, who = (key for key in sorted(await redis.keys("*")) if DEVICE.encode() in key)
    assert DAY - 5 < await redis.ttl(visitor) <= DAY
    assert DAY - 5 < await redis.ttl(who) <= DAY


@pytest.mark.parametrize("event", [identify("ann"), page()], ids=["identify", "page"])
async def test_nothing_serves_past_the_end_that_the_partner_set(open_enricher, grow_old, fetcher, event):
    partner = fetcher()
    async with open_enricher(toy=partner, integration={"limits": {"attempts": 1}}) as enricher:
        partner.answers["ann@example.test"] = Resolution("id-ann@example.test", expires_at=time.time() + 20 * MINUTE)
        await told(enricher, identify("ann"))
        partner.answers |= dict.fromkeys(["ann@example.test", "id-ann@example.test"], Unavailable("down"))
        await grow_old(19 * MINUTE)
        assert (await told(enricher, event))[0].startswith("stale ann")
        await grow_old(1.1 * MINUTE)
        assert (await told(enricher, event))[0].split()[0] in {"error", "skipped"}


# Refusals


@pytest.mark.parametrize(("said", "outcome"), [(Resolution.absent(), "absent"), (Resolution.opted_out(), "opted_out")])
async def test_an_old_answer_never_serves_beside_a_refusal_of_now(open_enricher, grow_old, resolver, said, outcome):
    partner = resolver()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(16 * MINUTE)
        partner.answers["ann@example.test"] = said
        assert await told(enricher, identify("ann"), page()) == [outcome, outcome]
        assert await told(enricher, identify("ann")) == [outcome]
        assert await told(enricher, page()) == ["skipped"]
        assert len(partner.calls) == 2


@pytest.mark.parametrize(("said", "after"), [(Resolution.opted_out(), "skipped"), (Resolution.absent(), "hit ann")])
async def test_an_opt_out_that_a_refresh_finds_clears_the_device_at_once(
    open_enricher, grow_old, resolver, redis, said, after
):
    partner = resolver()
    async with open_enricher(
        toy=partner, integration={"browser_attribute_allowlist": "name"}, config=TRUSTED
    ) as enricher:
        await told(enricher, identify("ann"))
        await grow_old(0.85 * 15 * MINUTE)
        partner.answers["ann@example.test"] = said
        assert await told(enricher, identify("ann")) == ["hit ann"]
        await settle(enricher)
        assert await told(enricher, page()) == [after]
        assert await redis.hexists(COPY, "p:toy") is (after != "skipped")


async def test_unknown_is_asked_again_after_5_minutes_and_opted_out_after_a_day(open_enricher, grow_old, resolver):
    partner = resolver()
    partner.answers |= {"ann@example.test": Resolution.absent(), "bob@example.test": Resolution.opted_out()}
    events = [identify("ann", "a"), identify("bob", "b")]
    async with open_enricher(toy=partner) as enricher:
        for age, calls in [(0, 2), (4 * MINUTE, 2), (2 * MINUTE, 3), (21 * HOUR, 4), (3 * HOUR, 6)]:
            await grow_old(age)
            assert await told(enricher, *events) == ["absent", "opted_out"]
            assert len(partner.calls) == calls


async def test_a_profile_that_the_partner_dropped_is_forgotten(open_enricher, grow_old, fetcher):
    partner = fetcher()
    async with open_enricher(toy=partner) as enricher:
        for age, outcomes in [(0.85 * 15 * MINUTE, ["hit ann", "skipped"]), (16 * MINUTE, ["absent", "skipped"])]:
            partner.answers.clear()
            await told(enricher, identify("ann"))
            await grow_old(age)
            partner.answers["id-ann@example.test"] = UnknownPartnerId("merged")
            seen = await told(enricher, page())
            await settle(enricher)
            assert seen + await told(enricher, page()) == outcomes
            await grow_old(20 * MINUTE)


async def test_a_record_of_other_settings_is_no_hit(open_enricher, resolver):
    partner = resolver()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
    async with open_enricher(toy=partner, integration={"attributes": ["name", "x"]}) as enricher:
        assert await told(enricher, page(), identify("ann")) == ["skipped", "fresh ann"]
    assert len(partner.calls) == 2


# Consent


async def test_without_consent_there_is_no_call(open_enricher, resolver):
    partner = resolver()
    async with open_enricher(toy=partner, integration=MARKETING) as enricher:
        events = [
            identify("ann"),
            granted(identify("ann"), False),
            granted(identify("ann"), "yes"),
            identify("ann", consent=None),
        ]
        assert await told(enricher, *events) == ["denied"] * 4
        assert partner.calls == []
        assert await told(enricher, granted(identify("ann")), page(), granted(page())) == [
            "fresh ann",
            "denied",
            "fresh ann",
        ]


async def test_all_purposes_are_needed(open_enricher, resolver):
    partner = resolver()
    async with open_enricher(toy=partner, integration={"consent": ["marketing", "analytics"]}) as enricher:
        one, both = {"marketing": True}, {"canonical": {"marketing": True, "analytics": True}}
        assert await told(enricher, identify("ann", consent=one), identify("ann", consent=both)) == [
            "denied",
            "fresh ann",
        ]


async def copies(redis):
    visitor = [key for key in await redis.keys(f"*:toy:acme:{DEVICE}") if b"~" not in key]
    return len(visitor), await redis.hexists(COPY, "p:toy")


async def test_a_withdrawal_deletes_the_copies(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), integration=MARKETING, config=TRUSTED) as enricher:
        await told(enricher, granted(identify("ann")))
        assert await copies(redis) == (1, True)
        assert await told(enricher, granted(page(), False)) == ["denied"]
        assert await copies(redis) == (0, False)


@pytest.mark.parametrize("latency", [0.0, 0.01, 0.06])
async def test_a_withdrawal_counts_also_for_a_lookup_that_is_still_under_way(open_enricher, resolver, redis, latency):
    integration, config = MARKETING, TRUSTED | {"budget_ms": 40}
    async with open_enricher(toy=resolver(latency=latency), integration=integration, config=config) as enricher:
        await told(enricher, granted(identify("ann")), granted(page(), False))
        await settle(enricher)
        assert await copies(redis) == (0, False)


async def test_a_withdrawal_counts_also_for_a_lookup_of_a_batch_that_overlaps(open_enricher, resolver, redis):
    config = TRUSTED | {"budget_ms": 40}
    async with open_enricher(toy=resolver(latency=0.06), integration=MARKETING, config=config) as enricher:
        first = asyncio.create_task(told(enricher, granted(identify("ann"))))
        await asyncio.sleep(0.01)
        assert await told(enricher, granted(page(), False)) == ["denied"]
        await first
        await settle(enricher)
        assert await copies(redis) == (0, False)


async def test_a_withdrawal_counts_also_beside_a_hit_of_the_same_batch(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), integration=MARKETING, config=TRUSTED) as enricher:
        await told(enricher, granted(identify("ann", "another-device")))
        assert await told(enricher, granted(identify("ann")), granted(page(), False)) == ["hit ann", "denied"]
        assert await copies(redis) == (0, False)


async def test_an_event_that_says_nothing_of_consent_withdraws_nothing(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), integration=MARKETING, config=TRUSTED) as enricher:
        assert await told(enricher, granted(identify("ann")), page()) == ["fresh ann", "denied"]
        assert await told(enricher, page(), granted(page())) == ["denied", "hit ann"]
        assert await copies(redis) == (1, True)


async def test_consent_that_is_given_again_is_good_again(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(latency=0.01), integration=MARKETING, config=TRUSTED) as enricher:
        events = [granted(identify("ann")), granted(page(), False), granted(identify("ann"))]
        assert await told(enricher, *events) == ["fresh ann", "denied", "fresh ann"]
        assert await copies(redis) == (1, True)


# The browser copy


async def test_a_person_id_from_a_page_feeds_the_browser_copy_only_when_it_is_trusted(open_enricher, resolver, redis):
    integration = {"browser_attribute_allowlist": "name"}
    async with open_enricher(toy=resolver(), integration=integration) as enricher:
        assert await told(enricher, identify("ann"), page()) == ["fresh ann", "fresh ann"]
    assert await redis.hkeys(COPY) == [b"who"]
    async with open_enricher(toy=resolver(), integration=integration, config=TRUSTED) as enricher:
        await told(enricher, identify("bob"))
    assert b"bob@example.test" in await redis.hget(COPY, "p:toy")


async def test_a_new_person_takes_the_copy_before_any_partner_is_asked(open_enricher, resolver, redis):
    partner = resolver()
    integration = {"browser_attribute_allowlist": "name"}
    async with open_enricher(toy=partner, integration=integration, config=TRUSTED | {"budget_ms": 30}) as enricher:
        await told(enricher, identify("ann"))
        before = await redis.hget(COPY, "who")
        partner.latency = 0.06
        assert await told(enricher, identify("bob")) == ["late"]
        assert await redis.hget(COPY, "who") != before
        assert b"ann" in await redis.hget(COPY, "p:toy")
        await settle(enricher)
        assert b"bob" in await redis.hget(COPY, "p:toy")


@pytest.mark.parametrize("device", ["anon-1", "ann@example.test"])
async def test_only_a_device_cookie_has_a_copy(open_enricher, resolver, redis, device):
    integration = {"browser_attribute_allowlist": "name"}
    async with open_enricher(toy=resolver(), integration=integration, config=TRUSTED) as enricher:
        await told(enricher, identify("ann", device))
    assert not [key for key in await redis.keys("*") if b"browser" in key]


async def test_without_an_allowlist_there_is_no_copy(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), config=TRUSTED) as enricher:
        await told(enricher, identify("ann"), page())
    assert not await redis.exists(COPY)


# What partners are told


async def test_a_partner_is_told_of_the_visitor_only_what_this_event_offers(open_enricher, resolver):
    class Curious(resolver):
        @hookimpl
        async def resolve_id(self, link, visitor, call):
            self.calls.append((visitor, call))
            return Resolution.absent()

    partner = Curious(LinkingKey("email", "email", "sha256"), LinkingKey("user_id", "user"))
    async with open_enricher(toy=partner) as enricher:
        context = {"ip": "203.0.113.9", "userAgent": "UA", "page": {"url": "https://shop.example.test/b"}}
        await enricher.enrich([identify("ann", user="u1", **context) | {"messageId": "m-1"}])
    visitor, call = partner.calls[0]
    assert [(link.source, link.key, link.hash) for link in visitor.links] == [
        ("email", "email", "sha256"),
        ("user_id", "user", "none"),
    ]
    assert (visitor.ip, visitor.user_agent, visitor.page_url) == ("203.0.113.9", "UA", "https://shop.example.test/b")
    assert (call.org, call.provider, call.integration, call.event_id) == ("acme", "toy", "toy", "m-1")


async def test_what_a_partner_says_of_a_device_is_said_of_one_person_on_it(open_enricher, resolver):
    """A partner that takes several identifiers at once answers for the device by the person who is there."""

    class Several(resolver):
        @hookimpl
        async def resolve_id(self, link, visitor):
            people = [one.value for one in visitor.links if one.source == "email"]
            self.calls.append((link.source, people))
            return Resolution("id", attributes={"name": people[0]}) if people else Resolution.absent()

    partner = Several(LinkingKey("canonical_id", "device"), LinkingKey("email", "email"))
    async with open_enricher(toy=partner) as enricher:
        assert await told(enricher, identify("ann"), identify("bob"), identify("ann")) == [
            "fresh ann",
            "fresh bob",
            "fresh ann",
        ]
        assert await told(enricher, identify("bob"), page(), identify("ann")) == ["fresh bob", "fresh bob", "fresh ann"]
        assert await told(enricher, page(), identify("ann")) == ["hit ann", "hit ann"]


async def test_a_record_that_is_damaged_is_a_miss(open_enricher, resolver, redis):
    partner = resolver()
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        for key in await redis.keys("*"):
            await redis.set(key, b"\xff{")
        assert await told(enricher, page(), identify("ann")) == ["skipped", "fresh ann"]


# One device, two people, two processes


async def test_whom_the_partner_does_not_know_gets_nothing_of_a_lookup_for_the_person_before(open_enricher, resolver):
    partner = resolver(latency=0.02)
    partner.answers["bob@example.test"] = Resolution.absent()
    async with open_enricher(toy=partner) as enricher:
        assert await told(enricher, identify("ann"), identify("bob"), page()) == ["fresh ann", "absent", "absent"]
        assert await told(enricher, page()) == ["skipped"]


@pytest.mark.parametrize("budget_ms", [5000, 200], ids=["in time", "late"])
async def test_a_log_in_at_another_process_counts_while_a_lookup_for_the_person_before_is_under_way(
    open_enricher, resolver, budget_ms
):
    def latency(value):
        return 0.4 if value.startswith("ann") else 0.0

    config = {"budget_ms": budget_ms}
    partner = resolver(latency=latency)
    async with open_enricher(toy=partner, config=config) as here, open_enricher(toy=partner, config=config) as there:
        first = asyncio.create_task(told(here, identify("ann")))
        await asyncio.sleep(0.05)
        assert await told(there, identify("bob")) == ["fresh bob"]
        assert await told(here, page()) == ["hit bob"]
        await first
        await settle(here)
        assert await told(here, page()) + await told(there, page()) == ["hit bob"] * 2


async def test_an_event_sees_a_log_in_whose_writes_are_still_on_their_way(open_enricher, resolver, monkeypatch):
    async with open_enricher(toy=resolver()) as enricher:
        await told(enricher, identify("ann", "another-device"), identify("bob"))
        send = enricher._store._write

        async def slowly(commands):
            await asyncio.sleep(0.03)
            return await send(commands)

        monkeypatch.setattr(enricher._store, "_write", slowly)
        batches = await asyncio.gather(*(told(enricher, event) for event in (identify("ann"), page(), page())))
        assert batches == [["hit ann"]] * 3
