"""The plugin as the core sees it, against its own imitation."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest

from partnerenrich import (
    AuthError,
    BadResponse,
    Link,
    LinkingKey,
    RateLimited,
    RequestRefused,
    Resolution,
    Unavailable,
    Visitor,
    configuration,
    plugins,
    recipes,
)
from partnerenrich.governor import Governor
from partnerenrich.http import open_client
from partnerenrich.testing.faults import Fault, FaultMiddleware
from partnerenrich_uid2._sandbox import Behaviour, new_app
from partnerenrich_uid2._sandbox.gate import credentials


def link(source, value, recipe="uid2"):
    return Link(source, source, recipes.apply(recipe, source, value), recipe)


PAT = link("email", "pat@example.test")
GONE = link("email", "optout@example.com")


def integration_of(provider, **settings):
    """As a configuration file makes it."""
    scope = provider.upper()
    loaded = configuration.load_mapping(
        {
            "org": "acme",
            "integrations": [
                {"provider": provider, "settings": {**credentials(scope)["mapper"].settings, **settings}},
            ],
        }
    )
    (integration,) = configuration.bind(loaded)[0]["acme"]
    return integration


@pytest.fixture
def opened():
    """Opens an integration, the core's own client of a new imitation, and a governor."""

    @asynccontextmanager
    async def opened(provider="uid2", behaviour=None, settings=None, app=None, **limits):
        integration = integration_of(provider, **(settings or {}))
        integration = attrs.evolve(integration, limits=attrs.evolve(integration.limits, **limits))
        app = app or new_app(provider.upper(), behaviour or Behaviour())
        async with open_client(integration.limits, transport=httpx.ASGITransport(app)) as http:
            yield Opened(integration, http, Governor(integration))

    return opened


@attrs.define
class Opened:
    integration: object
    http: httpx.AsyncClient
    governor: Governor

    async def resolve_ids(self, links, patience=5):
        partner, config = self.integration.partner, self.integration.config
        return await self.governor.call(
            lambda call: partner.resolve_ids(config, self.http, links, call), wait_until=time.monotonic() + patience
        )

    async def resolve_id(self, link):
        partner, config = self.integration.partner, self.integration.config
        return await self.governor.call(
            lambda call: partner.resolve_id(config, self.http, link, Visitor(), call), wait_until=time.monotonic() + 5
        )

    async def check(self):
        partner, config = self.integration.partner, self.integration.config
        await self.governor.call(
            lambda call: partner.check(config, self.http, call), wait_until=time.monotonic() + 5, hook="check"
        )


@pytest.mark.parametrize(("provider", "title"), [("uid2", "UID2"), ("euid", "EUID")])
def test_what_the_partners_say_of_themselves(provider, title):
    loaded = plugins.load([provider])

    assert loaded.failures == {}
    partner = loaded.partner(provider)
    assert partner.facts.title == title
    assert partner.facts.category == "identity"
    assert partner.hooks == ("check", "resolve_id", "resolve_ids", "sandbox")
    assert partner.facts.linking_keys == (LinkingKey("email", "email", "uid2"), LinkingKey("phone", "phone", "uid2"))
    assert partner.facts.limits.bulk == 5_000
    assert partner.facts.limits.concurrency <= 20


def test_both_partners_load_side_by_side():
    loaded = plugins.load(["uid2", "euid"])

    assert sorted(loaded.partners) == ["euid", "uid2"]


def test_starlette_is_imported_for_a_sandbox_alone():
    code = "import sys, partnerenrich.plugins as p; p.load(['uid2']); assert 'starlette' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("provider", ["uid2", "euid"])
@pytest.mark.parametrize("body", ["octet-stream", "base64"])
@pytest.mark.parametrize("protocol", ["v3", "v2"])
async def test_one_and_many_agree(opened, provider, body, protocol):
    links = [PAT, GONE, link("phone", "+12025550100"), link("phone", "+68200000", "none"), PAT]

    async with opened(provider, settings={"body": body, "protocol": protocol}) as it:
        await it.check()
        many = await it.resolve_ids(links)
        one_by_one = [await it.resolve_id(one) for one in links]

    assert [answer.reason for answer in many] == ["found", "opted_out", "found", "invalid", "found"]
    assert many == one_by_one
    assert len({answer.partner_id for answer in many}) == 3


async def test_the_phones_that_every_operator_knows_are_sent_as_hashes(opened):
    """Under a name of their own, for they are no phones; the first has opted out."""
    digests = ["313yQvZOTb0vjjEU7sTO/UWxGPzVppIbCyQEJEnfxLo=", "0VoxsIuk88qt7TnZaTC//C9Vur3pR1zBMIr1cJe7xjE="]

    async with opened() as it:
        answers = await it.resolve_ids([Link("$traits.phone_hash", "phone_hash", each, "none") for each in digests])

    assert [answer.reason for answer in answers] == ["opted_out", "found"]


