"""The official SDK, used as its documentation says: one call of 5,000 after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uid2_client

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Sdk:
    """
    The SDK's client of an operator.

    Args:
        settings: As of an integration.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._client = uid2_client.IdentityMapV3Client(
            settings["base_url"], settings["api_key"], settings["client_secret"]
        )

    def map(self, emails: Sequence[str]) -> dict[str, str]:
        """E-mail to raw UID."""
        answer = self._client.generate_identity_map(uid2_client.IdentityMapV3Input.from_emails(emails))
        return {email: mapped.current_raw_uid for email, mapped in answer.mapped_identities.items()}
