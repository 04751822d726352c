"""UID2 and EUID for partnerenrich: map e-mails and phones to raw UIDs, in bulk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from partnerenrich import TTL, Limits, LinkingKey, Partner, PartnerError, hookimpl
from partnerenrich_uid2 import _identity_map
from partnerenrich_uid2._operator import Operator
from partnerenrich_uid2.config import Config, EUIDConfig, UID2Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from partnerenrich import Link, Resolution, Sandbox


@attrs.frozen(eq=False)
class UnifiedID:
    """
    One scope of the protocol that UID2 and EUID share.

    Attributes:
        settings: Class of its settings, which knows its name and its environments.
        docs: URL of its documentation.
        clock: Unix time in seconds.
        entropy: Gives so many random bytes.
    """

    settings: type[Config]
    docs: str
    clock: Callable[[], float] = time.time
    entropy: Callable[[int], bytes] = os.urandom

    @hookimpl
    def partner(self) -> Partner:
        """
        An identity service that asks for few and full requests, at most about 20 of them at once.

        Identifiers are hashed before they leave. An answer names its own time of refresh; without one
        (v2) an hour is the vendor's advice. Why an identifier has no id holds for a day.
        """
        return Partner(
            title=self.settings.SCOPE,
            category="identity",
            config=self.settings,
            linking_keys=(LinkingKey("email", "email", "uid2"), LinkingKey("phone", "phone", "uid2")),
            ttl=TTL(resolved=3_600, not_found=86_400, cap=86_400),
            limits=Limits(
                timeout=5,
                attempts=4,
                concurrency=20,
                bulk=_identity_map.MOST,
                bulk_bytes=_identity_map.MOST_BYTES,
                response_bytes=4 << 20,
            ),
            docs=self.docs,
        )

    @hookimpl
    async def resolve_ids(
        self, config: Config, http: httpx.AsyncClient, links: Sequence[Link]
    ) -> Sequence[Resolution | PartnerError]:
        """Map all links with as few requests as can be."""
        return await _identity_map.resolve(self._operator(config, http), links)

    @hookimpl
    async def resolve_id(self, config: Config, http: httpx.AsyncClient, link: Link) -> Resolution:
        """Map one link."""
        (answer,) = await _identity_map.resolve(self._operator(config, http), [link])
        if isinstance(answer, PartnerError):
            raise answer
        return answer

    @hookimpl
    async def check(self, config: Config, http: httpx.AsyncClient) -> None:
        """Send a request for nobody, which proves key, role, secret and clock."""
        await _identity_map.check(self._operator(config, http))

    @hookimpl
    def sandbox(self) -> Sandbox:
        """An operator of this scope."""
        from partnerenrich_uid2._sandbox import new_sandbox  # noqa: PLC0415  Starlette is needed here alone

        return new_sandbox(self.settings.SCOPE)

    def _operator(self, config: Config, http: httpx.AsyncClient) -> Operator:
        return Operator(config, http, self.clock, self.entropy)


uid2 = UnifiedID(UID2Config, docs="https://unifiedid.com/docs/intro")
euid = UnifiedID(EUIDConfig, docs="https://euid.eu/docs/intro")
