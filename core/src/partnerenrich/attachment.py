"""Write what is known of a visitor into the context of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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

Has = tuple[bool, bool]
"""Whether there is an id of a partner, and whether there are attributes."""
Values = tuple["Sequence[bytes]", "Sequence[bytes]", "Sequence[bytes]"]
"""Ids and attributes, of the partners that have some, and the outcome of each partner, as JSON."""
_BOTH: Final[Has] = (True, True)
_ID_ALONE: Final[Has] = (True, False)
_NEITHER: Final[Has] = (False, False)

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
        self._members: dict[tuple[Has, ...], bytes] = {}
        self._starts: dict[tuple[str, str | None, str], bytes] = {}

    def attach(self, event: Event, replies: Sequence[Reply], now: float) -> None:
        """
        Write one reply of each partner into the event.

        Args:
            event: Changed in place. A context that is no object stays as it is.
            replies: In the order of the partners.
            now: Unix time in seconds.
        """
        has: list[Has] = []
        ids, attributes, enrichment = [], [], []
        for reply in replies:
            answer = reply.answer
            if answer is None or answer.state != "found" or now >= answer.usable_until:
                has.append(_NEITHER)
            elif answer.attributes == NULL:
                has.append(_ID_ALONE)
                ids.append(answer.partner_id)
            else:
                has.append(_BOTH)
                ids.append(answer.partner_id)
                attributes.append(answer.attributes)
            enrichment.append(self._described(reply, now))
        self._write(event, tuple(has), (ids, attributes, enrichment))

    def attach_hits(self, event: Event, answers: Sequence[Answer], now: float) -> None:
        """The same for hits alone, which is what most events are: one current answer of each partner."""
        has: list[Has] = []
        ids, attributes, enrichment = [], [], []
        for answer in answers:
            ids.append(answer.partner_id)
            if answer.attributes != NULL:
                attributes.append(answer.attributes)
                has.append(_BOTH)
            else:
                has.append(_ID_ALONE)
            start = self._start(Outcome.HIT, answer.source, "")
            if answer.previous_id != NULL:
                start += b',"previous_id":' + answer.previous_id
            age = now - answer.at
            enrichment.append(b'%b,"age_ms":%d}' % (start, age * 1000 if age > 0 else 0))
        self._write(event, tuple(has), (ids, attributes, enrichment))

    def _write(self, event: Event, has: tuple[Has, ...], values: Values) -> None:
        """Write ids and attributes of those partners who have some, and the outcome of each."""
        head = event.context_head
        if head is None or not has:
            return
        if head.vendor_ids is UNSET and head.partner_attrs is UNSET and head.enrichment is UNSET:
            members = self._members.get(has) or self._members_for(has)
            ids, attributes, enrichment = values
            event.extend_context(members % (*ids, *attributes, *enrichment))
        else:
            self._merge(event, has, values)

    def _merge(self, event: Event, has: tuple[Has, ...], values: Values) -> None:
        """Write members beside those that are not ours."""
        context = event.context
        assert context is not None
        for name, template, of_partners in zip(WRITTEN, self._templates(has), values):
            members = [template % tuple(of_partners)] if of_partners else []
            if name in context:
                theirs = (object_of(context[name]) or {}).items()
                members += [_encode(key) + b":" + value for key, value in theirs if key not in self._providers]
            elif not members:
                continue
            context[name] = msgspec.Raw(b"{%b}" % b",".join(members))
        event.replace_context(_encode(context))

    def _members_for(self, has: tuple[Has, ...]) -> bytes:
        """What is written where nothing of it is there, with a place for each value."""
        pairs = zip(WRITTEN, self._templates(has))
        members = b"".join(b',"%b":{%b}' % (name.encode(), template) for name, template in pairs if template)
        self._members[has] = members
        return members

    def _templates(self, has: tuple[Has, ...]) -> tuple[bytes, bytes, bytes]:
        """Ids, attributes and outcomes, with a place for each value."""
        ids = [name for name, (has_id, _) in zip(self._names, has) if has_id]
        attributes = [name for name, (_, has_some) in zip(self._names, has) if has_some]
        return _places(ids), _places(attributes), _places(self._names)

    def _described(self, reply: Reply, now: float) -> bytes:
        """What became of a lookup; and beside the id, the one before it while that is valid."""
        answer = reply.answer
        start = self._start(reply.outcome, None if answer is None else answer.source, reply.step)
        if reply.latency is not None:
            start += b',"latency_ms":%d' % round(reply.latency * 1000)
        if answer is None:
            return start + b"}"
        if answer.previous_id != NULL and now < answer.usable_until:
            start += b',"previous_id":' + answer.previous_id
        return start + b',"age_ms":%d}' % max(0, (now - answer.at) * 1000)

    def _start(self, outcome: Outcome, source: str | None, step: str) -> bytes:
        key = (outcome, source, step)
        start = self._starts.get(key)
        if start is None:
            parts = {"outcome": outcome, "link": source, "step": step}
            start = self._starts[key] = _encode({name: text for name, text in parts.items() if text})[:-1]
        return start


def _places(names: Sequence[bytes]) -> bytes:
    return b",".join(name + b"%b" for name in names)
