"""The public Python API: events in, events out, nothing lost and nothing told."""

import asyncio
import copy
import json
import logging
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partnerenrich import AuthError, ConfigError, LinkingKey, Resolution, Unavailable, hookimpl
from partnerenrich.configuration import load_mapping
from partnerenrich.enrichment import Enricher
from partnerenrich.events import EventError

DEVICE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"
KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


def identify(email="ann", device=DEVICE):
    return {"type": "identify", "anonymousId": device, "traits": {"email": f"{email}@example.test"}}


def outcome(event, provider="toy"):
    event = json.loads(event) if isinstance(event, bytes) else event
    return event["context"]["enrichment"][provider]["outcome"]


# What comes in and goes out


async def test_events_come_back_enriched_in_their_form_and_order_and_the_given_ones_stay(open_enricher, resolver):
    async with open_enricher(toy=resolver()) as enricher:
        given = [
            identify(),
            {"n": 1, "context": {"page": {}, "vendor_ids": {"fbp": "1", "toy": "forged"}}},
            identify("bob", "d2"),
        ]
        before = copy.deepcopy(given)
        enriched = await enricher.enrich(given)
        assert given == before
        assert enriched[0] == {
            **given[0],
            "context": {
                "vendor_ids": {"toy": "id-ann@example.test"},
                "partner_attrs": {"toy": {"name": "ann@example.test"}},
                "enrichment": enriched[0]["context"]["enrichment"],
            },
        }
        assert enriched[0]["context"]["enrichment"]["toy"].keys() == {"outcome", "link", "latency_ms", "age_ms"}
        assert enriched[1]["context"]["vendor_ids"] == {"fbp": "1"}
        assert enriched[2]["context"]["vendor_ids"] == {"toy": "id-bob@example.test"}
        lines = [json.dumps(event).encode() for event in given]
        texts = await enricher.enrich(lines)
        assert all(isinstance(text, bytes) and b"\n" not in text for text in texts)
        assert [json.loads(text)["context"].get("vendor_ids") for text in texts] == [
            event["context"].get("vendor_ids") for event in enriched
        ]


async def test_no_events_are_no_work(open_enricher, resolver):
    async with open_enricher(toy=resolver()) as enricher:
        assert await enricher.enrich([]) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is JSON but no object"),
        (b"\xff", "is not UTF-8"),
        ({"a": object()}, "holds a value that JSON does not have"),
        ({"a": "\ud800"}, "holds a value that JSON does not have"),
        ({"a": {("x",): 1}}, "holds a value that JSON does not have"),
    ],
)
async def test_what_is_no_event_is_refused_by_its_position_and_nothing_is_enriched(
    open_enricher, resolver, bad, reason
):
    partner = resolver()
    async with open_enricher(toy=partner) as enricher:
        good = identify() if isinstance(bad, dict) else json.dumps(identify()).encode()
        with pytest.raises(EventError) as caught:
            await enricher.enrich([good, bad, good])
        assert str(caught.value) == f"events[1] {reason}"
        assert caught.value.__cause__ is None
        assert partner.calls == []


async def test_a_dictionary_that_holds_itself_is_refused(open_enricher, resolver):
    loop: dict[str, object] = {}
    loop["self"] = loop
    async with open_enricher(toy=resolver()) as enricher:
        with pytest.raises(EventError, match=r"events\[0\]"):
            await enricher.enrich([loop])


@pytest.mark.parametrize("context", [None, 7, "text", [1]])
async def test_a_context_that_is_no_object_stays_and_the_outcome_is_counted(open_enricher, resolver, context):
    async with open_enricher(toy=resolver()) as enricher:
        event = identify() | {"context": context}
        assert await enricher.enrich([event]) == [event]
        assert enricher.statistics.as_dict()["partners"]["toy"]["outcomes"] == {"fresh": 1}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["context", "traits", "properties", "anonymousId", "userId", "canonical_id", "x"])
CONTEXTS = st.dictionaries(
    st.sampled_from(["consent", "traits", "vendor_ids", "partner_attrs", "enrichment", "page", "ip", "canonical_id"]),
    JSON_VALUES,
    max_size=4,
)


