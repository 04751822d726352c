"""The two cookies by which a device is known: read with suspicion, issued and renewed for 400 days."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from partnerenrich_server.hub.replies import Header

LIFETIME: Final = 34_560_000
"""Seconds: 400 days, the longest that browsers grant."""

_OURS = re.compile(rb"(?:^|;)[ \t]*(_dfid|_dfdid)=([^;]*)").findall
_UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch


@attrs.frozen
class Cookies:
    """
    What a browser brought along. An id that a hub cannot have issued is none, nor is one of several that differ.

    Attributes:
        device: ``_dfdid``: the canonical id.
        anonymous: ``_dfid``.
        ambiguous: Whether one of them came with several values.
    """

    device: str | None = attrs.field(repr=False)
    anonymous: str | None = attrs.field(repr=False)
    ambiguous: bool = False

    def completed(self) -> Cookies:
        """Both ids: at first they are the same."""
        device = self.device or self.anonymous or new_id()
        return attrs.evolve(self, device=device, anonymous=self.anonymous or device)


def read(headers: Iterable[Header]) -> Cookies:
    """The cookies of a request."""
    found: dict[bytes, set[bytes]] = {b"_dfdid": set(), b"_dfid": set()}
    for header, text in headers:
        if header == b"cookie":
            for name, value in _OURS(text):
                found[name].add(value.rstrip())
    device, anonymous = found.values()
    return Cookies(_only(device), _only(anonymous), len(device) > 1 or len(anonymous) > 1)


def new_id() -> str:
    """An id for a device that has none."""
    return str(uuid.uuid4())


def issue(cookies: Cookies, domain: str | None) -> list[Header]:
    """
    The headers that set, or renew, both cookies.

    Where a browser has one name twice, as after a change of `domain`, those of the bare host are taken out.
    """
    scope = f"; Domain={domain}" if domain else ""
    flags = f"Path=/{scope}; HttpOnly; Secure; SameSite=Lax"
    headers = []
    for name, value in (("_dfid", cookies.anonymous), ("_dfdid", cookies.device)):
        if cookies.ambiguous and domain:
            headers.append(_set_cookie(f"{name}=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax"))
        headers.append(_set_cookie(f"{name}={value}; Max-Age={LIFETIME}; {flags}"))
    return headers


def _only(values: set[bytes]) -> str | None:
    if len(values) != 1:
        return None
    (value,) = values
    return value.decode() if _UUID4(value) else None


def _set_cookie(text: str) -> Header:
    return (b"set-cookie", text.encode())
