"""The imitation answers as the vendor's documentation says."""

from __future__ import annotations

import statistics
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from partnerenrich_amperity._sandbox import Behaviour, new_app, new_sandbox

LOOKUP = "/prof/lookup/apc-demo0001/keychain"
OLDER = "/prof/profiles/apc-demo0001/lookup"
STATS = "/prof/collections/apc-demo0001/stats"
OTHER = {"Authorization": "Bearer sandbox-key-of-other", "Amperity-Tenant": "other"}
DEMO = {"Amperity-Tenant": "demo-sb-10001"}
CLIENT = {"grant_type": "client_credentials", "client_id": "sandbox-client", "client_secret": "sandbox-client-secret"}


def keys(**keys):
    return {"keys": keys, "enrich": False}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


# Lookup and profile


async def test_all_ways_to_a_profile_agree(sandboxed):
    async with sandboxed() as http:
        posted = await http.post(LOOKUP, json=keys(email="pat@example.test"))
        answers = [
            await http.get(LOOKUP, params={"email": "pat@example.test", "_enrich": "true"}),
            await http.get(OLDER, params={"phone": "+12025550100", "enrich": "true"}),
            await http.get(posted.headers["Location"]),
        ]

    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json() for answer in answers] == [posted.json()] * 3
    assert posted.json() == {
        "collection_id": "apc-demo0001",
        "profile_id": str(UUID(posted.json()["profile_id"])),
        "attributes": {
            "Persona": "Value Hunter",
            "LifetimeTier": "Gold",
            "FavoriteBrand": "Northwind",
            "PredictedCLV": 413.21,
            "LifecycleStatus": "active",
            "DaysSinceLatestOrder": 12,
            "OptIn": True,
            "Tags": [],
            "AssignedStore": None,
        },
        "created_at": "2026-03-01T09:00:00.000Z",
        "updated_at": "2026-08-01T12:30:00.000Z",
        "ticked_at": "2026-08-01T12:31:00.000Z",
        "links": {"email": ["pat@example.test"], "phone": ["+12025550100"]},
    }


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("email", "pat+news@example.test", "pat news@example.test"),
        ("email", "zoë@example.test", "zoe@example.test"),
        ("email", "Mixed.Case@example.test", "mixed.case@example.test"),
        ("loyalty_id", "Gold+ 7/42", "Gold+7/42"),
        ("loyalty_id", "Älteste Karte №1", "ÄLTESTE KARTE №1"),
        ("loyalty_id", "UPPER lower", "UPPER lower "),
    ],
)
async def test_values_match_exactly_or_not_at_all(sandboxed, key, value, other):
    async with sandboxed() as http:
        for known, status in ((value, 200), (other, 404)):
            assert (await http.post(LOOKUP, json=keys(**{key: known}))).status_code == status
            assert (await http.get(LOOKUP, params={key: known})).status_code == status
            assert (await http.get(OLDER, params={key: known})).status_code == status


async def test_the_sample_is_true(sandboxed):
    sample = new_sandbox().sample

    async with sandboxed() as http:
        for who, status in (("known", 200), ("unknown", 404)):
            for visitor in sample[who]:
                for key, value in visitor.items():
                    assert (await http.post(LOOKUP, json=keys(**{key: value}))).status_code == status

    assert len(sample["known"]) == 30
    assert sample["opted_out"] == []


async def test_visitors_never_end_and_stay_the_same(sandboxed):
    async with sandboxed() as http:
        found = {}
        for number in (0, 1, 2, 77, 10**14):
            answer = await http.post(LOOKUP, json=keys(email=f"visitor-{number}@example.test"))
            found[answer.json()["profile_id"]] = answer.json()["attributes"]
            assert (await http.get(answer.headers["Location"])).json() == answer.json()
        padded = await http.post(LOOKUP, json=keys(email="visitor-01@example.test"))

    assert len(found) == 5
    assert len({tuple(map(str, known.values())) for known in found.values()}) == 5
    assert padded.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": {}}',
        b'{"keys": {"shoe_size": "42"}}',
        b'{"keys": {"email": 7}}',
        b'{"keys": {"email": ""}}',
        b'{"keys": {"email": "pat@example.test"}, "enrich": "yes"}',
    ],
)
async def test_a_lookup_that_makes_no_sense_is_a_400(sandboxed, body):
    async with sandboxed() as http:
        assert (await http.post(LOOKUP, content=body)).status_code == 400