async def test_any_object_comes_back_with_three_keys_of_its_context_changed_at_most(open_enricher, resolver):
    partner = resolver(
        LinkingKey("email", "email"), LinkingKey("user_id", "user"), LinkingKey("canonical_id", "device")
    )
    async with open_enricher(toy=partner, integration={"consent": ["marketing"]}) as enricher:

        async def holds(events):
            for event, after in zip(events, await enricher.enrich(events), strict=True):
                context, changed = event.get("context", {}), after.pop("context", {})
                assert after == {name: value for name, value in event.items() if name != "context"}
                if not isinstance(context, dict):
                    assert changed == context
                    continue
                ours = ("vendor_ids", "partner_attrs", "enrichment")
                assert {n: v for n, v in changed.items() if n not in ours} == {
                    n: v for n, v in context.items() if n not in ours
                }
                assert outcome({"context": changed})

        loop = asyncio.get_running_loop()

        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        @given(
            st.lists(
                st.dictionaries(NAMES, JSON_VALUES, max_size=5) | st.builds(lambda c: {"context": c}, CONTEXTS),
                max_size=3,
            )
        )
        def run(events):
            asyncio.run_coroutine_threadsafe(holds(events), loop).result(10)

        await asyncio.to_thread(run)


# Whose event it is


async def test_organisations_are_kept_apart(open_enricher, resolver, redis):
    partner = resolver()
    orgs = {name: {"integrations": [{"provider": "toy"}]} for name in ("acme", "other")}
    config = {"org": None, "integrations": [], "orgs": orgs, "org_from": "properties.shop"}
    async with open_enricher(toy=partner, config=config) as enricher:
        events = [identify() | {"properties": {"shop": shop}} for shop in ("acme", "other", "acme")]
        assert [outcome(event) for event in await enricher.enrich(events)] == ["fresh"] * 3
        assert len(partner.calls) == 2
        page = {"anonymousId": DEVICE, "properties": {"shop": "other"}}
        assert outcome((await enricher.enrich([page]))[0]) == "hit"
        assert set(enricher.statistics.as_dict()["partners"]) == {"acme/toy", "other/toy"}
    keys = [key.decode() for key in await redis.keys("*")]
    assert len(keys) == 8
    links = [key.rpartition("~")[2] for key in keys if ":~" in key and "~who" not in key and "~seen" not in key]
    assert len(set(links)) == 2, "the same e-mail has another fingerprint in another organisation"


@pytest.mark.parametrize("shop", ["nobody", None, 7, ["acme"], {"acme": 1}, ""])
async def test_an_event_of_no_configured_organisation_is_refused(open_enricher, resolver, shop):
    orgs = {name: {"integrations": [{"provider": "toy"}]} for name in ("acme", "other")}
    config = {"org": None, "integrations": [], "orgs": orgs, "org_from": "shop"}
    async with open_enricher(toy=resolver(), config=config) as enricher:
        with pytest.raises(EventError, match="events\\[0\\] belongs to no configured organisation"):
            await enricher.enrich([identify() | {"shop": shop}])
        with pytest.raises(EventError, match="belongs to no configured organisation"):
            await enricher.enrich([identify()])
        assert outcome((await enricher.enrich([identify()], org="other"))[0]) == "fresh"
        with pytest.raises(EventError, match="belongs to no configured organisation"):
            await enricher.enrich([identify()], org="nobody")


# What it takes to open


async def opened(raw, **given):
    async with Enricher.open(load_mapping({"org": "acme"} | raw), **given):
        pass


@pytest.mark.parametrize(
    ("raw", "given", "field"),
    [
        ({"key": KEY}, {}, "store"),
        ({"key": KEY, "store": "embedded:"}, {}, "store"),
        ({"store": "redis://127.0.0.1:1"}, {}, "key"),
        ({"store": "redis://127.0.0.1:1", "key": "c2hvcnQ="}, {}, "key"),
        ({"store": "redis://127.0.0.1:1", "key": "no base64!"}, {}, "key"),
        ({"key": KEY}, {"store": "http://127.0.0.1"}, "store"),
        ({"key": KEY}, {"store": "redis://:secret-canary@127.0.0.1:port-canary"}, "store"),
        ({"key": KEY}, {"store": "redis+cluster://:secret-canary@127.0.0.1:port-canary"}, "store"),
        ({"store": "redis://127.0.0.1:1"}, {"key": b"short"}, "key"),
    ],
)
async def test_a_missing_or_wrong_store_or_key_is_a_configuration_error_that_names_it(raw, given, field):
    with pytest.raises(ConfigError) as caught:
        await opened(raw, **given)
    assert [problem.where for problem in caught.value.problems] == [field]
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_the_arguments_of_open_replace_what_the_configuration_says():
    await opened({}, store="redis://127.0.0.1:1", key=b"k" * 32)


