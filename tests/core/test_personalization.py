"""What a partner says of one visitor in one context, and who may hear it."""

import asyncio
import time

import attrs
import msgspec
import pytest

from partnerenrich import LinkingKey, NotCalled, Partner, Resolution, Unavailable, hookimpl, memory, plugins
from partnerenrich.browser import Extract
from partnerenrich.configuration import bind as bind_configuration
from partnerenrich.configuration import load_mapping
from partnerenrich.identity import Fingerprints
from partnerenrich.memory import Keys, Who
from partnerenrich.models import TTL, Outcome
from partnerenrich.personalization import Personalizer
from partnerenrich.plugins import PluginSource
from partnerenrich.store import Store

DEVICE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"


@attrs.frozen
class Settings:
    pass


class Concierge:
    """A partner that answers with the context."""

    def __init__(self):
        self.calls = []
        self.latency = 0.0
        self.answer = lambda partner_id, context: {"banner": f"{partner_id} at {context}", "hidden": "x"}

    @hookimpl
    def partner(self):
        return Partner(title="Concierge", config=Settings, linking_keys=(LinkingKey("email", "email"),))

    @hookimpl
    async def personalize(self, partner_id, context):
        self.calls.append((partner_id, dict(context)))
        await asyncio.sleep(self.latency)
        return self.answer(partner_id, context)


@pytest.fixture(name="concierge")
def _concierge():
    return Concierge()


@pytest.fixture(name="store")
async def _store(redis):
    store = Store("redis://here", command_seconds=1.0)
    yield store
    await store.close()


@pytest.fixture(name="open_personalizer")
def _open_personalizer(concierge, store, monkeypatch):
    source = PluginSource("concierge", "this test", lambda: concierge)
    monkeypatch.setattr(plugins, "find", lambda plugins_dir=None: {"concierge": [source]})
    opened = []

    def open_personalizer(budget=None, **integration):
        written = {"provider": "concierge", "browser_attribute_allowlist": "banner", **integration}
        bound, _ = bind_configuration(load_mapping({"org": "acme", "integrations": [written]}))
        personalizer = Personalizer(bound["acme"][0], Fingerprints.of(b"k" * 32, "acme"), store, budget)
        opened.append(personalizer)
        return personalizer

    return open_personalizer


@pytest.fixture(name="remember")
def _remember(redis, extracts):
    """Put the visitor record of the device into the store."""

    async def remember(personalizer, stamp="s1", who="s1", expires_at=None, at=None):
        resolution = Resolution("p-1", expires_at=expires_at)
        answer = memory.found(personalizer.integration.version, "email", resolution, b"{}", TTL(), time.time())
        answer.stamp = stamp
        who_key, visitor_key = Keys("acme", ("concierge",)).device(DEVICE)
        await redis.set(who_key, memory.pack(Who(who, {})))
        await redis.set(visitor_key, memory.pack(answer))
        extracts[personalizer] = Extract(stamp, answer.usable_until, msgspec.Raw(b"{}"))

    return remember


@pytest.fixture(name="extracts")
def _extracts():
    """What the browser of the device may read, for each personalizer."""
    return {}


@pytest.fixture(name="ask")
def _ask(extracts):
    nothing = Extract("s1", 0.0, msgspec.Raw(b"{}"))

    def ask(personalizer, context=None, *, seconds=2.0):
        extract = extracts.get(personalizer, nothing)
        return personalizer.ask(DEVICE, extract, context or {}, wait_until=time.monotonic() + seconds)

    return ask


async def test_the_partner_is_asked_and_only_the_allowlist_comes_back(open_personalizer, remember, concierge, ask):
    personalizer = open_personalizer()
    await remember(personalizer)

    said = await ask(personalizer, {"page": "home"})

    assert (said.outcome, said.attributes) == (Outcome.FRESH, b"{\"banner\":\"p-1 at {'page': 'home'}\"}")
    assert "banner" not in repr(said)


@pytest.mark.parametrize(
    ("again", "calls"),
    [({"b": 2, "a": {"y": 1, "x": 0}}, 1), ({"a": {"x": 0, "y": 1}, "b": 3}, 2), ({"a": {"x": 0, "y": 1}}, 2)],
)
async def test_memory_knows_a_context_by_what_it_says(open_personalizer, remember, concierge, store, again, calls, ask):
    """Not by the order in which it says it."""
    personalizer = open_personalizer()
    await remember(personalizer)

    await ask(personalizer, {"a": {"x": 0, "y": 1}, "b": 2})
    await store.flush()
    said = await ask(personalizer, again)

    assert len(concierge.calls) == calls
    assert said.outcome is (Outcome.HIT if calls == 1 else Outcome.FRESH)


async def test_an_answer_is_forgotten_when_its_time_is_up(open_personalizer, remember, concierge, store, ask):
    personalizer = open_personalizer(ttl={"personalize": 0.05})
    await remember(personalizer)
    await ask(personalizer)
    await store.flush()
    await asyncio.sleep(0.1)

    assert (await ask(personalizer)).outcome is Outcome.FRESH


