"""Where events come from: lines of a file or a pipe, plain or compressed, cut into batches without holding one back."""

from __future__ import annotations

import os
import select
import stat
import time
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import zstandard

from partnerenrich import PartnerEnrichError
from partnerenrich.events import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PLAIN_CHUNK: Final = 1 << 18
_BATCH_BYTES: Final = 1 << 23
_COMPRESSED_CHUNK: Final = 1 << 14  # small: a compressed byte may grow to a thousand
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class InputError(PartnerEnrichError):
    """The input ends early or cannot be decompressed."""


class Line(NamedTuple):
    """
    One line of the input that is not blank.

    Attributes:
        number: From 1, blank lines counted.
        content: Without white space around it; None when it was too long to be kept.
    """

    number: int
    content: bytes | None


class Source:
    """
    A readable file descriptor that another thread can stop.

    Attributes:
        size: Bytes of a regular file, before decompression; None for a stream.
        position: Bytes read so far, before decompression.
        stopped: Whether `stop` ended it.
    """

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.position = 0
        self.stopped = False
        self._descriptor = descriptor
        self._woken, self._waker = os.pipe()

    def read(self, size: int, timeout: float | None) -> bytes | None:
        """
        What there is, at most `size` bytes.

        Args:
            size: Bytes.
            timeout: Seconds to wait for the first byte; None for as long as it takes.

        Returns:
            Nothing (``b""``) at the end or after `stop`; None when nothing came in time.
        """
        ready, _, _ = select.select([self._descriptor, self._woken], [], [], timeout)
        if self._woken in ready:
            self.stopped = True
            return b""
        if not ready:
            return None
        data = os.read(self._descriptor, size)
        self.position += len(data)
        return data

    def stop(self) -> None:
        """End the input here. May be called from anywhere, also from a signal handler."""
        os.write(self._waker, b".")

    def close(self) -> None:
        """Let go of what `stop` needs. The descriptor itself stays open."""
        os.close(self._woken)
        os.close(self._waker)


def batches(source: Source, *, size: int, linger: float) -> Iterator[list[Line]]:
    """
    Cut the input into batches.

    A batch ends when it is full, about 8 MiB large, or when its first line has waited for `linger`
    and nothing more is there. The unfinished last line of a stopped input is
    left out.

    Args:
        source: The input. gzip and zstd are recognised by their first bytes.
        size: Most lines in one batch.
        linger: Seconds.

    Raises:
        InputError: The input ends early or cannot be decompressed.
    """
    text = Content(source)
    cutter = _Cutter()
    pending: list[Line] = []
    due, held = 0.0, 0
    while (chunk := text.read(max(0.0, due - time.monotonic()) if pending else None)) != b"":
        if chunk is None:
            yield pending
            pending = []
            continue
        if not pending:
            due, held = time.monotonic() + linger, 0
        pending += cutter.feed(chunk)
        held += len(chunk)
        while len(pending) >= size or (pending and held >= _BATCH_BYTES):
            yield pending[:size]
            pending = pending[size:]
            due, held = time.monotonic() + linger, 0
    if not source.stopped:
        pending += cutter.end()
    if pending:
        yield pending


class _Cutter:
    """Cuts chunks into lines; never holds more than one line of the longest length."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = b""
        self._too_long = False

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk."""
        first, *others = chunk.split(b"\n")
        self._extend(first)
        if not others:
            return []
        lines = self.end()
        *middle, rest = others
        lines += [Line(n, text) for n, piece in enumerate(middle, self._number + 1) if (text := piece.strip())]
        self._number += len(middle)
        self._extend(rest)
        return lines

    def end(self) -> list[Line]:
        """The line that ends here, unless it is blank."""
        self._number += 1
        if self._number == 1:
            self._rest = self._rest.removeprefix(_BYTE_ORDER_MARK)
        content = None if self._too_long else self._rest.strip()
        self._rest, self._too_long = b"", False
        return [] if content == b"" else [Line(self._number, content)]

    def _extend(self, piece: bytes) -> None:
        self._rest = b"" if self._too_long else self._rest + piece
        if len(self._rest) > MAX_BYTES + len(_BYTE_ORDER_MARK):
            self._rest, self._too_long = b"", True


class _Decompressor(Protocol):
    """What zlib and zstandard have in common: one frame of compressed data."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


_FORMATS: Final[dict[bytes, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"\x28\xb5\x2f\xfd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


class Content:
    """The bytes of a source, decompressed when its first bytes say so."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._head = _first_bytes(source)
        self._new_frame = next((new for magic, new in _FORMATS.items() if self._head.startswith(magic)), None)
        self._frame: _Decompressor | None = None

    def read(self, timeout: float | None) -> bytes | None:
        """As `Source.read`."""
        while True:
            chunk = self._head or self._source.read(_COMPRESSED_CHUNK if self._new_frame else _PLAIN_CHUNK, timeout)
            self._head = b""
            if not chunk or not self._new_frame:
                if chunk == b"" and self._frame and not self._source.stopped:
                    raise InputError("the compressed input ends in the middle; what came before was taken")
                return chunk
            if text := self._expand(chunk, self._new_frame):
                return text

    def _expand(self, chunk: bytes, new_frame: Callable[[], _Decompressor]) -> bytes:
        expanded = b""
        while chunk:
            frame = self._frame or new_frame()
            try:
                expanded += frame.decompress(chunk)
            except (zlib.error, zstandard.ZstdError):
                raise InputError("the compressed input is damaged; what came before was taken") from None
            self._frame = None if frame.eof else frame
            chunk = frame.unused_data
        return expanded


def _first_bytes(source: Source) -> bytes:
    """Enough of the input to tell its format."""
    head = b""
    while any(magic != head and magic.startswith(head) for magic in _FORMATS):
        more = source.read(_COMPRESSED_CHUNK, None)
        if not more:
            break
        head += more
    return head