async def test_a_partner_that_does_not_load_disables_itself_alone(open_enricher, resolver):
    class Broken(resolver):
        @hookimpl
        def partner(self):
            raise RuntimeError("no")

    async with open_enricher(toy=resolver(), broken=Broken()) as enricher:
        (event,) = await enricher.enrich([identify()])
        assert event["context"]["enrichment"].keys() == {"toy"}
        assert enricher.plugins.failures.keys() == {"broken"}


# Partners side by side


async def test_a_slow_or_broken_partner_does_not_hold_back_the_others(open_enricher, resolver):
    partners = {"toy": resolver(), "slow": resolver(latency=0.4), "down": resolver()}
    partners["down"].answers["ann@example.test"] = Unavailable("down")
    async with open_enricher(**partners, config={"budget_ms": 100}) as enricher:
        started = time.perf_counter()
        (event,) = await enricher.enrich([identify()])
        assert time.perf_counter() - started < 0.35
    found = {name: entry["outcome"] for name, entry in event["context"]["enrichment"].items()}
    assert found == {"toy": "fresh", "slow": "late", "down": "error"}
    assert event["context"]["enrichment"]["down"]["step"] == "resolve"
    assert event["context"]["vendor_ids"] == {"toy": "id-ann@example.test"}


@pytest.mark.parametrize(
    "said", [None, "nonsense", Resolution("p", attributes=["no"]), Resolution(7), ZeroDivisionError()], ids=repr
)
async def test_nonsense_of_a_partner_is_an_error_of_its_own(open_enricher, resolver, said):
    partner = resolver()
    partner.answers["ann@example.test"] = said
    async with open_enricher(toy=partner, other=resolver()) as enricher:
        (event,) = await enricher.enrich([identify()])
    assert (outcome(event), outcome(event, "other")) == ("error", "fresh")


async def test_a_partner_that_hangs_costs_an_event_its_budget_and_no_more(open_enricher, resolver):
    partner = resolver(latency=30)
    async with open_enricher(
        toy=partner, config={"budget_ms": 60}, integration={"limits": {"timeout": 0.2, "attempts": 1}}
    ) as enricher:
        started = time.perf_counter()
        assert [outcome(event) for event in await enricher.enrich([identify(), identify()])] == ["late", "late"]
        assert time.perf_counter() - started < 0.5
        await asyncio.sleep(0.25)
        assert [outcome(event) for event in await enricher.enrich([identify()])] == ["error"]


async def test_closing_ends_what_is_under_way(open_enricher, resolver):
    async with open_enricher(
        toy=resolver(latency=30), config={"budget_ms": 20}, integration={"limits": {"timeout": 60}}
    ) as enricher:
        await enricher.enrich([identify()])
        started = time.perf_counter()
    assert time.perf_counter() - started < 1
    assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}


async def test_a_caller_that_gives_up_harms_nobody_else(open_enricher, resolver):
    async with open_enricher(toy=resolver(latency=0.05)) as enricher:
        given_up = asyncio.create_task(enricher.enrich([identify()]))
        other = asyncio.create_task(enricher.enrich([identify(), {"anonymousId": DEVICE}]))
        await asyncio.sleep(0.02)
        given_up.cancel()
        assert [outcome(event) for event in await other] == ["fresh", "fresh"]
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert enricher._devices == {}


async def test_an_event_with_half_a_character_is_enriched_and_stays_as_it_is(open_enricher, resolver):
    line = (
        rb'{"event":"Cut \ud83d","anonymousId":"d","traits":{"email":"ann@example.test","bio":"\uDE00"},"context":{}}'
    )
    async with open_enricher(toy=resolver()) as enricher:
        (after,) = await enricher.enrich([line])
        assert after.startswith(line[:-2])
        assert json.loads(after)["context"]["vendor_ids"] == {"toy": "id-ann@example.test"}
        told = await enricher.explain(enricher.parse(line))
        assert told["found_in_event"] == ["canonical_id", "anonymous_id", "email"]
        assert told["partners"][0]["result"]["outcome"] == "hit"


