"""What is asked for a link."""

from __future__ import annotations

import pytest

from partnerenrich import Link, RequestRefused, Resolution
from partnerenrich_uid2._identifiers import Identifier, identifier_of

HASH = "tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="
HEX = "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514"


@pytest.mark.parametrize(
    ("source", "key", "recipe", "value", "kind"),
    [
        ("email", "email", "uid2", HASH, "email_hash"),
        ("email", "email", "none", "pat@example.test", "email"),
        ("phone", "phone", "uid2", HASH, "phone_hash"),
        ("phone", "phone", "none", "+12025550100", "phone"),
        ("email", "email_hash", "uid2", HASH, "email_hash"),
        ("$traits.emailSha256", "email_hash", "none", HASH, "email_hash"),
        ("$traits.emailSha256", "email_hash", "sha256_b64", HASH, "email_hash"),
        ("$traits.phoneSha256", "phone_hash", "sha256_b64", HASH, "phone_hash"),
        ("$traits.work_email", "$traits.work_email", "uid2", HASH, "email_hash"),
        ("$traits.mobile", "m", "none", "+12025550100", "phone"),
        ("$traits.contact", "phone", "none", "+12025550100", "phone"),
    ],
)
def test_key_and_recipe_say_what_it_is(source, key, recipe, value, kind):
    assert Identifier(kind, value) == identifier_of(Link(source, key, value, recipe))


@pytest.mark.parametrize(
    ("source", "key", "recipe"),
    [
        ("user_id", "customer", "none"),
        ("canonical_id", "canonical_id", "none"),
        ("email", "email", "sha256"),
        ("email", "email", "sha256_b64"),
        ("phone", "phone", "sha256_digits_hex"),
        ("email", "email_hash", "sha256"),
    ],
)
def test_any_other_linking_key_is_refused_and_the_way_out_named(source, key, recipe):
    """Another hash would give the id of somebody else, or of nobody."""
    refusal = identifier_of(Link(source, key, "canary", recipe))

    assert isinstance(refusal, RequestRefused)
    assert str(refusal).startswith(f"linking key {key}: key must be email, phone, email_hash or phone_hash")
    assert "canary" not in str(refusal)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a b@example.test",
        "a@example.test\n",
        "a\t@example.test",
        "\ud800@example.test",
        "x" * 321,
        "a\u00a0b@x.test",
    ],
)
def test_what_operator_and_client_would_read_differently_is_not_sent(value):
    assert Resolution.invalid() == identifier_of(Link("email", "email", value, "none"))


@pytest.mark.parametrize(
    "value",
    [HEX, HASH[:-1], HASH.replace("/", "_"), HASH + "\n", "YjRjOWEyODkzMjNiMjFhMDFjM2U5NDBmMTUwZWI5Yjg=" * 2, ""],
)
def test_a_hash_is_sent_as_documented_or_not_at_all(value):
    """Operators take 64 hexadecimal digits too, but do not promise to."""
    assert Resolution.invalid() == identifier_of(Link("$traits.h", "email_hash", value, "none"))


def test_no_value_is_in_the_repr():
    assert "canary" not in repr(Identifier("email", "canary@example.test"))
