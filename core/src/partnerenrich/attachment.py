"""Write what is known of a visitor into the context of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from partnerenrich.events import object_of
from partnerenrich.memory import NULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich.events import Event
    from partnerenrich.lookup import Reply

VENDOR_IDS, PARTNER_ATTRS, ENRICHMENT = WRITTEN = ("vendor_ids", "partner_attrs", "enrichment")
"""The members of an event's context that are ours to write."""

_write = msgspec.json.Encoder().encode


class Attacher:
    """
    Writes the answers of one organisation's partners into its events.

    What an event brings along under a configured partner is replaced: nobody
    outside can claim to be a partner. The rest is merged.

    Args:
        providers: Keys of the partners, in the order of the replies.
    """

    def __init__(self, providers: Sequence[str]) -> None:
        self._providers = frozenset(providers)
        self._heads = [f',"{provider}":'.encode() for provider in providers]
        self._outcomes: dict[tuple[str, str | None, str], bytes] = {}

    def attach(self, event: Event, replies: Sequence[Reply], now: float) -> None:
        """
        Write one reply of each partner into the event.

        Args:
            event: Changed in place. A context that is no object stays as it is.
            replies: In the order of the partners.
            now: Unix time in seconds.
        """
        context = event.context
        if context is None:
            return
        ids = attributes = enrichment = b""
        for head, reply in zip(self._heads, replies):
            answer = reply.answer
            if answer is not None and answer.state == "found" and now < answer.usable_until:
                ids += head + answer.partner_id
                if answer.attributes != NULL:
                    attributes += head + answer.attributes
            enrichment += head + self._described(reply, now)
        self._merge(context, VENDOR_IDS, ids)
        self._merge(context, PARTNER_ATTRS, attributes)
        self._merge(context, ENRICHMENT, enrichment)
        event.replace_context()

    def _merge(self, context: dict[str, msgspec.Raw], name: str, members: bytes) -> None:
        """Write members, each with a comma before it, beside those that are not ours."""
        if name in context:
            for key, value in (object_of(context[name]) or {}).items():
                if key not in self._providers:
                    members += b"," + _write(key) + b":" + value
        elif not members:
            return
        context[name] = msgspec.Raw(b"{" + members[1:] + b"}")

    def _described(self, reply: Reply, now: float) -> bytes:
        """What became of a lookup; and beside the id, the one before it while that is valid."""
        answer = reply.answer
        source = None if answer is None else answer.source
        key = (reply.outcome, source, reply.step)
        start = self._outcomes.get(key)
        if start is None:
            parts = {"outcome": reply.outcome, "link": source, "step": reply.step}
            start = _write({name: text for name, text in parts.items() if text})[:-1]
            self._outcomes[key] = start
        if reply.latency is not None:
            start += b',"latency_ms":%d' % round(reply.latency * 1000)
        if answer is None:
            return start + b"}"
        if answer.previous_id != NULL and now < answer.usable_until:
            start += b',"previous_id":' + answer.previous_id
        return start + b',"age_ms":%d}' % max(0, (now - answer.at) * 1000)
