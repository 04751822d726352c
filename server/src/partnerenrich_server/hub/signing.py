"""
Calls of the shop's backend: who knows the secret signs the body.

``X-Timestamp`` is the Unix time in milliseconds, ``X-Signature`` is ``sha256=`` and the hexadecimal HMAC-SHA256 of
``<timestamp>.<raw body>`` under the organisation's ``ingest_secret``.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Final

from partnerenrich_server.hub.replies import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partnerenrich import Secret

TIMESTAMP: Final = b"x-timestamp"
SIGNATURE: Final = b"x-signature"
WINDOW_MS: Final = 300_000
"""How far the clocks may be apart."""


def sign(secret: bytes, timestamp_ms: int, body: bytes) -> str:
    """What goes into ``X-Signature``."""
    return "sha256=" + hmac.new(secret, b"%d.%b" % (timestamp_ms, body), hashlib.sha256).hexdigest()


def check_time(headers: Mapping[bytes, bytes]) -> None:
    """
    Refuse a signed call that is not of this moment, before its body is read.

    Raises:
        Refused: 401.
    """
    timestamp = headers.get(TIMESTAMP, b"")
    if not (timestamp.isdigit() and len(timestamp) <= 15):
        raise Refused(401, "invalid_signature", "X-Timestamp must be the Unix time in milliseconds")
    if abs(time.time() * 1000 - int(timestamp)) > WINDOW_MS:
        raise Refused(401, "invalid_signature", "X-Timestamp is more than 5 minutes off; set the clock, sign anew")


def check(secret: Secret | None, headers: Mapping[bytes, bytes], body: bytes) -> None:
    """
    Refuse a call that is not signed by the organisation.

    Raises:
        Refused: 401.
    """
    if secret is None:
        raise Refused(401, "invalid_signature", "this organisation has no ingest_secret, so it takes no signed calls")
    expected = sign(secret.reveal().encode(), int(headers[TIMESTAMP]), body)
    if not hmac.compare_digest(expected.encode(), headers.get(SIGNATURE, b"")):
        raise Refused(
            401, "invalid_signature", "X-Signature must be sha256= and the HMAC-SHA256 of <X-Timestamp>.<raw body>"
        )
