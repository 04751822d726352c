"""
One encrypted exchange with an operator, and the meaning of a refusal.

Only 200 is encrypted; everything else is plain, and not always JSON.

Wire facts: https://unifiedid.com/docs/getting-started/gs-encryption-decryption and the operator's
source, IABTechLab/uid2-operator, for what the pages leave out: binary bodies and 413.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime

import attrs
import httpx

from partnerenrich import AuthError, BadResponse, RequestRefused
from partnerenrich.http import raise_for_status
from partnerenrich_uid2._envelope import open_answer, seal
from partnerenrich_uid2.config import Config

OCTET_STREAM = "application/octet-stream"

CLOCK_IS_OFF = 30.0
"""Seconds from which a 400 is put down to the clock; the ``Date`` of an answer tells them."""


@attrs.frozen(eq=False)
class Operator:
    """
    An operator, as one integration reaches it.

    Attributes:
        config: Settings of the integration.
        http: The core's client.
        clock: Unix time in seconds.
        entropy: Gives so many random bytes.
    """

    config: Config
    http: httpx.AsyncClient
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]

    async def ask(self, path: str, message: bytes) -> bytes:
        """
        Send a request, stamped with this moment and never sent before.

        Args:
            path: Such as ``/v3/identity/map``.
            message: JSON.

        Returns:
            The JSON of the answer.

        Raises:
            partnerenrich.PartnerError: There is no answer that can be trusted.
        """
        config = self.config
        sealed = seal(config.key, message, self._now_ms(), self.entropy)
        is_binary = config.body == "octet-stream"
        response = await self.http.post(
            config.root + path,
            content=sealed.envelope if is_binary else base64.b64encode(sealed.envelope),
            headers={
                "Authorization": f"Bearer {config.api_key.reveal()}",
                "Content-Type": OCTET_STREAM if is_binary else "text/plain",
            },
        )
        self._raise_for_refusal(response)
        return open_answer(config.key, _envelope_in(response), sealed.nonce, self._now_ms())

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)

    def _raise_for_refusal(self, response: httpx.Response) -> None:
        scope = self.config.SCOPE
        match response.status_code:
            case 400:
                raise RequestRefused(
                    f"{scope} refuses the request (400): check client_secret, which must be that of api_key, "
                    f"and the clock of this machine{self._told_of_the_clock(response)}"
                )
            case 401:
                raise AuthError(
                    f"{scope} refuses api_key (401): it is wrong, disabled, of another environment, "
                    "or lacks the role MAPPER"
                )
            case 413:
                raise RequestRefused(f"{scope} refuses the request (413): it is too long; lower limits.bulk")
        raise_for_status(response)

    def _told_of_the_clock(self, response: httpx.Response) -> str:
        with suppress(ValueError, TypeError, OverflowError):
            ahead = self.clock() - parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
            if abs(ahead) >= CLOCK_IS_OFF:
                return f", which is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
        return ""


def _envelope_in(response: httpx.Response) -> bytes:
    """Binary or base64, as the answer itself says: an operator need not answer in the form that it was asked in."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == OCTET_STREAM:
        return response.content
    with suppress(binascii.Error):
        return base64.b64decode(response.content.strip(), validate=True)
    raise BadResponse("the answer is neither an encrypted envelope nor base64")
