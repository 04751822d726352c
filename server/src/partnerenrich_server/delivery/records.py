"""From an event to a record of one destination, through the integration's blueprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from partnerenrich import recipes
from partnerenrich.configuration import Integration
from partnerenrich.identity import consents
from partnerenrich.transforms import text_of, transform

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from partnerenrich.blueprint import Field
    from partnerenrich.events import Event

PERSON: Final = "identify"
"""The kind of event that a row of a table is taken for."""

_LENGTHS: Final = {name: recipes.length(name) for name in recipes.HASHES}
_IDS: Final = {"user_id": "user_id", "anonymous_id": "canonical_id", "canonical_id": "canonical_id"}
"""The last step of a path to what the suppression list knows it as."""
_FOREVER: Final = 253_402_300_799.0
"""The end of the year 9999, Unix time in seconds: JSON has no infinity."""
_micros = transform("date_format", "timestamp", "epoch_micros")


@attrs.frozen
class Digest:
    """
    What a column holds that is hashed.

    Attributes:
        length: Characters of each digest.
        kind: What it was before.
    """

    length: int
    kind: recipes.Kind

    @classmethod
    def of(cls, field: Field) -> Digest | None:
        """What a field gives; None when it is not hashed."""
        lengths = (_LENGTHS.get(transform) for transform in reversed(field.transforms))
        length = next(filter(None, lengths), None)
        return None if length is None else cls(length, recipes.kind_of(field.source))


@attrs.frozen(eq=False)
class Records:
    """
    What the records of one integration are.

    Attributes:
        columns: Their names, in order.
        hashed: Column that holds digests to what they are.
        contacts: Columns of which a record must have at least one: the digests, e-mails and phones.
        identifying: Columns by which the records of a person are found again.
        listed: Those of them that are made of what the suppression list knows, to its name there.
        spelled: Columns with e-mails or phones as people write them, to which of both; see `normal`.
        key: Column that tells people apart in a snapshot; None where batches are appended.
    """

    columns: tuple[str, ...]
    hashed: Mapping[str, Digest]
    contacts: tuple[str, ...]
    identifying: tuple[str, ...]
    listed: Mapping[str, str]
    spelled: Mapping[str, recipes.Kind]
    key: str | None
    _integration: Integration = attrs.field(repr=False)

    @classmethod
    def of(cls, integration: Integration) -> Records:
        """
        The records of an integration.

        Args:
            integration: With `Integration.delivery`.
        """
        delivery = integration.delivery
        assert delivery is not None
        blueprint, settings = delivery.blueprint, delivery.settings
        fields = blueprint.all_fields
        key = settings.key if settings.collect == "snapshot" else None
        hashed = {field.name: digest for field in fields if (digest := Digest.of(field))}
        contacts = {field.name for field in fields if field.name in hashed or recipes.kind_of(field.source) != "other"}
        listed = {field.name: source for field in fields if (source := _listed_as(field))}
        columns = blueprint.columns

        def in_order(names: set[str]) -> tuple[str, ...]:
            return tuple(column for column in columns if column in names)

        spelled = {
            field.name: kind
            for field in fields
            if (kind := recipes.kind_of(field.source)) != "other"
            and field.name not in hashed
            and field.transforms != ("none",)
        }
        return cls(
            columns,
            hashed,
            contacts=in_order(contacts) or columns,
            identifying=in_order(contacts | listed.keys() | ({key} if key else set())),
            listed=listed,
            spelled=spelled,
            key=key,
            integration=integration,
        )

    def of_event(
        self, event: Event, decoded: Mapping[str, Any], now: float, *, suppressed: bool = False
    ) -> dict[str, Any] | None:
        """
        What collects of an event, if anything does.

        Args:
            event: Enriched.
            decoded: The same as plain data.
            now: Unix time in seconds.
            suppressed: Whether its person is to be forgotten, which counts as a withdrawal made now.

        Returns:
            Columns to text, and ``_time``; with ``_withdrawn`` for one that takes its person out; with
            ``_reject`` and no column for one that gives identifiers of which none is usable.
        """
        delivery = self._integration.delivery
        assert delivery is not None
        if suppressed:
            return self._withdrawal(decoded, now)
        granted = consents(event)
        decisions = [granted.get(purpose) for purpose in self._integration.consent]
        moment = _moment(decoded.get("timestamp"), now)
        if not all(decisions):
            return self._withdrawal(decoded, moment) if False in decisions else None
        payload = delivery.blueprint.payload(decoded, default_region=delivery.default_region)
        if payload is None:
            return None
        row = {name: text for name, text in _cells(payload, self.identifying) if self._usable(name, text)}
        if not any(column in row for column in self.contacts):
            given = [field.name for field in self._fields() if field.name in self.contacts and field.read(decoded)]
            return {"_time": moment, "_reject": f"unusable {', '.join(given)}"} if given else None
        if self.key is not None and self.key not in row:
            return {"_time": moment, "_reject": f"no {self.key}"}
        return {**row, "_time": moment}

    def forgotten(self, source: str, value: str, until: float) -> dict[str, Any] | None:
        """
        What collects of a person or a device that is forgotten, or not any more.

        Args:
            source: As the suppression list names it, such as ``email``.
            value: As it is written in an event.
            until: Unix time in seconds up to which no record is delivered.

        Returns:
            As `of_event` of a withdrawal; None when no column is made of such an identifier.
        """
        normal = recipes.apply("none", source, value, self._region)
        row = {
            field.name: text
            for field in self._fields()
            if self.listed.get(field.name) == source and (text := text_of(field.change(normal, self._region)))
        }
        return {**row, "_time": min(until, _FOREVER), "_withdrawn": True, "_forgotten": True} if row else None

    def _withdrawal(self, decoded: Mapping[str, Any], moment: float) -> dict[str, Any] | None:
        row = {
            field.name: text
            for field in self._fields()
            if field.name in self.identifying
            and _is_identifier(read := field.read(decoded))
            and (text := text_of(field.change(read, self._region)))
            and self._usable(field.name, text)
        }
        return {**row, "_time": moment, "_withdrawn": True} if row else None

    def _usable(self, column: str, text: str) -> bool:
        """Whether it tells people apart, where it has to: U+FFFD stands for what could not be read."""
        return "\ufffd" not in text or column not in self.identifying

    def normal(self, kind: recipes.Kind, value: str) -> str:
        """The capture form of an e-mail or a phone; what is none stays as it is."""
        return recipes.apply("none", kind, value, self._region) or value

    @property
    def _region(self) -> str | None:
        assert self._integration.delivery is not None
        return self._integration.delivery.default_region

    def _fields(self) -> tuple[Field, ...]:
        assert self._integration.delivery is not None
        return self._integration.delivery.blueprint.fields(PERSON)


def _listed_as(field: Field) -> str | None:
    """What the suppression list calls the identifier that a field is made of; None when it knows none such."""
    kind = recipes.kind_of(field.source)
    return _IDS.get(_snake(field.source.rpartition(".")[2])) if kind == "other" else kind


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _moment(timestamp: Any, now: float) -> float:
    """When an event happened; now, where it does not say so, or says that it has yet to come."""
    micros = _micros(timestamp, None) if timestamp is not None else None
    return now if micros is None else min(micros / 1e6, now)


def _cells(payload: Mapping[str, Any], identifying: Collection[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    """
    Columns to text. What is null or empty has no cell, and what is a list is written as JSON.

    Nor has what is no identifier, in a column that wants one.
    """
    for name, value in payload.items():
        column = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _cells(value, identifying, f"{column}.")
            continue
        if column in identifying and not _is_identifier(value):
            continue
        text = text_of(value) if value is not None else ""
        if text is None:
            text = msgspec.json.encode(value).decode()
        if text:
            yield column, text


def _is_identifier(value: Any) -> bool:
    """Whether it can be one: text or an integer, but no float, no boolean, no list and no object."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)