async def test_several_keys_are_allowed_but_not_by_the_draft(sandboxed):
    body = keys(email="nobody@example.test", phone="+12025550100")

    async with sandboxed() as http:
        assert (await http.post(LOOKUP, json=body)).status_code == 200
        assert (await http.get(OLDER, params=body["keys"])).status_code == 400
    async with sandboxed(behaviour=Behaviour(envelope="draft")) as http:
        assert (await http.post(LOOKUP, json=body)).json()["error"] == "invalid-lookup-key"


async def test_a_merging_profile_has_a_new_id_at_each_lookup(sandboxed):
    async with sandboxed() as http:
        first, second = [await http.post(LOOKUP, json=keys(email="merging@example.test")) for _ in range(2)]

        assert first.json()["profile_id"] != second.json()["profile_id"]
        assert (await http.get(first.headers["Location"])).status_code == 404
        assert (await http.get(second.headers["Location"])).json() == second.json()


async def test_a_profile_may_have_required_fields_only_or_links_as_an_array(sandboxed):
    async with sandboxed() as http:
        bare = (await http.post(LOOKUP, json=keys(email="bare@example.test"))).json()
        array = (await http.post(LOOKUP, json=keys(email="array@example.test"))).json()

    assert bare.keys() == {"collection_id", "profile_id"}
    assert array["links"] == [{"type": "email", "values": ["array@example.test"]}]


# Segments, statistics, history


async def test_segments_come_in_pages(sandboxed):
    async with sandboxed(behaviour=Behaviour(page_size=2)) as http:
        profile = (await http.post(LOOKUP, json=keys(email="pat@example.test"))).headers["Location"]
        names, params = [], {"limit": "100"}
        while params.get("next_token") != "":
            page = (await http.get(f"{profile}/segments", params=params)).json()
            names += [entry["segment_name"] for entry in page["data"]]
            params["next_token"] = page["next_token"]

        assert names == ["High value", "May be written to", "Bargain hunters", "Everyone"]
        assert page["total"] == 4
        for wrong in ({"limit": "0"}, {"limit": "x"}, {"next_token": "x"}):
            assert (await http.get(f"{profile}/segments", params=wrong)).status_code == 400
        assert (await http.get("/prof/profiles/apc-demo0001/nobody/segments")).status_code == 404


async def test_a_segment_knows_its_profiles_on_one_page(sandboxed):
    async with sandboxed() as http:
        everyone = await http.get("/prof/segments/rts-0005/profiles")

        assert len(everyone.json()["data"]) == everyone.json()["total"] == 36
        assert (await http.get("/prof/segments/rts-9/profiles")).status_code == 404
        assert (await http.get("/prof/segments/rts-0005/profiles", params={"limit": "5"})).status_code == 400


async def test_statistics_count_profiles_and_links(sandboxed):
    async with sandboxed() as http:
        answer = (await http.get(STATS)).json()

    assert answer["total_profiles"] == 36
    assert answer["link_cardinality"]["phone"] == 30


async def test_history_has_buckets_between_two_moments(sandboxed):
    path = "/prof/collections/apc-demo0001/history"

    async with sandboxed() as http:
        week = (await http.get(path)).json()
        hours = (
            await http.get(
                path, params={"scale": "hour", "after": "2026-08-01T00:00:00Z", "before": "2026-08-01T03:00:00Z"}
            )
        ).json()
        wrong = [
            {"scale": "year"},
            {"after": "2026-08-02", "before": "2026-08-01"},
            {"after": "2026-08-01", "before": "2026-08-01"},
            {"after": "yesterday"},
        ]
        statuses = {(await http.get(path, params=params)).status_code for params in wrong}

    assert (week["scale"], len(week["data"])) == ("day", 7)
    assert [bucket["bucket"] for bucket in hours["data"]] == [f"2026-08-01T0{hour}:00:00.000Z" for hour in range(3)]
    assert statuses == {400}


