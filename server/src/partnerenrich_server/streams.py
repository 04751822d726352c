"""The standard streams of the process, any of which may be closed."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


def hold_closed() -> None:
    """Let no file and no socket take the place of a standard stream that is closed: it would be read, or written."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def drop_unwritten() -> None:
    """Drop what stdout holds and cannot write, or Python complains of it at its end, with an exit code of its own."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def standard_input() -> TextIO:
    """
    What the command reads.

    Raises:
        Misuse: It is closed.
    """
    return _open(sys.stdin, "standard input is closed; redirect it from a file or a pipe")


def standard_output() -> TextIO:
    """
    What the result of the command goes to.

    Raises:
        Misuse: It is closed.
    """
    return _open(sys.stdout, "standard output is closed; redirect it to a file or a pipe")


def _open(stream: TextIO | None, otherwise: str) -> TextIO:
    if stream is None:  # Python makes it so where the descriptor was closed at the start
        raise importlib.import_module("partnerenrich_server.failures").Misuse(otherwise)  # --help needs none of it
    return stream
