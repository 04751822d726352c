"""One event on its way: the line that it is, read where somebody asks, changed in three places of its context only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from partnerenrich.errors import PartnerEnrichError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

MAX_BYTES: Final = 1 << 20
"""Longest event, in bytes of JSON."""

Fields = dict[str, msgspec.Raw]


class EventError(PartnerEnrichError):
    """A line that is no event. The message names the reason, never the content."""


class Contact(msgspec.Struct, gc=False):
    """Where an event has a person's e-mail and phone. Any JSON value; None when it has none."""

    email: Any = None
    phone: Any = None

    def __repr__(self) -> str:
        return "Contact(***)"


class ContextHead(msgspec.Struct, frozen=True, gc=False):
    """What an event's context says of the visitor. Any JSON value; None when it says nothing."""

    canonical_id: Any = None
    canonicalId: Any = None  # noqa: N815 - as in the event
    traits: Contact | None = None
    consent: Any = None
    vendor_ids: msgspec.Raw | UnsetType = UNSET
    partner_attrs: msgspec.Raw | UnsetType = UNSET
    enrichment: msgspec.Raw | UnsetType = UNSET

    def __repr__(self) -> str:
        return "ContextHead(***)"


NO_CONTEXT: Final = ContextHead()


class Head(msgspec.Struct, gc=False):
    """
    What an event says of the visitor, and its own id. Any JSON value; None for nothing.

    Attributes:
        context: The same of its context, `NO_CONTEXT` where there is none; None when that is no object.
    """

    anonymousId: Any = None  # noqa: N815 - as in the event
    anonymous_id: Any = None
    userId: Any = None  # noqa: N815 - as in the event
    user_id: Any = None
    canonical_id: Any = None
    canonicalId: Any = None  # noqa: N815 - as in the event
    messageId: Any = None  # noqa: N815 - as in the event
    message_id: Any = None
    properties: Contact | None = None
    traits: Contact | None = None
    context: ContextHead | None = NO_CONTEXT

    def __repr__(self) -> str:
        return "Head(***)"


_IDS: Final = (
    *("anonymousId", "anonymous_id", "userId", "user_id", "canonical_id", "canonicalId"),
    *("messageId", "message_id"),
)
_CONTEXT: Final = b'"context"'
_OPENING: Final = b'"context":{"'
_BACKSLASH: Final = ord("\\")
_COLON: Final = ord(":")
_QUOTE: Final = ord('"')
_LETTER: Final = re.compile(rb"\\u00(?:6[35]|6[eEfF]|7[48])")
"""A letter of the name of the context in another spelling, for which no encoder has a reason."""
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(u[dD][89a-fA-F][\da-fA-F]{2})|.)", re.DOTALL
)
"""An escape; in its group if it is half of a character beyond U+FFFF, without the other half."""
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|:\s*+|[][{},]', re.DOTALL)

_read_head = msgspec.json.Decoder(Head).decode
_read_fields = msgspec.json.Decoder(Fields).decode
_read_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_value = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