# Who may come in


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (("DELETE", LOOKUP, {}), 405),
        (("GET", LOOKUP, {"Amperity-Tenant": "nobody"}), 401),
        (("GET", LOOKUP, {"Authorization": "Basic x", "Amperity-Tenant": "nobody"}), 401),
        (("GET", LOOKUP, bearer("sandbox-key-expired") | DEMO), 401),
        (("GET", LOOKUP, bearer("sandbox-key-without-pii")), 403),
        (("GET", LOOKUP, bearer("sandbox-key-without-pii") | {"Amperity-Tenant": "nobody"}), 403),
        (("GET", LOOKUP, bearer("sandbox-key-of-demo") | {"Amperity-Tenant": "other"}), 403),
        (("GET", "/prof/lookup/apc-nope/keychain", bearer("sandbox-key-without-pii") | DEMO), 403),
        (("GET", "/prof/lookup/apc-nope/keychain", bearer("sandbox-key-of-demo") | DEMO), 404),
        (("GET", LOOKUP, bearer("sandbox-key-of-demo") | DEMO), 400),
        (("GET", f"{LOOKUP}?email=nobody", bearer("sandbox-key-of-demo") | DEMO), 404),
        (("GET", f"{LOOKUP}?email=pat@example.test", bearer("sandbox-key-of-demo") | DEMO), 200),
        (("GET", f"{STATS}", bearer("sandbox-key-without-pii") | DEMO), 200),
        (("GET", "/nowhere", {}), 404),
    ],
)
async def test_checks_come_in_a_fixed_order(sandboxed, request_, status):
    method, path, headers = request_

    async with sandboxed(headers=headers) as http:
        answer = await http.request(method, path)

    assert answer.status_code == status
    assert status == 200 or answer.json()["status"] == status


async def test_two_tenants_share_a_host_a_collection_and_nothing_else(sandboxed):
    demo = bearer("sandbox-key-of-demo") | DEMO

    async with sandboxed(headers={}) as http:
        ours, theirs = [
            await http.post(LOOKUP, json=keys(email="pat@example.test"), headers=headers) for headers in (demo, OTHER)
        ]
        crossed = await http.get(theirs.headers["Location"], headers=demo)

    assert ours.json()["profile_id"] != theirs.json()["profile_id"]
    assert ours.json()["attributes"] != theirs.json()["attributes"]
    assert crossed.status_code == 404


@pytest.mark.parametrize("header", ["amperity-tenant", "X-Amperity-Tenant"])
async def test_the_tenant_header_has_two_spellings(sandboxed, header):
    async with sandboxed(headers=bearer("sandbox-key-of-demo") | {header: "demo-sb-10001"}) as http:
        assert (await http.get(STATS)).status_code == 200


@pytest.mark.parametrize(("host", "status"), [("app", 200), ("demo", 200), ("demo-sb-10001", 403), ("other", 403)])
async def test_a_tenant_is_served_on_its_own_host_and_on_the_shared_one(sandboxed, host, status):
    async with sandboxed(base_url=f"https://{host}.amperity.com") as http:
        assert (await http.get(STATS)).status_code == status


async def test_a_token_ends_after_some_calls(sandboxed):
    async with sandboxed(behaviour=Behaviour(calls_per_token=2)) as http:
        assert [(await http.get(STATS)).status_code for _ in range(3)] == [200, 200, 401]


async def test_an_oauth_token_is_good_for_its_tenant_and_an_hour(sandboxed):
    now = [0.0]

    async with sandboxed(headers=DEMO, clock=lambda: now[0]) as http:
        issued = (await http.post("/api/v0/oauth2/token", data=CLIENT)).json()
        held = bearer(issued["access_token"])
        good = await http.get(STATS, headers=held)
        elsewhere = await http.get(STATS, headers=held | {"Amperity-Tenant": "other"})
        now[0] = issued["expires_in"]
        ended = await http.get(STATS, headers=held)

    assert issued["token_type"] == "Bearer"
    assert [answer.status_code for answer in (good, elsewhere, ended)] == [200, 403, 401]


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        (CLIENT | {"grant_type": "password"}, {}, 400),
        (CLIENT | {"client_secret": "guess"}, {}, 401),
        (CLIENT, {"Amperity-Tenant": "other"}, 401),
        (CLIENT, {"Amperity-Tenant": "nobody"}, 403),
    ],
)
async def test_a_wrong_oauth_client_gets_no_token(sandboxed, form, headers, status):
    async with sandboxed(headers=DEMO | headers) as http:
        assert (await http.post("/api/v0/oauth2/token", data=form)).status_code == status


