"""The files that a command line names, and the standard streams in their place."""

from __future__ import annotations

import itertools
import os
import stat
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from partnerenrich_server import options
from partnerenrich_server.failures import Misuse
from partnerenrich_server.streams import standard_input, standard_output

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class File:
    """
    A file, and what it is for.

    Attributes:
        option: The option that names it.
        path: ``-`` is a standard stream.
        mode: Whether it is read or written.
    """

    option: str
    path: Path
    mode: Literal["r", "w"]

    def __str__(self) -> str:
        if self.path != options.STREAM:
            return str(self.path)
        return "standard input" if self.mode == "r" else "standard output"

    @property
    def place(self) -> object:
        """
        What all names of one file have in common.

        Raises:
            Misuse: It is a standard stream, and closed.
        """
        try:
            status = os.fstat(self._stream()) if self.path == options.STREAM else self.path.stat()
        except OSError:
            return self.path.resolve()
        if stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):
            return status.st_dev, status.st_ino
        # a device, such as /dev/null, may have many purposes; a terminal is read and written
        return self.mode if self.path == options.STREAM else object()

    def open(self) -> FileIO:
        """
        Open it unbuffered.

        Raises:
            Misuse: It cannot be opened.
        """
        if self.path == options.STREAM:
            return FileIO(self._stream(), self.mode, closefd=False)
        try:
            return FileIO(self.path, self.mode)
        except OSError as error:
            raise Misuse(f"{self}: {error.strerror}") from None

    def _stream(self) -> int:
        return (standard_input() if self.mode == "r" else standard_output()).fileno()


def keep_apart(files: Iterable[File]) -> None:
    """
    Refuse to write over what is read, or twice to one file.

    Raises:
        Misuse: Two of the files are one, or a standard stream is closed.
    """
    places = [(file, file.place) for file in files]
    for (one, its_place), (other, place) in itertools.combinations(places, 2):
        if place == its_place:
            raise Misuse(f"{other} is named for two purposes: {one.option} and {other.option}")
