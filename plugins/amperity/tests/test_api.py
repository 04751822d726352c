"""Each request as it goes out, and what becomes of each answer."""

from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest

import partnerenrich_amperity as amperity
from partnerenrich import (
    AuthError,
    BadResponse,
    Link,
    RateLimited,
    RequestRefused,
    Unavailable,
    UnknownPartnerId,
)

PROFILE = {
    "collection_id": "apc-demo0001",
    "profile_id": "5d0c3b52-2f0a-3e8e-9d7e-1f6f0a9b7c11",
    "attributes": {"Persona": "Value Hunter", "PredictedCLV": 412.5, "Tags": ["a"], "OptIn": True, "Store": None},
    "links": {"email": ["pat@example.test"], "phone": ["+12025550100"]},
}
INDEXED = {"id": "L-100", "index_id": "idx-demo", "attributes": {"tier": "gold"}}
LOYAL = Link("$traits.loyalty_id", "loyalty_id", "L-100")
OAUTH = {"client_id": "acme-client", "client_secret": "canary-secret"}


def answer(status, body=None, **headers):
    return httpx.Response(status, json=body, headers=headers)


def token(text, expires_in=3600):
    return answer(200, {"access_token": text, "expires_in": expires_in, "token_type": "Bearer"})


def page(*names, next_token=None):
    data = [{"segment_id": f"rts-{name}", "segment_name": name} for name in names]
    return answer(200, {"data": data} if next_token is None else {"data": data, "next_token": next_token})


# Real-time: requests


async def test_a_lookup_is_one_post_with_the_value_in_the_body_alone(configured, wire, link):
    wire = wire(answer(200, PROFILE))

    await amperity.resolve_id(configured(), wire.client(), link)

    (request,) = wire.requests
    assert (request.method, str(request.url)) == (
        "POST",
        "https://acme.amperity.com/prof/lookup/apc-demo0001/keychain",
    )
    assert json.loads(request.content) == {"keys": {"email": "pat+canary@example.test"}, "enrich": False}
    assert request.headers["Authorization"] == "Bearer canary-key"
    assert request.headers["Amperity-Tenant"] == "acme-sb-12345"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept"] == "application/json"


async def test_enrich_is_passed_on(configured, wire, link):
    wire = wire(answer(200, PROFILE), answer(200, PROFILE), answer(200, PROFILE))

    await amperity.resolve_id(configured(enrich=True), wire.client(), link)
    await amperity.resolve_id(configured(enrich=True, lookup_style="profiles"), wire.client(), link)
    await amperity.fetch_attributes(configured(enrich=True), wire.client(), "p-1")

    posted, older, read = wire.requests
    assert json.loads(posted.content)["enrich"] is True
    assert older.url.params["enrich"] == "true"
    assert str(read.url).endswith("/p-1?enrich=true")


async def test_the_older_lookup_is_a_get_with_an_encoded_value(configured, wire):
    wire = wire(answer(200, PROFILE))

    await amperity.resolve_id(
        configured(lookup_style="profiles"), wire.client(), Link("email", "mail key", "zoë+a b&c@example.test")
    )

    (request,) = wire.requests
    assert request.method == "GET"
    assert request.url.raw_path.startswith(b"/prof/profiles/apc-demo0001/lookup?")
    assert b"%2B" in request.url.raw_path
    assert b"%26" in request.url.raw_path
    assert dict(request.url.params) == {"mail key": "zoë+a b&c@example.test"}
    assert request.content == b""


async def test_a_profile_is_read_by_its_quoted_id(configured, wire):
    wire = wire(answer(200, PROFILE))

    await amperity.fetch_attributes(configured(), wire.client(), "a/b?c=é+ %2F..")

    (request,) = wire.requests
    assert request.method == "GET"
    assert request.url.raw_path == b"/prof/profiles/apc-demo0001/a%2Fb%3Fc%3D%C3%A9%2B%20%252F.."
    assert request.headers["Amperity-Tenant"] == "acme-sb-12345"


async def test_a_base_url_keeps_its_path(configured, wire, link):
    wire = wire(answer(404))

    await amperity.resolve_id(configured(base_url="http://127.0.0.1:9/amperity/"), wire.client(), link)

    assert str(wire.requests[0].url) == "http://127.0.0.1:9/amperity/prof/lookup/apc-demo0001/keychain"


