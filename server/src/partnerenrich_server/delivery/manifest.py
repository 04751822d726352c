"""What is in a batch: the file that seals it."""

from __future__ import annotations

import calendar
import re
import secrets
import time
from collections.abc import Mapping
from typing import Final

import attrs
import msgspec

from partnerenrich.models import StagedFile

RECIPE_VERSION: Final = "1"
"""Changes when `partnerenrich.recipes` makes another digest of the same value."""

_ID: Final = re.compile(r"[0-9]{8}t[0-9]{9}-[0-9a-f]{8}")


@attrs.frozen(kw_only=True)
class Manifest:
    """
    A sealed batch.

    Batches of one integration stand in a row: each names the id of the one that
    comes after it, so that of two workers only one can seal.

    Attributes:
        batch_id: Unique, and ordered by time: fit for a folder and for the name of a recordset.
        org: Slug of the organisation.
        integration: Name of the integration.
        mode: One of `Delivery.modes`.
        columns: Names in the order of the files.
        files: What the partner reads.
        rows: Records in all files.
        rejected: Reason to number of records that were set aside.
        recipe_version: `RECIPE_VERSION` when it was made.
        created: Unix time in seconds.
        next_id: Id of the batch after this one.
        inputs: What it was made of: names of collected files, and of input files.
        state: Id under which the records of a snapshot, and who withdrew, are kept for the next batch.
        supersedes: The batch that this one replaces: it must not be submitted any more.
    """

    batch_id: str
    org: str
    integration: str
    mode: str
    columns: tuple[str, ...]
    files: tuple[StagedFile, ...]
    rows: int
    rejected: Mapping[str, int]
    recipe_version: str
    created: float
    next_id: str
    inputs: tuple[str, ...] = ()
    state: str | None = None
    supersedes: str | None = None

    def as_json(self) -> bytes:
        """As it is written."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """
        As it was written.

        Raises:
            ValueError: It is something else.
        """
        return msgspec.json.decode(text, type=cls)


def new_id(now: float | None = None) -> str:
    """An id that nothing else has: a Unix time (now, by default), in UTC to the millisecond, and chance."""
    millis = round((time.time() if now is None else now) * 1000)
    moment = time.strftime("%Y%m%dt%H%M%S", time.gmtime(millis // 1000))
    return f"{moment}{millis % 1000:03}-{secrets.token_hex(4)}"


def time_of(id_: str) -> float:
    """The Unix time in an id, in seconds."""
    seconds = calendar.timegm(time.strptime(id_[:15], "%Y%m%dt%H%M%S"))
    return seconds + int(id_[15:18]) / 1000


def is_id(name: str) -> bool:
    """Whether a name is such an id."""
    return _ID.fullmatch(name) is not None
