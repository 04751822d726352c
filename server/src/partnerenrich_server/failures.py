"""Errors as a user meets them: one clear line for each problem, and the exit code."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import IO

import click

from partnerenrich import ConfigError, PartnerEnrichError, PluginError


class Failure(click.ClickException):
    """What went wrong while running, a line for each problem."""

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))

    def show(self, file: IO[str] | None = None) -> None:
        """Print the problems on stderr."""
        for problem in self.message.splitlines():
            click.echo(f"Error: {problem}", file=file, err=True)


class Misuse(Failure):
    """What is wrong with the command line or the configuration."""

    exit_code = 2


def explained(error: Exception) -> Failure:
    """The failure to show for any exception. Values of visitors never get into it."""
    if isinstance(error, ConfigError):
        return Misuse(*map(str, error.problems))
    if isinstance(error, PluginError):
        return Misuse(str(error))
    if isinstance(error, (PartnerEnrichError, OSError)):
        return Failure(told(error))
    return Failure(f"{told(error)}; PARTNERENRICH_DEBUG=1 shows the traceback")


def told(error: Exception) -> str:
    """Any exception in words. An unforeseen one may hold anything, so only its type and place are told."""
    if isinstance(error, PartnerEnrichError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
