"""What goes over the wire, and what is made of the answers."""

from __future__ import annotations

import base64
import json
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import (
    AuthError,
    BadResponse,
    Call,
    Link,
    PartnerError,
    RateLimited,
    RequestRefused,
    Resolution,
    Unavailable,
    Visitor,
    plugins,
)
from partnerenrich.settings import structure
from partnerenrich_uid2 import uid2
from partnerenrich_uid2._identifiers import Identifier
from partnerenrich_uid2._identity_map import portions
from partnerenrich_uid2._sandbox.envelope import open_request, seal_answer
from partnerenrich_uid2.config import UID2Config

HASH = "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="
LINK = Link("email", "email", HASH, "uid2")
MONTH = 1_769_817_600


def email(name):
    return Link("email", "email", f"{name}@example.test", "none")


def phone(digits):
    return Link("phone", "phone", f"+{digits}", "none")


def entry(uid="raw-uid-canary", previous=None, refresh_from=MONTH):
    return {"u": uid, "p": previous, "r": refresh_from}


def success(**entries):
    return {"status": "success", "body": {"email": [], "email_hash": [], "phone": [], "phone_hash": []} | entries}


def named(asked):
    """An answer of version 3 in which every raw id tells what it was asked for."""
    return success(**{kind: [entry(f"{kind} {value}") for value in values] for kind, values in asked.items()})


# Requests


async def test_one_request_mixes_all_kinds_and_answers_keep_their_order(configured, double, partner, call):
    links = [email("b"), phone("12025550101"), LINK, email("a"), Link("phone", "phone", HASH, "uid2"), email("b")]
    operator = double(named)

    async with operator.client() as http:
        answers = await partner.resolve_ids(configured(), http, links, call)

    assert [answer.partner_id for answer in answers] == [
        "email b@example.test",
        "phone +12025550101",
        f"email_hash {HASH}",
        "email a@example.test",
        f"phone_hash {HASH}",
        "email b@example.test",
    ]
    assert operator.asked == [
        {
            "email": ["b@example.test", "a@example.test", "b@example.test"],
            "phone": ["+12025550101"],
            "email_hash": [HASH],
            "phone_hash": [HASH],
        }
    ]


async def test_a_request_is_binary_with_the_key_as_bearer(configured, double, partner, call):
    operator = double(named)

    async with operator.client() as http:
        await partner.resolve_id(configured(), http, LINK, Visitor(), call)

    (request,) = operator.requests
    assert request.method == "POST"
    assert str(request.url) == "https://global.prod.uidapi.com/v3/identity/map"
    assert request.headers["Authorization"] == "Bearer canary-api-key"
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert request.content[0] == 1


async def test_a_request_as_text(configured, double, partner, call):
    operator = double(named)

    async with operator.client() as http:
        answer = await partner.resolve_id(configured(body="base64"), http, LINK, Visitor(), call)

    (request,) = operator.requests
    assert request.headers["Content-Type"] == "text/plain"
    assert base64.b64decode(request.content, validate=True)[0] == 1
    assert answer.partner_id == f"email_hash {HASH}"


@pytest.mark.parametrize("asked", ["octet-stream", "base64"])
@pytest.mark.parametrize("is_binary", [True, False])
async def test_the_answer_says_itself_whether_it_is_binary(configured, double, partner, call, asked, is_binary):
    operator = double(named, is_binary=is_binary)

    async with operator.client() as http:
        answer = await partner.resolve_id(configured(body=asked), http, LINK, Visitor(), call)

    assert answer.reason == "found"


async def test_every_attempt_is_stamped_anew(configured, double, partner, call):
    operator = double(503, named)

    async with operator.client() as http:
        with pytest.raises(Unavailable):
            await partner.resolve_id(configured(), http, LINK, Visitor(), call)
        await partner.resolve_id(configured(), http, LINK, Visitor(), call)

    first, second = (request.content for request in operator.requests)
    assert first[1:13] != second[1:13]
    assert first[13:] != second[13:]


async def test_the_check_asks_for_nobody(configured, double, partner, call):
    operator = double(success(), {"status": "success", "body": {"mapped": []}})

    async with operator.client() as http:
        await partner.check(configured(), http, call)
        await partner.check(configured(protocol="v2"), http, call)

    assert operator.asked == [{"email": []}] * 2
    assert [request.url.path for request in operator.requests] == ["/v3/identity/map", "/v2/identity/map"]


# Answers


