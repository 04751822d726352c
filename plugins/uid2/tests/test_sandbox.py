"""The imitation answers as operators do."""

from __future__ import annotations

import base64

import pytest

from partnerenrich_uid2._sandbox import Behaviour, new_sandbox
from partnerenrich_uid2._sandbox.salts import DAY, Bucket, Table

V3 = "/v3/identity/map"
V2 = "/v2/identity/map"
BUCKETS = "/v2/identity/buckets"
STATUS = "/v2/optout/status"
USER = "user@example.com"
HASH = "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="
NOBODY = {"email": []}

TABLE = Table(
    "sandbox-first-level", [Bucket(1_000_000, "sandbox-rotating", None, 1_767_225_600 - 91 * DAY, 1_769_817_600)]
)
"""The one bucket of the vectors."""


# Identity map, version 3


async def test_the_answer_of_the_vector(imitation):
    """All kinds are there, in the order of what was asked."""
    asked = await imitation(salts=TABLE).ask(V3, {"email_hash": [HASH]})

    assert asked.answer == {
        "status": "success",
        "body": {
            "email": [],
            "email_hash": [{"u": "P2haFtWBKtwHM40KTWj09mglCcPKtlkIHHLLHpvzoB4=", "p": None, "r": 1769817600}],
            "phone": [],
            "phone_hash": [],
        },
    }


async def test_raw_uids_of_the_public_fixture(imitation):
    """Two of the operator's own identities, beside one that is none."""
    salts = Table(
        "fOGY/aRE44peL23i+cE9MkJrzmEeNZZziNZBfq7qqk8=",
        [Bucket(1_000_000, "vgv1BwiNRCW7F3VcNXHlZh+7oHJ4G4gCshbGcVOLnss=", None, 0, 1_798_243_200)],
    )

    asked = await imitation(salts=salts).ask(V3, {"email_hash": [HASH, "oops"], "phone": ["+61491570006"]})

    assert asked.answer["body"] == {
        "email": [],
        "email_hash": [
            {"u": "6bnjfis0XfGLD4gL3zNdHoUh07VHgiIWfcAksL4aLC4=", "p": None, "r": 1798243200},
            {"e": "invalid identifier"},
        ],
        "phone": [{"u": "Xxemsnn7OBrjENt3WFcAtglysJXsF4sVF7ZZeEi2vl0=", "p": None, "r": 1798243200}],
        "phone_hash": [],
    }


async def test_kinds_may_be_mixed_and_bad_entries_fail_alone(imitation):
    asked = await imitation("EUID").ask(V3, {"email": [USER, "oops", USER], "email_hash": [HASH], "phone": ["+1"]})

    body = asked.answer["body"]
    assert body["email"][0] == body["email"][2] == body["email_hash"][0]
    assert body["email"][1] == body["phone"][0] == {"e": "invalid identifier"}
    assert body["phone_hash"] == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b"\xff",
        {},
        {"emails": [USER]},
        {"email": [USER], "policy": 1},
        {"email": [USER], "optout_check": 1},
        {"email": USER},
        {"email": {}},
        {"email": [None]},
        {"email": [7]},
    ],
)
async def test_a_request_that_makes_no_sense_is_a_400(imitation, payload):
    asked = await imitation().ask(V3, payload)

    assert asked.status == 400
    assert asked.response.json()["status"] == "client_error"


@pytest.mark.parametrize("payload", [NOBODY, {"email": None}, {"email": None, "phone": []}])
async def test_nobody_is_a_200(imitation, payload):
    asked = await imitation().ask(V3, payload)

    assert asked.answer["body"] == {"email": [], "email_hash": [], "phone": [], "phone_hash": []}


@pytest.mark.parametrize("scope", ["UID2", "EUID"])
async def test_test_identities(imitation, scope):
    """Those that every operator knows."""
    out = {"email": ["optout@example.com", " OptOut@example.com"], "phone": ["+00000000000"]}
    out |= {"email_hash": ["DYsnJ8r5+cjRDHue98gIGDKvLIMuqAm/RRLODrjqK50="]}
    out |= {"phone_hash": ["313yQvZOTb0vjjEU7sTO/UWxGPzVppIbCyQEJEnfxLo="]}
    mapped = {"email": ["refresh-optout@example.com", "validate@example.com"]}
    mapped |= {"phone": ["+00000000002", "+12345678901"]}
    behaviour = Behaviour(opted_out=("validate@example.com", "+12345678901"))

    gone = (await imitation(scope, behaviour=behaviour).ask(V3, out)).answer["body"]
    there = (await imitation(scope, behaviour=behaviour).ask(V3, mapped)).answer["body"]

    assert [entry for entries in gone.values() for entry in entries] == [{"e": "optout"}] * 5
    assert all("u" in entry for entries in there.values() for entry in entries)


