"""A backend vouches for the ids of a person."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich.identity_signature import LONGEST_LIFE, sign, verify

SECRET = b"a secret of the shop's backend"
NOW = 1_790_000_000


def test_the_published_vector():
    """Other languages can check themselves against this."""
    signature = sign(SECRET, user_id="user-123", email="pat@example.test", phone=None, expires=1_790_000_300)

    assert signature == "1790000300.fcc76694aa309e8382c8927fecc5190ccd1c51b6624742e74d2c46f28a3433f9"


ids = st.none() | st.text(min_size=1).filter(lambda text: "\n" not in text and text.isprintable())


@given(ids, ids, ids)
def test_a_signature_vouches_for_its_ids(user_id, email, phone):
    signature = sign(SECRET, user_id=user_id, email=email, phone=phone, expires=NOW + 300)

    assert verify(SECRET, signature, user_id=user_id, email=email, phone=phone, now=NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": "user-124"},
        {"email": "stranger@example.test"},
        {"phone": "+12025550100"},
        {"email": None},
        {"user_id": "user-123\npat@example.test", "email": None},
    ],
)
def test_it_vouches_for_no_other_ids(changed):
    given_ids = {"user_id": "user-123", "email": "pat@example.test", "phone": None}
    signature = sign(SECRET, expires=NOW + 300, **given_ids)

    assert not verify(SECRET, signature, now=NOW, **(given_ids | changed))


@pytest.mark.parametrize("expires", [NOW - 1, NOW + LONGEST_LIFE + 1])
def test_it_is_void_when_its_time_is_past_or_too_far_ahead(expires):
    signature = sign(SECRET, user_id="u", email=None, phone=None, expires=expires)

    assert not verify(SECRET, signature, user_id="u", email=None, phone=None, now=NOW)


@pytest.mark.parametrize("junk", [None, 1, "", ".", "x.y", f"{NOW + 1}.", "9" * 500, "١٢٣.aa", ["a"], f"{NOW + 1}.é"])
def test_junk_vouches_for_nothing(junk):
    assert not verify(SECRET, junk, user_id="u", email=None, phone=None, now=NOW)


def test_another_secret_vouches_for_nothing():
    signature = sign(b"another", user_id="u", email=None, phone=None, expires=NOW + 1)

    assert not verify(SECRET, signature, user_id="u", email=None, phone=None, now=NOW)
