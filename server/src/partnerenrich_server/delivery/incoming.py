"""Files of what has collected, told by their names: when they were written, and how many rows they hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs
import zstandard

from partnerenrich_server.delivery.manifest import is_id, new_id, time_of
from partnerenrich_server.delivery.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich_server.delivery.storage import Entry, Storage

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


def write(storage: Storage, folder: str, lines: Sequence[bytes], now: float) -> None:
    """
    Make rows durable, in a file of their own.

    Args:
        storage: The staging storage.
        folder: That of the integration in it.
        lines: The rows, each as JSON.
        now: Unix time in seconds.

    Raises:
        StorageError: The storage failed.
    """
    path = f"{folder}/{FOLDER}/{new_id(now)}.{len(lines)}.ndjson.zst"
    if not storage.create(path, zstandard.compress(b"\n".join(lines))):
        raise StorageError("the staging storage has a file of that name already")
