"""
Every error of the project, in one tree, by what the caller does next.

::

    PartnerEnrichError
    ├── ConfigError            fix the configuration: names the field, never the value
    ├── PluginError            fix or remove the plugin: its integrations are disabled
    └── PartnerError           a call to a partner gave no answer
        ├── AuthError          credential refused: opens the breaker at once
        ├── RequestRefused     the partner rejects the request as configured
        ├── UnknownPartnerId   the partner dropped a profile: resolve anew
        ├── RateLimited        the partner asks for fewer calls
        ├── Unavailable        down, slow or unreachable: tried once more
        ├── BadResponse        an answer that cannot be understood
        ├── NotSupported       the partner has no such operation
        └── NotCalled          our own limits held the call back

"The partner does not know this visitor" is an answer, not an error: see
`partnerenrich.Resolution`.

No message ever holds a secret or a value of a visitor.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


class BreakerEffect(Enum):
    """What an error does to the circuit breaker of its integration."""

    NONE = "none"
    COUNTS = "counts"
    OPENS = "opens"


class PartnerEnrichError(Exception):
    """Root of all errors that this project raises on purpose."""


@attrs.frozen
class Problem:
    """
    One thing that is wrong in a configuration.

    Attributes:
        where: Path of the field, such as ``integrations[0].settings.tenant_id``.
        what: What was expected there and the way out. Never the value.
        line: Line in the file, from 1, where one is known.
    """

    where: str
    what: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.where} (line {self.line})" if self.line else self.where
        return f"{place}: {self.what}" if place else self.what


class ConfigError(PartnerEnrichError):
    """The configuration cannot be used. `problems` has one entry per field."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class PluginError(PartnerEnrichError):
    """A plugin cannot be found, does not load or breaks the contract."""


class PartnerError(PartnerEnrichError):
    """
    A call to a partner gave no answer.

    Attributes:
        retry: Whether a second try at once makes sense.
        breaker: What it does to the integration's circuit breaker.
        remembered: Whether the failure is remembered for `TTL.failed`, so that
            the same lookup is not repeated at once.
    """

    retry: ClassVar[bool] = False
    breaker: ClassVar[BreakerEffect] = BreakerEffect.COUNTS
    remembered: ClassVar[bool] = True


class AuthError(PartnerError):
    """The credential is refused or lacks a permission (401, 403). Opens the breaker at once."""

    breaker = BreakerEffect.OPENS


class RequestRefused(PartnerError):
    """The partner rejects the request as configured (400, wrong key name). Not tried again."""

    breaker = BreakerEffect.NONE


class UnknownPartnerId(PartnerError):
    """The partner no longer knows this id, as after a merge. The visitor is resolved anew."""

    breaker = BreakerEffect.NONE
    remembered = False


class RateLimited(PartnerError):
    """
    The partner asks for fewer calls (429).

    Attributes:
        retry_after: Seconds to wait, where the partner says so.
    """

    retry = True

    def __init__(self, message: str = "the partner asks for fewer calls", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(PartnerError):
    """The partner is down, slow or unreachable (5xx, timeout, refused connection)."""

    retry = True


class BadResponse(PartnerError):
    """The partner answered something that cannot be understood."""


class NotSupported(PartnerError):
    """The partner has no such operation."""

    breaker = BreakerEffect.NONE
    remembered = False


class NotCalled(PartnerError):
    """Rate limit, concurrency, breaker or daily budget: no call was made."""

    breaker = BreakerEffect.NONE
    remembered = False
