"""Where events go to: files or pipes, written by another thread than the event loop's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from io import RawIOBase

    from partnerenrich.blueprint import Blueprint
    from partnerenrich.events import Event
    from partnerenrich_server.pipeline import Batch
    from partnerenrich_server.summary import Summary


class Output:
    """
    Takes lines.

    Args:
        file: Unbuffered.
        name: What to call it when something goes wrong.
    """

    def __init__(self, file: RawIOBase, name: str) -> None:
        self._file = file
        self._name = name

    def write(self, lines: Iterable[bytes]) -> None:
        """
        Write lines, each with its end.

        Raises:
            OSError: The disk is full, or nobody reads the pipe any more; names the file.
        """
        left = memoryview(b"".join(part for line in lines for part in (line, b"\n")))
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._name) from None


class Sink:
    """
    Takes batches that are done.

    Nothing is held back: what was written is on its way when `write` returns.

    Args:
        output: Takes one line for each event.
        rejects: Takes one line of JSON for each line that was no event.
        render: Makes the line of an event; None drops it.
        summary: Counts what was written.
    """

    def __init__(
        self, output: Output, rejects: Output | None, render: Callable[[Event], bytes | None], summary: Summary
    ) -> None:
        self._output = output
        self._rejects = rejects
        self._render = render
        self._summary = summary

    def write(self, batch: Batch) -> None:
        """
        Write one batch.

        Raises:
            OSError: See `Output.write`.
        """
        lines = [line for event in batch.events if (line := self._render(event)) is not None]
        self._output.write(lines)
        if self._rejects:
            self._rejects.write(json.dumps(reject._asdict()).encode() for reject in batch.rejects)
        self._summary.count(events=len(batch.events), dropped=len(batch.events) - len(lines), rejects=batch.rejects)


def payloads(blueprint: Blueprint, regions: Mapping[str, str | None]) -> Callable[[Event], bytes | None]:
    """
    Render events as the payloads of a blueprint.

    Args:
        blueprint: The mapping.
        regions: Slug of each organisation to the country of phone numbers without a country code.
    """

    def render(event: Event) -> bytes | None:
        payload = blueprint.payload(event.plain(), default_region=regions[event.org])
        return None if payload is None else msgspec.json.encode(payload)

    return render
