"""Write what is known of a visitor into the context of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from partnerenrich.events import object_of
from partnerenrich.lookup import Reply
from partnerenrich.memory import NULL
from partnerenrich.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich.events import Event
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
        self._names = [f'"{provider}":'.encode() for provider in providers]
        self._heads = [b"," + name for name in self._names]
        self._outcomes: dict[tuple[str, str | None, str], bytes] = {}
        self._hits: dict[tuple[bool, ...], bytes] = {}
        self._starts_of_hits: dict[str, bytes] = {}

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
        head = event.context_head
        if head is None or not answers:
            return
        is_plain = head.vendor_ids is UNSET and head.partner_attrs is UNSET and head.enrichment is UNSET
        ids, with_attributes, attributes = [], [], []
        enrichment: list[bytes | float] = []
        for answer in answers:
            ids.append(answer.partner_id)
            has_some = answer.attributes != NULL
            with_attributes.append(has_some)
            if has_some:
                attributes.append(answer.attributes)
            start = self._starts_of_hits.get(answer.source) or self._start_of_hit(answer.source)
            age = now - answer.at
            enrichment += (start, age * 1000 if age > 0 else 0)
            is_plain = is_plain and answer.previous_id == NULL
        if is_plain:
            shape = tuple(with_attributes)
            members = self._hits.get(shape) or self._members_of_hits(shape)
            event.extend_context(members % (*ids, *attributes, *enrichment))
        else:
            self.attach(event, [Reply(Outcome.HIT, answer) for answer in answers], now)

    def _write(self, event: Event, ids: bytes, attributes: bytes, enrichment: bytes) -> None:
        """Write members, each with a comma before it."""
        head = event.context_head
        if head is None or not enrichment:
            return
        if not (head.vendor_ids is UNSET and head.partner_attrs is UNSET and head.enrichment is UNSET):
            self._merge(event, {VENDOR_IDS: ids, PARTNER_ATTRS: attributes, ENRICHMENT: enrichment})
            return
        members = [b',"vendor_ids":{', ids[1:], b"}"] if ids else []
        if attributes:
            members += (b',"partner_attrs":{', attributes[1:], b"}")
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
        start = _encode({"outcome": Outcome.HIT, "link": source})[:-1]
        self._starts_of_hits[source] = start
        return start

    def _members_of_hits(self, with_attributes: tuple[bool, ...]) -> bytes:
        """What is written for hits of which these have attributes: ids, attributes, start and age are to be put in."""
        ids = b",".join(name + b"%b" for name in self._names)
        attributes = b",".join(name + b"%b" for name, has_some in zip(self._names, with_attributes) if has_some)
        enrichment = b",".join(name + b'%b,"age_ms":%d}' for name in self._names)
        members = b',"vendor_ids":{%b},"enrichment":{%b}' % (ids, enrichment)
        if attributes:
            members = b',"vendor_ids":{%b},"partner_attrs":{%b},"enrichment":{%b}' % (ids, attributes, enrichment)
        self._hits[with_attributes] = members
        return members
