"""Where events come from: lines of a file or a pipe, plain or compressed, cut into batches without holding one back."""

from __future__ import annotations

import contextlib
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
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class InputError(PartnerEnrichError):
    """The input cannot be read or decompressed to its end."""


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

        Raises:
            InputError: It cannot be read.
        """
        ready, _, _ = select.select([self._descriptor, self._woken], [], [], timeout)
        if self._woken in ready:
            self.stopped = True
            return b""
        if not ready:
            return None
        try:
            data = os.read(self._descriptor, size)
        except OSError as error:
            raise InputError(f"the input cannot be read: {error.strerror}") from None
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
    and nothing more is there. The unfinished last line of an input that was
    stopped, or failed, is left out.

    Args:
        source: The input. gzip and zstd are recognised by their first bytes.
        size: Most lines in one batch.
        linger: Seconds.

    Raises:
        InputError: The input cannot be read or decompressed to its end; all whole lines before came out.
    """
    text = Content(source)
    cutter = _Cutter()
    pending: list[Line] = []
    due, held = 0.0, 0
    try:
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
    except InputError as error:
        if pending:
            yield pending
        raise InputError(f"{error}, in line {cutter.number}; the lines before it were taken") from None
    if not source.stopped:
        pending += cutter.end()
    if pending:
        yield pending


class _Cutter:
    """
    Cuts chunks into lines; never holds more than one line of the longest length.

    Attributes:
        number: Of the line that is being read, from 1.
    """

    def __init__(self) -> None:
        self.number = 1
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
        lines += [Line(n, text) for n, piece in enumerate(middle, self.number) if (text := piece.strip())]
        self.number += len(middle)
        self._extend(rest)
        return lines

    def end(self) -> list[Line]:
        """The line that ends here, unless it is blank."""
        number = self.number
        if number == 1:
            self._rest = self._rest.removeprefix(BYTE_ORDER_MARK)
        content = None if self._too_long else self._rest.strip()
        self.number, self._rest, self._too_long = number + 1, b"", False
        return [] if content == b"" else [Line(number, content)]

    def _extend(self, piece: bytes) -> None:
        self._rest = b"" if self._too_long else self._rest + piece
        if len(self._rest) > MAX_BYTES + len(BYTE_ORDER_MARK):
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


_ERRORS: Final = (zlib.error, zstandard.ZstdError)


class _Damaged(Exception):
    """What was decompressed before the damage is its argument."""


class _Frame:
    """
    One frame of compressed data, decompressed twice.

    A decompressor that meets damage keeps back what it made of the same chunk
    before. The second one is a chunk behind, and gives that out byte by byte.
    """

    def __init__(self, new: Callable[[], _Decompressor]) -> None:
        self._ahead, self._behind = new(), new()
        self._chunk = b""

    def decompress(self, chunk: bytes) -> bytes:
        """
        The text of one more chunk.

        Raises:
            _Damaged: The rest of the chunk cannot be decompressed.
        """
        self._behind.decompress(self._chunk)
        self._chunk = chunk
        try:
            return self._ahead.decompress(chunk)
        except _ERRORS:
            pass
        raise _Damaged(b"".join(self._before_damage()))

    def _before_damage(self) -> Iterator[bytes]:
        with contextlib.suppress(*_ERRORS):
            for byte in self._chunk:
                yield self._behind.decompress(bytes((byte,)))

    @property
    def rest(self) -> bytes | None:
        """What follows the frame in the last chunk; None while the frame has not ended."""
        return self._ahead.unused_data if self._ahead.eof else None


class Content:
    """The bytes of a source, decompressed when its first bytes say so."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._head = _first_bytes(source)
        self._new = next((new for magic, new in _FORMATS.items() if self._head.startswith(magic)), None)
        self._frame: _Frame | None = None
        self._is_damaged = False

    def read(self, timeout: float | None) -> bytes | None:
        """
        As `Source.read`.

        Raises:
            InputError: The input cannot be read or decompressed any further.
        """
        while not self._is_damaged:
            chunk = self._head or self._source.read(_COMPRESSED_CHUNK if self._new else _PLAIN_CHUNK, timeout)
            self._head = b""
            if not chunk or not self._new:
                if chunk == b"" and self._frame and not self._source.stopped:
                    raise InputError("the compressed input ends too early")
                return chunk
            if text := b"".join(self._expanded(chunk, self._new)):
                return text
        raise InputError("the compressed input is damaged")

    def _expanded(self, chunk: bytes, new: Callable[[], _Decompressor]) -> Iterator[bytes]:
        left: bytes | None = chunk
        while left:
            self._frame = self._frame or _Frame(new)
            try:
                yield self._frame.decompress(left)
            except _Damaged as damaged:
                self._is_damaged = True
                yield damaged.args[0]
                return
            if (left := self._frame.rest) is not None:
                self._frame = None


def _first_bytes(source: Source) -> bytes:
    """Enough of the input to tell its format."""
    head = b""
    while any(magic != head and magic.startswith(head) for magic in _FORMATS):
        more = source.read(_COMPRESSED_CHUNK, None)
        if not more:
            break
        head += more
    return head
