"""``POST /v1/personalize``: what a partner says of the visitor in the context of a page."""

import asyncio
import sys

import pytest

from partnerenrich import RateLimited, Resolution, Unavailable, UnknownPartnerId

PAT, SAM = "pat@example.test", "sam@example.test"


def personalize(browser, context=None, provider="toy"):
    return browser.call("POST", "/v1/personalize", body={"provider": provider, "context": context or {}})


def contextual(toy):
    return [call[1:] for call in toy.calls if call[0] == "personalize"]


@pytest.fixture(name="known")
async def _known(browser, toy):
    """A browser whose visitor the partner knows."""
    toy.answers[PAT] = Resolution("id-pat", attributes={"Tier": 3})
    toy.answers["personalize"] = lambda context: {"Banner": f"for {context.get('page')}", "Hidden": 1}
    await browser.identify(PAT)
    return browser


async def test_the_partner_is_asked_about_this_visitor_in_this_context(known, toy):
    answer = await personalize(known, {"page": "home"})

    assert (answer.status_code, answer.json()) == (200, {"toy": {"Banner": "for home"}})
    assert contextual(toy) == [("id-pat", {"page": "home"})]
    assert answer.headers["cache-control"] == "no-store"


async def test_an_answer_is_remembered_for_the_same_context(known, toy):
    await personalize(known, {"page": "home", "slot": 1})
    again = await personalize(known, {"slot": 1, "page": "home"})
    other = await personalize(known, {"page": "basket", "slot": 1})

    assert again.json() == {"toy": {"Banner": "for home"}}
    assert other.json() == {"toy": {"Banner": "for basket"}}
    assert len(contextual(toy)) == 2


@pytest.fixture(name="remembered")
def _remembered(redis, known):
    """The keys of the answers about the known visitor."""

    async def remembered():
        device = known.cookies["_dfdid"].encode()
        return [key async for key in redis.scan_iter("*:~*") if b"toy" in key and device in key]

    return remembered


async def test_for_two_minutes(known, redis, remembered, until):
    await personalize(known, {"page": "home"})
    await until(remembered)
    [key] = await remembered()

    assert 100_000 < await redis.pttl(key) <= 120_000
    assert b"home" not in key


async def test_at_once_the_partner_is_asked_only_once(known, toy, redis, until):
    toy.go.clear()
    asked = [asyncio.ensure_future(personalize(known, {"page": "home"})) for _ in range(5)]

    async def have_come():
        return [await redis.get(key) async for key in redis.scan_iter("*:personalize")] == [b"5"]

    await until(have_come)
    await asyncio.sleep(0.1)  # they look into the store
    toy.go.set()
    answers = await asyncio.gather(*asked)

    assert {answer.text for answer in answers} == {'{"toy":{"Banner":"for home"}}'}
    assert len(contextual(toy)) == 1


async def test_a_visitor_whom_nobody_knows_gets_nothing(browser, toy):
    await browser.event()

    assert (await personalize(browser)).json() == {}
    assert (await personalize(browser, {"page": "home"})).json() == {}
    assert contextual(toy) == []


async def test_the_next_person_gets_nothing_of_the_one_before(known, toy):
    await personalize(known, {"page": "home"})
    toy.answers[SAM] = Resolution.absent()
    await known.identify(SAM)

    assert (await personalize(known, {"page": "home"})).json() == {}


async def test_after_a_log_out_there_is_nothing(known):
    await known.call("POST", "/v1/reset", body="")

    assert (await personalize(known, {"page": "home"})).json() == {}


async def test_a_partner_without_the_hook_is_not_implemented(known):
    answer = await personalize(known, provider="plain")

    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_supported")


async def test_an_unknown_provider_is_not_found(known):
    answer = await personalize(known, provider="nobody")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_provider")


async def test_the_limit_of_a_visitor_holds_apart_from_that_of_profiles(known):
    statuses = [(await personalize(known)).status_code for _ in range(11)]

    assert statuses == [200] * 10 + [429]
    assert (await known.enrich()).status_code == 200


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Unavailable("down"), "error"),
        (RateLimited(retry_after=60), "error"),
        (RuntimeError("a bug"), "error"),
        (UnknownPartnerId("merged"), "absent"),
        ("no mapping", "error"),
        ({"Banner": object()}, "error"),
        ({"Banner": "x" * 20_000}, "error"),
    ],
)
async def test_a_partner_that_fails_costs_only_its_attributes(known, toy, hub, failure, outcome):
    toy.answers["personalize"] = failure

    answer = await personalize(known)

    assert (answer.status_code, answer.json()) == (200, {})
    name = f'partnerenrich_personalized_total{{integration="toy",org="acme",outcome="{outcome}"}}'
    assert (await hub.metrics())[name] == 1


async def test_a_late_answer_is_there_the_next_time(
    known, toy, raw, store, open_running_hub, remembered, until, monkeypatch
):
    monkeypatch.setattr("partnerenrich_server.hub.app.LONGEST_WAIT_MS", 100)
    async with open_running_hub({**raw, "budget_ms": 20_000}, store) as hurried:
        visitor = hurried.browser(cookies=known.cookies)
        module = sys.modules["partnerenrich_file_toy"]
        module.answers |= toy.answers
        module.go.clear()
        first = await personalize(visitor, {"page": "home"})
        module.go.set()
        await until(remembered)
    second = await personalize(known, {"page": "home"})

    assert (first.json(), second.json()) == ({}, {"toy": {"Banner": "for home"}})
    assert contextual(toy) == []


class TestTrust:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["hub"]["browser_identity"] = "signed"
        return raw

    async def test_a_claim_without_a_signature_shows_nothing_of_a_stranger(self, known, toy):
        """Though the partner was asked about the stranger for the event, and the device remembers the answer."""
        assert toy.calls

        assert (await personalize(known, {"page": "home"})).json() == {}
        assert contextual(toy) == []


class TestConsent:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["integrations"][0]["consent"] = ["marketing"]
        return raw

    async def test_without_it_the_partner_is_not_asked(self, known, toy):
        assert (await personalize(known)).json() == {}

        await known.identify(PAT, context={"consent": {"marketing": True}})
        assert (await personalize(known, {"page": "home"})).json() == {"toy": {"Banner": "for home"}}

        await known.event(context={"consent": {"marketing": False}})
        assert (await personalize(known, {"page": "home"})).json() == {}
