"""The standard streams of the process, any of which may be closed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from partnerenrich_server.failures import Misuse

if TYPE_CHECKING:
    from typing import TextIO


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
        raise Misuse(otherwise)
    return stream
