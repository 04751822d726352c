"""``GET /v1/enrich``: the allowlisted attributes of the visitor of this device, and of nobody else."""

import json
import time

import attrs
import msgspec
import pytest

from partnerenrich import Resolution, memory
from partnerenrich.browser import Extract
from partnerenrich.identity_signature import sign

IDENTITY_SECRET = "identity-secret-canary-0123456789"
PAT, SAM = "pat@example.test", "sam@example.test"


def found(**attributes):
    return Resolution("p-1", attributes=attributes)


@pytest.fixture(name="copy_key")
def _copy_key(browser):
    return lambda: f"partnerenrich:browser_attrs:acme:{browser.cookies['_dfdid']}"


async def test_an_identified_visitor_sees_the_allowlisted_attributes(browser, toy):
    toy.answers[PAT] = found(Persona="Value Hunter", Hidden="not for the page")

    await browser.identify(PAT)
    answer = await browser.enrich()

    assert (answer.status_code, answer.json()) == (200, {"toy": {"Persona": "Value Hunter"}})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_no_partner_is_called(browser, toy):
    toy.answers[PAT] = found(Persona="Value Hunter")
    await browser.identify(PAT)
    calls = len(toy.calls)

    await browser.profile()

    assert len(toy.calls) == calls


async def test_without_a_cookie_there_is_nothing_and_the_store_is_not_asked(browser, redis):
    assert (await browser.enrich()).json() == {}
    assert await redis.keys("*") == []


async def test_a_cookie_that_nobody_has_seen_gives_nothing(hub):
    stranger = hub.browser(cookies={"_dfdid": "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"})

    answer = await stranger.enrich()

    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize(("provider", "profile"), [("toy", {"toy": {"Tier": 2}}), ("plain", {})])
async def test_one_provider_may_be_named(browser, toy, provider, profile):
    """One that shows nothing to browsers is known all the same."""
    toy.answers[PAT] = found(Tier=2)
    await browser.identify(PAT)

    assert (await browser.enrich(provider=provider)).json() == profile


async def test_an_unknown_provider_is_not_found(browser):
    answer = await browser.enrich(provider="nobody")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_provider")


async def test_the_next_person_on_the_device_sees_nothing_of_the_one_before(browser, toy):
    toy.answers |= {PAT: found(Persona="Value Hunter"), SAM: Resolution.absent()}
    await browser.identify(PAT)
    assert await browser.profile()

    await browser.identify(SAM)

    assert await browser.profile() == {}


async def test_what_is_no_longer_on_the_allowlist_is_not_shown(browser, toy, hub, raw, store, open_running_hub):
    """At once, though the copy was made under the former one."""
    toy.answers[PAT] = found(Persona="Value Hunter", Tier=2)
    await browser.identify(PAT)
    raw["integrations"][0]["browser_attribute_allowlist"] = "Tier"

    async with open_running_hub(raw, store) as other:
        assert await other.browser(cookies=browser.cookies).profile() == {"toy": {"Tier": 2}}

    raw["integrations"][0]["browser_attribute_allowlist"] = ""
    async with open_running_hub(raw, store) as other:
        assert await other.browser(cookies=browser.cookies).profile() == {}


async def test_a_partner_that_is_no_longer_configured_is_not_shown(browser, toy, raw, store, open_running_hub):
    toy.answers[PAT] = found(Tier=2)
    await browser.identify(PAT)
    del raw["integrations"][0]

    async with open_running_hub(raw, store) as other:
        assert await other.browser(cookies=browser.cookies).profile() == {}


async def test_an_extract_that_has_expired_is_not_shown(browser, toy, redis, copy_key):
    toy.answers[PAT] = found(Tier=2)
    await browser.identify(PAT)
    who = (await redis.hget(copy_key(), "who")).decode()
    late = Extract(who, time.time() - 1, msgspec.Raw(b'{"Tier":2}'))
    await redis.hset(copy_key(), "p:toy", memory.encode(late))

    assert await browser.profile() == {}


@pytest.mark.parametrize("field", ["who", "p:toy"])
async def test_a_damaged_copy_shows_nothing(browser, toy, redis, copy_key, field):
    toy.answers[PAT] = found(Tier=2)
    await browser.identify(PAT)
    await redis.hset(copy_key(), field, b"\xff{")

    answer = await browser.enrich()

    assert (answer.status_code, answer.json()) == (200, {})