async def test_a_found_id_comes_with_the_previous_one_and_its_time(configured, double, partner, call):
    operator = double(success(email_hash=[entry("current", "previous", MONTH)]))

    async with operator.client() as http:
        answer = await partner.resolve_id(configured(), http, LINK, Visitor(), call)

    assert answer == Resolution("current", previous_id="previous", refresh_at=MONTH, expires_at=MONTH)


@pytest.mark.parametrize("passed", [1, 86_400 * 365])
async def test_a_time_that_has_just_passed_does_not_make_every_event_ask(
    configured, double, partner, call, now, passed
):
    operator = double(success(email_hash=[entry(refresh_from=int(now) - passed)]))

    async with operator.client() as http:
        answer = await partner.resolve_id(configured(), http, LINK, Visitor(), call)

    assert answer.refresh_at == answer.expires_at == now + 60


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("optout", Resolution.opted_out()),
        ("invalid identifier", Resolution.invalid()),
        ("something new", Resolution.absent()),
        ("", Resolution.absent()),
    ],
)
@pytest.mark.parametrize("protocol", ["v3", "v2"])
async def test_why_there_is_no_id(configured, double, partner, call, protocol, reason, expected):
    body = {"mapped": [], "unmapped": [{"identifier": HASH, "reason": reason}]}
    answer = success(email_hash=[{"e": reason}]) if protocol == "v3" else {"status": "success", "body": body}
    operator = double(answer)

    async with operator.client() as http:
        assert expected == await partner.resolve_id(configured(protocol=protocol), http, LINK, Visitor(), call)


async def test_a_bad_identifier_fails_alone(configured, double, partner, call):
    def answer(asked):
        return success(email=[{"e": "invalid identifier"} if v[0] == "x" else entry(v) for v in asked["email"]])

    links = [email("a"), email("x"), Link("user_id", "customer", "c-1"), email("b b"), email("c")]
    operator = double(answer)

    async with operator.client() as http:
        first, refused, misconfigured, unsent, last = await partner.resolve_ids(configured(), http, links, call)

    assert (first.partner_id, last.partner_id) == ("a@example.test", "c@example.test")
    assert refused == unsent == Resolution.invalid()
    assert isinstance(misconfigured, RequestRefused)
    assert operator.asked == [{"email": ["a@example.test", "x@example.test", "c@example.test"]}]


async def test_nothing_to_ask_is_no_request(configured, double, partner, call):
    operator = double()

    async with operator.client() as http:
        assert await partner.resolve_ids(configured(), http, [], call) == []
        assert await partner.resolve_ids(configured(), http, [email("a b")], call) == [Resolution.invalid()]
        with pytest.raises(RequestRefused):
            await partner.resolve_id(configured(), http, Link("user_id", "customer", "c-1"), Visitor(), call)

    assert operator.requests == []


@given(
    drawn=st.lists(st.tuples(st.sampled_from(["email", "phone"]), st.integers(0, 50)), max_size=60),
    protocol=st.sampled_from(["v3", "v2"]),
)
async def test_order_is_kept_whatever_is_asked(resolve_any, drawn, protocol):
    """In both protocols, with duplicates and with entries of every sort."""
    links = [email(f"n{number}") if kind == "email" else phone(2025550100 + number) for kind, number in drawn]

    answers = await resolve_any(links, protocol)

    assert [expected_of(link.value) for link in links] == [answer.partner_id or answer.reason for answer in answers]


def expected_of(value):
    return {"0": "opted_out", "1": "invalid"}.get(value.partition("@")[0][-1], f"id of {value}")


@pytest.fixture(scope="module")
def resolve_any():
    """Asks an operator that opts out all whose name ends in 0, and calls invalid those that end in 1."""
    key = bytes(range(32))
    partner = plugins.bind("uid2", uid2)
    reasons = {"opted_out": "optout", "invalid": "invalid identifier"}

    def entry_of(value):
        expected = expected_of(value)
        return {"e": reasons[expected]} if expected in reasons else entry(expected)

    def body_v2(asked):
        answers = {value: expected_of(value) for values in asked.values() for value in values}
        mapped = [{"identifier": v, "advertising_id": e} for v, e in answers.items() if e not in reasons]
        unmapped = [{"identifier": v, "reason": reasons[e]} for v, e in answers.items() if e in reasons]
        return {"mapped": mapped, "unmapped": unmapped}

    def operator(request):
        opened = open_request(key, request.content, request.headers["Content-Type"])
        asked = json.loads(opened.message)
        is_v3 = request.url.path.startswith("/v3")
        body = {kind: list(map(entry_of, values)) for kind, values in asked.items()} if is_v3 else body_v2(asked)
        reply = json.dumps({"status": "success", "body": body}).encode()
        sealed = seal_answer(key, opened, reply, opened.stamped_ms)
        return httpx.Response(200, content=sealed, headers={"Content-Type": "application/octet-stream"})

    async def resolve(links, protocol):
        settings = {"api_key": "k", "client_secret": base64.b64encode(key).decode(), "protocol": protocol}
        async with httpx.AsyncClient(transport=httpx.MockTransport(operator)) as http:
            call = Call("acme", "uid2", "uid2", time.monotonic() + 5)
            return await partner.resolve_ids(structure(UID2Config, settings), http, links, call)

    return resolve


