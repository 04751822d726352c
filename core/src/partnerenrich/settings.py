"""Turn plain mappings into attrs classes; say of every wrong field where it is and what belongs there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_mapping_structure_fn, override

from partnerenrich.errors import ConfigError, Problem
from partnerenrich.secret import Secret

T = TypeVar("T")


class FieldError(ValueError):
    """
    A field holds something else than `expected`. Never holds the value.

    Attributes:
        expected: What belongs there.
        field: Name of the field; a validator states it, a structure hook need not.
    """

    def __init__(self, expected: str, field: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.field = field


@attrs.frozen(eq=False)
class Rule:
    """
    A validator that can also say in JSON Schema what it accepts.

    Attributes:
        accepts: Whether a value, revealed if it is a `Secret`, is right.
        expected: What to tell the user.
        schema: Keywords of JSON Schema with the same meaning.
    """

    accepts: Callable[[Any], bool]
    expected: str
    schema: Mapping[str, Any]

    def __call__(self, _: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        """Raise `FieldError` unless the value is None or right."""
        plain = value.reveal() if isinstance(value, Secret) else value
        if plain is not None and not self.accepts(plain):
            raise FieldError(self.expected, attribute.name)


def pattern(regex: str, expected: str | None = None) -> Rule:
    """
    Validate text, or the text of a `Secret`, against a whole-match regular expression.

    Args:
        regex: What the whole text must match.
        expected: What to tell the user; by default the expression itself.
    """
    compiled = re.compile(regex)
    return Rule(
        lambda text: compiled.fullmatch(text) is not None,
        expected or f"must match {regex}",
        {"pattern": f"^(?:{regex})$"},
    )


def between(low: float, high: float) -> Rule:
    """Validate that a number lies in a closed range."""
    return Rule(
        lambda number: bool(low <= number <= high),
        f"must be between {low:g} and {high:g}",
        {"minimum": low, "maximum": high},
    )


def one_of(*choices: str) -> Rule:
    """Validate that text is one of a few words."""
    return Rule(lambda word: word in choices, f"must be one of {', '.join(choices)}", {"enum": list(choices)})


def structure(cls: type[T], raw: object, where: str = "") -> T:
    """
    Make an instance of an attrs class from plain data.

    Args:
        cls: An attrs class.
        raw: What was read from a file or a database.
        where: Path of `raw` in the whole configuration, for messages.

    Raises:
        ConfigError: One problem for each wrong, missing or unknown field.
    """
    problems: list[Problem] = []
    try:
        return converter.structure(raw, cls)
    except (BaseValidationError, ValueError, TypeError) as error:
        _collect(error, where, problems)
    # outside `except`, so that no context with the value is attached
    raise ConfigError(problems)


def public(instance: Any) -> dict[str, Any]:
    """An attrs instance as plain data, without its secrets."""
    plain: dict[str, Any] = converter.unstructure(instance)
    return plain


def suggestion(word: str, known: list[str]) -> str:
    """The closest known word as a hint, else all of them."""
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"


def join(where: str, name: object) -> str:
    """The path of a child: ``a`` and ``b`` give ``a.b``, ``a`` and ``0`` give ``a[0]``."""
    if isinstance(name, int):
        return f"{where}[{name}]"
    return f"{where}.{name}" if where else str(name)


def _strict(kind: type, expected: str) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise FieldError(expected)
        return value

    return hook


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError("must be a number")
    return value


def _secret(value: Any, _: Any) -> Secret:
    if not isinstance(value, str) or not value.strip():
        raise FieldError('must be text, such as "${NAME_OF_AN_ENVIRONMENT_VARIABLE}"')
    return Secret(value)


def _only(kinds: tuple[type, ...], expected: str, structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A structure hook that refuses what cattrs would read in some odd way, such as text as a list of its letters."""

    def hook(value: Any, kind: Any) -> Any:
        if not isinstance(value, kinds):
            raise FieldError(expected)
        return structure(value, kind)

    return hook


def _class(cls: type, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    ruled: Any = {
        field.name: override(struct_hook=_ruled(field.validator, field, made))
        for field in attrs.fields(cls)
        if isinstance(field.validator, Rule)
    }
    return _only((Mapping,), "must be a mapping", make_dict_structure_fn(cls, made, **ruled))


def _ruled(rule: Rule, field: attrs.Attribute[Any], made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """A structure hook that heeds the rule of a field at once: attrs would only if no other field is wrong."""

    def hook(raw: Any, kind: Any) -> Any:
        value = made.structure(raw, kind)
        try:
            rule(None, field, value)
        except FieldError as error:
            error.field = None  # cattrs tells it
            raise
        return value

    return hook


def _dict(kind: Any, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Made apart: what the converter makes itself it also keeps, and then takes instead of this."""
    return _only((Mapping,), "must be a mapping", make_mapping_structure_fn(kind, made))


def _list(kind: Any, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    list_of_items: Any = GenericAlias(list, get_args(kind)[:1])
    structure_items = list_structure_factory(list_of_items, made)
    return _only((list, tuple), "must be a list", lambda value, _: get_origin(kind)(structure_items(value, kind)))


def _is_dict(kind: Any) -> bool:
    return get_origin(kind) is dict


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind)
    return origin in {list, set, frozenset} or (origin is tuple and get_args(kind)[1:] == (Ellipsis,))


def _new_converter() -> cattrs.Converter:
    made = cattrs.Converter(forbid_extra_keys=True)
    made.register_structure_hook_factory(attrs.has, _class)
    made.register_structure_hook_factory(_is_dict, _dict)
    made.register_structure_hook_factory(_is_list, _list)
    made.register_structure_hook(str, _strict(str, "must be text; put it in quotes"))
    made.register_structure_hook(bool, _strict(bool, "must be true or false"))
    made.register_structure_hook(int, _strict(int, "must be a whole number"))
    made.register_structure_hook(float, _number)
    made.register_structure_hook(Secret, _secret)
    made.register_unstructure_hook(Secret, lambda _: "***")
    return made


converter = _new_converter()


def _collect(error: BaseException, where: str, problems: list[Problem]) -> None:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [a.name for a in attrs.fields(error.cl)]
        problems += [
            Problem(join(where, name), f"unknown field; {suggestion(name, known)}")
            for name in sorted(map(str, error.extra_fields))
        ]
        return
    if not isinstance(error, BaseValidationError):
        field = _field(error)
        problems.append(Problem(join(where, field) if field else where, _expected(error)))
        return
    for child in error.exceptions:
        place, name = where, None
        for note in getattr(child, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                place, name = join(where, note.name), note.name
            elif isinstance(note, IterableValidationNote):
                place = join(where, note.index)
        if isinstance(child, KeyError) and child.args == (name,):
            problems.append(Problem(place, "is required"))
        else:
            _collect(child, place, problems)


def _field(error: BaseException) -> str | None:
    """The field that a validator spoke of. Those of attrs hand it over among their arguments."""
    if isinstance(error, FieldError):
        return error.field
    return next((argument.name for argument in error.args if isinstance(argument, attrs.Attribute)), None)


def _expected(error: BaseException) -> str:
    return error.expected if isinstance(error, FieldError) else "is of the wrong type, or not a possible value"
