"""Files of what has collected, told by their names: when they were written, and how many rows they hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from partnerenrich_server.delivery.manifest import is_id, new_id, time_of

if TYPE_CHECKING:
    from partnerenrich_server.delivery.storage import Entry

FOLDER: Final = "incoming"
_NAME: Final = re.compile(rf"(?:.*/)?{FOLDER}/(?P<id>[^/.]+)\.(?P<rows>\d+)\.ndjson\.zst")


@attrs.frozen
class Incoming:
    """
    One file of what has collected.

    Attributes:
        path: Where it lies.
        rows: Its lines.
        bytes: Its size.
        seen: When it was written, Unix time in seconds.
    """

    path: str
    rows: int
    bytes: int
    seen: float

    @classmethod
    def of(cls, entry: Entry) -> Incoming | None:
        """The file of an object; None for an object that is none."""
        match = _NAME.fullmatch(entry.path)
        if match is None or not is_id(match["id"]):
            return None
        return cls(entry.path, int(match["rows"]), entry.size, time_of(match["id"]))


def new_path(now: float, rows: int) -> str:
    """
    The path of a new file, below the folder of its integration.

    Args:
        now: Unix time in seconds.
        rows: How many it holds.
    """
    return f"{FOLDER}/{new_id(now)}.{rows}.ndjson.zst"