@pytest.mark.parametrize("address", ["pat@example.test", "P.A.T+news@gmail.com", "😊pat@example.test"])
async def test_hashed_here_or_there_is_the_same(opened, address):
    """The recipe of the core and the operator normalise alike."""
    async with opened() as it:
        here, there = await it.resolve_ids([link("email", address), link("email", address, "none")])

    assert here.reason == "found"
    assert here == there


async def test_a_rotated_id_comes_with_the_one_before(opened):
    people = [link("email", f"visitor-{number}@example.test") for number in range(200)]
    app = new_app("UID2")

    async with opened(app=app) as it:
        before = await it.resolve_ids(people)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sandbox.test") as http:
            await http.post("/_sandbox", json={"salt_days": 45})
        after = await it.resolve_ids(people)

    rotated = [(old, new) for old, new in zip(before, after, strict=True) if old.partner_id != new.partner_id]
    assert 0 < len(rotated) < len(people)
    assert all(new.previous_id == old.partner_id for old, new in rotated)
    assert all(answer.refresh_at == answer.expires_at > time.time() for answer in after)


async def test_whoever_opts_out_is_told_within_one_call(opened):
    app = new_app("UID2")

    async with opened(app=app) as it:
        before = await it.resolve_id(PAT)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sandbox.test") as http:
            await http.post("/_sandbox", json={"opted_out": ["pat@example.test"]})
        after = await it.resolve_id(PAT)

    assert before.reason == "found"
    assert after == Resolution.opted_out()


@pytest.mark.parametrize("fault", ["wrong_nonce", "damaged_tag", "short_answer"])
async def test_an_answer_that_is_not_ours_is_no_answer(opened, fault):
    async with opened(behaviour=Behaviour(fault=fault)) as it:
        with pytest.raises(BadResponse):
            await it.resolve_ids([PAT, GONE])


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (credentials("UID2")["generator"].settings, AuthError),
        (credentials("UID2")["disabled"].settings, AuthError),
        (credentials("EUID")["mapper"].settings, AuthError),
        ({"client_secret": credentials("UID2")["sharer"].settings["client_secret"]}, RequestRefused),
    ],
)
async def test_the_check_finds_wrong_settings(opened, settings, error):
    async with opened(settings=settings) as it:
        with pytest.raises(error):
            await it.check()


async def test_a_clock_that_is_off_is_found(opened):
    app = new_app("UID2", clock=lambda: time.time() - 300)

    async with opened(app=app) as it:
        with pytest.raises(RequestRefused, match="clock"):
            await it.check()


@pytest.mark.parametrize(
    ("fault", "error"), [("rate_limited", RateLimited), ("unavailable", Unavailable), ("server_error", Unavailable)]
)
async def test_the_core_tries_again_and_each_attempt_is_a_new_request(opened, fault, error):
    """An envelope that is sent again would use its IV twice, and grow stale."""
    seen = []

    async def watched(scope, receive, send):
        async def kept():
            message = await receive()
            seen.append(message["body"])
            return message

        await faults(scope, kept, send)

    faults = FaultMiddleware(new_app("UID2"))
    async with opened(app=watched) as it:
        faults.arm(Fault(mode=fault, times=2))
        answer = await it.resolve_id(PAT)
        assert it.governor.statistics.failures == {error.__name__: 2}
        faults.arm(Fault(mode=fault, times=None))
        with pytest.raises(error):
            await it.resolve_id(PAT)
        assert it.governor.statistics.calls == 3 + it.integration.limits.attempts

    bodies = [body for body in seen if body]
    assert answer.reason == "found"
    assert len({body[1:13] for body in bodies}) == len({body[13:] for body in bodies}) == len(bodies) == 7


async def test_a_refused_request_is_not_tried_again(opened):
    async with opened(settings={"client_secret": credentials("UID2")["sharer"].settings["client_secret"]}) as it:
        with pytest.raises(RequestRefused):
            await it.resolve_ids([PAT])

        assert it.governor.statistics.calls == 1


async def test_every_sample_visitor_is_as_announced(opened):
    for provider in ("uid2", "euid"):
        sample = plugins.load([provider]).partner(provider).sandbox().sample
        async with opened(provider) as it:
            for kind, reason in (("known", "found"), ("unknown", "invalid"), ("opted_out", "opted_out")):
                links = [link(source, who[source], "none") for who in sample[kind] for source in who]

                assert {answer.reason for answer in await it.resolve_ids(links)} == {reason}