@pytest.mark.parametrize("source", ["user_id", "anonymous_id", "email", "$traits.loyalty_id"])
async def test_an_identifier_with_half_a_character_is_none(open_enricher, resolver, source):
    """Two that are broken in the same place would be one."""
    partner = resolver(LinkingKey(source, "key"))
    async with open_enricher(toy=partner) as enricher:
        for half in (rb"\ud83d", rb"\ud83e", "\ufffd".encode()):
            line = b'{"anonymousId":"%b","userId":"%b","traits":{"loyalty_id":"%b","email":"%b@example.test"}}'
            (after,) = await enricher.enrich([line.replace(b"%b", half)])
            assert outcome(after) == "skipped"
            assert enricher.visitor_of(enricher.parse(after)) is None
    assert partner.calls == []


@pytest.mark.parametrize("end", [asyncio.CancelledError(), SystemExit(3)], ids=["cancelled", "exit"])
async def test_a_hook_that_ends_as_if_all_were_over_ends_nothing_but_its_own_call(open_enricher, resolver, bulk, end):
    one, many = resolver(), bulk()
    one.answers["ann@example.test"] = end
    many.fails.append(end)
    async with open_enricher(one=one, many=many) as enricher:
        ann, bob = await enricher.enrich([identify("ann"), identify("bob", "d2")])
        assert [outcome(ann, "one"), outcome(bob, "one")] == ["error", "fresh"]
        assert [outcome(ann, "many"), outcome(bob, "many")] == ["error", "error"]


# One cold visitor


async def test_a_thousand_concurrent_events_of_one_cold_visitor_make_one_call(open_enricher, resolver):
    partner = resolver(latency=0.02)
    async with open_enricher(toy=partner) as enricher:
        batches = await asyncio.gather(*(enricher.enrich([identify()] * 10) for _ in range(100)))
        assert {outcome(event) for events in batches for event in events} <= {"fresh", "hit"}
        assert len(partner.calls) == 1


async def test_a_cold_visitor_takes_three_round_trips(open_enricher, resolver, monkeypatch):
    """Its records are read; its person is noted and the question claimed; the answer is written."""
    async with open_enricher(toy=resolver()) as enricher:
        await enricher.enrich([identify("first", "first")])  # the script is known
        trips, client = [], enricher._store._client
        execute_command = client.execute_command

        async def counted(*command, **options):
            trips.append(command[0])
            return await execute_command(*command, **options)

        monkeypatch.setattr(client, "execute_command", counted)
        assert outcome((await enricher.enrich([identify()]))[0]) == "fresh"
        assert trips == ["MGET", "EVALSHA", "EVALSHA"]


async def test_a_remembered_visitor_waits_for_no_write_of_others(open_enricher, resolver, monkeypatch):
    async with open_enricher(toy=resolver()) as enricher:
        await enricher.enrich([identify()])
        write, gate, writes = enricher._store._write, asyncio.Event(), asyncio.Event()

        async def held_back(commands):
            writes.set()
            await gate.wait()
            return await write(commands)

        monkeypatch.setattr(enricher._store, "_write", held_back)
        cold = asyncio.create_task(enricher.enrich([identify("bob", "d2")]))
        await writes.wait()
        warm = asyncio.create_task(enricher.enrich([identify()]))
        waited, _ = await asyncio.wait({warm}, timeout=1)
        gate.set()
        assert waited == {warm}
        assert [outcome((await each)[0]) for each in (warm, cold)] == ["hit", "fresh"]


async def test_an_answered_event_waits_for_no_event_that_came_later(open_enricher, resolver, monkeypatch):
    partner = resolver(latency=0.05)
    async with open_enricher(toy=partner) as enricher:
        first = asyncio.create_task(enricher.enrich([identify()]))
        async with asyncio.timeout(1):
            while not partner.calls:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        read, gate = enricher._store.read, asyncio.Event()

        async def held_back(keys):
            await gate.wait()
            return await read(keys)

        monkeypatch.setattr(enricher._store, "read", held_back)
        later = asyncio.create_task(enricher.enrich([identify("bob", "d2")]))
        waited, _ = await asyncio.wait({first}, timeout=1)
        gate.set()
        assert waited == {first}
        assert [outcome((await each)[0]) for each in (first, later)] == ["fresh", "fresh"]
        await asyncio.sleep(0)
        assert not enricher._devices


