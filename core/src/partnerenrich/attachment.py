"""Write what is known of a visitor into the context of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from partnerenrich.events import NO_CONTEXT, object_of
from partnerenrich.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich.events import Event
    from partnerenrich.lookup import Reply
    from partnerenrich.memory import Answer

VENDOR_IDS, PARTNER_ATTRS, ENRICHMENT = WRITTEN = ("vendor_ids", "partner_attrs", "enrichment")
"""The members of an event's context that are ours to write."""

Told = tuple[Outcome, "str | None", str, bool, bool, bool, bool]
"""
Of one partner: outcome, source and step of its reply; whether there are an id of the visitor, attributes, a latency
and an id before this one.
"""
Values = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]
"""Ids and attributes as JSON, of the partners that have some. And of each partner what it has of these, in this order:
the latency in milliseconds, the id before as JSON, the age of the answer in milliseconds."""
_HIT: Final = Outcome.HIT

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
        self._members: dict[tuple[Told, ...], bytes] = {}

    def attach(self, event: Event, replies: Sequence[Reply], now: float) -> None:
        """
        Write one reply of each partner into the event.

        Args:
            event: Changed in place. A context that is no object stays as it is. Of several, the last one is left.
            replies: In the order of the partners.
            now: Unix time in seconds.
        """
        told: tuple[Told, ...] = ()
        ids: tuple[Any, ...] = ()
        attributes: tuple[Any, ...] = ()
        details: tuple[Any, ...] = ()
        for reply in replies:
            answer, latency = reply.answer, reply.latency
            source = None
            has_id = has_attributes = has_previous = False
            if latency is not None:
                details += (latency * 1000 + 0.5,)
            if answer is not None:
                source = answer.source
                if answer.state == "found" and now < answer.usable_until:
                    has_id = True
                    ids += (answer.partner_id,)
                    if answer.attributes:
                        has_attributes = True
                        attributes += (answer.attributes,)
                    if answer.previous_id:
                        has_previous = True
                        details += (answer.previous_id,)
                age = now - answer.at
                details += (age * 1000 if age > 0 else 0,)
            told += ((reply.outcome, source, reply.step, has_id, has_attributes, latency is not None, has_previous),)
        self._write(event, told, (ids, attributes, details))

    def attach_hits(self, event: Event, answers: Sequence[Answer], now: float) -> None:
        """The same for hits alone, which is what most events are: one current answer of each partner."""
        told: tuple[Told, ...] = ()
        ids: tuple[Any, ...] = ()
        attributes: tuple[Any, ...] = ()
        details: tuple[Any, ...] = ()
        for answer in answers:
            ids += (answer.partner_id,)
            if answer.attributes:
                attributes += (answer.attributes,)
            if answer.previous_id:
                details += (answer.previous_id,)
            age = now - answer.at
            details += (age * 1000 if age > 0 else 0,)
            told += ((_HIT, answer.source, "", True, answer.attributes != b"", False, answer.previous_id != b""),)
        self._write(event, told, (ids, attributes, details))

    def _write(self, event: Event, told: tuple[Told, ...], values: Values) -> None:
        context = event.head.context
        if not told:
            return
        if context is None:
            event.drop_other_contexts()
        elif context.vendor_ids is UNSET and context.partner_attrs is UNSET and context.enrichment is UNSET:
            ids, attributes, details = values
            members = (self._members.get(told) or self._members_for(told)) % (ids + attributes + details)
            if context is NO_CONTEXT:
                event.add_context(members)
            else:
                event.extend_context(members)
        else:
            self._merge(event, told, values)

    def _merge(self, event: Event, told: tuple[Told, ...], values: Values) -> None:
        """Write members beside those that are not ours."""
        context = event.context
        assert context is not None
        for name, template, of_partners in zip(WRITTEN, self._templates(told), values):
            members = [template % of_partners] if template else []
            if name in context:
                theirs = (object_of(context[name]) or {}).items()
                members += [_encode(key) + b":" + value for key, value in theirs if key not in self._providers]
            elif not members:
                continue
            context[name] = msgspec.Raw(b"{%b}" % b",".join(members))
        event.replace_context(_encode(context))

    def _members_for(self, told: tuple[Told, ...]) -> bytes:
        """What is written where nothing of it is there, with a place for each value."""
        pairs = zip(WRITTEN, self._templates(told))
        members = b"".join(b'"%b":{%b},' % (name.encode(), template) for name, template in pairs if template)
        self._members[told] = members
        return members

    def _templates(self, told: tuple[Told, ...]) -> tuple[bytes, bytes, bytes]:
        """Ids, attributes and outcomes, with a place for each value."""
        ids = [name + b"%b" for name, (_, _, _, has_id, _, _, _) in zip(self._names, told) if has_id]
        attributes = [name + b"%b" for name, (_, _, _, _, has_some, _, _) in zip(self._names, told) if has_some]
        outcomes = [name + _described(each) for name, each in zip(self._names, told)]
        return b",".join(ids), b",".join(attributes), b",".join(outcomes)


def _described(told: Told) -> bytes:
    """What became of a lookup, with a place for each value."""
    outcome, source, step, _, _, has_latency, has_previous = told
    parts = {"outcome": outcome, "link": source, "step": step}
    start = _encode({name: text for name, text in parts.items() if text})[:-1].replace(b"%", b"%%")
    latency = b',"latency_ms":%d' if has_latency else b""
    previous = b',"previous_id":%b' if has_previous else b""
    age = b"" if source is None else b',"age_ms":%d'
    return b"%b%b%b%b}" % (start, latency, previous, age)
