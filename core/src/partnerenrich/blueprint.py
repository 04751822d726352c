"""
Blueprints: from an event to the payload of a destination.

A blueprint is YAML (version 2 of the language; the older ``steps:`` is refused)::

    global:                                  # for every event
      mappings:
        - source: partner_attrs.crm.Persona
          target: user_persona
        - source: timestamp
          target: sent.at
          transform: date_format
          format: epoch_micros
    defaults: {action: drop, mappings: []}   # for events that are not listed
    events:
      Basket Viewed:                         # a track event's name, else the type: page, identify
        vendor_event_name: basket            # becomes event_name, unless that is a target
        mappings:
          - source: properties.value
            target: amount

**Sources.** A path into the event. ``user_id`` finds ``user_id``, else
``userId``, and so at every step; numbers index lists. ``$traits.x`` reads
``traits``, else ``context.traits``. ``vendor_ids.x`` and ``partner_attrs.p.A``
read below ``context``, in exactly the written spelling, for that is the one
that the enrichment owns. A source that is missing leaves its field out;
null is a value.

**Targets.** Dots make nested objects. An event's mapping replaces the global
one of the same target.

**Values.** First each ``transform``, in order, then the ``value_map``, whose
keys are compared as text (``true``, ``false``, ``null``) and whose ``'*'``
stands for every other value. What cannot be transformed, and what no key of the
map matches, leaves its field out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from partnerenrich import recipes
from partnerenrich.errors import ConfigError, Problem
from partnerenrich.settings import FieldError, converter, join, one_of, pattern, structure, suggestion
from partnerenrich.transforms import DATE_FORMATS, TRANSFORMS, Transform, text_of, transform
from partnerenrich.yamltext import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
Target = tuple[str, ...]

_EVENT_NAME: Final = "event_name"
_ENRICHED: Final = frozenset({"vendor_ids", "partner_attrs", "enrichment"})
_MISSING: Final = object()


@attrs.frozen(eq=False, repr=False)
class Blueprint:
    """
    A blueprint, ready for events.

    A payload holds the values of its event themselves, not copies of them:
    encode it before the event changes.
    """

    _events: Mapping[str, _Section | None]
    _otherwise: _Section | None

    @classmethod
    def from_yaml(cls, text: str) -> Blueprint:
        """
        Read a blueprint.

        Raises:
            ConfigError: Something in it is wrong; each problem names the field and its line.
        """
        document = read_yaml(text)
        try:
            return _load(document.value)
        except ConfigError as error:
            raise document.located(error) from None

    @classmethod
    def from_file(cls, path: Path) -> Blueprint:
        """
        Read a blueprint from a file.

        Raises:
            ConfigError: The file cannot be read, or see `from_yaml`.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError([Problem(str(path), f"cannot be read: {reason}")]) from None
        return cls.from_yaml(text)

    @property
    def columns(self) -> tuple[str, ...]:
        """All targets, dots and all, in the order in which they are written: the columns of a table of payloads."""
        named = any(section.vendor_event_name is not None for section in self._sections())
        names = [_EVENT_NAME] if named else []
        return tuple(dict.fromkeys([*names, *(field.name for field in self.all_fields)]))

    @property
    def all_fields(self) -> tuple[Field, ...]:
        """What makes the payloads of events of any kind."""
        return tuple(field for section in self._sections() for field in section.fields)

    def fields(self, kind: str) -> tuple[Field, ...]:
        """
        What makes the payload of events of one kind.

        Args:
            kind: What the events section calls them: a type such as ``identify``, or a track event's name.

        Returns:
            Nothing when such events are not for this destination.
        """
        section = self._events.get(kind, self._otherwise)
        return section.fields if section else ()

    def payload(self, event: Mapping[str, Any], *, default_region: str | None = None) -> dict[str, Any] | None:
        """
        What a destination is sent for one event.

        Args:
            event: A decoded event, enriched or not.
            default_region: ISO 3166 country of phone numbers without a country code.

        Returns:
            None when the event is not for this destination.
        """
        section = self._events.get(_name_of(event), self._otherwise)
        return None if section is None else section.payload(event, default_region)

    def _sections(self) -> list[_Section]:
        return [section for section in (*self._events.values(), self._otherwise) if section]


def _name_of(event: Mapping[str, Any]) -> str:
    """What the events section calls this event."""
    kind = event.get("type")
    if isinstance(kind, str) and kind.lower() != "track":
        return kind.lower()
    name = event.get("event")
    return name if isinstance(name, str) else ""


@attrs.frozen(eq=False)
class _Section:
    vendor_event_name: str | None
    fields: tuple[Field, ...]

    def payload(self, event: Mapping[str, Any], default_region: str | None) -> dict[str, Any]:
        payload: dict[str, Any] = {} if self.vendor_event_name is None else {_EVENT_NAME: self.vendor_event_name}
        for field in self.fields:
            value = field.value(event, default_region)
            if value is not _MISSING:
                node = payload
                for step in field.target[:-1]:
                    node = node.setdefault(step, {})
                node[field.target[-1]] = value
        return payload


