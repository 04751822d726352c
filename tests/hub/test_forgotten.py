"""Who is forgotten has no profile: a page reads nothing, and nothing that comes late is served."""

import pytest

from partnerenrich import Resolution
from partnerenrich.configuration import load_mapping
from partnerenrich.forgetting import Forgetting
from partnerenrich.suppression import EVER

PAT = "pat@example.test"


@pytest.fixture(name="forget")
def _forget(raw, store):
    async def forget(source, value):
        async with Forgetting.open(load_mapping(raw), "acme", store=store.url, key=store.key) as opened:
            return await opened.forget(source, value, EVER)

    return forget


@pytest.fixture(name="copy_key")
def _copy_key(browser):
    return lambda: f"partnerenrich:browser_attrs:acme:{browser.cookies['_dfdid']}"


@pytest.mark.parametrize("source", ["email", "canonical_id"])
async def test_a_page_reads_nothing_of_who_was_forgotten(browser, toy, forget, source):
    toy.answers[PAT] = Resolution("p-1", attributes={"Tier": 2})
    await browser.identify(PAT)
    assert await browser.profile() == {"toy": {"Tier": 2}}

    await forget(source, PAT if source == "email" else browser.cookies["_dfdid"])

    assert await browser.profile() == {}
    answer = await browser.call("POST", "/v1/personalize", body={"provider": "toy", "context": {"x": 1}})
    assert answer.json() == {}
    calls = len(toy.calls)
    await browser.identify(PAT)
    assert await browser.profile() == {}
    assert len(toy.calls) == calls


async def test_a_copy_that_is_written_late_or_forged_is_not_served(browser, toy, forget, redis, copy_key):
    """It carries the stamp of before, or takes the place of no owner."""
    toy.answers[PAT] = Resolution("p-1", attributes={"Tier": 2})
    await browser.identify(PAT)
    before = await redis.hgetall(copy_key())

    await forget("email", PAT)
    await redis.hsetnx(copy_key(), "who", before[b"who"])
    await redis.hset(copy_key(), "p:toy", before[b"p:toy"])

    assert await browser.profile() == {}


async def test_a_lookup_that_ends_after_it_does_not_bring_the_profile_back(browser, toy, hub, forget, until):
    toy.answers[PAT] = Resolution("p-1", attributes={"Tier": 2})
    toy.go.clear()
    await browser.identify(PAT, wait_ms=0)
    await until(lambda: ("resolve", PAT) in toy.calls)
    await forget("email", PAT)
    toy.go.set()
    await until(hub.is_idle)

    await browser.event("page", wait_ms=800)

    assert await browser.profile() == {}


async def test_the_id_at_the_partner_is_shown_to_no_page(browser, toy, raw):
    """Whatever the partner calls it, and though the allowlist names it."""
    uid = "AdvIvSiaum0P5s3X7n8lIX0"
    toy.answers[PAT] = Resolution(
        uid,
        previous_id="Older" + uid,
        attributes={"Persona": uid, "Tier": 2, "Banner": {"ids": ["x", f"https://x.example/?id=Older{uid}"]}},
    )
    toy.answers["personalize"] = {"Banner": uid, "Persona": "Loyal"}

    await browser.identify(PAT)

    assert await browser.profile() == {"toy": {"Tier": 2}}
    answer = await browser.call("POST", "/v1/personalize", body={"provider": "toy", "context": {"x": 1}})
    assert answer.json() == {"toy": {"Persona": "Loyal"}}