# Real-time: answers


async def test_a_lookup_hands_over_the_attributes_as_they_are_and_drops_the_links(configured, wire, link):
    wire = wire(answer(200, PROFILE))

    resolution = await amperity.resolve_id(configured(), wire.client(), link)

    assert resolution.partner_id == PROFILE["profile_id"]
    assert resolution.attributes == PROFILE["attributes"]


@pytest.mark.parametrize("optional", [{}, {"attributes": None}, {"attributes": {}, "links": [{"type": "email"}]}])
async def test_optional_fields_may_be_absent(configured, wire, link, optional):
    wire = wire(answer(200, {"profile_id": "p-1", **optional}))

    resolution = await amperity.resolve_id(configured(), wire.client(), link)

    assert (resolution.partner_id, resolution.attributes) == ("p-1", {})


async def test_an_unknown_key_is_absent(configured, wire, link):
    wire = wire(answer(404, {"error": "not-found", "value": link.value}))

    assert (await amperity.resolve_id(configured(), wire.client(), link)).reason == "absent"


async def test_a_refused_key_names_the_key_and_the_way_out(configured, wire):
    wire = wire(answer(400, {"message": "canary"}))

    with pytest.raises(RequestRefused, match=r"'mail'.*linking_keys.*keychain"):
        await amperity.resolve_id(configured(), wire.client(), Link("email", "mail", "canary@example.test"))


async def test_a_lost_profile_is_resolved_anew(configured, wire):
    wire = wire(answer(404, {"profile": "canary"}))

    with pytest.raises(UnknownPartnerId):
        await amperity.fetch_attributes(configured(), wire.client(), "p-1")


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (401, AuthError),
        (403, AuthError),
        (405, RequestRefused),
        (429, RateLimited),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
        (302, BadResponse),
        (httpx.Response(200, text="<html>canary</html>"), BadResponse),
        (httpx.Response(200, text='{"profile_id": "canary'), BadResponse),
        (httpx.Response(200, json=["canary"]), BadResponse),
        (httpx.Response(200, json={"id": "canary"}), BadResponse),
        (httpx.Response(200, json={"profile_id": 7}), BadResponse),
        (httpx.Response(200, json={"profile_id": ""}), BadResponse),
        (httpx.Response(200, json={"profile_id": ".."}), BadResponse),
        (httpx.Response(200, json={"profile_id": "p", "attributes": ["canary"]}), BadResponse),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [amperity.resolve_id, lambda config, http, _: amperity.fetch_attributes(config, http, "canary-id")],
    ids=["resolve", "fetch"],
)
async def test_failures_are_told_apart_and_tell_nothing_else(configured, wire, link, caplog, response, error, ask):
    caplog.set_level(logging.DEBUG, "partnerenrich_amperity")
    body = response if isinstance(response, int) else httpx.Response(200, content=response.content)
    wire = wire(answer(body, {"value": "canary"}) if isinstance(body, int) else body)

    with pytest.raises(error) as caught:
        await ask(configured(), wire.client(), link)

    assert len(wire.requests) == 1
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)
    assert [record for record in caplog.records if "canary" in record.getMessage()] == []


async def test_a_wait_that_the_vendor_asks_for_is_passed_on(configured, wire, link):
    with pytest.raises(RateLimited) as told:
        await amperity.resolve_id(configured(), wire(answer(429, **{"Retry-After": "2"})).client(), link)
    with pytest.raises(RateLimited) as silent:
        await amperity.resolve_id(configured(), wire(answer(429)).client(), link)

    assert (told.value.retry_after, silent.value.retry_after) == (2, None)


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ConnectError("refused")])
async def test_errors_of_the_client_are_left_to_the_core(configured, wire, link, error):
    with pytest.raises(type(error)):
        await amperity.resolve_id(configured(), wire(error).client(), link)


async def test_a_missing_permission_is_named(configured, wire, link):
    with pytest.raises(AuthError, match="profile-collections:read and pii:read"):
        await amperity.resolve_id(configured(), wire(answer(403)).client(), link)
    with pytest.raises(AuthError, match="real-time-segments:read and pii:read"):
        await amperity.resolve_id(configured(segments="S"), wire(answer(200, PROFILE), answer(403)).client(), link)


