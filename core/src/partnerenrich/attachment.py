"""Write what is known of a visitor into the context of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from partnerenrich.events import object_of
from partnerenrich.memory import NULL
from partnerenrich.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich.events import Event
    from partnerenrich.lookup import Reply
    from partnerenrich.memory import Answer

VENDOR_IDS, PARTNER_ATTRS, ENRICHMENT = WRITTEN = ("vendor_ids", "partner_attrs", "enrichment")
"""The members of an event's context that are ours to write."""

_encode = msgspec.json.Encoder().encode


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
        self._hits: dict[str, bytes] = {}

    def attach(self, event: Event, replies: Sequence[Reply], now: float) -> None:
        """
        Write one reply of each partner into the event.

        Args:
            event: Changed in place. A context that is no object stays as it is.
            replies: In the order of the partners.
            now: Unix time in seconds.
        """
        ids = attributes = enrichment = b""
        for head, reply in zip(self._heads, replies):
            answer = reply.answer
            if answer is not None and answer.state == "found" and now < answer.usable_until:
                ids += head + answer.partner_id
                if answer.attributes != NULL:
                    attributes += head + answer.attributes
            enrichment += head + self._described(reply, now)
        self._write(event, ids, attributes, enrichment)

    def attach_hits(self, event: Event, answers: Sequence[Answer], now: float) -> None:
        """The same for hits alone, which is what most events are: one current answer of each partner."""
        ids = attributes = enrichment = b""
        for head, answer in zip(self._heads, answers):
            ids += head + answer.partner_id
            if answer.attributes != NULL:
                attributes += head + answer.attributes
            start = self._hits.get(answer.source) or self._start_of_hit(answer.source)
            if answer.previous_id != NULL:
                start += b'"previous_id":%b,' % answer.previous_id
            enrichment += b'%b%b"age_ms":%d}' % (head, start, max(0, (now - answer.at) * 1000))
        self._write(event, ids, attributes, enrichment)

    def _write(self, event: Event, ids: bytes, attributes: bytes, enrichment: bytes) -> None:
        """Write members, each with a comma before it."""
        head = event.context_head
        if head is None:
            return
        if not (head.vendor_ids is UNSET and head.partner_attrs is UNSET and head.enrichment is UNSET):
            self._merge(event, {VENDOR_IDS: ids, PARTNER_ATTRS: attributes, ENRICHMENT: enrichment})
            return
        members = [b',"vendor_ids":{', ids[1:], b"}"] if ids else []
        if attributes:
            members += (b',"partner_attrs":{', attributes[1:], b"}")
        if enrichment:
            members += (b',"enrichment":{', enrichment[1:], b"}")
        event.extend_context(b"".join(members))

    def _merge(self, event: Event, ours: dict[str, bytes]) -> None:
        """Write members beside those that are not ours."""
        context = event.context
        assert context is not None
        for name, members in ours.items():
            if name in context:
                theirs = (object_of(context[name]) or {}).items()
                members += b"".join(b"," + _encode(k) + b":" + v for k, v in theirs if k not in self._providers)  # noqa: PLW2901
            elif not members:
                continue
            context[name] = msgspec.Raw(b"{" + members[1:] + b"}")
        event.replace_context(_encode(context))

    def _described(self, reply: Reply, now: float) -> bytes:
        """What became of a lookup; and beside the id, the one before it while that is valid."""
        answer = reply.answer
        source = None if answer is None else answer.source
        key = (reply.outcome, source, reply.step)
        start = self._outcomes.get(key)
        if start is None:
            parts = {"outcome": reply.outcome, "link": source, "step": reply.step}
            start = _encode({name: text for name, text in parts.items() if text})[:-1]
            self._outcomes[key] = start
        if reply.latency is not None:
            start += b',"latency_ms":%d' % round(reply.latency * 1000)
        if answer is None:
            return start + b"}"
        if answer.previous_id != NULL and now < answer.usable_until:
            start += b',"previous_id":' + answer.previous_id
        return start + b',"age_ms":%d}' % max(0, (now - answer.at) * 1000)

    def _start_of_hit(self, source: str) -> bytes:
        start = _encode({"outcome": Outcome.HIT, "link": source})[:-1] + b","
        self._hits[source] = start
        return start
