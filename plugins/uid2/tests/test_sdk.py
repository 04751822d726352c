"""The official SDK, uid2-client, and this package understand each other in both directions."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
import urllib.error

import httpx
import pytest
import uid2_client
from starlette.applications import Starlette
from starlette.routing import Mount
from uid2_client.encryption import _decrypt_gcm
from uid2_client.input_util import normalize_and_hash_email, normalize_and_hash_phone, normalize_email_string
from uid2_client.request_response_util import create_envelope, parse_response
from uid2_client.uid2_response import Uid2Response
from uid2_client.uid2_token_generator import _encrypt_gcm

from partnerenrich import Link, Resolution, Visitor, plugins, recipes
from partnerenrich.http import hosts_of, open_client
from partnerenrich.settings import structure
from partnerenrich.testing.loopback import served
from partnerenrich_uid2 import _answers
from partnerenrich_uid2._envelope import open_answer, seal
from partnerenrich_uid2._sandbox import identities, new_app
from partnerenrich_uid2._sandbox.envelope import open_request, seal_answer
from partnerenrich_uid2._sandbox.gate import credentials
from partnerenrich_uid2._sandbox.identities import normalised_email

EMAILS = [
    *(" USER@example.com ", "Jane.Saoirse+Work@GMail.com", "Jane.Saoirse@example.com", "JaneSaoirse+Work@example.com"),
    *("MyEmail@example.com", "test.test@gmail.com", "+test@test.com", "😊testtest@test.com", "optout@example.com"),
    *("refresh-optout@example.com", "validate@example.com", "a+@gmail.com", "a@GMAIL.COM ", "a@gmail.com."),
    *("a.b.c+d@googlemail.com", "test@x .com", "É@example.com"),
]
NO_EMAILS = ["", " ", "@", " @", "a@", "@b", "@b.com", "+@gmail.com", ".+@gmail.com", "+a@gmail.com", "...@gmail.com"]
PHONES = ["+12345678901", "+6512435678", "+61491570006", "+441234567890", "+447700900123", "+00000000002"]


@pytest.fixture(scope="module")
def url():
    """Both scopes on one socket, each below a path of its own."""
    app = Starlette(routes=[Mount("/uid2", new_app("UID2")), Mount("/euid", new_app("EUID"))])
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["UID2", "EUID"])
def scope(request):
    return request.param


@pytest.fixture
def arguments(url, scope):
    """What the SDK's clients are made with."""
    settings = credentials(scope)["mapper"].settings
    return (f"{url}/{scope.lower()}", settings["api_key"], settings["client_secret"])


@pytest.fixture
def ours(url, scope, call):
    """Resolves links with this package."""
    partner = plugins.load([scope.lower()]).partner(scope.lower())

    async def resolve(links, **settings):
        issued = credentials(scope)["mapper"].settings
        config = structure(partner.facts.config, {**issued, "base_url": f"{url}/{scope.lower()}", **settings})
        async with open_client(partner.facts.limits, allowed_hosts=hosts_of(config)) as http:
            return await partner.resolve_ids(config, http, links, call)

    return resolve


def hashed(email):
    return Link("email", "email", normalize_and_hash_email(email), "uid2")


# Through the imitation


async def test_the_sdk_maps_through_the_imitation_and_finds_what_we_find(arguments, ours, monkeypatch):
    monkeypatch.setattr(_answers, "SOONEST", 0.0)  # else ours waits longer when salts are rotated within a minute
    sdk = uid2_client.IdentityMapV3Client(*arguments)
    asked = uid2_client.IdentityMapV3Input.from_emails(EMAILS).with_phones(PHONES)

    theirs = sdk.generate_identity_map(asked)
    answers = await ours([*map(hashed, EMAILS), *(Link("phone", "phone", phone) for phone in PHONES)])

    assert theirs.is_success()
    for written, answer in zip([*EMAILS, *PHONES], answers, strict=True):
        if answer == Resolution.opted_out():
            unmapped = theirs.unmapped_identities[written]
            assert unmapped.reason is uid2_client.UnmappedIdentityReason.OPTOUT
        else:
            mapped = theirs.mapped_identities[written]
            assert mapped.current_raw_uid == answer.partner_id
            assert mapped.previous_raw_uid == answer.previous_id
            assert mapped.refresh_from.timestamp() == answer.refresh_at
    assert list(theirs.unmapped_identities) == ["optout@example.com"]


async def test_the_sdk_of_before_maps_through_the_imitation(arguments, ours):
    sdk = uid2_client.IdentityMapClient(*arguments)

    theirs = sdk.generate_identity_map(uid2_client.IdentityMapInput.from_emails(EMAILS))
    answers = await ours(list(map(hashed, EMAILS)), protocol="v2", body="base64")

    assert list(theirs.unmapped_identities) == ["optout@example.com"]
    for written, answer in zip(EMAILS, answers, strict=True):
        if answer.partner_id:
            assert theirs.mapped_identities[written].get_raw_uid() == answer.partner_id
            assert theirs.mapped_identities[written].get_bucket_id().startswith("b")
        else:
            assert answer == Resolution.opted_out()


def test_the_sdk_asks_for_rotated_buckets(arguments):
    sdk = uid2_client.IdentityMapClient(*arguments)

    answer = sdk.get_identity_buckets(dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=7))

    assert answer.is_success()
    assert len(answer.buckets) == 3 * 7