@pytest.mark.parametrize("header", ["Deprecation", "Sunset"])
async def test_an_announced_end_is_warned_of_once(configured, wire, link, caplog, header):
    ending = answer(200, PROFILE, **{header: "canary"})
    wire = wire(ending, ending)

    await amperity.resolve_id(configured(), wire.client(), link)
    await amperity.resolve_id(configured(), wire.client(), link)

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "canary" not in record.getMessage()


# Segments


async def test_segments_are_off_by_default(configured, wire, link):
    wire = wire(answer(200, PROFILE))

    await amperity.resolve_id(configured(), wire.client(), link)

    assert len(wire.requests) == 1


@pytest.mark.parametrize("end", [None, ""])
async def test_segments_are_read_page_by_page(configured, wire, link, end):
    wire = wire(answer(200, PROFILE), page("Lapsing", next_token="c3Vi+/="), page("Gold", next_token=end))

    resolution = await amperity.resolve_id(configured(segments="Segments"), wire.client(), link)

    assert resolution.attributes == {**PROFILE["attributes"], "Segments": ["Lapsing", "Gold"]}
    _, first, second = wire.requests
    assert first.url.path == f"/prof/profiles/apc-demo0001/{PROFILE['profile_id']}/segments"
    assert dict(first.url.params) == {"limit": "100"}
    assert dict(second.url.params) == {"limit": "100", "next_token": "c3Vi+/="}


async def test_segments_belong_to_a_fetched_profile_too(configured, wire):
    wire = wire(answer(200, PROFILE), page("Gold"))

    attributes = await amperity.fetch_attributes(configured(segments="Segments"), wire.client(), PROFILE["profile_id"])

    assert attributes["Segments"] == ["Gold"]


async def test_at_most_ten_pages_are_read(configured, wire, link):
    wire = wire(answer(200, PROFILE), *[page(str(number), next_token="more") for number in range(12)])

    resolution = await amperity.resolve_id(configured(segments="Segments"), wire.client(), link)

    assert len(resolution.attributes["Segments"]) == 10
    assert len(wire.requests) == 11


async def test_a_segment_without_a_name_is_told_by_its_id(configured, wire, link):
    wire = wire(answer(200, PROFILE), answer(200, {"data": [{"segment_id": "rts-1"}]}))

    resolution = await amperity.resolve_id(configured(segments="Segments"), wire.client(), link)

    assert resolution.attributes["Segments"] == ["rts-1"]


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": ["canary"]}, {"data": [{"canary": 1}]}])
async def test_segments_that_make_no_sense_are_refused(configured, wire, link, body):
    with pytest.raises(BadResponse) as caught:
        await amperity.resolve_id(
            configured(segments="S"), wire(answer(200, PROFILE), answer(200, body)).client(), link
        )

    assert "canary" not in str(caught.value)


async def test_a_profile_that_is_gone_before_its_segments_are_read_is_resolved_anew(configured, wire, link):
    with pytest.raises(UnknownPartnerId):
        await amperity.resolve_id(configured(segments="S"), wire(answer(200, PROFILE), answer(404)).client(), link)


# Check


async def test_the_check_asks_for_statistics(configured, wire):
    wire = wire(answer(200, {"total_profiles": 1200, "link_cardinality": {"email": 1180}}))

    await amperity.check(configured(), wire.client())

    (request,) = wire.requests
    assert (request.method, request.url.path) == ("GET", "/prof/collections/apc-demo0001/stats")


@pytest.mark.parametrize("api", ["realtime", "indexes"])
@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [
        (401, AuthError, "profile_api_key"),
        (403, AuthError, "tenant_id"),
        (404, RequestRefused, "profile_collection_id"),
        (503, Unavailable, "503"),
    ],
)
async def test_the_check_says_what_to_mend(configured, wire, api, status, error, hint):
    with pytest.raises(error, match=hint):
        await amperity.check(configured(api=api), wire(answer(status)).client())


# Indexes