async def test_the_scopes_have_nothing_in_common(imitation):
    ours, theirs = [(await imitation(scope).ask(V3, {"email": [USER]})).answer["body"] for scope in ("UID2", "EUID")]

    assert ours["email"][0]["u"] != theirs["email"][0]["u"]


async def test_an_email_is_no_phone(imitation):
    asked = await imitation().ask(V3, {"email_hash": [HASH], "phone_hash": [HASH]})

    body = asked.answer["body"]
    assert "u" in body["phone_hash"][0]


async def test_limits(imitation):
    """5,000 identifiers of all kinds together; 1 MiB in any case."""
    operator = imitation()
    relaxed = imitation(behaviour=Behaviour(most_identifiers=0))
    many = {"email_hash": [HASH] * 2500, "phone_hash": [HASH] * 2501}
    few = {"email_hash": [HASH] * 2500, "phone_hash": [HASH] * 2500}

    assert (await operator.ask(V3, few)).status == 200
    assert (await operator.ask(V3, many)).status == 400
    assert (await relaxed.ask(V3, many)).status == 200
    for body_type, room in (("application/octet-stream", (1 << 20) - 45), ("text/plain", (1 << 20) * 3 // 4 - 45)):
        padded = b'{"email":[]%s}'
        fits = await relaxed.ask(V3, padded % (b" " * (room - 12)), body_type=body_type)
        over = await relaxed.ask(V3, padded % (b" " * (room - 11)), body_type=body_type)

        assert fits.status == 200
        assert over.status == 413
        assert over.response.headers["Content-Type"].startswith("text/plain")


# Rotation


async def test_a_raw_uid_changes_when_announced_and_the_one_before_is_told_for_90_days(imitation):
    operator = imitation()

    async def entry():
        return (await operator.ask(V3, {"email": [USER]})).answer["body"]["email"][0]

    first = before = await entry()
    while before["u"] == first["u"]:
        operator.time = before["r"] - 1
        assert (await entry())["u"] == first["u"]
        operator.time = before["r"]
        before = await entry()

    assert before["p"] == first["u"]
    operator.time += 90 * DAY - 1
    assert (await entry())["p"] == first["u"]
    operator.time += 1
    assert await entry() == {"u": before["u"], "p": None, "r": int(operator.time) + 30 * DAY}


async def test_salts_that_are_ahead(imitation):
    """The same rotation, played without another clock."""
    today, ahead = imitation(), imitation(behaviour=Behaviour(salt_days=360))

    before = (await today.ask(V3, {"email": [USER]})).answer["body"]["email"][0]
    after = (await ahead.ask(V3, {"email": [USER]})).answer["body"]["email"][0]

    assert before["u"] != after["u"]
    assert before["r"] == after["r"]


async def test_a_refresh_in_the_past_is_told_as_midnight(imitation):
    operator = imitation(salts=TABLE)
    operator.time = 1_769_817_600 + 5

    asked = await operator.ask(V3, {"email": [USER]})

    assert asked.answer["body"]["email"][0]["r"] == 1_769_817_600 + DAY


# Identity map, version 2


async def test_v2_repeats_what_was_asked(imitation):
    asked = await imitation(salts=TABLE).ask(
        V2, {"email": [" USER@example.com", "optout@example.com", "x"], "phone": []}
    )

    (mapped,) = asked.answer["body"]["mapped"]
    assert mapped.pop("bucket_id").startswith("b")
    assert mapped == {
        "identifier": " USER@example.com",
        "advertising_id": "P2haFtWBKtwHM40KTWj09mglCcPKtlkIHHLLHpvzoB4=",
    }
    assert asked.answer["body"]["unmapped"] == [
        {"identifier": "optout@example.com", "reason": "optout"},
        {"identifier": "x", "reason": "invalid identifier"},
    ]


async def test_v2_leaves_unmapped_out_when_all_are_mapped(imitation):
    assert list((await imitation().ask(V2, {"email": [USER], "policy": 1})).answer["body"]) == ["mapped"]
    assert (await imitation().ask(V2, {"email": [], "phone": []})).answer["body"] == {"mapped": []}


@pytest.mark.parametrize(
    "payload", [b"", {}, {"policy": 1}, {"email": [USER], "phone": ["+12345678901"]}, {"email": USER}, {"email": [7]}]
)
async def test_v2_takes_one_kind(imitation, payload):
    assert (await imitation().ask(V2, payload)).status == 400


async def test_v2_and_v3_agree(imitation):
    operator = imitation()

    old = (await operator.ask(V2, {"email_hash": [HASH]})).answer["body"]["mapped"][0]["advertising_id"]
    new = (await operator.ask(V3, {"email_hash": [HASH]})).answer["body"]["email_hash"][0]["u"]

    assert old == new


async def test_rotated_buckets(imitation):
    """Three rotate each day; the filter includes its own moment."""
    operator = imitation()

    asked = await operator.ask(BUCKETS, {"since_timestamp": "2025-12-31T00:00:00"})
    later = await operator.ask(BUCKETS, {"since_timestamp": "2025-12-31T00:00:00.001"})
    ahead = await imitation(behaviour=Behaviour(salt_days=7)).ask(BUCKETS, {"since_timestamp": "2025-12-31T00:00"})

    times = sorted(bucket["last_updated"] for bucket in asked.answer["body"])
    assert times == ["2025-12-31T00:00:00.000"] * 3 + ["2026-01-01T00:00:00.000"] * 3
    assert len({bucket["bucket_id"] for bucket in asked.answer["body"]}) == 6
    assert len(later.answer["body"]) == 3
    assert sorted(bucket["last_updated"] for bucket in ahead.answer["body"]) == times


@pytest.mark.parametrize(
    "since",
    [None, 7, "", "yesterday", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+01:00", "2026-13-01T00:00"],
)
async def test_buckets_need_a_time_without_a_zone(imitation, since):
    assert (await imitation().ask(BUCKETS, {"since_timestamp": since})).status == 400


# Opt-outs


async def test_an_opt_out_that_comes_late(imitation):
    operator = imitation()
    pat = {"email": ["pat@example.test"]}
    (entry,) = (await operator.ask(V3, pat)).answer["body"]["email"]
    status = {"advertising_ids": [entry["u"], "unknown"]}

    assert (await operator.ask(STATUS, status, key="sharer")).answer["body"] == {"opted_out": []}
    async with operator.client() as http:
        await http.post("/_sandbox", json={"opted_out": ["pat@example.test"]})
    (gone,) = (await operator.ask(V3, pat)).answer["body"]["email"]
    (told,) = (await operator.ask(STATUS, status, key="reader")).answer["body"]["opted_out"]

    assert gone == {"e": "optout"}
    assert told == {"advertising_id": entry["u"], "opted_out_since": 1764547200000}


@pytest.mark.parametrize("payload", [b"", {}, {"advertising_ids": "x"}, {"advertising_ids": ["x"] * 5001}])
async def test_the_status_needs_a_list_of_at_most_5000(imitation, payload):
    assert (await imitation().ask(STATUS, payload)).status == 400


# Who may come in


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (V3, "mapper", 200),
        (V3, "generator", 401),
        (V3, "sharer", 401),
        (V3, "disabled", 401),
        (V2, "reader", 401),
        (BUCKETS, "sharer", 401),
        (STATUS, "mapper", 200),
        (STATUS, "sharer", 200),
        (STATUS, "reader", 200),
        (STATUS, "generator", 401),
    ],
)
async def test_roles(imitation, path, key, status):
    """A key without the role gets 401, as an unknown one does."""
    payload = {"advertising_ids": [], "since_timestamp": "2026-01-01T00:00:00"} if path in {STATUS, BUCKETS} else NOBODY

    asked = await imitation().ask(path, payload, key=key)

    assert asked.status == status
    if status == 401:
        assert asked.response.json() == {"status": "unauthorized"}


async def test_the_scheme_is_matched_without_regard_to_case(imitation):
    operator = imitation()
    token = operator.credentials["mapper"].token

    statuses = [
        (await operator.ask(V3, NOBODY, authorization=given)).status
        for given in (f"bearer {token}", f"BEARER {token}", f"Basic {token}", token, "Bearer unknown", "Bearer")
    ]

    assert statuses == [200, 200, 401, 401, 401, 401]


async def test_a_key_of_the_other_scope_is_unknown(imitation):
    theirs = imitation("EUID").credentials["mapper"].token

    assert (await imitation("UID2").ask(V3, NOBODY, authorization=f"Bearer {theirs}")).status == 401


@pytest.mark.parametrize(
    ("body_type", "answered"),
    [
        ("application/octet-stream", "application/octet-stream"),
        ("APPLICATION/OCTET-STREAM", "application/octet-stream"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("application/x-www-form-urlencoded", "text/plain; charset=utf-8"),
        ("application/json", "text/plain; charset=utf-8"),
        ("application/octet-stream; charset=utf-8", "text/plain; charset=utf-8"),
        (None, "text/plain; charset=utf-8"),
    ],
)
async def test_both_forms_of_a_body(imitation, body_type, answered):
    asked = await imitation().ask(V3, NOBODY, body_type=body_type)

    assert asked.status == 200
    assert asked.response.headers["Content-Type"] == answered


async def test_binary_has_exactly_one_name(imitation):
    asked = await imitation().ask(
        V3, NOBODY, body_type="application/octet-stream; charset=utf-8", envelope=base64.b64decode
    )

    assert asked.status == 400


async def test_text_that_claims_to_be_binary_is_read_and_answered_as_text(imitation):
    asked = await imitation().ask(V3, NOBODY, envelope=base64.b64encode)

    assert asked.response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("body_type", ["application/octet-stream", "text/plain"])
@pytest.mark.parametrize(
    "envelope",
    [
        lambda body: b"",
        lambda body: body[:44],
        lambda body: b"\x02" + body[1:],
        lambda body: body[:-1] + bytes([body[-1] ^ 1]),
        lambda body: b"\xff" * 100,
    ],
)
async def test_a_body_that_is_no_envelope_is_a_400(imitation, envelope, body_type):
    asked = await imitation().ask(V3, NOBODY, envelope=envelope, body_type=body_type)

    assert asked.status == 400
    assert asked.response.json().keys() == {"status", "message"}


async def test_another_secret_is_a_400(imitation):
    assert (await imitation().ask(V3, NOBODY, secret=bytes(32))).status == 400


@pytest.mark.parametrize(
    ("window", "off", "status"), [(60, -60, 200), (60, 60, 200), (60, -61, 400), (60, 61, 400), (120, -119, 200)]
)
async def test_the_window_of_time(imitation, window, off, status):
    asked = await imitation(behaviour=Behaviour(window_s=window)).ask(V3, NOBODY, off=off)

    assert asked.status == status


async def test_the_key_is_looked_at_first(imitation):
    assert (await imitation().ask(V3, b"{", key="generator", envelope=lambda _: b"", off=999)).status == 401


# Faults


async def test_a_limit_of_calls(imitation):
    """429 has no body, and each second begins anew."""
    operator = imitation(behaviour=Behaviour(calls_per_second=2))

    asked = [await operator.ask(V3, NOBODY) for _ in range(3)]
    operator.time += 1

    assert [one.status for one in asked] == [200, 200, 429]
    assert asked[2].response.content == b""
    assert (await operator.ask(V3, NOBODY)).status == 200


@pytest.mark.parametrize(("fault", "status"), [("rate_limited", 429), ("operator_error", 500)])
async def test_faults_with_a_status(imitation, fault, status):
    assert (await imitation(behaviour=Behaviour(fault=fault)).ask(V3, NOBODY)).status == status


async def test_latency(imitation):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    await imitation(behaviour=Behaviour(latency_ms=40), sleep=sleep).ask(V3, NOBODY)

    assert slept == [0.04]


async def test_control(imitation):
    operator = imitation()

    async with operator.client() as http:
        await operator.ask(V3, NOBODY)
        changed = (await http.post("/_sandbox", json={"fault": "rate_limited"})).json()
        refused = await http.post("/_sandbox", json={"fault": "no such"})
        broken = await http.post("/_sandbox", content=b"[")
        told = (await http.get("/_sandbox")).json()
        afresh = (await http.delete("/_sandbox")).json()

    assert changed == told
    assert told["behaviour"]["fault"] == "rate_limited"
    assert told["calls"] == {V3: 1}
    assert (refused.status_code, broken.status_code) == (400, 400)
    assert "fault: must be one of" in refused.json()["error"]
    assert afresh["behaviour"]["fault"] == "none"
    assert afresh["calls"] == {}


async def test_other_paths_and_methods(imitation):
    async with imitation().client() as http:
        assert (await http.post("/v3/nothing")).status_code == 404
        assert (await http.get(V3)).status_code == 405


@pytest.mark.parametrize("scope", ["UID2", "EUID"])
async def test_the_sample_is_true(imitation, scope):
    sample = new_sandbox(scope).sample
    operator = imitation(scope)

    async def entries(kind):
        people = sample[kind]
        payload = {source: [who[source] for who in people if source in who] for source in ("email", "phone")}
        body = (await operator.ask(V3, payload)).answer["body"]
        return [entry for answers in body.values() for entry in answers]

    assert all("u" in entry for entry in await entries("known"))
    assert await entries("unknown") == [{"e": "invalid identifier"}]
    assert await entries("opted_out") == [{"e": "optout"}] * 3
