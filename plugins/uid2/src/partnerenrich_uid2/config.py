"""The settings of one UID2 or EUID integration."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs

from partnerenrich import Secret, one_of, pattern

Scope = Literal["UID2", "EUID"]


@attrs.frozen(kw_only=True)
class Config:
    """
    Which operator to ask, and with which credential.

    Attributes:
        api_key: Sent as bearer. It belongs to one environment and needs the role MAPPER.
        client_secret: Issued with the key: 32 bytes in base64. Encrypts every request and every answer.
        environment: Where the key was issued; raw ids of two environments have nothing in common.
        base_url: Replaces the address of the environment, for a private operator.
        protocol: ``v3``; or ``v2`` for an operator without it, which knows no previous id and no time of refresh.
        body: ``octet-stream``; or ``base64`` where something on the way damages binary bodies.
    """

    SCOPE: ClassVar[Scope]
    """What people call the scope, in messages."""
    ENVIRONMENTS: ClassVar[Mapping[str, str]]
    """Name to address. https://unifiedid.com/docs/getting-started/gs-environments"""

    api_key: Secret = attrs.field(
        validator=pattern(r"[\x21-\x7e]+", "must be the API key alone: no spaces, without the word Bearer")
    )
    client_secret: Secret = attrs.field(
        validator=pattern(
            "[A-Za-z0-9+/]{43}=", "must be the client secret as issued: 32 bytes in base64, 44 characters"
        )
    )
    environment: str = "production"
    base_url: str | None = attrs.field(
        default=None,
        validator=pattern(
            r"(?!.*/v[23]/?$)https?://[^\s/?#@]+(/[^\s?#]*)?",
            "must be an http or https URL without credentials, query, fragment or a final /v2 or /v3",
        ),
    )
    protocol: str = attrs.field(default="v3", validator=one_of("v3", "v2"))
    body: str = attrs.field(default="octet-stream", validator=one_of("octet-stream", "base64"))

    @property
    def root(self) -> str:
        """The URL below which all paths lie, without a slash at its end."""
        return (self.base_url or self.ENVIRONMENTS[self.environment]).rstrip("/")

    @property
    def key(self) -> bytes:
        """The client secret as an AES-256 key."""
        return base64.b64decode(self.client_secret.reveal())


@attrs.frozen(kw_only=True)
class UID2Config(Config):  # noqa: D101  the docstring of Config counts: the schema tells users of its attributes
    SCOPE: ClassVar[Scope] = "UID2"
    ENVIRONMENTS: ClassVar[Mapping[str, str]] = {
        "production": "https://global.prod.uidapi.com",
        "us-east-2": "https://prod.uidapi.com",
        "us-west-2": "https://usw.prod.uidapi.com",
        "ap-southeast-2": "https://au.prod.uidapi.com",
        "ap-northeast-1": "https://jp.prod.uidapi.com",
        "ap-southeast-1": "https://sg.prod.uidapi.com",
        "integration": "https://operator-integ.uidapi.com",
    }

    environment: str = attrs.field(default="production", validator=one_of(*ENVIRONMENTS))


@attrs.frozen(kw_only=True)
class EUIDConfig(Config):  # noqa: D101  see UID2Config
    SCOPE: ClassVar[Scope] = "EUID"
    ENVIRONMENTS: ClassVar[Mapping[str, str]] = {
        "production": "https://prod.euid.eu",
        "integration": "https://integ.euid.eu",
    }

    environment: str = attrs.field(default="production", validator=one_of(*ENVIRONMENTS))
