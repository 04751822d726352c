"""Opt-out and erasure: what was remembered goes everywhere, stays gone, and shows as its own outcome."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partnerenrich import LinkingKey, Resolution, hookimpl
from partnerenrich.browser import Extract
from partnerenrich.configuration import load_mapping
from partnerenrich.enrichment import Enricher
from partnerenrich.erasure import DEVICES, Eraser
from partnerenrich.forgetting import Forgetting, Forgotten
from partnerenrich.identity import Fingerprints
from partnerenrich.store import Store, StoreFailed
from partnerenrich.suppression import EVER

KEY = b"k" * 32
LAPTOP, PHONE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a", "1c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6b"
BY_ANY_ID = (LinkingKey("email", "email"), LinkingKey("user_id", "user"))
TRUSTED = {"hub": {"browser_identity": "trusted"}}
SHOWN = {"browser_attribute_allowlist": "name"}


def page(device=LAPTOP, **fields):
    return {"type": "page", "anonymousId": device, **fields}


def identify(name, device=LAPTOP, **fields):
    return page(device, traits={"email": f"{name}@example.test"}, **fields)


async def told(enricher, *events, provider="toy"):
    """Outcome and name of each event."""
    result = []
    for event in await enricher.enrich(list(events)):
        context = event["context"]
        name = context.get("partner_attrs", {}).get(provider, {}).get("name", "").partition("@")[0]
        result.append(" ".join(filter(None, (context["enrichment"][provider]["outcome"], name))))
    return result


@pytest.fixture(name="forgetting")
def _forgetting(server):
    """Forget by hand, in a process of its own."""

    @asynccontextmanager
    async def forgetting(**config):
        raw = {"org": "acme", "integrations": [{"provider": "toy", **SHOWN}]} | config
        async with Forgetting.open(load_mapping(raw), "acme", store="redis://here", key=KEY) as opened:
            yield opened

    return forgetting


@pytest.fixture(name="forget")
def _forget(forgetting):
    async def forget(source, value, until=EVER, **config):
        async with forgetting(**config) as opened:
            return await opened.forget(source, value, until)

    return forget


@pytest.fixture(name="served")
def _served(redis):
    """What the browser of a device may read, as a hub serves it."""

    async def served(device=LAPTOP, provider="toy"):
        copy = await redis.hgetall(f"partnerenrich:browser_attrs:acme:{device}")
        if f"p:{provider}".encode() not in copy:
            return {}
        extract = msgspec.json.decode(copy[f"p:{provider}".encode()], type=Extract)
        return json.loads(bytes(extract.attributes)) if copy.get(b"who") == extract.stamp.encode() else {}

    return served


@pytest.fixture(name="remembered")
def _remembered(redis):
    """All values in the store, as one text."""

    async def remembered():
        values = []
        for key in await redis.keys("*"):
            kind = await redis.type(key)
            values += [await redis.get(key)] if kind == b"string" else []
            values += (await redis.hgetall(key)).values() if kind == b"hash" else []
        return b"\n".join(values).decode(errors="replace")

    return remembered


# A partner says that somebody opted out


async def test_an_opt_out_deletes_what_all_devices_of_the_person_were_told(
    open_enricher, resolver, served, remembered, grow_old
):
    partner = resolver(*BY_ANY_ID)
    async with open_enricher(toy=partner, config=TRUSTED, integration=SHOWN) as enricher:
        assert await told(enricher, identify("ann"), identify("ann", PHONE)) == ["fresh ann", "fresh ann"]
        assert await served() == await served(PHONE) == {"name": "ann@example.test"}
        partner.answers["ann@example.test"] = Resolution.opted_out()
        await grow_old(1000)

        assert await told(enricher, identify("ann")) == ["opted_out"]

        assert await served() == await served(PHONE) == {}
        assert await told(enricher, page(), page(PHONE)) == ["skipped", "skipped"]
        assert "ann@" not in await remembered()


async def test_an_opt_out_is_seen_by_other_processes_with_their_next_event(open_enricher, resolver, grow_old):
    partner = resolver()
    async with open_enricher(toy=partner) as one, open_enricher(toy=partner) as two:
        assert await told(one, identify("ann")) == ["fresh ann"]
        assert await told(two, identify("ann", PHONE)) == ["hit ann"]
        partner.answers["ann@example.test"] = Resolution.opted_out()
        await grow_old(1000)
        assert await told(one, identify("ann")) == ["opted_out"]
        calls = len(partner.calls)
        assert await told(two, page(PHONE), identify("ann", PHONE), page(PHONE)) == [
            "skipped",
            "opted_out",
            "opted_out",
        ]
        assert len(partner.calls) == calls


async def test_an_opt_out_is_asked_for_again_after_a_day(open_enricher, resolver, grow_old):
    partner = resolver()
    partner.answers["ann@example.test"] = Resolution.opted_out()
    async with open_enricher(toy=partner) as enricher:
        assert await told(enricher, identify("ann"), identify("ann")) == ["opted_out", "opted_out"]
        await grow_old(86_400 * 0.85)
        assert await told(enricher, identify("ann")) == ["opted_out"]
        assert len(partner.calls) == 1
        await grow_old(86_400 * 0.15)
        partner.answers.clear()
        assert await told(enricher, identify("ann")) == ["fresh ann"]


async def test_an_opt_out_deletes_the_profile_under_the_other_ids_of_the_person(
    open_enricher, resolver, remembered, grow_old
):
    partner = resolver(LinkingKey("user_id", "user"), LinkingKey("email", "email"))
    async with open_enricher(toy=partner) as enricher:
        await told(enricher, identify("ann"))
        assert await told(enricher, identify("ann", userId="u-ann")) == ["fresh u-ann"]
        partner.answers |= {"u-ann": Resolution.absent(), "ann@example.test": Resolution.opted_out()}
        await grow_old(10_000)
        assert await told(enricher, identify("ann", userId="u-ann")) == ["opted_out"]
        assert "u-ann" not in await remembered()
        assert "ann@" not in await remembered()


async def test_who_uses_the_device_now_keeps_what_he_was_told(open_enricher, resolver, served, remembered, grow_old):
    partner = resolver()
    async with open_enricher(toy=partner, config=TRUSTED, integration=SHOWN) as enricher:
        assert await told(enricher, identify("ann"), identify("ann", PHONE)) == ["fresh ann", "fresh ann"]
        assert await told(enricher, identify("bob", PHONE)) == ["fresh bob"]
        partner.answers["ann@example.test"] = Resolution.opted_out()
        await grow_old(800)
        await told(enricher, identify("ann"), identify("ann"))
        await asyncio.gather(*enricher._under_way())
        assert await told(enricher, identify("ann")) == ["opted_out"]
        assert await served(PHONE) == {"name": "bob@example.test"}
        assert (await told(enricher, page(PHONE)))[0].endswith(" bob")
        assert "ann@" not in await remembered()


async def test_an_opt_out_at_one_partner_says_nothing_about_another(open_enricher, resolver, grow_old):
    one, two = resolver(), resolver()
    async with open_enricher(one=one, two=two) as enricher:
        await enricher.enrich([identify("ann")])
        one.answers["ann@example.test"] = Resolution.opted_out()
        await grow_old(1000)
        events = [identify("ann"), identify("ann")]
        assert await told(enricher, *events, provider="one") == ["opted_out"] * 2
        assert await told(enricher, *events, provider="two") == ["hit ann"] * 2


async def test_an_opt_out_that_comes_late_is_one_too(open_enricher, resolver, served, grow_old, remembered):
    partner = resolver()
    async with open_enricher(
        toy=partner, config=TRUSTED | {"budget_ms": 100}, integration=SHOWN | {"ttl": {"stale_for": 0}}
    ) as enricher:
        await told(enricher, identify("ann"), identify("ann", PHONE))
        partner.answers["ann@example.test"], partner.latency = Resolution.opted_out(), 0.3
        await grow_old(1000)
        assert await told(enricher, identify("ann")) == ["late"]
        await asyncio.gather(*enricher._under_way())
        assert await served() == await served(PHONE) == {}
        assert "ann@" not in await remembered()


# By hand


async def test_forget_deletes_all_of_all_partners_and_counts_it(open_enricher, resolver, forget, served, remembered):
    async with open_enricher(toy=resolver(*BY_ANY_ID), other=resolver(), config=TRUSTED, integration=SHOWN) as enricher:
        await enricher.enrich([identify("ann", userId="u-ann"), identify("ann", PHONE), identify("bob", "third")])
        await enricher.enrich([page(userId="u-ann")])
        integrations = [{"provider": "toy", **SHOWN}, {"provider": "other", **SHOWN, "enabled": False}]

        forgotten = await forget("email", "Ann@example.test", integrations=integrations)

        assert attrs.asdict(forgotten.erased) == {
            "devices": 2,
            "link_records": 3,
            "visitor_records": 4,
            "browser_copies": 2,
            "also_known_by": {"user_id"},
        }
        assert (forgotten.was_suppressed, forgotten.until) == (False, EVER)
        assert await served() == await served(PHONE) == {}
        assert "ann@" not in await remembered()
        assert "bob@" in await remembered()


async def test_who_is_forgotten_is_asked_for_no_more_and_shows_as_opted_out(open_enricher, resolver, forget, server):
    partner = resolver(*BY_ANY_ID)
    async with open_enricher(toy=partner) as enricher:
        assert await told(enricher, identify("ann"), identify("bob", PHONE)) == ["fresh ann", "fresh bob"]
        await forget("email", "ann@example.test")
        calls = len(partner.calls)
        assert await told(enricher, page(), identify("ann"), identify("ann", PHONE), page(PHONE)) == ["opted_out"] * 4
        assert await told(enricher, {"traits": {"email": "ann@example.test"}}) == ["opted_out"], "without a device"
        assert await told(enricher, identify("ann", userId="u-ann")) == ["opted_out"], "whatever else is known"
        assert await told(enricher, identify("bob", PHONE), page(PHONE)) == ["hit bob", "hit bob"]
        assert len(partner.calls) == calls
        server.connected = False
        assert await told(enricher, identify("ann")) == ["opted_out"], "also while the store is down"
        server.connected = True


async def test_a_device_can_be_forgotten_whoever_uses_it(open_enricher, resolver, forget, served, remembered):
    partner = resolver(LinkingKey("email", "email"), LinkingKey("anonymous_id", "device"))
    async with open_enricher(toy=partner, config=TRUSTED, integration=SHOWN) as enricher:
        assert await told(enricher, page(), identify("ann")) == [f"fresh {LAPTOP}", "fresh ann"]
        forgotten = await forget("canonical_id", LAPTOP)
        assert forgotten.erased.devices == 1
        assert await remembered() == forgotten_device(await remembered())
        assert await told(enricher, page(), identify("ann"), identify("bob")) == ["opted_out"] * 3
        assert await served() == {}
        assert await told(enricher, identify("ann", PHONE)) == ["fresh ann"], "the person was not meant"


def forgotten_device(text):
    assert "ann" not in text
    assert f'"{LAPTOP}"' not in text
    return text


async def test_a_canonical_id_that_is_not_safe_in_a_key_can_be_forgotten(open_enricher, resolver, forget):
    async with open_enricher(toy=resolver()) as enricher:
        assert await told(enricher, identify("ann", "odd id/1")) == ["fresh ann"]
        assert (await forget("canonical_id", "odd id/1")).erased.visitor_records == 1
        assert await told(enricher, page("odd id/1")) == ["opted_out"]


async def test_who_is_taken_off_the_list_is_looked_up_anew(open_enricher, resolver, forgetting, served):
    partner = resolver()
    async with open_enricher(toy=partner, config=TRUSTED, integration=SHOWN) as enricher, forgetting() as by_hand:
        await told(enricher, identify("ann"))
        await by_hand.forget("email", "ann@example.test", EVER)
        assert await told(enricher, identify("ann")) == ["opted_out"]
        assert (await by_hand.lift("email", "ann@example.test")).was_suppressed
        assert await told(enricher, page(), identify("ann"), page()) == ["skipped", "fresh ann", "fresh ann"]
        assert await served() == {"name": "ann@example.test"}
        assert not (await by_hand.lift("email", "ann@example.test")).was_suppressed


async def test_what_is_no_identifier_is_told(forgetting):
    async with forgetting() as by_hand:
        assert await by_hand.forget("email", "nobody", EVER) is None
        assert await by_hand.lift("phone", "nobody") is None


async def test_a_store_that_is_down_is_told(forget, server):
    server.connected = False
    with pytest.raises(StoreFailed):
        await forget("email", "ann@example.test")
    server.connected = True


async def test_the_index_is_bounded_and_ends(server, redis):
    store = Store("redis://here", command_seconds=1)
    eraser = Eraser("acme", ["toy"], Fingerprints.of(KEY, "acme"), store)
    for number in range(DEVICES + 20):
        store.queue(eraser.seen(["f1"], f"device{number:03}", 60))
    await store.flush()
    (key,) = await redis.keys("*")
    assert await redis.zcard(key) == DEVICES
    assert 60 < await redis.ttl(key) <= 60 + 3600
    await store.close()


async def test_a_warm_batch_writes_nothing_and_reads_once(open_enricher, resolver, redis, monkeypatch):
    async with open_enricher(toy=resolver()) as enricher:
        await told(enricher, identify("ann"), page())
        await asyncio.gather(*enricher._under_way())
        before = {key: await redis.dump(key) for key in await redis.keys("*")}
        reads = []
        read = enricher._store.read

        async def listen(keys):
            reads.append(list(keys))
            return await read(keys)

        monkeypatch.setattr(enricher._store, "read", listen)
        assert await told(enricher, identify("ann"), page()) == ["hit ann", "hit ann"]
        assert len(reads) == 1
        assert [key for key in reads[0] if "~suppressed" in key] == reads[0][-1:], "one key of the organisation"
        assert {key: await redis.dump(key) for key in await redis.keys("*")} == before


async def test_an_answer_that_comes_late_does_not_bring_back_who_was_forgotten(
    open_enricher, resolver, forget, served, remembered
):
    partner = resolver(latency=0.2)
    async with open_enricher(toy=partner, config=TRUSTED | {"budget_ms": 60}, integration=SHOWN) as enricher:
        assert await told(enricher, identify("ann")) == ["late"]
        await forget("email", "ann@example.test")
        await asyncio.gather(*enricher._under_way())
        assert await served() == {}
        await enricher._watch.close()
        assert "ann" not in await remembered()


@pytest.mark.parametrize("device", [{}, {"anonymousId": None}], ids=["on a device", "without a device"])
async def test_a_refresh_in_the_background_does_not_bring_back_who_was_forgotten(
    open_enricher, resolver, forget, remembered, grow_old, monkeypatch, device
):
    monkeypatch.setattr("partnerenrich.erasure.PAUSE_SECONDS", 0.05)
    partner = resolver()
    event = identify("ann") | device
    async with open_enricher(toy=partner) as enricher:
        await enricher.enrich([event])
        await asyncio.sleep(0.2)  # nothing is looked after any more
        await grow_old(750)
        partner.latency = 0.2
        assert await told(enricher, event) == ["hit ann"]
        await forget("email", "ann@example.test")
        await asyncio.sleep(0.5)
        assert len(partner.calls) == 2
        assert "ann@" not in await remembered()


async def test_an_event_that_waits_while_its_person_is_forgotten_gets_nothing(open_enricher, resolver, forget, served):
    async with open_enricher(toy=resolver(latency=0.3), config=TRUSTED, integration=SHOWN) as enricher:
        waiting = asyncio.create_task(told(enricher, identify("ann")))
        await asyncio.sleep(0.05)
        await forget("email", "ann@example.test")
        assert await waiting == ["opted_out"]
        assert await served() == {}


async def test_nothing_is_said_of_who_is_forgotten(open_enricher, resolver, forgetting, canaries, grow_old):
    partner = resolver(*BY_ANY_ID)
    partner.answers["pat.canary@example.test"] = Resolution("attribute-canary", attributes={"a": "attribute-canary"})
    event = page(userId="user-canary", traits={"email": "pat.canary@example.test", "phone": "+447700900123"})
    async with open_enricher(toy=partner) as enricher, forgetting() as by_hand:
        await enricher.enrich([event])
        said = [repr(await by_hand.forget("email", "pat.canary@example.test", EVER)), repr(by_hand.suppressed)]
        said += [repr(await by_hand.forget("phone", "+447700900123", EVER))]
        said += [repr(await by_hand.lift("user_id", "user-canary"))]
        (enriched,) = await enricher.enrich([event])
        canaries(*said, enriched["context"])


# Whatever happens in which order


PEOPLE = ("ann", "bob")


@attrs.define(eq=False)
class Sent:
    canonical_id: str
    person: str | None
    with_phone: bool

    def as_event(self):
        if not self.person:
            return page(self.canonical_id)
        event = identify(self.person, self.canonical_id)
        if self.with_phone:
            event["traits"]["phone"] = f"+44770090012{PEOPLE.index(self.person)}"
        return event


EVENTS = st.tuples(st.sampled_from([LAPTOP, PHONE]), st.sampled_from([None, *PEOPLE]), st.booleans())
SENDING = st.tuples(st.just("send"), st.integers(0, 1), st.lists(EVENTS, min_size=1, max_size=3))
STEPS = st.one_of(
    SENDING,
    SENDING,
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.003, 0.02, 0.1, 0.3, 2.0, 750.0, 1000.0])),
    st.tuples(st.just("turns"), st.integers(1, 40)),
    st.tuples(st.just("erase"), st.sampled_from(["ann", "ann", "bob", LAPTOP]), st.booleans()),
)
LATENCIES = st.lists(st.sampled_from([0.0, 0.001, 0.02, 0.2, 0.6, 0.9]), min_size=1, max_size=8)


def partner_class(base, sources):
    class Partner(base):
        """Knows people by e-mail and by phone."""

        def __init__(self, latencies):
            super().__init__(*(LinkingKey(source, source) for source in sources))
            turns = itertools.cycle(latencies)
            self.latency = lambda _: next(turns)

        @hookimpl
        async def resolve_id(self, link):
            person = PEOPLE[int(link.value[-1])] if link.value.startswith("+") else link.value.partition("@")[0]
            return await self.answer(link.value, Resolution(f"id-{person}", attributes={"name": person}))

    return Partner


@attrs.define(eq=False)
class Play:
    """One interleaving. Whom it has `forgotten` never shows again."""

    enrichers: tuple[Enricher, Enricher]
    forget: Callable[..., Awaitable[Forgotten | None]]
    served: Callable[..., Awaitable[dict[str, str]]]
    forgotten: set[str] = attrs.Factory(set)
    running: list[asyncio.Task[None]] = attrs.Factory(list)

    async def steps(self, steps):
        for step, *what in steps:
            await getattr(self, step)(*what)
            await self.look()
        await asyncio.gather(*self.running)
        for seconds in (*[0.1] * 20, 10.0):
            await asyncio.sleep(seconds)
            await self.look()

    async def send(self, process, events):
        self.running.append(asyncio.create_task(self._send(self.enrichers[process], [Sent(*each) for each in events])))

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def turns(self, number):
        for _ in range(number):
            await asyncio.sleep(0)

    async def erase(self, whom, is_awaited):
        self.running.append(asyncio.create_task(self._erase(whom)))
        if is_awaited:
            await self.running[-1]

    async def look(self):
        for device in (LAPTOP, PHONE):
            name = (await self.served(device)).get("name")
            assert name not in self.forgotten
            assert not (name and device in self.forgotten)

    async def _send(self, enricher, events):
        forgotten = frozenset(self.forgotten)
        for event, after in zip(events, await enricher.enrich([event.as_event() for event in events])):
            name = after["context"].get("partner_attrs", {}).get("toy", {}).get("name")
            assert name not in forgotten
            if event.person in forgotten or event.canonical_id in forgotten:
                assert (name, after["context"]["enrichment"]["toy"]["outcome"]) == (None, "opted_out")

    async def _erase(self, whom):
        assert await self.forget(*(("canonical_id", whom) if whom == LAPTOP else ("email", f"{whom}@example.test")))
        self.forgotten.add(whom)
        await self.look()


@pytest.mark.parametrize("sources", [("email",), ("phone", "email")], ids=" then ".join)
def test_who_is_forgotten_is_never_attached_nor_readable_again(
    open_enricher, redis, resolver, forget, served, remembered, leaping_loop, sources
):
    """
    In two processes, whatever is under way.

    Nor is anything left under the id that was forgotten. What is known of the same
    person by another id can be found while the device still belongs to the person.
    """
    partner = partner_class(resolver, sources)
    config = TRUSTED | {"budget_ms": 250}
    integration = SHOWN | {"limits": {"attempts": 1, "failures": 1000}}

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(STEPS, min_size=2, max_size=12), LATENCIES)
    def holds(steps, latencies):
        async def scenario():
            await redis.flushall()
            toy = partner(latencies)
            async with (
                open_enricher(toy=toy, config=config, integration=integration) as one,
                open_enricher(toy=toy, config=config, integration=integration) as two,
            ):
                play = Play((one, two), forget, served)
                await play.steps(steps)
                kept = await remembered()
                assert "phone" in sources or not [name for name in play.forgotten if f'"{name}"' in kept]

        with asyncio.Runner(loop_factory=leaping_loop) as runner:
            runner.run(scenario())

    holds()
