"""The envelope: published layout, our own vector, and no way to take a damaged answer for a good one."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import BadResponse
from partnerenrich_uid2._envelope import open_answer, seal
from partnerenrich_uid2._sandbox.envelope import Refused, open_request, seal_answer

KEY = base64.b64decode("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
IV = bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaab")
NONCE = bytes.fromhex("0102030405060708")
MILLISECONDS = 1_767_225_600_000
QUESTION = b'{"email_hash":["tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="]}'
REQUEST = (
    "AaChoqOkpaanqKmqq+YYfbYzEaq/Y2eE1wJ8x9YLjjx9894uM/RvVe5dkS4jpjsqlsZ2GgoW/UWrWQrSqQFKcH0XnUw9FhYzP9JJ78eA3/IJH+PRq"
    "KKwriWtk7EcECm/pvES1hXq8sSfY1Eg"
)
ANSWER_IV = bytes.fromhex("b0b1b2b3b4b5b6b7b8b9babb")
REPLY = (
    b'{"body":{"email":[],"email_hash":[{"u":"P2haFtWBKtwHM40KTWj09mglCcPKtlkIHHLLHpvzoB4=","p":null,"r":1769817600}],'
    b'"phone":[],"phone_hash":[]},"status":"success"}'
)
ANSWER = (
    "sLGys7S1tre4ubq7mVVbMJoXE3pG+pSmyFuPyv8eK71xV60PJeznnD3rnjQ/EH4WQbvL2cw3/yJdyuqXFzZs5W4ZeNIduARRQu93vfmcSfxHiFaRTY"
    "vIbqdrhV0F85n53BQelL2zNNxjKXnFDOJKZuz7FGZ8dHSp/rbson+UjaZExfQCSTDB6S5zcg5r3c/hbWuxFDkIIQRcd1515uIssbgLYSfqrF7xa7KI"
    "9Yanst4FRSZEk3gmwT5mlt6GrL4009FrkA20HI8utqk="
)
GOOD = base64.b64decode(ANSWER)

keys = st.binary(min_size=32, max_size=32)
times = st.integers(0, 2**63 - 1)


def fixed(size):
    return {12: IV, 8: NONCE}[size]


def random(draw):
    return lambda size: draw(st.binary(min_size=size, max_size=size))


# The vector, in both directions and at both ends


def test_request_vector():
    sealed = seal(KEY, QUESTION, MILLISECONDS, fixed)

    assert base64.b64decode(REQUEST) == sealed.envelope
    assert len(sealed.envelope) == 108
    assert sealed.nonce == NONCE


def test_answer_vector():
    assert len(GOOD) == 203
    assert open_answer(KEY, GOOD, NONCE, MILLISECONDS) == REPLY


def test_request_vector_at_the_imitation():
    opened = open_request(KEY, base64.b64decode(REQUEST), "application/octet-stream")

    assert (opened.stamped_ms, opened.nonce, opened.message) == (MILLISECONDS, NONCE, QUESTION)


def test_answer_vector_at_the_imitation():
    opened = open_request(KEY, REQUEST.encode(), "text/plain")

    assert seal_answer(KEY, opened, REPLY, MILLISECONDS + 37, ANSWER_IV) == GOOD


# Any message


@given(key=keys, question=st.binary(max_size=300), reply=st.binary(max_size=300), now=times, data=st.data())
def test_round_trip(key, question, reply, now, data):
    sealed = seal(key, question, now, random(data.draw))
    opened = open_request(key, sealed.envelope, "application/octet-stream")

    assert (now, question) == (opened.stamped_ms, opened.message)
    assert len(sealed.envelope) == 45 + len(question)
    assert open_answer(key, seal_answer(key, opened, reply, now), sealed.nonce, now) == reply


@given(place=st.integers(0, len(GOOD) * 8 - 1))
def test_any_bit_flipped_is_an_error(place):
    damaged = bytearray(GOOD)
    damaged[place // 8] ^= 1 << place % 8

    with pytest.raises(BadResponse):
        open_answer(KEY, bytes(damaged), NONCE, MILLISECONDS)


@given(end=st.integers(0, len(GOOD) - 1))
def test_any_part_alone_is_an_error(end):
    for part in (GOOD[:end], GOOD[end + 1 :]):
        with pytest.raises(BadResponse):
            open_answer(KEY, part, NONCE, MILLISECONDS)


@given(answer=st.binary(max_size=300), nonce=st.binary(min_size=8, max_size=8))
def test_anything_else_is_an_error(answer, nonce):
    with pytest.raises(BadResponse):
        open_answer(KEY, answer, nonce, MILLISECONDS)


@given(place=st.integers(0, 108 * 8 - 1))
def test_any_bit_flipped_is_refused_by_the_imitation(place):
    damaged = bytearray(base64.b64decode(REQUEST))
    damaged[place // 8] ^= 1 << place % 8

    with pytest.raises(Refused):
        open_request(KEY, bytes(damaged), "application/octet-stream")


# Answers that are whole, and yet not ours


@given(key=keys.filter(lambda key: key != KEY))
def test_another_key_is_an_error(key):
    with pytest.raises(BadResponse, match="client_secret"):
        open_answer(key, GOOD, NONCE, MILLISECONDS)


@given(nonce=st.binary(min_size=8, max_size=8).filter(lambda nonce: nonce != NONCE))
def test_the_answer_to_another_request_is_an_error(nonce):
    with pytest.raises(BadResponse, match="nonce"):
        open_answer(KEY, GOOD, nonce, MILLISECONDS)


@pytest.mark.parametrize("off", [-181_000, 181_000])
def test_an_answer_of_another_time_is_an_error(off):
    with pytest.raises(BadResponse, match="clock"):
        open_answer(KEY, GOOD, NONCE, MILLISECONDS + off)


@pytest.mark.parametrize("off", [-179_000, 179_000])
def test_clocks_may_differ_as_much_as_operators_allow(off):
    assert open_answer(KEY, GOOD, NONCE, MILLISECONDS + off) == REPLY


def test_an_answer_without_a_stamp_is_an_error():
    """Whole and of the right key, but shorter than time and nonce."""
    with pytest.raises(BadResponse):
        open_answer(KEY, IV + AESGCM(KEY).encrypt(IV, b"{}", None), NONCE, MILLISECONDS)