async def test_two_processes_make_one_call_for_one_cold_visitor(open_enricher, resolver):
    partner = resolver(latency=0.03)
    async with open_enricher(toy=partner) as one, open_enricher(toy=partner) as two:
        batches = await asyncio.gather(*(enricher.enrich([identify()] * 5) for enricher in (one, two) * 10))
        assert {outcome(event) for events in batches for event in events} <= {"fresh", "hit"}
        assert len(partner.calls) == 1


# Limits


async def test_the_daily_budget_is_shared_by_processes(open_enricher, resolver):
    partner = resolver()
    integration = {"limits": {"calls_per_day": 3, "attempts": 1}}
    async with (
        open_enricher(toy=partner, integration=integration) as one,
        open_enricher(toy=partner, integration=integration) as two,
    ):
        found = [
            outcome((await enricher.enrich([identify(f"p{n}", f"d{n}")]))[0])
            for n, enricher in enumerate((one, two) * 3)
        ]
    assert found == ["fresh"] * 3 + ["limited"] * 3
    assert len(partner.calls) == 3


async def test_a_rate_that_has_no_turn_within_the_budget_is_limited_at_once(open_enricher, resolver):
    partner = resolver()
    integration = {"limits": {"calls_per_second": 2, "attempts": 1}}
    async with open_enricher(toy=partner, integration=integration, config={"budget_ms": 200}) as enricher:
        started = time.perf_counter()
        found = [outcome(event) for event in await enricher.enrich([identify(f"p{n}", f"d{n}") for n in range(10)])]
        assert time.perf_counter() - started < 0.5
    assert sorted(set(found)) == ["fresh", "limited"]
    assert found.count("fresh") == len(partner.calls) <= 2


async def test_a_refused_credential_stops_the_calls_and_the_events_go_on(open_enricher, resolver):
    partner = resolver()
    partner.answers["p0@example.test"] = AuthError("refused")
    async with open_enricher(toy=partner) as enricher:
        found = [outcome((await enricher.enrich([identify(f"p{n}", f"d{n}")]))[0]) for n in range(5)]
        assert found == ["error", "limited", "limited", "limited", "limited"]
        started = time.perf_counter()
        assert outcome((await enricher.enrich([identify("p1", "d1")]))[0]) == "limited"
        assert time.perf_counter() - started < 0.5, "it does not wait for a lease that nobody works under"
    assert len(partner.calls) == 1


# What it says of itself


async def test_the_id_before_is_attached_fresh_and_from_memory_and_never_copied_for_a_browser(
    open_enricher, resolver, redis
):
    partner = resolver()
    partner.answers["pat@example.test"] = Resolution("id-2", previous_id="id-1", attributes={"a": 1})
    config = {"hub": {"browser_identity": "trusted"}}
    integration = {"browser_attribute_allowlist": "a,previous_id"}
    async with open_enricher(toy=partner, config=config, integration=integration) as enricher:
        for event in (identify("pat", DEVICE), identify("pat", DEVICE), {"anonymousId": DEVICE}):
            (enriched,) = await enricher.enrich([event])
            assert enriched["context"]["enrichment"]["toy"]["previous_id"] == "id-1"
        copy = await redis.hgetall(f"partnerenrich:browser_attrs:acme:{DEVICE}")
    assert json.loads(copy[b"p:toy"])[2] == {"a": 1}
    assert b"id-1" not in repr(copy).encode()