# Rate and latency


@pytest.mark.parametrize("switch", [False, True])
async def test_too_many_calls_of_one_tenant_are_refused_until_time_passes(sandboxed, switch):
    now = [0.0]
    behaviour = Behaviour(realtime_per_second=2, retry_after=switch)

    async with sandboxed(behaviour=behaviour, clock=lambda: now[0]) as http:
        first = [await http.get(STATS) for _ in range(3)]
        other = await http.get(STATS, headers=OTHER)
        other_api = await http.get("/api/indexes", headers={"api-version": "2025-07-31"})
        now[0] = 0.5
        later = [(await http.get(STATS)).status_code for _ in range(2)]

    assert [answer.status_code for answer in first] == [200, 200, 429]
    assert first[-1].headers.get("Retry-After") == ("1" if switch else None)
    assert other.status_code == other_api.status_code == 200
    assert later == [200, 429]


@pytest.fixture
def slept():
    return []


@pytest.fixture
def sleep(slept):
    async def sleep(seconds):
        slept.append(seconds * 1000)

    return sleep


async def test_latency_is_lognormal_and_the_same_for_the_same_seed(sandboxed, sleep, slept):
    for _ in range(2):
        async with sandboxed(behaviour=Behaviour(latency_ms=40, seed=7, realtime_per_second=0), sleep=sleep) as http:
            for _ in range(500):
                await http.get(STATS)

    assert slept[:500] == slept[500:]
    assert statistics.median(slept) == pytest.approx(40, rel=0.1)
    assert statistics.quantiles(slept, n=100)[98] == pytest.approx(100, rel=0.25)


async def test_there_is_no_latency_unless_asked_for(sandboxed, sleep, slept):
    async with sandboxed(sleep=sleep) as http:
        await http.get(STATS)

    assert slept == []


# Envelopes


async def test_the_generic_envelope_repeats_no_value(sandboxed):
    async with sandboxed() as http:
        answer = await http.post(LOOKUP, json=keys(email="canary@example.test"))

    assert answer.json().keys() == {"status", "message", "request_id", "trace_id"}
    assert answer.headers["Content-Type"] == "application/json"
    assert "canary" not in answer.text


async def test_the_draft_envelope_repeats_the_value(sandboxed):
    async with sandboxed(behaviour=Behaviour(envelope="draft")) as http:
        lookup = (await http.post(LOOKUP, json=keys(email="canary@example.test"))).json()
        profile = (await http.get("/prof/profiles/apc-demo0001/canary")).json()
        key = (await http.post(LOOKUP, json=keys(shoe_size="42"))).json()

    del lookup["message"], profile["message"], key["message"]
    where = {"collection": "apc-demo0001"}
    assert lookup == {"error": "not-found", **where, "key": "email", "value": "canary@example.test"}
    assert profile == {"error": "not-found", **where, "profile": "canary"}
    assert key == {"error": "invalid-lookup-key", **where, "key": "shoe_size"}


# Events


@pytest.mark.parametrize(
    ("stream", "status"),
    [("esm-demo0001", 202), ("esm-drop0001", 204), ("esm-reject0001", 409), ("esm-busy0001", 503), ("is-1", 404)],
)
async def test_a_stream_answers_by_its_mode(sandboxed, stream, status):
    async with sandboxed() as http:
        assert (await http.post(f"/prof/events/{stream}", json={"name": "viewed"})).status_code == status