class Event(msgspec.Struct, eq=False, gc=False):
    """
    One event.

    It stays the text that it was, but for what is put into its context: ``1.10``,
    ``1E5``, integers of any length, white space and the order of the members survive.

    Attributes:
        org: Slug of the organisation that it belongs to.
    """

    _line: bytes
    org: str
    _fields: Fields | None = None
    _head: Head | None = None

    def __repr__(self) -> str:
        return f"Event({self.org!r})"

    @classmethod
    def parse(cls, line: bytes, org: str) -> Event:
        """
        Read one JSON object.

        Raises:
            EventError: It is too long, no UTF-8, no JSON or no object.
        """
        line = line.strip()
        if len(line) > MAX_BYTES or not line.isascii():
            _check_text(line)
        event = cls(line, org)
        try:
            event._head = _read_head(line)
        except (msgspec.DecodeError, RecursionError):
            event._fields = read_fields(line)
        return event

    def _read(self) -> Head:
        try:
            self._head = head = _read_head(self._line)
        except (msgspec.DecodeError, RecursionError):
            self._head = head = _head_of(self.fields)
        return head

    @classmethod
    def of(cls, fields: Fields, org: str) -> Event:
        """An event of these members."""
        return cls.parse(_write(fields), org)

    @property
    def head(self) -> Head:
        """What it says of the visitor."""
        return self._head or self._read()

    @property
    def fields(self) -> Fields:
        """Name to raw JSON, at the top level. Not to be changed."""
        if self._fields is None:
            try:
                self._fields = _read_fields(self._line)
            except (msgspec.DecodeError, RecursionError):  # half a character in it, or more nested than fits here
                self._fields = _split(self._line)
        return self._fields

    @property
    def context(self) -> Fields | None:
        """Name to raw JSON below ``context``, empty where there is none; None when that is no object."""
        raw = self.fields.get("context")
        return {} if raw is None else object_of(raw)

    def encode(self) -> bytes:
        """The event as JSON, without a line end."""
        return self._line

    def plain(self) -> dict[str, Any]:
        """The event as Python values, each as `value_of` gives it."""
        whole: dict[str, Any] | None = value_of(self._line)
        return {name: value_of(raw) for name, raw in self.fields.items()} if whole is None else whole

    def add_context(self, members: bytes) -> None:
        """Write a context of these members, as in `extend_context`, into an event that has none."""
        line = self._line
        comma = b"," if _QUOTE in line else b""
        self._changed(b"".join((line[:-1], comma, b'"context":{', members[:-1], b"}}")))

    def extend_context(self, members: bytes) -> None:
        """
        Write members at the beginning of a context, an object without them.

        Args:
            members: JSON, each member with a comma after it.
        """
        line = self._line
        before, opening, after = line.partition(_OPENING)
        # As in `_has_one_context`, without the time of a call.
        if opening and line.count(_CONTEXT) == 1 and (_BACKSLASH not in line or not _LETTER.search(line)):
            self._changed(b"".join((before, opening[:-1], members, b'"', after)))
        else:
            others = bytes(self.fields["context"])[1:].lstrip()
            self.replace_context(b"{%b%b" % (members[:-1] if others == b"}" else members, others))

    def replace_context(self, text: bytes) -> None:
        """Put a changed context, a JSON object, in the place of the one before; the only one from then on."""
        line = self._line
        if _has_one_context(line):
            before = bytes(self.fields["context"])
            start = line.index(before, line.index(_CONTEXT))
            self._changed(b"%b%b%b" % (line[:start], text, line[start + len(before) :]))
        else:
            self._changed(_with_last_context(line, text))

    def drop_other_contexts(self) -> None:
        """Leave the last context alone, whatever it is, in an event that has one."""
        if not _has_one_context(self._line):
            self._changed(_with_last_context(self._line))

    def _changed(self, line: bytes) -> None:
        self._line = line
        self._fields = self._head = None


def read_fields(line: bytes) -> Fields:
    """
    Read one JSON object, its values left raw.

    Raises:
        EventError: It is too long, no UTF-8, no JSON or no object.
    """
    _check_text(line)
    try:
        return _parts(line, _read_fields, _split)
    except msgspec.ValidationError:
        reason = "is JSON but no object"
    except RecursionError:
        reason = "is nested too deeply"
    except msgspec.DecodeError:
        reason = "is not JSON"
    raise EventError(reason)


def object_of(raw: msgspec.Raw) -> Fields | None:
    """The members of a raw JSON object; None when it is something else."""
    return _parts_if(b"{", raw, _read_fields, _split)


def items_of(raw: msgspec.Raw) -> list[msgspec.Raw] | None:
    """The items of a raw JSON array; None when it is something else."""
    return _parts_if(b"[", raw, _read_items, _split_items)


def value_of(raw: msgspec.Raw | bytes | None) -> Any:
    """
    A raw JSON value as a Python value.

    Half a character is U+FFFD, with which no text is an identifier.

    Returns:
        None when there is none, or none that Python can hold, such as 1E400.
    """
    if raw is None:
        return None
    try:
        try:
            return _read_value(raw)
        except msgspec.DecodeError:
            return _read_value(_mended(raw))
    except (msgspec.DecodeError, RecursionError):
        return None


def at_path(fields: Fields, path: tuple[str, ...]) -> Any:
    """The value at a path of member names; None where a step is missing or no object."""
    for step in path[:-1]:
        raw = fields.get(step)
        inner = None if raw is None else object_of(raw)
        if inner is None:
            return None
        fields = inner
    return value_of(fields.get(path[-1]))