# The legacy protocol


async def test_v2_asks_for_one_kind_at_a_time(configured, double, partner, call):
    def answer(asked):
        ((kind, values),) = asked.items()
        mapped = [{"identifier": v, "advertising_id": f"{kind} {v}", "bucket_id": "b"} for v in reversed(values)]
        return {"status": "success", "body": {"mapped": mapped}}

    operator = double(answer, answer)

    async with operator.client() as http:
        links = [email("a"), phone("12025550101"), email("b"), email("a")]
        answers = await partner.resolve_ids(configured(protocol="v2"), http, links, call)

    assert answers == [
        Resolution("email a@example.test"),
        Resolution("phone +12025550101"),
        Resolution("email b@example.test"),
        Resolution("email a@example.test"),
    ]
    assert [sorted(asked) for asked in operator.asked] == [["email"], ["phone"]]


@pytest.mark.parametrize(
    "body",
    [
        {"mapped": []},
        {"mapped": [{"identifier": "another", "advertising_id": "x"}]},
        {"mapped": [{"identifier": HASH, "advertising_id": ""}]},
        {"mapped": [{"identifier": HASH}]},
        {"unmapped": []},
        {
            "mapped": [{"identifier": HASH, "advertising_id": "x"}],
            "unmapped": [{"identifier": "more", "reason": "optout"}],
        },
    ],
)
async def test_a_v2_answer_that_does_not_fit_is_bad(configured, double, partner, call, body):
    operator = double({"status": "success", "body": body})

    async with operator.client() as http:
        with pytest.raises(BadResponse):
            await partner.resolve_id(configured(protocol="v2"), http, LINK, Visitor(), call)


# Answers that cannot be trusted


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"{" * 100_000,
        {"status": "success"},
        {"status": "optout", "body": {"email_hash": [entry()]}},
        {"status": "success", "body": []},
        success(),
        success(email_hash=[]),
        success(email_hash=[entry(), entry()]),
        success(email_hash=[entry()], email=[entry()]),
        success(email_hash=[entry()], emails=[entry()]),
        success(email=[entry()]),
        success(email_hash=None),
        success(email_hash=[None]),
        success(email_hash=[{}]),
        success(email_hash=[entry(uid="")]),
        success(email_hash=[entry(uid=7)]),
        success(email_hash=[entry(refresh_from=None)]),
        success(email_hash=[entry(refresh_from="soon")]),
        success(email_hash=[entry(refresh_from=-1)]),
        success(email_hash=[entry(refresh_from=10**400)]),
        success(email_hash=[entry(previous=7)]),
    ],
)
async def test_an_answer_that_does_not_fit_is_bad_and_never_not_found(configured, double, partner, call, answer):
    operator = double(answer)

    async with operator.client() as http:
        with pytest.raises(BadResponse) as caught:
            await partner.resolve_id(configured(), http, LINK, Visitor(), call)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "content_type", "content"),
    [
        (200, "application/json", b'{"status":"success"}'),
        (200, "text/html", b"<!doctype html><title>Sign in</title>"),
        (200, "text/plain", "é".encode()),
        (200, "application/octet-stream", b""),
        (200, "application/octet-stream; charset=utf-8", b"short"),
        (204, "text/plain", b""),
        (302, "text/plain", b""),
    ],
)
async def test_a_success_without_an_envelope_is_bad(configured, double, partner, call, status, content_type, content):
    operator = double(httpx.Response(status, content=content, headers={"Content-Type": content_type}))

    async with operator.client() as http:
        with pytest.raises(BadResponse):
            await partner.resolve_id(configured(), http, LINK, Visitor(), call)


# Refusals


