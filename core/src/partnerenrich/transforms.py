"""
Named transforms of one value, for blueprints.

========================  =========================================================
``lowercase``             text only; so are ``uppercase`` and ``trim``
``to_string``             text, numbers, true and false
``to_number``             numbers and text that is one
``to_boolean``            true, yes, 1 and false, no, 0, as text, number or boolean
``date_format``           ISO 8601 text or an epoch number, to one of `DATE_FORMATS`
a name of a recipe        see `partnerenrich.recipes`
========================  =========================================================

None of them raises: a value that cannot be transformed gives None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

from partnerenrich import recipes

Transform = Callable[[Any, str | None], Any]
"""From a value and the default region of phones to the new value, or None."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_TRUE: Final = frozenset({"true", "yes", "1"})
_FALSE: Final = frozenset({"false", "no", "0"})

_is_number_text = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?").fullmatch
_is_epoch_text = re.compile(r"-?[0-9]{9,20}(\.[0-9]{1,9})?").fullmatch


def transform(name: str, source: str, date_format: str | None) -> Transform:
    """
    The transform of a name.

    Args:
        name: One of `TRANSFORMS`.
        source: Path of the value, which tells a recipe what the value is.
        date_format: One of `DATE_FORMATS`, for ``date_format``.
    """
    if name in recipes.HASHES:
        return partial(recipes.apply, name, source)
    if date_format is not None and name == "date_format":
        return partial(_date, DATE_FORMATS[date_format])
    change = _CHANGES[name]
    return lambda value, _: change(value)


def text_of(value: Any) -> str | None:
    """A text, a number, true or false as text, as JSON writes it; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not _is_number(value):
        return None
    try:
        return str(value)
    except ValueError:  # more digits than Python agrees to write
        return None


def _of_text(change: Callable[[str], str]) -> Callable[[Any], str | None]:
    return lambda value: change(value) if isinstance(value, str) else None


def _to_number(value: Any) -> Any:
    if _is_number(value):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not _is_number_text(text):
        return None
    try:
        return int(text)
    except ValueError:
        return parsed if math.isfinite(parsed := float(text)) else None


def _to_boolean(value: Any) -> bool | None:
    text = (text_of(value) or "").strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _is_number(value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite()
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


# Dates


def _date(written: Callable[[datetime], Any], value: Any, _: str | None) -> Any:
    try:
        moment = _moment(value)
        return None if moment is None else written(moment.astimezone(UTC))
    except (OverflowError, ValueError):  # no date, or none between the years 1 and 9999
        return None


def _moment(value: Any) -> datetime | None:
    """
    The moment that an ISO 8601 text or an epoch number means.

    A text without an offset means UTC. A number tells its unit by its size:
    seconds below 1e11, milliseconds below 1e14, microseconds below 1e17, then nanoseconds.

    Raises:
        ValueError: A text is no date.
        OverflowError: The date is out of range.
    """
    if isinstance(value, str) and not _is_epoch_text(value.strip()):
        moment = datetime.fromisoformat(value.strip())
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    number = _to_number(value)
    if number is None or abs(number) >= 10**20:
        return None
    for limit, unit in ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1)):
        if abs(number) < limit:
            return _EPOCH + timedelta(microseconds=round(number * unit))
    return _EPOCH + timedelta(microseconds=round(number) // 1_000)


DATE_FORMATS: Final[Mapping[str, Callable[[datetime], Any]]] = {
    "epoch_micros": lambda moment: (moment - _EPOCH) // timedelta(microseconds=1),
    "epoch_millis": lambda moment: (moment - _EPOCH) // timedelta(milliseconds=1),
    "epoch_seconds": lambda moment: (moment - _EPOCH) // timedelta(seconds=1),
    "iso8601": lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    "date": lambda moment: moment.date().isoformat(),
}
"""How a date may be written; all in UTC."""

_CHANGES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "lowercase": _of_text(str.lower),
    "uppercase": _of_text(str.upper),
    "trim": _of_text(str.strip),
    "to_string": text_of,
    "to_number": _to_number,
    "to_boolean": _to_boolean,
}

TRANSFORMS: Final = (*_CHANGES, "date_format", *recipes.HASHES)
"""Names of all transforms."""