async def test_events_have_limits(sandboxed):
    async def chunks():
        yield b"{}"

    path = "/prof/events/esm-demo0001"
    json = {"Content-Type": "application/json"}
    full = b'{"a":"' + b"x" * (64 * 1024 - 8) + b'"}'

    async with sandboxed() as http:
        assert (await http.post(path, content=chunks(), headers=json)).status_code == 411
        assert (await http.post(path, content=full, headers=json)).status_code == 202
        assert (await http.post(path, content=full + b" ", headers=json)).status_code == 413
        assert (await http.post(path, content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
        assert (await http.post(path, content=b"[{}]", headers=json)).status_code == 400


async def test_either_permission_allows_events_and_nothing_else(sandboxed):
    async with sandboxed(headers=DEMO | bearer("sandbox-key-for-events")) as http:
        assert (await http.post("/prof/events/esm-demo0001", json={})).status_code == 202
        assert (await http.get(STATS)).status_code == 403


# Indexes

VERSION = {"api-version": "2025-07-31"}


async def test_an_index_finds_a_profile_by_its_own_key_with_texts_alone(sandboxed):
    async with sandboxed() as http:
        profile = (await http.get("/api/indexes/idx-demo0002/profiles/pat%40example.test", headers=VERSION)).json()
        visitor = await http.get("/api/indexes/idx-demo0002/profiles/visitor-5@example.test", headers=VERSION)
        unknown = await http.get("/api/indexes/idx-demo0001/profiles/pat@example.test", headers=VERSION)

    assert (profile["id"], profile["index_id"]) == ("pat@example.test", "idx-demo0002")
    assert profile["attributes"]["PredictedCLV"] == "413.21"
    assert {type(value) for value in profile["attributes"].values()} == {str}
    assert [visitor.status_code, unknown.status_code] == [200, 404]


async def test_an_index_needs_its_version(sandboxed):
    async with sandboxed() as http:
        for path in ("/api/indexes", "/api/indexes/idx-demo0001"):
            for version, status in (({}, 400), ({"api-version": "2024-01-01"}, 400), (VERSION, 200)):
                assert (await http.get(path, headers=version)).status_code == status
        assert (await http.get("/api/indexes/idx-nope", headers=VERSION)).status_code == 404


async def test_an_index_is_filtered_by_declared_fields_and_paged(sandboxed):
    path = "/api/indexes/idx-demo0001/profiles"

    async with sandboxed(headers=None) as http:
        http.headers.update(VERSION)
        first = (await http.get(path)).json()
        rest = (await http.get(path, params={"next_token": first["next_token"], "with_total": "true"})).json()
        gold = (await http.get(path, params={"filter[LifetimeTier]": "Gold", "with_total": "true"})).json()
        wrong = await http.get(path, params={"filter[Persona]": "Value Hunter"})

    assert [len(first["data"]), len(rest["data"]), rest["total"]] == [25, 5, 30]
    assert "total" not in first
    assert "next_token" not in rest
    assert gold["total"] == len(gold["data"]) == 3
    assert wrong.status_code == 400


# Control


async def test_the_behaviour_changes_field_by_field_and_starts_afresh(sandboxed):
    async with sandboxed() as http:
        await http.post(LOOKUP, json=keys(email="pat@example.test"))
        changed = (await http.post("/_sandbox", json={"envelope": "draft", "seed": 3})).json()
        told = (await http.get("/_sandbox")).json()
        wrong = await http.post("/_sandbox", json={"envelope": "brown", "latency_ms": -1})
        afresh = (await http.delete("/_sandbox")).json()

    assert (changed["behaviour"]["envelope"], changed["behaviour"]["seed"]) == ("draft", 3)
    assert told["calls"] == {"keychain": 1}
    assert wrong.status_code == 400
    assert "envelope: must be one of generic, draft" in wrong.text
    assert afresh["behaviour"]["envelope"] == "generic"
    assert afresh["calls"] == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'{"nope": 1}'])
async def test_a_change_that_makes_no_sense_is_refused(sandboxed, body):
    async with sandboxed() as http:
        assert (await http.post("/_sandbox", content=body)).status_code == 400


async def test_the_end_of_the_api_may_be_announced(sandboxed):
    async with sandboxed(behaviour=Behaviour(sunset=True)) as http:
        assert {"deprecation", "sunset"} <= (await http.get(STATS)).headers.keys()


async def test_it_works_below_a_path():
    app = Starlette(routes=[Mount("/amperity", new_app())])
    headers = bearer("sandbox-key-of-demo") | DEMO

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://sandbox.test", headers=headers
    ) as http:
        found = await http.post(f"/amperity{LOOKUP}", json=keys(email="pat@example.test"))
        read = await http.get(found.headers["Location"])

    assert found.headers["Location"].startswith("/amperity/prof/profiles/")
    assert read.json() == found.json()
