"""A folder for files that may hold personal data: gone with the process, or with the next one after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = "partnerenrich-"
_LOCK: Final = "lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """
    A folder in ``TMPDIR`` that nobody else can read, for as long as the block lasts.

    What processes that were killed have left there is removed first. A folder is locked before it has a file of the
    name ``lock``, until it is gone, and the lock ends with its process, however that ends.
    """
    _remove_left(Path(tempfile.gettempdir()))
    made = tempfile.TemporaryDirectory(prefix=_PREFIX)
    folder = Path(made.name)
    with (folder / "unlocked").open("wb") as lock, made:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "unlocked").rename(folder / _LOCK)
        yield folder


def _remove_left(parent: Path) -> None:
    for file in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # it is of another user, at work, or gone
            if file.parent.is_symlink() or file.parent.stat().st_uid != os.getuid():
                continue
            with file.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(file.parent)
