"""The settings of one Amperity integration."""

from __future__ import annotations

from typing import Any

import attrs

from partnerenrich import FieldError, Secret, one_of, pattern

_ID = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def _needs_realtime(config: Config, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and config.api != "realtime":
        raise FieldError("indexes have no segments; leave it out or set api to realtime", attribute.name)


def _needs_client_id(config: Config, attribute: attrs.Attribute[Any], value: Secret | None) -> None:
    if (value is None) != (config.client_id is None):
        raise FieldError("OAuth needs both client_id and client_secret; give both or neither", attribute.name)


# Compared by identity: OAuth tokens are kept per instance.
@attrs.frozen(kw_only=True, eq=False)
class Config:
    """
    Which profiles to read, where, and with which credential.

    Attributes:
        tenant_subdomain: The part before ``.amperity.com`` in the address of the tenant.
        tenant_id: Sent in the header ``Amperity-Tenant``; may differ from the subdomain.
        profile_api_key: Access token of an Amperity API key, sent as bearer. Not used while `client_id` is set.
        profile_collection_id: The profile collection; with `api` ``indexes``, the index.
        base_url: Replaces ``https://{tenant_subdomain}.amperity.com``.
        api: ``realtime`` (profile collections) or ``indexes`` (Profile API).
        lookup_style: ``keychain`` posts the identifier in the body; ``profiles`` is the older
            lookup by GET, which shows it in the URL.
        enrich: Ask the real-time API for its enriched profiles.
        segments: Name of an attribute that receives the names of the profile's segments; none by default.
        client_id: OAuth client, instead of `profile_api_key`.
        client_secret: Secret of that client.
    """

    tenant_subdomain: str = attrs.field(
        validator=pattern(
            r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            "must be the part of your Amperity address before .amperity.com, in lower case",
        )
    )
    tenant_id: str = attrs.field(validator=pattern(_ID, "must be the tenant's id, such as acme or acme-sb-12345"))
    profile_api_key: Secret = attrs.field(
        validator=pattern(r"[\x21-\x7e]+", "must be the access token alone: no spaces, without the word Bearer")
    )
    profile_collection_id: str = attrs.field(
        validator=pattern(_ID, "must be the id of a profile collection, such as apc-demo0001, or of an index")
    )
    base_url: str | None = attrs.field(
        default=None,
        validator=pattern(
            r"https?://[^\s/?#@]+(/[^\s?#]*)?", "must be an http or https URL without credentials, query or fragment"
        ),
    )
    api: str = attrs.field(default="realtime", validator=one_of("realtime", "indexes"))
    lookup_style: str = attrs.field(default="keychain", validator=one_of("keychain", "profiles"))
    enrich: bool = False
    segments: str | None = attrs.field(
        default=None, validator=[pattern(r"\S(.*\S)?", "must be the name of an attribute"), _needs_realtime]
    )
    client_id: str | None = attrs.field(default=None, validator=pattern(r"\S+", "must be the id of an OAuth client"))
    client_secret: Secret | None = attrs.field(default=None, validator=_needs_client_id)

    @property
    def root(self) -> str:
        """The URL below which all paths lie, without a slash at its end."""
        return (self.base_url or f"https://{self.tenant_subdomain}.amperity.com").rstrip("/")
