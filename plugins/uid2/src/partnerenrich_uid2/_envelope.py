"""
The envelope around every request and every successful answer: AES-256-GCM under the client secret.

========  ==============================================================================
request   version ``01``, IV (12 bytes), then encrypted: milliseconds (8), nonce (8), JSON
answer    IV (12), then encrypted: milliseconds (8), the request's nonce (8), JSON
========  ==============================================================================

The tag (16) ends the ciphertext; integers are big endian; nothing is authenticated beside.

Wire facts: https://unifiedid.com/docs/getting-started/gs-encryption-decryption
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from partnerenrich import BadResponse

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = b"\x01"
IV_BYTES = 12
TIME_BYTES = 8
NONCE_BYTES = 8

CLOCKS_DIFFER_MS = 180_000
"""An operator refuses a request that is two minutes off (assumed: an answer may take another one)."""


@attrs.frozen(repr=False)
class Sealed:
    """
    A request, ready to be sent once.

    Attributes:
        envelope: The bytes.
        nonce: What the answer has to repeat.
    """

    envelope: bytes
    nonce: bytes


def seal(key: bytes, message: bytes, now_ms: int, entropy: Callable[[int], bytes]) -> Sealed:
    """
    Encrypt a request.

    Args:
        key: 32 bytes.
        message: JSON.
        now_ms: Unix time in milliseconds; operators refuse a request that is a minute old.
        entropy: Gives so many random bytes. An IV must never be used twice.
    """
    iv, nonce = entropy(IV_BYTES), entropy(NONCE_BYTES)
    plain = now_ms.to_bytes(TIME_BYTES, "big") + nonce + message
    return Sealed(VERSION + iv + AESGCM(key).encrypt(iv, plain, None), nonce)


def open_answer(key: bytes, answer: bytes, nonce: bytes, now_ms: int) -> bytes:
    """
    Decrypt an answer.

    Args:
        key: 32 bytes.
        answer: As received.
        nonce: That of the request.
        now_ms: Unix time in milliseconds.

    Returns:
        JSON.

    Raises:
        BadResponse: It was made with another key, damaged, or is no answer to this request.
    """
    try:
        plain = AESGCM(key).decrypt(answer[:IV_BYTES], answer[IV_BYTES:], None)
    except (InvalidTag, ValueError):
        plain = None
    if plain is None:
        raise BadResponse("the answer cannot be decrypted: it is damaged, or made with another client_secret")
    stamped, repeated = plain[:TIME_BYTES], plain[TIME_BYTES : TIME_BYTES + NONCE_BYTES]
    if repeated != nonce:
        raise BadResponse("the answer belongs to another request: its nonce differs")
    if abs(int.from_bytes(stamped, "big", signed=True) - now_ms) > CLOCKS_DIFFER_MS:
        raise BadResponse("the answer is minutes older or newer than this machine's clock")
    return plain[TIME_BYTES + NONCE_BYTES :]
