"""One event on its way: read from JSON, changed in three places of its context, written back; all else untouched."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from partnerenrich.errors import PartnerEnrichError

MAX_BYTES: Final = 1 << 20
"""Longest event, in bytes of JSON."""

Fields = dict[str, msgspec.Raw]

_read_fields = msgspec.json.Decoder(Fields).decode
_read_value = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


class EventError(PartnerEnrichError):
    """A line that is no event. The message names the reason, never the content."""


class Event:
    """
    One event.

    Values that nobody asks for stay the bytes that they were: ``1.10``,
    ``1E5`` and integers of any length survive.

    Attributes:
        org: Slug of the organisation that it belongs to.
        fields: Name to raw JSON, at the top level.
        context: Name to raw JSON below ``context``; None when that is no object.
    """

    __slots__ = ("context", "fields", "org")

    def __init__(self, org: str, fields: Fields) -> None:
        self.org = org
        self.fields = fields
        raw = fields.get("context")
        self.context = {} if raw is None else object_of(raw)

    @classmethod
    def parse(cls, line: bytes, org: str) -> Event:
        """
        Read one JSON object.

        Raises:
            EventError: It is too long, no UTF-8, no JSON or no object.
        """
        return cls(org, read_fields(line))

    def encode(self) -> bytes:
        """The event as JSON, without a line end."""
        return _write(self.fields)

    def replace_context(self) -> None:
        """Put the changed `context` back into the event."""
        if self.context is not None:
            self.fields["context"] = msgspec.Raw(_write(self.context))


def read_fields(line: bytes) -> Fields:
    """
    Read one JSON object, its values left raw.

    Raises:
        EventError: It is too long, no UTF-8, no JSON or no object.
    """
    if len(line) > MAX_BYTES:
        raise EventError(f"is longer than {MAX_BYTES} bytes")
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError:
            raise EventError("is not UTF-8") from None
    try:
        return _read_fields(line)
    except msgspec.ValidationError:
        reason = "is JSON but no object"
    except RecursionError:
        reason = "is nested too deeply"
    except msgspec.DecodeError:
        reason = "is not JSON"
    raise EventError(reason)


def object_of(raw: msgspec.Raw) -> Fields | None:
    """The members of a raw JSON object; None when it is something else."""
    try:
        return _read_fields(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def value_of(raw: msgspec.Raw | None) -> Any:
    """A raw JSON value as a Python value; None when there is none, or none that Python can hold, such as 1E400."""
    if raw is None:
        return None
    try:
        return _read_value(raw)
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
