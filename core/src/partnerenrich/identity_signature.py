"""
Signed identify: a shop's backend vouches for the person ids of an event, so that a browser cannot claim a stranger's.

A signature is ``<expires>.<digest>``: the Unix second after which it is void,
and the lower-case hexadecimal HMAC-SHA256 of this text, in UTF-8, under the
organisation's ``identity_secret``::

    v1
    <expires>
    <user id>
    <e-mail>
    <phone>

Lines are parted by one line feed, none follows the last, and an id that is not
given leaves its line empty. The ids are the very texts that the page passes to
``identify``, before any normalisation.
"""

from __future__ import annotations

import hashlib
import hmac
import time

LONGEST_LIFE = 86_400
"""Seconds; a signature that is valid for longer is refused."""


def sign(secret: bytes, *, user_id: str | None, email: str | None, phone: str | None, expires: int) -> str:
    """
    Vouch for the ids of one person.

    Args:
        secret: The organisation's ``identity_secret``, UTF-8.
        user_id: As the page passes it to ``identify``.
        email: The trait ``email``; None when it is not passed.
        phone: The trait ``phone``; None when it is not passed.
        expires: Unix time in seconds, at most a day ahead. Minutes are enough.

    Returns:
        What the page passes as ``signature``.

    Raises:
        ValueError: An id holds a line feed.
    """
    ids = [value or "" for value in (user_id, email, phone)]
    if any("\n" in value for value in ids):
        raise ValueError("an id that is signed must not hold a line feed")
    text = "\n".join(["v1", str(expires), *ids])
    return f"{expires}.{hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()}"


def verify(
    secret: bytes,
    signature: object,
    *,
    user_id: str | None,
    email: str | None,
    phone: str | None,
    now: float | None = None,
) -> bool:
    """
    Whether a signature vouches for exactly these ids at this moment.

    Args:
        secret: As in `sign`.
        signature: What the event brought; anything.
        user_id: As in `sign`.
        email: As in `sign`.
        phone: As in `sign`.
        now: Unix time in seconds; the present by default.
    """
    if not isinstance(signature, str) or not signature.isascii() or len(signature) > 100:
        return False
    expires, _, _ = signature.partition(".")
    if not expires.isdecimal():
        return False
    moment = time.time() if now is None else now
    if not moment <= int(expires) <= moment + LONGEST_LIFE:
        return False
    try:
        expected = sign(secret, user_id=user_id, email=email, phone=phone, expires=int(expires))
    except ValueError:
        return False
    return hmac.compare_digest(expected, signature)