def _parts_if(
    opening: bytes, raw: msgspec.Raw, read: Callable[[bytes | msgspec.Raw], T], split: Callable[[bytes], T]
) -> T | None:
    """The parts of what begins so; None when it does not."""
    try:
        return _parts(raw, read, split)
    except msgspec.DecodeError:
        return None
    except RecursionError:
        text = bytes(raw)
        return split(text) if text[:1] == opening else None


def _parts(text: bytes | msgspec.Raw, read: Callable[[bytes | msgspec.Raw], T], split: Callable[[bytes], T]) -> T:
    """What the decoder reads; split in Python where there is half a character in it, and no other fault."""
    try:
        return read(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        read(_mended(text))
    return split(bytes(text))


def _mended(text: bytes | msgspec.Raw) -> bytes:
    """JSON with U+FFFD for each half of a character, which JSON may hold as an escape, and Unicode has no text for."""
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], bytes(text))


class _Member(NamedTuple):
    """
    Where a member stands in the text of an object.

    Attributes:
        name: Decoded.
        begin: Behind the brace or comma before it.
        start: Of its value.
        end: Of its value.
    """

    name: str
    begin: int
    start: int
    end: int


def _marks(text: bytes) -> Iterator[tuple[int, re.Match[bytes]]]:
    """The tokens of the outermost object or array, behind the bracket that opens it; each with its first byte."""
    depth = 0
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if depth == 1:
            yield mark, token
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1


def _members(text: bytes) -> Iterator[_Member]:
    """All members of an object that is known to be JSON, those of one name as well."""
    start = 0
    begin = text.index(b"{") + 1
    for mark, token in _marks(text):
        at = token.start()
        if mark == _COLON:
            name, start = text[begin:at], token.end()
        elif start and mark in b",}":
            yield _Member(value_of(name), begin, start, start + len(text[start:at].rstrip()))
            begin, start = token.end(), 0


def _has_one_context(line: bytes) -> bool:
    """Whether it is certain of an event with a context that nothing else is called so, in whatever spelling."""
    return line.count(_CONTEXT) == 1 and not _LETTER.search(line)


def _with_last_context(line: bytes, text: bytes | None = None) -> bytes:
    """The event without the contexts before its last one, which other parsers may read, and with this text for that."""
    members = list(_members(line))
    *others, last = (index for index, member in enumerate(members) if member.name == "context")
    pieces, left = [], 0
    for index in others:
        pieces.append(line[left : members[index].begin])
        left = members[index + 1].begin
    start, end = members[last].start, members[last].end
    return b"".join((*pieces, line[left:start], line[start:end] if text is None else text, line[end:]))


def _split(text: bytes) -> Fields:
    """The same as the decoder gives, in Python, for what the decoder does not take. Known to be JSON."""
    return {member.name: msgspec.Raw(text[member.start : member.end]) for member in _members(text)}


def _split_items(text: bytes) -> list[msgspec.Raw]:
    """The same of an array."""
    items = []
    start = text.index(b"[") + 1
    for mark, token in _marks(text):
        if mark in b",]":
            items.append(text[start : token.start()].strip())
            start = token.end()
    return [msgspec.Raw(item) for item in items if item]


def _check_text(line: bytes) -> None:
    if len(line) > MAX_BYTES:
        raise EventError(f"is longer than {MAX_BYTES} bytes")
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError:
            raise EventError("is not UTF-8") from None


def _head_of(fields: Fields) -> Head:
    """The same as the quick decoder gives, for an event in which a member has a shape that it does not expect."""
    values: dict[str, Any] = {name: value_of(fields.get(name)) for name in _IDS}
    return Head(
        **values,
        properties=_contact_of(fields.get("properties")),
        traits=_contact_of(fields.get("traits")),
        context=_context_head_of(object_of(fields["context"])) if "context" in fields else NO_CONTEXT,
    )


def _context_head_of(fields: Fields | None) -> ContextHead | None:
    if fields is None:
        return None
    return ContextHead(
        value_of(fields.get("canonical_id")),
        value_of(fields.get("canonicalId")),
        _contact_of(fields.get("traits")),
        value_of(fields.get("consent")),
        *(fields.get(name, UNSET) for name in ("vendor_ids", "partner_attrs", "enrichment")),
    )


def _contact_of(raw: msgspec.Raw | None) -> Contact | None:
    fields = None if raw is None else object_of(raw)
    return None if fields is None else Contact(value_of(fields.get("email")), value_of(fields.get("phone")))