async def test_explain_tells_every_decision_and_no_value(open_enricher, resolver, canaries):
    partner = resolver(
        LinkingKey("phone", "phone", "sha1_national_hex"), LinkingKey("email", "email"), LinkingKey("user_id", "user")
    )
    email = "pat.canary@example.test"
    partner.answers[email] = Resolution(
        "attribute-canary", previous_id="attribute-canary", attributes={"a": "attribute-canary"}
    )
    async with open_enricher(toy=partner, integration={"consent": ["marketing"]}) as enricher:
        event = {
            "anonymousId": DEVICE,
            "userId": "user-canary",
            "traits": {"email": email, "phone": "+447700900123"},
            "context": {"consent": {"marketing": True}},
        }
        told = await enricher.explain(enricher.parse(json.dumps(event).encode()))
        assert told["found_in_event"] == ["canonical_id", "anonymous_id", "user_id", "email", "phone"]
        assert told["person"] == "the first person seen on this device"
        (entry,) = told["partners"]
        assert entry["consent"] == {"marketing": True}
        assert [(link["source"], link["usable"], link["remembered"]) for link in entry["links"]] == [
            ("phone", True, "miss"),
            ("email", True, "miss"),
            ("user_id", True, "miss"),
        ]
        assert (entry["result"]["outcome"], entry["result"]["link"]) == ("fresh", "email")
        again = await enricher.explain(enricher.parse(json.dumps(event).encode()))
        assert again["person"] == "the same person as before"
        assert [link["remembered"] for link in again["partners"][0]["links"]] == ["miss", "hit", "miss"]
        assert again["partners"][0]["visitor_record_is_of_this_person"] is True
        other = {"anonymousId": DEVICE, "traits": {"email": "bob@example.test"}}
        stranger = await enricher.explain(enricher.parse(json.dumps(other).encode()))
        assert stranger["person"] == "another person than before: nothing of the person before is used"
        assert stranger["partners"][0]["result"]["outcome"] == "denied"
        canaries(json.dumps([told, again, stranger]))


async def test_nothing_private_is_in_a_key_a_log_a_repr_or_the_statistics(
    open_enricher, resolver, fetcher, redis, canaries
):
    logging.getLogger().setLevel(logging.DEBUG)
    email = "pat.canary@example.test"
    partners = {
        "toy": resolver(LinkingKey("email", "email"), LinkingKey("user_id", "user")),
        "other": fetcher(LinkingKey("user_id", "u")),
    }
    partners["toy"].answers[email] = Resolution("attribute-canary", attributes={"a": "attribute-canary"})
    partners["other"].answers |= {"user-canary": Resolution("user-canary"), "user-canary ": ValueError(email)}
    config = {"hub": {"browser_identity": "trusted"}}
    async with open_enricher(**partners, config=config, integration={"browser_attribute_allowlist": "a"}) as enricher:
        events = [
            {
                "anonymousId": device,
                "userId": user,
                "traits": {"email": email, "phone": "07700900123"},
                "context": {"ip": "203.0.113.9"},
            }
            for device in (DEVICE, email, "+447700900123", None)
            for user in ("user-canary", email)
        ]
        for _ in range(2):
            lines = await enricher.enrich([json.dumps(event).encode() for event in events])
        assert {outcome(line) for line in lines} == {"hit"}
        batch_repr = [
            repr(vars(device) if hasattr(device, "__dict__") else device) for device in enricher._devices.values()
        ]
        canaries(repr(enricher.statistics), enricher.statistics.as_dict(), repr(enricher.integrations), *batch_repr)
        canaries(*(key.decode() for key in await redis.keys("*")))


async def test_the_statistics_count_events_outcomes_and_calls(open_enricher, resolver):
    partner = resolver()
    partner.answers["bob@example.test"] = Unavailable("down")
    async with open_enricher(toy=partner, integration={"limits": {"attempts": 1}}) as enricher:
        await enricher.enrich([identify(), identify("bob", "d2"), {"x": 1}])
        await enricher.enrich([identify()])
        numbers = enricher.statistics.as_dict()
    assert numbers["events"] == 4
    assert numbers["partners"]["toy"]["outcomes"] == {"error": 1, "fresh": 1, "hit": 1, "skipped": 1}
    assert numbers["partners"]["toy"]["calls"] == 2
    assert numbers["partners"]["toy"]["call_failures"] == {"Unavailable": 1}


async def test_check_tells_what_each_partner_says_of_its_settings(open_enricher, resolver):
    class Fine(resolver):
        @hookimpl
        async def check(self):
            return None

    class Refused(resolver):
        @hookimpl
        async def check(self):
            raise AuthError("the key is refused; make a new one")

    async with open_enricher(fine=Fine(), refused=Refused()) as enricher:
        fine, refused = await enricher.check()
    assert (fine.integration, fine.ok) == ("fine", True)
    assert (refused.integration, refused.ok, refused.message) == (
        "refused",
        False,
        "the key is refused; make a new one",
    )