async def test_other_settings_have_another_memory(open_personalizer, remember, store, ask):
    personalizer = open_personalizer()
    await remember(personalizer)
    await ask(personalizer)
    await store.flush()
    other = open_personalizer(browser_attribute_allowlist="hidden")
    await remember(other)

    assert (await ask(other)).attributes == b'{"hidden":"x"}'


@pytest.mark.parametrize("record", [{"stamp": "s1", "who": "s2"}, {"stamp": "", "who": "s1"}])
async def test_what_was_made_for_somebody_else_is_not_used(open_personalizer, remember, concierge, ask, record):
    """The record must be of the person to whom the device belongs."""
    personalizer = open_personalizer()
    await remember(personalizer, **record)

    assert (await ask(personalizer)).outcome is Outcome.SKIPPED
    assert concierge.calls == []


@pytest.mark.parametrize("later", [{"stamp": "s2", "who": "s2"}, {"at": time.time() + 1}])
async def test_a_record_that_the_browser_may_not_read_is_not_used(
    open_personalizer, remember, concierge, ask, extracts, later
):
    """The extract must be made of this very record: a claim that nobody vouches for makes a record alone."""
    personalizer = open_personalizer()
    await remember(personalizer)
    readable = extracts[personalizer]
    await remember(personalizer, **later)
    extracts[personalizer] = readable

    assert (await ask(personalizer)).outcome is Outcome.SKIPPED
    assert concierge.calls == []


async def test_a_device_that_nobody_knows_is_skipped(open_personalizer, concierge, ask):
    assert (await ask(open_personalizer())).outcome is Outcome.SKIPPED
    assert concierge.calls == []


async def test_an_id_that_has_expired_is_not_used(open_personalizer, remember, concierge, ask):
    personalizer = open_personalizer()
    await remember(personalizer, expires_at=time.time() - 1)

    assert (await ask(personalizer)).outcome is Outcome.SKIPPED


async def test_the_same_question_is_asked_once_at_a_time(open_personalizer, remember, concierge, ask):
    personalizer = open_personalizer()
    await remember(personalizer)
    concierge.latency = 0.05

    said = await asyncio.gather(*(ask(personalizer) for _ in range(10)))

    assert {each.outcome for each in said} == {Outcome.FRESH}
    assert len(concierge.calls) == 1


async def test_who_is_late_is_remembered(open_personalizer, remember, concierge, ask):
    personalizer = open_personalizer()
    await remember(personalizer)
    concierge.latency = 0.1

    first = await ask(personalizer, seconds=0.02)
    await asyncio.sleep(0.2)

    assert first.outcome is Outcome.LATE
    assert (await ask(personalizer)).outcome is Outcome.HIT


def failing(error):
    def answer(*_):
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "outcome"), [(Unavailable("down"), Outcome.ERROR), (NotCalled("denied"), Outcome.LIMITED)]
)
async def test_a_failure_gives_nothing_and_is_not_remembered(
    open_personalizer, remember, concierge, error, outcome, ask
):
    personalizer = open_personalizer(limits={"attempts": 1})
    await remember(personalizer)
    usual, concierge.answer = concierge.answer, failing(error)
    assert await ask(personalizer) == attrs.evolve(await ask(personalizer), outcome=outcome)

    concierge.answer = usual

    assert (await ask(personalizer)).outcome is Outcome.FRESH


@pytest.mark.parametrize("odd", [object(), float("nan"), [float("inf")]], ids=["object", "NaN", "infinity"])
async def test_an_answer_that_is_no_json_is_an_error(open_personalizer, remember, concierge, ask, odd):
    """If it is for a browser."""
    personalizer = open_personalizer()
    await remember(personalizer)
    concierge.answer = lambda *_: {"banner": None, "hidden": odd}
    assert (await ask(personalizer, {"page": 1})).attributes == b'{"banner":null}'
    concierge.answer = lambda *_: {"banner": odd}

    assert (await ask(personalizer, {"page": 2})).outcome is Outcome.ERROR


async def test_the_daily_budget_holds(open_personalizer, remember, ask):
    class Spent:
        async def take(self):
            return False

    personalizer = open_personalizer(Spent())
    await remember(personalizer)

    assert (await ask(personalizer)).outcome is Outcome.LIMITED


async def test_no_context_and_no_attribute_is_in_a_key(open_personalizer, remember, redis, store, ask):
    personalizer = open_personalizer()
    await remember(personalizer)
    await ask(personalizer, {"email": "pat@example.test"})
    await store.flush()
    keys = await redis.keys("*")

    assert len(keys) == 3
    assert not any(word in key for key in keys for word in (b"pat", b"email", b"banner"))


async def test_closing_ends_what_is_under_way(open_personalizer, remember, concierge, ask):
    personalizer = open_personalizer()
    await remember(personalizer)
    concierge.latency = 30
    await ask(personalizer, seconds=0.02)

    async with asyncio.timeout(2):
        await personalizer.close()