class TestConsent:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["integrations"][0]["consent"] = ["marketing"]
        return raw

    @pytest.mark.parametrize("decisions", [{}, {"marketing": False}, {"analytics": True}])
    async def test_without_it_nothing_is_shown(self, browser, toy, decisions):
        toy.answers[PAT] = found(Tier=2)
        await browser.identify(PAT, context={"consent": decisions})

        assert await browser.profile() == {}

    async def test_with_it_attributes_are_shown_until_it_is_withdrawn(self, browser, toy):
        toy.answers[PAT] = found(Tier=2)
        await browser.identify(PAT, context={"consent": {"marketing": True}})
        assert await browser.profile() == {"toy": {"Tier": 2}}

        await browser.event(context={"consent": {"marketing": False}})

        assert await browser.profile() == {}

    async def test_it_is_checked_again_when_the_copy_is_read(self, browser, toy, redis, copy_key):
        toy.answers[PAT] = found(Tier=2)
        await browser.identify(PAT, context={"consent": {"marketing": True}})
        await redis.hset(copy_key(), "consent", json.dumps({"marketing": False}))

        assert await browser.profile() == {}


class TestSignedIdentity:
    @pytest.fixture(name="raw")
    def _raw(self, raw):
        raw["hub"] |= {"browser_identity": "signed", "identity_secret": IDENTITY_SECRET}
        return raw

    @pytest.fixture(name="partner")
    def _partner(self, toy):
        strange = Resolution("p-of-sam", attributes={"Tier": 2})
        toy.answers |= {PAT: found(Tier=1), SAM: strange, "personalize": {"Banner": "for you"}}
        return toy

    async def test_a_claim_without_a_signature_shows_nothing(self, browser, partner):
        await browser.identify(PAT)

        assert partner.calls
        assert await browser.profile() == {}

    async def test_what_the_backend_signed_is_shown(self, browser, partner):
        await browser.identify(PAT, signature=signed(PAT))

        assert await browser.profile() == {"toy": {"Tier": 1}}

    @pytest.mark.parametrize("forged", ["", "x", 5, {}, "9999999999.00", "of another", "of another secret", "late"])
    async def test_a_forged_signature_shows_nothing(self, browser, partner, forged):
        forgeries = {
            "of another": signed(SAM),
            "of another secret": signed(PAT, secret="another secret, as long"),
            "late": signed(PAT, seconds=-1),
        }

        answer = await browser.identify(PAT, signature=forgeries.get(forged, forged) if forged else forged)

        assert answer.status_code == 202
        assert await browser.profile() == {}

    async def test_a_claim_after_a_signed_identify_shows_nothing_of_a_stranger(self, browser, partner):
        """Whatever of the first person is kept in the claim."""
        await browser.identify(PAT, signature=signed(PAT))
        for fields in (
            {"userId": f"user of {PAT}", "traits": {"email": SAM}},
            {"traits": {"email": SAM}},
            {"userId": f"user of {PAT}", "traits": {"email": SAM}, "signature": signed(PAT)},
        ):
            await browser.event("identify", **fields)
            profile = await browser.profile()
            said = await browser.call("POST", "/v1/personalize", body={"provider": "toy", "context": {}})

            assert profile in ({}, {"toy": {"Tier": 1}})
            assert said.status_code == 200
            assert ("personalize", "p-of-sam", {}) not in partner.calls


def signed(email, *, secret=IDENTITY_SECRET, seconds=300):
    expires = int(time.time()) + seconds
    return sign(secret.encode(), user_id=f"user of {email}", email=email, phone=None, expires=expires)


async def test_the_store_may_be_gone(browser, toy, hub, redis, raw, running_store, open_running_hub):
    """A page gets an empty profile, and the hub says that it is degraded."""
    gone = attrs.evolve(running_store, url="redis://127.0.0.1:1")
    async with open_running_hub(raw, gone) as lonely:
        visitor = lonely.browser(cookies={"_dfdid": "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"})
        answers = [await visitor.enrich() for _ in range(12)]
        ready = await lonely.client.get(f"{lonely.url}/readyz")
        event = await visitor.event()
        numbers = await lonely.metrics()

    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "{}")}
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "degraded": True})
    assert event.status_code == 202
    assert numbers['partnerenrich_without_store_total{purpose="enrich"}'] == 12
    for connection in ("enrich", "events"):
        assert numbers[f'partnerenrich_store_failures{{connection="{connection}"}}'] > 0


async def test_it_is_ready_and_not_degraded_with_its_store(hub):
    answer = await hub.client.get(f"{hub.url}/readyz")

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "degraded": False})