async def test_an_index_is_asked_by_the_value_itself(configured, wire):
    wire = wire(answer(200, INDEXED))

    resolution = await amperity.resolve_id(
        configured(api="indexes", profile_collection_id="idx-demo"), wire.client(), Link("user_id", "id", "L/1+0 0é")
    )

    (request,) = wire.requests
    assert request.method == "GET"
    assert request.url.raw_path == b"/api/indexes/idx-demo/profiles/L%2F1%2B0%200%C3%A9"
    assert request.headers["api-version"] == "2025-07-31"
    assert request.headers["Amperity-Tenant"] == "acme-sb-12345"
    assert (resolution.partner_id, resolution.attributes) == ("L-100", {"tier": "gold"})


async def test_the_check_of_an_index_asks_for_its_description(configured, wire):
    wire = wire(answer(200, {"id": "idx-demo"}))

    await amperity.check(configured(api="indexes", profile_collection_id="idx-demo"), wire.client())

    assert wire.requests[0].url.path == "/api/indexes/idx-demo"


async def test_an_index_that_does_not_know_a_value(configured, wire):
    wire = wire(answer(404), answer(404))

    assert (await amperity.resolve_id(configured(api="indexes"), wire.client(), LOYAL)).reason == "absent"
    with pytest.raises(UnknownPartnerId):
        await amperity.fetch_attributes(configured(api="indexes"), wire.client(), "L-100")


async def test_an_index_profile_is_fetched_by_its_id(configured, wire):
    wire = wire(answer(200, INDEXED))

    assert await amperity.fetch_attributes(configured(api="indexes"), wire.client(), "L-100") == {"tier": "gold"}


async def test_a_refused_version_is_named(configured, wire):
    with pytest.raises(RequestRefused, match="api-version"):
        await amperity.resolve_id(configured(api="indexes"), wire(answer(400)).client(), LOYAL)


@pytest.mark.parametrize(
    "link",
    [
        Link("email", "email", "canary@example.test"),
        Link("phone", "phone", "+12025550100"),
        Link("$traits.work_email", "email", "canary@example.test"),
        Link("user_id", "id", "canary@example.test"),
    ],
    ids=lambda link: link.source,
)
async def test_an_index_is_not_asked_by_an_address_or_a_number(configured, wire, caplog, link):
    """It would become the partner's id. The log tells the way out, once."""
    wire = wire()

    for _ in range(2):
        with pytest.raises(RequestRefused, match=r"linking_keys"):
            await amperity.resolve_id(configured(api="indexes"), wire.client(), link)

    (record,) = caplog.records
    told = record.getMessage()
    assert (record.levelname, wire.requests) == ("WARNING", [])
    assert all(word in told for word in (link.source, "linking_keys", "hash: sha256"))
    assert link.value not in told


async def test_an_index_is_asked_by_a_hashed_address(configured, wire):
    wire = wire(answer(200, INDEXED))

    resolution = await amperity.resolve_id(
        configured(api="indexes"), wire.client(), Link("email", "email", "0a1b", "sha256")
    )

    assert resolution.partner_id == "L-100"


@pytest.mark.parametrize("value", [".", ".."])
async def test_a_value_that_would_climb_out_of_the_path_is_not_sent(configured, wire, value):
    wire = wire()

    resolution = await amperity.resolve_id(configured(api="indexes"), wire.client(), Link("user_id", "id", value))

    assert resolution.reason == "absent"
    assert wire.requests == []


# OAuth


async def test_a_token_is_fetched_once_and_used_as_bearer(configured, wire, link):
    config = configured(**OAUTH)
    wire = wire(token("t-1"), answer(404), answer(404))

    await amperity.resolve_id(config, wire.client(), link)
    await amperity.resolve_id(config, wire.client(), link)

    asked, *lookups = wire.requests
    assert (asked.method, str(asked.url)) == ("POST", "https://acme.amperity.com/api/v0/oauth2/token")
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert asked.headers["X-Amperity-Tenant"] == "acme-sb-12345"
    assert asked.content == b"grant_type=client_credentials&client_id=acme-client&client_secret=canary-secret"
    assert [lookup.headers["Authorization"] for lookup in lookups] == ["Bearer t-1"] * 2


