"""
E-mails, phones and their hashes, as an operator reads them. It never repairs a phone.

Rules: https://unifiedid.com/docs/getting-started/gs-normalization-encoding; where that is silent, the
operator's source (IABTechLab/uid2-operator).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from enum import IntEnum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable


class Kind(IntEnum):
    """What an identity is; its number is part of some raw UIDs."""

    EMAIL = 0
    PHONE = 1


@attrs.frozen
class Identity:
    """
    One identity.

    Attributes:
        kind: What it is.
        digest: SHA-256 of its normalised form.
    """

    kind: Kind
    digest: bytes


def email(text: str) -> Identity | None:
    """The identity of an e-mail address; None when it is none."""
    normalised = normalised_email(text)
    return None if normalised is None else Identity(Kind.EMAIL, _sha256(normalised))


def phone(text: str) -> Identity | None:
    """The identity of a phone number in E.164; None when it is none."""
    return Identity(Kind.PHONE, _sha256(text)) if re.fullmatch(r"\+[0-9]{10,15}", text) else None


def email_hash(text: str) -> Identity | None:
    """The identity of a hashed e-mail address; None when it is no hash."""
    digest = _digest_in(text)
    return None if digest is None else Identity(Kind.EMAIL, digest)


def phone_hash(text: str) -> Identity | None:
    """The identity of a hashed phone number; None when it is no hash."""
    digest = _digest_in(text)
    return None if digest is None else Identity(Kind.PHONE, digest)


READERS: dict[str, Callable[[str], Identity | None]] = {
    "email": email,
    "email_hash": email_hash,
    "phone": phone,
    "phone_hash": phone_hash,
}
"""Key of a request to how its values are read."""


def normalised_email(text: str) -> str | None:
    """Lower case for A to Z alone, no spaces before the at sign nor at the end; Gmail's dots and suffix dropped."""
    lowered = re.sub("[A-Z]", lambda letter: letter[0].lower(), text)
    local, _, domain = lowered.partition("@")
    local, domain = local.replace(" ", ""), domain.rstrip(" ")
    if domain == "gmail.com":
        local = local.partition("+")[0].replace(".", "")
    return f"{local}@{domain}" if local and domain and "@" not in domain else None


def _digest_in(text: str) -> bytes | None:
    """Standard base64 of 44 characters, or 64 hexadecimal digits, which is not documented."""
    if re.fullmatch("[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    try:
        return base64.b64decode(text, validate=True) if len(text) == 44 else None
    except (binascii.Error, ValueError):
        return None


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