@attrs.frozen(eq=False, repr=False)
class Field:
    """
    One field of a payload.

    Attributes:
        source: Path of its value in the event, as it is written.
        target: Its place in the payload.
        transforms: Names of what is done to the value, in order.
        mapped: Whether a ``value_map`` follows.
    """

    source: str
    target: Target
    transforms: tuple[str, ...]
    _changes: tuple[Transform, ...]
    _value_map: Mapping[str | None, Any] | None
    _place: _Source = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_place", _Source.of(self.source))

    @property
    def name(self) -> str:
        """Its place in the payload, with dots."""
        return ".".join(self.target)

    @property
    def mapped(self) -> bool:
        """See `Field`."""
        return self._value_map is not None

    def change(self, value: Any, default_region: str | None) -> Any:
        """What is sent for a value; None for one that leaves the field out, or is null itself."""
        changed = self._changed(value, default_region)
        return None if changed is _MISSING else changed

    def read(self, event: Mapping[str, Any]) -> Any:
        """The value in an event; None for one that is missing, or null."""
        value = self._place.read(event)
        return None if value is _MISSING else value

    def value(self, event: Mapping[str, Any], default_region: str | None) -> Any:
        """What is sent for an event; `_MISSING` when the field is left out."""
        value = self._place.read(event)
        return _MISSING if value is _MISSING else self._changed(value, default_region)

    def _changed(self, value: Any, default_region: str | None) -> Any:
        for change in self._changes:
            value = change(value, default_region)
            if value is None:
                return _MISSING
        if self._value_map is None:
            return value
        return self._value_map.get(_map_key(value), self._value_map.get("*", _MISSING))


def _map_key(value: Any) -> str | None:
    return "null" if value is None else text_of(value)


@attrs.frozen
class _Source:
    """The places where a value may be; the first one that exists counts."""

    paths: tuple[tuple[_Step, ...], ...]

    @classmethod
    def of(cls, written: str) -> _Source:
        names = written.split(".")
        if names[0] == "$traits":
            path = _Step.path(["traits", *names[1:]])
            return cls((path, (*_Step.path(["context"]), *path)))
        if names[0] in _ENRICHED:
            names = ["context", *names]
        return cls((_Step.path(names),))

    def read(self, event: Mapping[str, Any]) -> Any:
        for path in self.paths:
            value = _follow(event, path)
            if value is not _MISSING:
                return value
        return _MISSING


@attrs.frozen
class _Step:
    name: str
    other_name: str
    index: int | None

    @classmethod
    def path(cls, names: list[str]) -> tuple[_Step, ...]:
        exact = names[0] == "context" and names[1:2] and names[1] in _ENRICHED
        return tuple(
            cls(
                name,
                name if exact else re.sub("(?<=[A-Za-z0-9])_([a-z0-9])", lambda found: found[1].upper(), name),
                int(name) if re.fullmatch("[0-9]{1,9}", name) else None,
            )
            for name in names
        )


def _follow(node: Any, path: tuple[_Step, ...]) -> Any:
    for step in path:
        if isinstance(node, (dict, Mapping)):  # a dict is told faster than a Mapping
            if step.name in node:
                node = node[step.name]
            elif step.other_name in node:
                node = node[step.other_name]
            else:
                return _MISSING
        elif isinstance(node, list) and step.index is not None and step.index < len(node):
            node = node[step.index]
        else:
            return _MISSING
    return node


# As it is written


