"""
Flow C's contextual call: what a partner says of one visitor in one context, remembered for a short time.

Whose attributes these are is told by the visitor record, as for an event. It
counts only while the device belongs to the same person, and only if the extract
in the browser copy was made of this very record: what a page merely claims
makes a record, but no extract. What a browser may see of the answer is decided
by the integration's allowlist.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from partnerenrich import memory
from partnerenrich.browser import holds_id
from partnerenrich.calls import PartnerCalls
from partnerenrich.errors import BadResponse, NotCalled, PartnerError, UnknownPartnerId
from partnerenrich.lookup import MAX_ATTRIBUTES_BYTES
from partnerenrich.memory import Keys
from partnerenrich.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partnerenrich.browser import Extract
    from partnerenrich.configuration import Integration
    from partnerenrich.governor import DailyBudget
    from partnerenrich.identity import Fingerprints
    from partnerenrich.memory import Answer
    from partnerenrich.store import Store

NOTHING: Final = b"{}"


class _Remembered(msgspec.Struct, array_like=True):
    until: float
    attributes: bytes


_unpack_remembered = msgspec.msgpack.Decoder(_Remembered).decode


@attrs.frozen
class Personalized:
    """
    What came of a contextual call.

    Attributes:
        outcome: Where the attributes come from, or why there are none.
        attributes: JSON object of what a browser may see; empty without an answer.
    """

    outcome: Outcome
    attributes: bytes = attrs.field(default=NOTHING, repr=False)


class Personalizer(PartnerCalls[Personalized]):
    """
    The contextual calls of one integration whose partner has the hook `personalize`.

    They have limits and a breaker of their own, beside those of the lookups; the
    daily budget is one for both.

    Args:
        integration: Whom to ask, what a browser may see, and for how long an answer counts.
        fingerprint: Of the organisation. Contexts are in the store as fingerprints only.
        store: Where answers are remembered.
        daily_budget: Counts the calls of a day; None for no limit.
    """

    def __init__(
        self, integration: Integration, fingerprint: Fingerprints, store: Store, daily_budget: DailyBudget | None
    ) -> None:
        super().__init__(integration, daily_budget)
        self._fingerprint = fingerprint
        self._store = store
        self._keys = Keys(integration.org, (integration.provider,))

    async def ask(
        self, canonical_id: str, extract: Extract, context: Mapping[str, Any], *, wait_until: float
    ) -> Personalized:
        """
        Answer for one device in one context, from memory or from the partner.

        Args:
            canonical_id: Of the device, safe in a key.
            extract: What the device's browser may read of this integration.
            context: What the page says of itself. Untrusted.
            wait_until: Moment of `time.monotonic`. A call that takes longer goes on, and is remembered.
        """
        who_key, visitor_key = self._keys.device(canonical_id)
        text = msgspec.json.encode([self.integration.version, extract.stamp, context], order="deterministic")
        key = f"{visitor_key}:~{self._fingerprint('context', text.decode())}"
        who, visitor, record = await self._store.read([who_key, visitor_key, key])
        now = time.time()
        answer = memory.read_answer(visitor, self.integration.version)
        if answer is None or answer.state != "found" or now >= answer.usable_until:
            return Personalized(Outcome.SKIPPED)
        if memory.read_who(who).stamp != answer.stamp or not _is_made_of(extract, answer):
            return Personalized(Outcome.SKIPPED)
        remembered = _remembered(record)
        if remembered is not None and now < remembered.until:
            return Personalized(Outcome.HIT, remembered.attributes)
        flight = self._fly(key, partial(self._ask, key, answer, context, wait_until))
        done, _ = await asyncio.wait({flight}, timeout=max(0.0, wait_until - time.monotonic()))
        return flight.result() if done else Personalized(Outcome.LATE)

    async def _ask(self, key: str, answer: Answer, context: Mapping[str, Any], wait_until: float) -> Personalized:
        integration = self.integration
        partner_id: str = msgspec.json.decode(answer.partner_id)
        try:
            said = await self.governor.call(
                lambda call: integration.partner.personalize(integration.config, self._http, partner_id, context, call),
                wait_until=wait_until,
                hook="personalize",
            )
            attributes = self._allowed(said, answer)
        except NotCalled:
            return Personalized(Outcome.LIMITED)
        except UnknownPartnerId:
            return Personalized(Outcome.ABSENT)
        except PartnerError:
            return Personalized(Outcome.ERROR)
        life = integration.ttl.personalize
        self._store.queue([memory.save(key, _Remembered(time.time() + life, attributes), life)])
        return Personalized(Outcome.FRESH, attributes)

    def _allowed(self, said: Mapping[str, Any], answer: Answer) -> bytes:
        try:
            values = {name: memory.encode_attributes(said[name]) for name in said if name in self.integration.allowlist}
            shown = {name: msgspec.Raw(value) for name, value in values.items() if not holds_id(value, answer)}
            encoded = memory.encode(shown)
        except (TypeError, ValueError, RecursionError):
            encoded = b""
        if not encoded:
            raise BadResponse("the attributes are no JSON")
        if len(encoded) > MAX_ATTRIBUTES_BYTES:
            raise BadResponse(f"the attributes are over {MAX_ATTRIBUTES_BYTES} bytes")
        return encoded


def _is_made_of(extract: Extract, answer: Answer) -> bool:
    return (extract.stamp, extract.expires_at) == (answer.stamp, answer.usable_until)


def _remembered(record: bytes | None) -> _Remembered | None:
    try:
        return None if record is None else _unpack_remembered(record)
    except msgspec.DecodeError:
        return None
