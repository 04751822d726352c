"""The plugin as the core sees it, against its own imitation."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import pytest

from partnerenrich import AuthError, Link, LinkingKey, RequestRefused, UnknownPartnerId, Visitor, plugins, recipes
from partnerenrich.settings import structure
from partnerenrich_amperity._sandbox import Behaviour, new_app
from partnerenrich_amperity.config import Config

PAT = Link("email", "email", "pat@example.test")


@pytest.fixture
def partner():
    loaded = plugins.load(["amperity"])

    assert loaded.failures == {}
    return loaded.partner("amperity")


@pytest.fixture
def opened(partner):
    """Opens a configuration and a client of a new imitation behind the vendor's own host name."""

    @asynccontextmanager
    async def opened(settings=None, **imitation):
        config = structure(Config, {**partner.sandbox().settings, **(settings or {})})
        async with httpx.AsyncClient(transport=httpx.ASGITransport(new_app(**imitation))) as http:
            yield config, http

    return opened


def test_what_the_partner_says_of_itself(partner):
    assert partner.facts.title == "Amperity"
    assert partner.facts.category == "cdp"
    assert partner.facts.config is Config
    assert partner.facts.linking_keys == (LinkingKey("email", "email"),)
    assert partner.facts.limits.calls_per_second < 500
    assert partner.hooks == ("check", "resolve_id", "fetch_attributes", "sandbox")


def test_hooks_survive_a_sandbox(partner):
    """A submodule named like a hook would take its place in the package."""
    partner.sandbox()

    assert "sandbox" in plugins.load(["amperity"]).partner("amperity").hooks


def test_starlette_is_imported_for_a_sandbox_alone():
    code = "import sys, partnerenrich.plugins as p; p.load(['amperity']); assert 'starlette' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("style", ["keychain", "profiles"])
@pytest.mark.parametrize("envelope", ["generic", "draft"])
async def test_resolve_then_fetch(partner, opened, call, style, envelope):
    async with opened({"lookup_style": style}, behaviour=Behaviour(envelope=envelope)) as (config, http):
        found = await partner.resolve_id(config, http, PAT, Visitor((PAT,)), call)
        absent = await partner.resolve_id(config, http, Link("email", "email", "nobody@example.test"), Visitor(), call)
        fetched = await partner.fetch_attributes(config, http, found.partner_id, call)

    assert found.attributes["Persona"] == "Value Hunter"
    assert fetched == found.attributes
    assert absent.reason == "absent"


async def test_every_sample_visitor_is_as_announced(partner, opened, call):
    sample = partner.sandbox().sample

    async with opened() as (config, http):
        for expected, visitors in (("found", sample["known"]), ("absent", sample["unknown"])):
            for visitor in visitors:
                link = Link("email", "email", visitor["email"])
                assert (await partner.resolve_id(config, http, link, Visitor(), call)).reason == expected


async def test_segments_are_attached_under_the_configured_name(partner, opened, call):
    async with opened({"segments": "Audiences"}, behaviour=Behaviour(page_size=1)) as (config, http):
        found = await partner.resolve_id(config, http, PAT, Visitor(), call)

    assert found.attributes["Audiences"] == ["High value", "May be written to", "Bargain hunters", "Everyone"]


async def test_a_merged_profile_is_found_again(partner, opened, call):
    link = Link("email", "email", "merging@example.test")

    async with opened() as (config, http):
        before = await partner.resolve_id(config, http, link, Visitor(), call)
        after = await partner.resolve_id(config, http, link, Visitor(), call)
        with pytest.raises(UnknownPartnerId):
            await partner.fetch_attributes(config, http, before.partner_id, call)
        fetched = await partner.fetch_attributes(config, http, after.partner_id, call)

    assert fetched == after.attributes


@pytest.mark.parametrize("email", ["bare@example.test", "array@example.test"])
async def test_unusual_profiles_are_understood_and_links_never_attached(partner, opened, call, email):
    async with opened() as (config, http):
        found = await partner.resolve_id(config, http, Link("email", "email", email), Visitor(), call)

    assert found.reason == "found"
    assert email not in str(dict(found.attributes))


async def test_indexes(partner, opened, call):
    hashed = Link("email", "email", recipes.apply("sha256", "email", PAT.value), "sha256")

    async with opened({"api": "indexes", "profile_collection_id": "idx-demo0001"}) as (config, http):
        await partner.check(config, http, call)
        found = await partner.resolve_id(config, http, hashed, Visitor(), call)
        absent = await partner.resolve_id(config, http, Link("user_id", "id", "a/b+c"), Visitor(), call)
        fetched = await partner.fetch_attributes(config, http, found.partner_id, call)

    assert found.partner_id == hashed.value
    assert found.attributes["PredictedCLV"] == "413.21"
    assert fetched == found.attributes
    assert absent.reason == "absent"


async def test_oauth_outlives_its_tokens(partner, opened, call):
    client = {"client_id": "sandbox-client", "client_secret": "sandbox-client-secret", "profile_api_key": "unused"}

    async with opened(client, behaviour=Behaviour(calls_per_token=3)) as (config, http):
        reasons = {(await partner.resolve_id(config, http, PAT, Visitor(), call)).reason for _ in range(10)}
        calls = (await http.get(f"{config.root}/_sandbox")).json()["calls"]

    assert reasons == {"found"}
    assert calls["issue_token"] == 4


async def test_the_same_person_differs_by_tenant(partner, opened, call):
    other = {"tenant_id": "other", "profile_api_key": "sandbox-key-of-other", "base_url": "https://app.amperity.com"}

    async with opened() as (ours, http):
        theirs = structure(Config, {**partner.sandbox().settings, **other})
        first, second = [await partner.resolve_id(config, http, PAT, Visitor(), call) for config in (ours, theirs)]

    assert first.partner_id != second.partner_id
    assert first.attributes != second.attributes


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"profile_api_key": "sandbox-key-expired"}, AuthError),
        ({"profile_api_key": "sandbox-key-for-events"}, AuthError),
        ({"tenant_id": "other", "tenant_subdomain": "other"}, AuthError),
        ({"profile_collection_id": "apc-nope"}, RequestRefused),
        ({"profile_collection_id": "idx-nope", "api": "indexes"}, RequestRefused),
    ],
)
async def test_the_check_finds_wrong_settings(partner, opened, call, settings, error):
    async with opened() as (config, http):
        await partner.check(config, http, call)
    async with opened(settings) as (config, http):
        with pytest.raises(error):
            await partner.check(config, http, call)
