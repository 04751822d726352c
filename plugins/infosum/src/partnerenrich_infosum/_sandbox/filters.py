"""InfoSum's language of filters, and pages of lists. https://infosum.github.io/infosum-docs/docs (filtering)"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Test = Callable[[Entry], bool]

DEFAULT_PER_PAGE, MOST_PER_PAGE = 100, 500

_TOKEN = re.compile(r"\s*(?:(?P<punct>[()])|(?P<text>'[^']*'|\"[^\"]*\")|(?P<word>[^\s()'\"]+))")

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "co": lambda value, part: part in value,
    "nc": lambda value, part: part not in value,
    "ico": lambda value, part: part.lower() in value.lower(),
    "inc": lambda value, part: part.lower() not in value.lower(),
}


class InvalidFilter(Exception):
    """It cannot be understood."""


def listed(entries: Sequence[Entry], query: Mapping[str, str]) -> tuple[list[Entry], dict[str, int]]:
    """
    One page of a list.

    Args:
        entries: All of it.
        query: ``filter``, ``order_by``, ``pagination.page`` and ``pagination.per_page``.

    Returns:
        The entries of the page, and the field ``pagination`` of the answer.

    Raises:
        InvalidFilter: Any of the four is wrong.
    """
    matching = [entry for entry in entries if matches(query["filter"], entry)] if query.get("filter") else list(entries)
    for order in reversed([part for part in query.get("order_by", "").split(",") if part.strip()]):
        field, _, direction = order.strip().partition(" ")
        matching.sort(key=lambda entry: str(_field(entry, field)), reverse=direction.upper() == "DESC")
    page, size = _whole(query, "pagination.page", 1), _whole(query, "pagination.per_page", DEFAULT_PER_PAGE)
    if page < 1 or not 1 <= size <= MOST_PER_PAGE:
        raise InvalidFilter("page or page size")
    shown = matching[(page - 1) * size : page * size]
    pagination = {"results": len(shown), "total_results": len(matching)}
    if page * size < len(matching):
        pagination["next_page"] = page + 1
    return shown, pagination


def matches(text: str, entry: Entry) -> bool:
    """
    Whether a filter lets an entry through.

    Raises:
        InvalidFilter: It cannot be understood.
    """
    tokens = _tokens(text)
    test = _either(tokens)
    if tokens:
        raise InvalidFilter(f"unexpected {tokens[0]}")
    return test(entry)


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise InvalidFilter(name)
    return int(text)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            raise InvalidFilter("quotes")
        tokens.append(found[0].strip())
        at = found.end()
    return tokens


def _either(tokens: list[str]) -> Test:
    tests = [_both(tokens)]
    while tokens and tokens[0] == "or":
        tokens.pop(0)
        tests.append(_both(tokens))
    return lambda entry: any(test(entry) for test in tests)


def _both(tokens: list[str]) -> Test:
    tests = [_one(tokens)]
    while tokens and tokens[0] == "and":
        tokens.pop(0)
        tests.append(_one(tokens))
    return lambda entry: all(test(entry) for test in tests)


def _one(tokens: list[str]) -> Test:
    match tokens:
        case ["not", *_]:
            tokens.pop(0)
            inner = _one(tokens)
            return lambda entry: not inner(entry)
        case ["(", *_]:
            tokens.pop(0)
            inner = _either(tokens)
            if not tokens or tokens.pop(0) != ")":
                raise InvalidFilter("parentheses")
            return inner
        case [field, name, value, *_] if name in _OPERATORS:
            del tokens[:3]
            return _comparison(field, _OPERATORS[name], value)
    raise InvalidFilter("a field, an operator and a value are expected")


def _comparison(field: str, compare: Callable[[Any, Any], bool], literal: str) -> Test:
    if literal[0] in "'\"":
        wanted = literal[1:-1]
        return lambda entry: compare(str(_field(entry, field)), wanted)
    try:
        number = float(literal)
    except ValueError:
        raise InvalidFilter("texts stand in single quotes") from None

    def test(entry: Entry) -> bool:
        try:
            return compare(float(_field(entry, field)), number)
        except (TypeError, ValueError):
            return False

    return test


def _field(entry: Any, path: str) -> Any:
    for name in path.split("."):
        entry = entry.get(name, "") if isinstance(entry, Mapping) else ""
    return entry
