"""Look for values that must not show: in errors, in log records, in any text."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

import attrs

from partnerenrich.secret import Secret

SHORTEST = 6
"""Characters that a value needs, so that its place in a text is no accident."""


@attrs.frozen
class Canaries:
    """
    Planted values, each under a label that may be shown.

    Attributes:
        values: Label, such as ``settings.api_key``, to value.
    """

    values: Mapping[str, str] = attrs.field(repr=False)

    def seen_in(self, text: str) -> list[str]:
        """Labels of the values that stand in a text, as they are or encoded for a URL or for JSON."""
        return [label for label, value in self.values.items() if any(form in text for form in _forms(value))]

    def too_short(self) -> list[str]:
        """Labels of the values that cannot be told from chance."""
        return [label for label, value in self.values.items() if len(value) < SHORTEST]

    def __or__(self, other: Canaries) -> Canaries:
        return Canaries({**self.values, **other.values})


def planted(label: str, value: Any) -> Canaries:
    """All texts and numbers inside plain data or an attrs instance, whose `Secret` fields alone count."""
    return Canaries(dict(_leaves(label, value)))


def errors_text(error: BaseException) -> str:
    """Everything that an error says: text, arguments and notes, along its causes and contexts, suppressed ones too."""
    said: list[str] = []
    heard: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in heard:
            continue
        heard.add(id(current))
        said += [str(current), repr(current), repr(current.args), *getattr(current, "__notes__", ())]
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return "\n".join(said)


class LogText(logging.Handler):
    """Keeps all that log records say: message, arguments, extras and errors."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.lines.append(f"{record.getMessage()} {vars(record)!r}")
        if record.exc_info and record.exc_info[1]:
            self.lines.append(errors_text(record.exc_info[1]))


@contextmanager
def debug_log() -> Iterator[LogText]:
    """Listen to every logger at DEBUG, as far as the loggers themselves let through."""
    handler = LogText()
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    listened = [logging.root, *(each for each in loggers if not each.propagate)]
    level = logging.root.level
    logging.root.setLevel(logging.DEBUG)
    for logger in listened:
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in listened:
            logger.removeHandler(handler)
        logging.root.setLevel(level)


def _forms(value: str) -> set[str]:
    if len(value) < SHORTEST:
        return set()
    return {value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]}


def _leaves(label: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Secret):
        yield label, value.reveal()
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            child = getattr(value, field.name)
            if isinstance(child, Secret) or attrs.has(type(child)):
                yield from _leaves(f"{label}.{field.name}", child)
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(f"{label}.{key}", child)
    elif isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        yield label, str(value)
    elif isinstance(value, Sequence):
        for index, child in enumerate(value):
            yield from _leaves(f"{label}[{index}]", child)
