"""Organisations as the hub sees them: by which name they are called, from which pages, and what a browser may see."""

from __future__ import annotations

import functools
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from partnerenrich.browser import Extract
from partnerenrich.configuration import HubLimits, HubSettings, Integration
from partnerenrich.errors import Problem
from partnerenrich.identity import Fingerprints
from partnerenrich.memory import Keys
from partnerenrich.personalization import Personalizer
from partnerenrich_server.hub.copies import Limit
from partnerenrich_server.hub.replies import Header, Refused, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from partnerenrich.configuration import Configuration

PREFLIGHT: Final[tuple[Header, ...]] = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"content-type, x-request-id"),
    (b"access-control-max-age", b"7200"),
)

_read_extract = msgspec.json.Decoder(Extract).decode
_read_consent = msgspec.json.Decoder(dict[str, bool]).decode
_read_attributes = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_without_port = re.compile(r"(.*?)(?::\d*)?").fullmatch


@attrs.frozen(eq=False)
class Window:
    """
    What a browser may see of one integration.

    Attributes:
        integration: Its allowlist and consent decide, as they are now.
        field: Of the browser copy.
        head: The provider as a JSON member name, with the colon.
    """

    integration: Integration
    field: str = attrs.field(init=False)
    head: bytes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "field", f"p:{self.integration.provider}")
        object.__setattr__(self, "head", encode(self.integration.provider) + b":")

    def extract(self, record: bytes | None, who: bytes, consent: bytes | None) -> Extract | None:
        """
        The part of a copy that may be shown.

        Args:
            record: The copy's field of this integration.
            who: Stamp of the person that the device belongs to.
            consent: The decisions last seen, as JSON.
        """
        if record is None:
            return None
        try:
            extract = _read_extract(record)
            granted = _read_consent(consent or b"{}") if self.integration.consent else {}
        except msgspec.DecodeError:
            return None
        if extract.stamp.encode() != who or extract.expires_at <= time.time():
            return None
        return extract if all(granted.get(purpose) for purpose in self.integration.consent) else None

    def shown(self, extract: Extract) -> bytes:
        """The attributes that are on the allowlist, as JSON."""
        allowlist = self.integration.allowlist
        attributes = _read_attributes(extract.attributes)
        if attributes.keys() <= allowlist:
            return bytes(extract.attributes)
        return encode({name: value for name, value in attributes.items() if name in allowlist})


@attrs.frozen(eq=False)
class Site:
    """
    One organisation.

    Attributes:
        slug: Its name in keys.
        settings: What concerns its browsers.
        limits: What is taken from outside.
        fingerprint: Makes addresses safe in a key.
        providers: Keys of all partners that are configured.
        windows: Provider to what a browser may see of it, where it may see anything.
        personalizers: Provider to its contextual calls, where the partner has them.
        remember_seconds: How long it is remembered whom a device belongs to.
    """

    slug: str
    settings: HubSettings
    limits: HubLimits
    fingerprint: Fingerprints = attrs.field(repr=False)
    providers: frozenset[str]
    windows: Mapping[str, Window]
    personalizers: Mapping[str, Personalizer]
    remember_seconds: int
    _keys: Keys = attrs.field(init=False)
    _cors: Mapping[bytes, tuple[Header, ...]] = attrs.field(init=False)
    _place_of: Callable[[str | None], str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_keys", Keys(self.slug, ()))
        object.__setattr__(self, "_place_of", functools.lru_cache(1024)(self._fingerprint_of))
        origins = (origin.encode() for origin in self.settings.origins)
        object.__setattr__(self, "_cors", {origin: _cors_headers(origin) for origin in origins})

    def cors(self, origin: bytes | None) -> tuple[Header, ...]:
        """
        The headers that let a page read the answer; none for a request that is not cross-origin.

        Raises:
            Refused: 403, the page is not one of this organisation.
        """
        if origin is None:
            return ()
        try:
            return self._cors[origin]
        except KeyError:
            raise Refused(
                403, "unknown_origin", "pages of this origin may not call the hub; hub.origins lists those that may"
            ) from None

    def copy_key(self, device: str) -> str:
        """Of the browser copy of a device."""
        return self._keys.browser(device)

    def visitor_limit(self, device: str, purpose: str) -> Limit:
        """What one visitor may read; its counter lies beside the visitor's browser copy."""
        return Limit("visitor", f"{{{self.copy_key(device)}}}:{purpose}", self.limits.visitor_per_minute)

    def address_limit(self, address: str | None, purpose: str) -> Limit:
        """What all browsers behind one address may do."""
        key = f"partnerenrich:{purpose}:{self.slug}:{self._place_of(address)}"
        return Limit("address", key, self.limits.address_per_minute)

    def _fingerprint_of(self, address: str | None) -> str:
        return self.fingerprint("address", network_of(address))


class Sites:
    """
    All organisations of one hub.

    Args:
        sites: In any order.
    """

    def __init__(self, sites: Iterable[Site]) -> None:
        self.all = tuple(sites)
        self._by_host = {host: site for site in self.all for host in site.settings.hosts}
        self._by_key = {site.settings.public_key: site for site in self.all if site.settings.public_key}
        self._only = self.all[0] if len(self.all) == 1 and not self._by_host else None

    def find(self, host: bytes, key: str | None) -> Site:
        """
        The organisation that is called.

        Args:
            host: The header ``Host``.
            key: The public key, where the request has one.

        Raises:
            Refused: There is no such organisation, or host and key name different ones.
        """
        by_host = self._by_host.get(_host_name(host), self._only)
        if key is None:
            if by_host is None:
                raise Refused(404, "unknown_organisation", "no organisation has this host; name one by ?key=")
            return by_host
        by_key = self._by_key.get(key)
        if by_key is None or by_host not in {by_key, None}:
            raise Refused(401, "unknown_key", "no organisation of this host has this public key")
        return by_key


def network_of(address: str | None) -> str:
    """What is counted as one address: of IPv6 the first 64 bits, which one customer has to himself."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def problems(configuration: Configuration) -> list[Problem]:
    """What keeps the hub from serving an organisation, beyond what every command checks."""
    found = []
    organisations = configuration.organisations()
    for slug, org in organisations.items():
        hub, base = org.hub, "hub" if configuration.org else f"orgs.{slug}.hub"
        if len(organisations) > 1 and not (hub.hosts or hub.public_key):
            found.append(Problem(base, "needs hosts or a public_key, so that its calls can be told from others'"))
        if hub.origins and not hub.public_key:
            found.append(Problem(f"{base}.public_key", "is required beside origins; any name, such as pk-shop"))
        if hub.public_key and not hub.origins:
            found.append(Problem(f"{base}.origins", "is required beside public_key: the pages that may call"))
        if hub.cookie_domain and not all(f".{host}".endswith(f".{hub.cookie_domain}") for host in hub.hosts):
            found.append(Problem(f"{base}.cookie_domain", "must be the domain of every host in hosts"))
    return found


def selected(windows: Mapping[str, Window], provider: str | None) -> Sequence[Window]:
    """The windows of one provider, or of all."""
    if provider is None:
        return tuple(windows.values())
    return (windows[provider],) if provider in windows else ()


def _host_name(host: bytes) -> str:
    match = _without_port(host.decode("latin-1").lower())
    return match[1].removesuffix(".") if match else ""


def _cors_headers(origin: bytes) -> tuple[Header, ...]:
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"retry-after, x-request-id"),
        (b"vary", b"origin"),
    )
