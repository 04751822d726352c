"""Who is in an event: every place and spelling, and no crash on any junk."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich.events import Event
from partnerenrich.identity import Fingerprints, Reader, consents, event_id, identifier
from partnerenrich.models import LinkingKey

KEY = b"k" * 32
NO_ID = [True, False, 1.5, 1.0, None, [], ["x"], {}, {"id": "x"}, "", "  ", "null", "undefined"]


def reader(*sources, region=None, key=KEY, org="acme"):
    return Reader.of(Fingerprints.of(key, org), region, [LinkingKey(source, source) for source in sources])


def event(value):
    return Event.parse(value if isinstance(value, bytes) else json.dumps(value).encode(), "acme")


def known(value, *sources, region=None):
    return reader(*sources, region=region).known_ids(event(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"context": {"canonical_id": "a"}, "canonical_id": "b", "anonymousId": "c"}, "a"),
        ({"canonical_id": "b", "canonicalId": "x", "anonymousId": "c"}, "b"),
        ({"canonicalId": "b", "anonymousId": "c"}, "b"),
        ({"anonymousId": "c"}, "c"),
        ({"anonymous_id": "c"}, "c"),
        ({"userId": "u"}, None),
        ({"context": {"canonical_id": True}, "canonical_id": 1.5, "canonicalId": " ", "anonymousId": 7}, "7"),
        ({"context": None, "canonical_id": "b"}, "b"),
        ({"context": "text", "canonical_id": "b"}, "b"),
        ({}, None),
    ],
)
def test_the_canonical_id_is_the_first_valid_one_in_the_order_of_its_places(value, expected):
    assert known(value).canonical_id == expected


@pytest.mark.parametrize(
    ("camel", "snake", "name"),
    [
        ("anonymousId", "anonymous_id", "anonymous_id"),
        ("userId", "user_id", "user_id"),
    ],
)
def test_top_level_ids_are_found_in_both_spellings_and_the_first_valid_wins(camel, snake, name):
    assert getattr(known({camel: "a"}), name) == "a"
    assert getattr(known({snake: "a"}), name) == "a"
    assert getattr(known({camel: None, snake: "a"}), name) == "a"
    assert getattr(known({camel: ["x"], snake: "a"}), name) == "a"
    assert getattr(known({camel: "a", snake: "b"}), name) == "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"messageId": "m"}, "m"),
        ({"message_id": 7}, "7"),
        ({"messageId": 1.5, "message_id": "m"}, "m"),
        ({}, None),
    ],
)
def test_the_id_of_the_event_itself(value, expected):
    assert event_id(event(value)) == expected


def test_email_and_phone_come_from_properties_then_traits_then_the_traits_of_the_context():
    value = {
        "properties": {"email": "no address", "phone": True},
        "traits": {"email": " Pat@Example.test "},
        "context": {"traits": {"email": "late@example.test", "phone": "+44 7700 900123"}},
    }
    ids = known(value)
    assert (ids.email, ids.phone) == ("pat@example.test", "+447700900123")


def test_a_phone_without_a_country_code_needs_the_region_of_the_organisation():
    assert known({"traits": {"phone": "07700 900123"}}).phone is None
    assert known({"traits": {"phone": "07700 900123"}}, region="GB").phone == "+447700900123"


@pytest.mark.parametrize("junk", NO_ID)
def test_what_is_no_identifier_is_none(junk):
    value = {
        "anonymousId": junk,
        "anonymous_id": junk,
        "userId": junk,
        "canonical_id": junk,
        "traits": {"email": junk, "phone": junk, "loyalty_id": junk},
    }
    ids = known(value, "$traits.loyalty_id")
    assert (ids.canonical_id, ids.anonymous_id, ids.user_id, ids.email, ids.phone) == (None,) * 5
    assert ids.others == {}


def test_integers_become_text_with_all_digits():
    ids = known(
        b'{"userId":123456789012345678901234567890,"anonymousId":0,"traits":{"loyalty_id":-7}}', "$traits.loyalty_id"
    )
    assert (ids.user_id, ids.anonymous_id) == ("123456789012345678901234567890", "0")
    assert ids.others == {"$traits.loyalty_id": "-7"}


def test_one_unreadable_value_hides_no_other():
    ids = known(
        b'{"userId":1E400,"user_id":"u","traits":{"email":1E400,"phone":"+447700900123","x":%s}}' % (b"9" * 5000)
    )
    assert (ids.user_id, ids.email, ids.phone) == ("u", None, "+447700900123")


def test_custom_traits_are_found_in_traits_and_in_the_traits_of_the_context():
    sources = ("$traits.loyalty_id", "$properties.cart.owner")
    assert known({"traits": {"loyalty_id": "L1"}}, *sources).others == {"$traits.loyalty_id": "L1"}
    assert known({"context": {"traits": {"loyalty_id": 5}}}, *sources).others == {"$traits.loyalty_id": "5"}
    assert known({"properties": {"cart": {"owner": "o"}}}, *sources).others == {"$properties.cart.owner": "o"}
    assert known({"traits": [1], "properties": {"cart": "x"}}, *sources).others == {}


@pytest.mark.parametrize(
    ("source", "value", "same"),
    [
        ("$traits.work_email", " Pat@Example.TEST ", "pat@example.test"),
        ("$traits.mobile", "+44 7700 900123", "+447700900123"),
        ("$traits.mobile", "07700 900123", "+447700900123"),
        ("$traits.work_email", "no address", None),
        ("$traits.mobile", "12", None),
        ("$traits.loyalty_id", "L-1", "L-1"),
    ],
)
def test_an_address_or_a_number_at_a_place_of_its_own_is_read_as_any_other(source, value, same):
    """So that it is sent, and hashed, as the same one in ``email`` or ``phone``."""
    assert known({"traits": {source.rpartition(".")[2]: value}}, source, region="GB").others.get(source) == same


@pytest.mark.parametrize(("recipe", "sent"), [("sha256", "ab" * 32), ("sha1_national_hex", None), ("none", None)])
@pytest.mark.parametrize("source", ["$traits.work_email", "$traits.mobile"])
def test_a_digest_in_place_of_an_address_or_a_number_is_never_hashed_again(source, recipe, sent):
    key = LinkingKey(source, "key", recipe)
    one = Reader.of(Fingerprints.of(KEY, "acme"), "GB", [key])
    link = one.link(key, one.known_ids(event({"traits": {source.rpartition(".")[2]: "AB" * 32}})))

    assert (link and link.value) == sent


def test_every_source_of_a_linking_key_finds_its_identifier():
    value = {
        "canonical_id": "c",
        "anonymousId": "a",
        "userId": "u",
        "traits": {"email": "p@example.test", "phone": "+447700900123", "n": 1},
    }
    ids = known(value, "$traits.n")
    found = {
        source: identifier(ids, source)
        for source in ("canonical_id", "anonymous_id", "user_id", "email", "phone", "$traits.n")
    }
    assert found == {
        "canonical_id": "c",
        "anonymous_id": "a",
        "user_id": "u",
        "email": "p@example.test",
        "phone": "+447700900123",
        "$traits.n": "1",
    }


@pytest.mark.parametrize(
    "unsafe", ["pat@example.test", "a b", "a:b", "{x}", "é", "x" * 65, "a\nb", "a\x00b", "../x", "*"]
)
def test_an_id_that_is_not_plain_is_hashed_before_it_is_part_of_a_key(unsafe):
    read = reader()
    safe = read.safe_canonical_id(known({"anonymousId": unsafe}))
    assert safe is not None
    assert safe.isalnum()
    assert len(safe) == 32
    assert safe != read.safe_canonical_id(known({"anonymousId": unsafe + "x"}))


@pytest.mark.parametrize("plain", ["0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a", "A_b-9", "x" * 64, "7"])
def test_a_plain_id_is_the_key_itself(plain):
    assert reader().safe_canonical_id(known({"anonymousId": plain})) == plain


def test_a_user_without_a_device_is_known_by_a_hash_of_the_user_id():
    read, ids = reader(), known({"userId": "pat@example.test"})
    assert ids.canonical_id is None
    assert read.safe_canonical_id(ids) == read.persons(ids)["user_id"]
    assert read.safe_canonical_id(known({})) is None


def test_person_ids_are_those_of_persons_and_never_of_devices():
    value = {
        "anonymousId": "a",
        "canonical_id": "c",
        "userId": "u",
        "traits": {"email": "p@example.test", "phone": "+447700900123", "n": 1},
    }
    read = reader("$traits.n")
    persons = read.persons(read.known_ids(event(value)))
    assert set(persons) == {"user_id", "email", "phone", "$traits.n"}


def test_fingerprints_differ_by_source_value_organisation_and_key():
    digests = {
        Fingerprints.of(key, org)(source, value)
        for key in (KEY, b"j" * 32)
        for org in ("acme", "other")
        for source in ("email", "user_id")
        for value in ("a", "b")
    }
    assert len(digests) == 16


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ({"marketing": True, "analytics": False}, {"marketing": True, "analytics": False}),
        ({"categories": {"C1": True}, "canonical": {"marketing": False}}, {"marketing": False}),
        ({"canonical": {"marketing": False}, "marketing": True}, {"marketing": False}),
        ({"canonical": "x", "marketing": True}, {"marketing": True}),
        ({"marketing": "yes", "analytics": 1, "functional": None}, {}),
        (True, {}),
        ([], {}),
        ("x", {}),
        (None, {}),
    ],
)
def test_consent_is_read_in_both_shapes_and_only_booleans_decide(consent, expected):
    assert consents(event({"context": {"consent": consent}})) == expected


def test_no_context_is_no_consent():
    assert consents(event({})) == {}
    assert consents(event({"context": None})) == {}


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(["pat@example.test", "+447700900123", "7", "\x00", "null"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["email", "phone", "traits", "consent", "canonical", "url", "page", "n"]), inner, max_size=4
        ),
    ),
    max_leaves=10,
)
NAMES = st.sampled_from(
    [
        "anonymousId",
        "anonymous_id",
        "userId",
        "user_id",
        "canonical_id",
        "canonicalId",
        "properties",
        "traits",
        "context",
        "messageId",
    ]
)


@given(st.dictionaries(NAMES, JUNK, max_size=6))
def test_no_junk_makes_identification_fail_and_no_identifier_shows_in_a_repr(value):
    keys = [LinkingKey(s, s, h) for s in ("email", "phone", "user_id", "$traits.n") for h in ("none", "sha256", "uid2")]
    read = Reader.of(Fingerprints.of(KEY, "acme"), "GB", keys)
    some = event(value)
    ids = read.known_ids(some)
    safe = read.safe_canonical_id(ids)
    assert safe is None or (safe.isascii() and len(safe) <= 64 and not set(safe) & set(" :{}*@."))
    assert all(len(fingerprint) == 32 for fingerprint in read.persons(ids).values())
    links = tuple(link for link in (read.link(key, ids) for key in keys) if link is not None)
    visitor = read.visitor(some, links)
    consents(some)
    event_id(some)
    shown = repr((ids, links, visitor))
    assert "pat@example.test" not in shown
    assert "7700900123" not in shown