@pytest.mark.parametrize(
    ("response", "error", "hint"),
    [
        (httpx.Response(400, json={"status": "client_error", "message": "canary"}), RequestRefused, "client_secret"),
        (httpx.Response(400, text="canary"), RequestRefused, "clock"),
        (httpx.Response(401, json={"status": "unauthorized"}), AuthError, "MAPPER"),
        (httpx.Response(401, json={"status": "unauthorized", "message": "canary"}), AuthError, "environment"),
        (httpx.Response(403, text="canary"), AuthError, "403"),
        (httpx.Response(404, text="canary"), RequestRefused, "404"),
        (httpx.Response(413, text="canary"), RequestRefused, "too long"),
        (httpx.Response(429, text="canary"), RateLimited, "429"),
        (httpx.Response(500, json={"status": "unknown", "message": "canary"}), Unavailable, "500"),
        (httpx.Response(500, json={"status": "error", "message": "canary"}), Unavailable, "500"),
        (httpx.Response(502, text="canary"), Unavailable, "502"),
        (httpx.Response(503, text="canary"), Unavailable, "503"),
        (httpx.Response(504, text="canary"), Unavailable, "504"),
    ],
)
@pytest.mark.parametrize("ask", ["resolve", "check"])
async def test_failures_are_told_apart_and_tell_nothing_else(
    configured, double, partner, call, response, error, hint, ask
):
    operator = double(response)

    async with operator.client() as http:
        calls = {
            "check": lambda: partner.check(configured(), http, call),
            "resolve": lambda: partner.resolve_ids(configured(), http, [LINK, email("a")], call),
        }
        with pytest.raises(PartnerError) as caught:
            await calls[ask]()

    assert type(caught.value) is error
    assert hint in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_a_wait_that_the_operator_asks_for_is_passed_on(configured, double, partner, call):
    operator = double(httpx.Response(429, headers={"Retry-After": "7"}))

    async with operator.client() as http:
        with pytest.raises(RateLimited) as caught:
            await partner.resolve_id(configured(), http, LINK, Visitor(), call)

    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("date", "told"),
    [
        ("Thu, 01 Jan 2026 00:05:00 GMT", "which is 300 s behind"),
        ("Wed, 31 Dec 2025 23:58:00 GMT", "which is 120 s ahead"),
        ("Thu, 01 Jan 2026 00:00:02 GMT", None),
        ("yesterday", None),
    ],
)
async def test_a_clock_that_is_off_is_told(configured, double, partner, call, date, told):
    operator = double(httpx.Response(400, headers={"Date": date}))

    async with operator.client() as http:
        with pytest.raises(RequestRefused) as caught:
            await partner.check(configured(), http, call)

    assert str(caught.value).endswith(told or "the clock of this machine")


@pytest.mark.parametrize("error", [httpx.ReadTimeout("canary"), httpx.ConnectError("canary")])
async def test_errors_of_the_client_are_left_to_the_core(configured, double, partner, call, error):
    operator = double(error)

    async with operator.client() as http:
        with pytest.raises(type(error)):
            await partner.resolve_id(configured(), http, LINK, Visitor(), call)


# Sizes


async def test_more_than_one_request_holds_is_cut(configured, double, partner, call):
    operator = double(named, named, named)

    async with operator.client() as http:
        answers = await partner.resolve_ids(configured(), http, [email(f"n{n}") for n in range(10_001)], call)

    assert [len(asked["email"]) for asked in operator.asked] == [5_000, 5_000, 1]
    assert [answer.partner_id for answer in answers] == [f"email n{n}@example.test" for n in range(10_001)]


async def test_no_request_is_longer_than_operators_read(configured, double, partner, call):
    """Also in base64, which is a third longer, and with addresses of four bytes a character."""
    operator = double(*[named] * 20)
    links = [email("😀" * 300 + str(number)) for number in range(5_000)]

    async with operator.client() as http:
        answers = await partner.resolve_ids(configured(body="base64"), http, links, call)

    assert len(answers) == 5_000
    assert len(operator.requests) > 1
    assert max(len(request.content) for request in operator.requests) <= 1 << 20


async def test_5000_hashes_are_one_request(configured, double, partner, call):
    operator = double(named)

    async with operator.client() as http:
        await partner.resolve_ids(configured(body="base64"), http, [LINK] * 5_000, call)

    (request,) = operator.requests
    assert 310_000 < len(request.content) < 320_000


@given(st.lists(st.integers(0, 320), max_size=50))
def test_portions_lose_nothing(lengths):
    identifiers = [Identifier("email", "x" * length) for length in lengths]

    assert identifiers == [one for portion in portions(identifiers) for one in portion]
