"""
How an operator makes a raw UID of an identity: by the public algorithm of IABTechLab/uid2-operator.

There are three forms, all of 44 characters: V2, 32 bytes; V3, the same with a byte for scope and kind
before it; V4, where the bucket has a key in the place of a salt.
"""

from __future__ import annotations

import base64
import hashlib
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING

import attrs
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

if TYPE_CHECKING:
    from partnerenrich_uid2._sandbox.identities import Identity, Kind
    from partnerenrich_uid2.config import Scope

BUCKETS = 1 << 20
"""Of a real operator. With fewer, a bucket's number is taken modulo their number."""

_SCOPES: dict[Scope, int] = {"UID2": 0, "EUID": 1}
_TEST_ENVIRONMENT = 0


@attrs.frozen
class Key:
    """
    What a bucket of the fourth form has in the place of a salt.

    Attributes:
        id: Of three bytes.
        secret: An AES-256 key.
        salt: Goes into the IV.
    """

    id: int
    secret: bytes
    salt: bytes


def first_level(digest: bytes, salt: str) -> bytes:
    """The first-level hash of an identity's digest."""
    return hashlib.sha256(_base64(digest).encode() + salt.encode()).digest()


def bucket_index(first: bytes, buckets: int = BUCKETS) -> int:
    """The bucket that a first-level hash belongs to."""
    return (first[0] << 12 | first[1] << 4 | first[2] & 15) % buckets


def raw_uid(scope: Scope, identity: Identity, first: bytes, salt: str | Key) -> str:
    """
    The raw UID of an identity.

    Args:
        scope: UID2 has the second form, EUID the third.
        identity: Whose.
        first: Its first-level hash.
        salt: Of its bucket. A key makes the fourth form in both scopes.
    """
    if isinstance(salt, Key):
        return _base64(_fourth_form(scope, identity.kind, first, salt))
    second_form = hashlib.sha256(_base64(first).encode() + salt.encode()).digest()
    if scope == "UID2":
        return _base64(second_form)
    return _base64(bytes([_SCOPES[scope] << 4 | identity.kind << 2]) + second_form)


def _fourth_form(scope: Scope, kind: Kind, first: bytes, key: Key) -> bytes:
    head = bytes([0x20 | _SCOPES[scope] << 4 | kind << 2 | _TEST_ENVIRONMENT << 6]) + key.id.to_bytes(3, "big")
    iv = hashlib.sha256(key.salt + first[16:] + head).digest()[:12]
    encryptor = Cipher(AES(key.secret), CTR(iv + bytes(4))).encryptor()
    body = head + iv + encryptor.update(first[16:]) + encryptor.finalize()
    return body + bytes([reduce(xor, body)])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
