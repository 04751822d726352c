"""
The operator's end of the envelope, written apart from the client's, so that neither can hide a mistake of the other.

Wire facts: as in `partnerenrich_uid2._envelope`; binary and text bodies: IABTechLab/uid2-operator.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SHORTEST = 45
"""Version, IV, time, nonce and tag."""

_HEAD = struct.Struct(">q8s")


class Refused(Exception):
    """Why a body is no request."""


@attrs.frozen
class Opened:
    """
    A request.

    Attributes:
        stamped_ms: When it says that it was made, Unix time in milliseconds.
        nonce: To be repeated.
        message: The JSON; may be empty.
        is_binary: Whether the answer has to be.
    """

    stamped_ms: int
    nonce: bytes
    message: bytes
    is_binary: bool


def open_request(key: bytes, body: bytes, content_type: str) -> Opened:
    """
    Open a body.

    Only exactly ``application/octet-stream`` is read as binary, and even then as text if binary fails.

    Raises:
        Refused: It is no envelope of this key.
    """
    if not body:
        raise Refused("the body is empty")
    if content_type.lower() == "application/octet-stream":
        try:
            return _opened(key, body, is_binary=True)
        except Refused:
            if (text := _decoded(body)) is None:
                raise
            return _opened(key, text, is_binary=False)
    if (text := _decoded(body)) is None:
        raise Refused("the body is not base64")
    return _opened(key, text, is_binary=False)


def seal_answer(key: bytes, request: Opened, message: bytes, now_ms: int, iv: bytes | None = None) -> bytes:
    """The answer to a request, as bytes."""
    iv = iv or os.urandom(12)
    return iv + AESGCM(key).encrypt(iv, _HEAD.pack(now_ms, request.nonce) + message, None)


def _opened(key: bytes, envelope: bytes, *, is_binary: bool) -> Opened:
    if len(envelope) < SHORTEST:
        raise Refused("the envelope is too short")
    if envelope[0] != 1:
        raise Refused("the version of the envelope is unknown")
    try:
        plain = AESGCM(key).decrypt(envelope[1:13], envelope[13:], None)
    except InvalidTag:
        raise Refused("the envelope was not made with the secret of this key") from None
    stamped_ms, nonce = _HEAD.unpack_from(plain)
    return Opened(stamped_ms, nonce, plain[_HEAD.size :], is_binary)


def _decoded(body: bytes) -> bytes | None:
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        return None