def test_the_sdk_is_told_of_invalid_hashes(arguments):
    asked = uid2_client.IdentityMapV3Input.from_hashed_emails(["oops"])

    answer = uid2_client.IdentityMapV3Client(*arguments).generate_identity_map(asked)

    assert answer.unmapped_identities["oops"].reason is uid2_client.UnmappedIdentityReason.INVALID_IDENTIFIER


@pytest.mark.parametrize(
    ("wrong", "status"), [({"api_key": "unknown"}, 401), ({"client_secret": base64.b64encode(bytes(32))}, 400)]
)
def test_the_sdk_is_refused_as_by_an_operator(arguments, wrong, status):
    right = dict(zip(("base_url", "api_key", "client_secret"), arguments, strict=True))
    sdk = uid2_client.IdentityMapV3Client(**{**right, **wrong})

    with pytest.raises(urllib.error.HTTPError) as caught:
        sdk.generate_identity_map(uid2_client.IdentityMapV3Input.from_emails(EMAILS[:1]))

    with caught.value as refusal:
        assert refusal.code == status
        assert json.loads(refusal.read())["status"] in {"unauthorized", "client_error"}


# Envelope by envelope


def test_the_sdk_opens_what_we_send(key):
    now = int(time.time() * 1000)
    sealed = seal(key, b'{"email":[]}', now, lambda size: bytes(range(size)))

    plain = bytes(_decrypt_gcm(sealed.envelope[1:], key))

    assert sealed.envelope[:1] == b"\x01"
    assert plain == now.to_bytes(8, "big") + sealed.nonce + b'{"email":[]}'


def test_we_open_what_the_sdk_answers(key):
    plain = (1_767_225_600_000).to_bytes(8, "big") + b"nonce123" + b'{"status":"success"}'

    assert open_answer(key, _encrypt_gcm(plain, None, key), b"nonce123", 1_767_225_600_000) == b'{"status":"success"}'


@pytest.mark.parametrize("is_binary", [True, False])
def test_the_imitation_opens_what_the_sdk_sends_and_the_sdk_its_answer(key, is_binary):
    made = create_envelope(key, dt.datetime.now(tz=dt.UTC), b'{"phone":[]}')
    body, kind = (made.binary_envelope, "application/octet-stream") if is_binary else (made.envelope, "text/plain")

    opened = open_request(key, body, kind)
    sealed = seal_answer(key, opened, b'{"status":"success"}', 1_767_225_600_000)
    answer = Uid2Response.from_bytes(sealed) if is_binary else Uid2Response.from_string(base64.b64encode(sealed))

    assert opened.message == b'{"phone":[]}'
    assert opened.nonce == made.nonce
    assert bytes(parse_response(key, answer, made.nonce)) == b'{"status":"success"}'


async def test_a_request_of_ours_is_one_of_the_sdk(configured, partner, call, key):
    """Decrypted with the SDK, what we ask is what the SDK would ask; and we understand an answer made with it."""
    seen = []

    def operator(request):
        plain = bytes(_decrypt_gcm(request.content[1:], key))
        seen.append(json.loads(plain[16:]))
        entries = [{"u": "raw", "p": None, "r": 1_769_817_600}]
        reply = {"status": "success", "body": {"email": [], "email_hash": entries, "phone": [], "phone_hash": []}}
        body = plain[:16] + json.dumps(reply).encode()
        return httpx.Response(
            200, content=_encrypt_gcm(body, None, key), headers={"Content-Type": "application/octet-stream"}
        )

    async with httpx.AsyncClient(transport=httpx.MockTransport(operator)) as http:
        answer = await partner.resolve_id(configured(), http, hashed(EMAILS[0]), Visitor(), call)

    theirs = json.loads(uid2_client.IdentityMapV3Input.from_emails(EMAILS[:1]).get_identity_map_input_as_json_string())
    assert seen == [{kind: values for kind, values in theirs.items() if values}]
    assert answer.partner_id == "raw"


# Normalisation


@pytest.mark.parametrize("email", EMAILS)
def test_the_sdk_the_imitation_and_the_recipe_make_the_same_hash(email):
    theirs = normalize_and_hash_email(email)

    assert normalize_email_string(email) == normalised_email(email)
    assert theirs == base64.b64encode(identities.email(email).digest).decode()
    assert recipes.apply("uid2", "email", email) in {theirs, None}


@pytest.mark.parametrize("email", [email for email in EMAILS if email != "test@x .com"])
def test_the_recipe_takes_all_of_them_but_white_space_inside(email):
    assert recipes.apply("uid2", "email", email) == normalize_and_hash_email(email)


@pytest.mark.parametrize("email", NO_EMAILS)
def test_all_refuse_the_same(email):
    assert normalize_email_string(email) is None
    assert normalised_email(email) is None
    assert recipes.apply("uid2", "email", email) is None


@pytest.mark.parametrize("phone", PHONES)
def test_phones_have_the_same_hash(phone):
    theirs = normalize_and_hash_phone(phone)

    assert theirs == base64.b64encode(identities.phone(phone).digest).decode()
    assert recipes.apply("uid2", "phone", phone) in {theirs, None}