def _known_transforms(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise FieldError("must be the name of a transform, or a list of names", attribute.name)
    for name in names:
        if name not in TRANSFORMS:
            raise FieldError(f"unknown transform; {suggestion(name, list(TRANSFORMS))}", attribute.name)


def _scalars(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(
        _map_key(key) is not None and (new is None or isinstance(new, (str, int, float))) for key, new in value.items()
    ):
        raise FieldError("must be a mapping from values to text, numbers, true, false or null", attribute.name)


def _nothing(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value:
        raise FieldError("is not supported; leave it empty, and use mappings", attribute.name)


@attrs.frozen(kw_only=True)
class _Mapping:
    source: str = attrs.field(
        validator=pattern(r"(\$traits|[^.$]+)(\.[^.]+)*", "must be a path such as properties.value or $traits.email")
    )
    target: str = attrs.field(validator=pattern(r"[^.]+(\.[^.]+)*", "must be a path such as user.tier"))
    transform: Any = attrs.field(default=(), validator=_known_transforms)
    format: str | None = attrs.field(default=None, validator=one_of(*DATE_FORMATS))
    value_map: Any = attrs.field(default=None, validator=_scalars)

    @property
    def transforms(self) -> tuple[str, ...]:
        return (self.transform,) if isinstance(self.transform, str) else tuple(self.transform)


class _Mappings(tuple[_Mapping, ...]):
    __slots__ = ()


@attrs.frozen(kw_only=True)
class _Head:
    delivery_mode: str = attrs.field(default="server_side", validator=one_of("server_side"))
    parameters: dict[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True)
class _Global:
    mappings: _Mappings = _Mappings()
    enrichments: Any = attrs.field(default=(), validator=_nothing)
    transforms: Any = attrs.field(default=(), validator=_nothing)


@attrs.frozen(kw_only=True)
class _Defaults:
    action: str | None = attrs.field(default=None, validator=one_of("drop", "send"))
    mappings: _Mappings = _Mappings()


@attrs.frozen(kw_only=True)
class _Event:
    vendor_event_name: str | None = None
    enabled: bool = True
    mappings: _Mappings = _Mappings()


def _structure_mappings(raw: Any, _: Any) -> _Mappings:
    if not isinstance(raw, list) or not all(isinstance(mapping, Mapping) for mapping in raw):
        raise FieldError("must be a list of mappings, each with source and target")
    return _Mappings(converter.structure(raw, tuple[_Mapping, ...]))


converter.register_structure_hook(_Mappings, _structure_mappings)


# Loading

_HEAD: Final = ("delivery_mode", "parameters")
_SECTIONS: Final = ("version", *_HEAD, "global", "defaults", "events")


def _load(raw: object) -> Blueprint:
    if not isinstance(raw, Mapping):
        raise ConfigError([Problem("", "must be a mapping with global, defaults or events")])
    if "steps" in raw or raw.get("version", 2) != 2:
        where = "steps" if "steps" in raw else "version"
        raise ConfigError([Problem(where, "only version 2 is supported: use global and events, with mappings")])
    problems = [
        Problem(str(name), f"unknown section; {suggestion(str(name), list(_SECTIONS))}")
        for name in raw
        if name not in _SECTIONS
    ]
    _written(_Head, {name: raw[name] for name in _HEAD if name in raw}, "", problems)
    everywhere = _written(_Global, raw.get("global", {}), "global", problems)
    shared = _fields(everywhere.mappings, "global.mappings", {}, problems)
    defaults = _written(_Defaults, raw.get("defaults", {}), "defaults", problems)
    otherwise = _section(None, shared, _fields(defaults.mappings, "defaults.mappings", shared, problems))
    events = _events(raw.get("events", {}), shared, problems)
    action = defaults.action or ("drop" if "events" in raw else "send")
    if action == "drop" and not raw.get("events"):
        problems.append(Problem("defaults.action", "drops every event: list some under events, or write send"))
    if problems:
        raise ConfigError(problems)
    return Blueprint(events, otherwise if action == "send" else None)


def _events(raw: object, shared: Mapping[Target, Field], problems: list[Problem]) -> dict[str, _Section | None]:
    if not isinstance(raw, Mapping):
        problems.append(Problem("events", "must be a mapping from events to their sections"))
        return {}
    events: dict[str, _Section | None] = {}
    for name, written in raw.items():
        where = join("events", str(name))
        if not isinstance(name, str):
            problems.append(Problem(where, "must be text; put it in quotes"))
        event = _written(_Event, {} if written is None else written, where, problems)
        own = _fields(event.mappings, join(where, "mappings"), shared, problems)
        events[name] = _section(event.vendor_event_name, shared, own) if event.enabled else None
    return events


def _section(vendor_event_name: str | None, shared: Mapping[Target, Field], own: Mapping[Target, Field]) -> _Section:
    fields = {**shared, **own}
    named = any(target[0] == _EVENT_NAME for target in fields)
    return _Section(None if named else vendor_event_name, tuple(fields.values()))


def _fields(
    mappings: Iterable[_Mapping], where: str, shared: Mapping[Target, Field], problems: list[Problem]
) -> dict[Target, Field]:
    own: dict[Target, Field] = {}
    for index, mapping in enumerate(mappings):
        place = join(where, index)
        target = tuple(mapping.target.split("."))
        if target in own:
            problems.append(Problem(join(place, "target"), "is the target of another mapping here; keep one"))
        if clash := next((other for other in {**shared, **own} if _one_holds_the_other(target, other)), None):
            what = f"collides with the target {'.'.join(clash)!r}: it cannot be a value and an object"
            problems.append(Problem(join(place, "target"), what))
        own[target] = _field(mapping, target, place, problems)
    return own


def _one_holds_the_other(one: Target, other: Target) -> bool:
    shorter = min(len(one), len(other))
    return one != other and one[:shorter] == other[:shorter]


def _field(mapping: _Mapping, target: Target, place: str, problems: list[Problem]) -> Field:
    names = mapping.transforms
    if ("date_format" in names) != (mapping.format is not None):
        problems.append(Problem(join(place, "format"), "stands with the transform date_format, and only there"))
        names = ()
    problems += [
        Problem(
            join(place, "transform"), f"{name} does not fit the last step of this source: it takes e-mails or phones"
        )
        for name in names
        if name in recipes.HASHES and not recipes.fits(name, mapping.source)
    ]
    changes = tuple(transform(name, mapping.source, mapping.format) for name in names)
    values = mapping.value_map
    keyed = None if values is None else {_map_key(key): value for key, value in values.items()}
    return Field(mapping.source, target, names, changes, keyed)


def _written(cls: type[T], raw: object, where: str, problems: list[Problem]) -> T:
    try:
        return structure(cls, raw, where)
    except ConfigError as error:
        problems += error.problems
        return cls()