async def test_a_refused_token_is_replaced_once(configured, wire, link):
    wire = wire(token("t-1"), answer(401), token("t-2"), answer(200, PROFILE))

    resolution = await amperity.resolve_id(configured(**OAUTH), wire.client(), link)

    assert resolution.reason == "found"
    assert wire.requests[-1].headers["Authorization"] == "Bearer t-2"


async def test_a_second_refusal_is_final(configured, wire, link):
    wire = wire(token("t-1"), answer(401), token("t-2"), answer(401))

    with pytest.raises(AuthError, match="client_id"):
        await amperity.resolve_id(configured(**OAUTH), wire.client(), link)

    assert wire.answers == []


async def test_without_oauth_a_refusal_is_final_at_once(configured, wire, link):
    wire = wire(answer(401))

    with pytest.raises(AuthError, match="profile_api_key"):
        await amperity.resolve_id(configured(), wire.client(), link)


async def test_a_token_at_its_end_is_replaced(configured, wire, link):
    config = configured(**OAUTH)
    wire = wire(token("t-1", expires_in=0), answer(404), token("t-2"), answer(404))

    await amperity.resolve_id(config, wire.client(), link)
    await amperity.resolve_id(config, wire.client(), link)

    assert wire.requests[-1].headers["Authorization"] == "Bearer t-2"


async def test_many_callers_share_one_request_for_a_token(configured, link):
    config = configured(**OAUTH)
    paths = []

    async def answers(request):
        paths.append(request.url.path)
        await asyncio.sleep(0)
        return token("t-1") if request.url.path.endswith("/token") else answer(404)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answers)) as http:
        await asyncio.gather(*(amperity.resolve_id(config, http, link) for _ in range(50)))

    assert paths.count("/api/v0/oauth2/token") == 1


async def test_a_token_that_is_refused_to_many_is_replaced_once(configured, link):
    """Also when a refusal arrives after the new token."""
    config = configured(**OAUTH)
    issued = []
    replaced = asyncio.Event()
    refusals = 0

    async def answers(request):
        nonlocal refusals
        if request.url.path.endswith("/token"):
            issued.append(f"t-{len(issued)}")
            if len(issued) > 1:
                replaced.set()
            return token(issued[-1])
        if request.headers["Authorization"] != "Bearer t-0":
            return answer(404)
        refusals += 1
        if refusals > 1:
            await replaced.wait()
        return answer(401)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answers)) as http:
        await asyncio.gather(*(amperity.resolve_id(config, http, link) for _ in range(50)))

    assert refusals == 50
    assert issued == ["t-0", "t-1"]


async def test_a_cancelled_caller_leaves_the_others_their_token(configured, link):
    config = configured(**OAUTH)
    go = asyncio.Event()

    async def answers(request):
        if request.url.path.endswith("/token"):
            await go.wait()
            return token("t-1")
        return answer(404)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answers)) as http:
        first = asyncio.create_task(amperity.resolve_id(config, http, link))
        second = asyncio.create_task(amperity.resolve_id(config, http, link))
        await asyncio.sleep(0.01)
        first.cancel()
        go.set()

        assert (await second).reason == "absent"


async def test_two_integrations_never_share_a_token(configured, wire, link):
    wire = wire(token("t-1"), answer(404), token("t-2"), answer(404))

    await amperity.resolve_id(configured(**OAUTH), wire.client(), link)
    await amperity.resolve_id(configured(**OAUTH), wire.client(), link)

    assert [r.headers.get("Authorization") for r in wire.requests] == [None, "Bearer t-1", None, "Bearer t-2"]


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(400, {"error": "canary"}), AuthError),
        (answer(401), AuthError),
        (answer(403), AuthError),
        (answer(429), RateLimited),
        (answer(503), Unavailable),
        (answer(200, {}), BadResponse),
        (answer(200, {"access_token": "canary", "expires_in": "canary"}), BadResponse),
    ],
)
async def test_a_failing_token_endpoint_is_told_apart_and_asked_again_next_time(
    configured, wire, link, response, error
):
    config = configured(**OAUTH)
    wire = wire(response, token("t-1"), answer(404))

    with pytest.raises(error) as caught:
        await amperity.resolve_id(config, wire.client(), link)

    assert "canary" not in str(caught.value)
    assert (await amperity.resolve_id(config, wire.client(), link)).reason == "absent"
