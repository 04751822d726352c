"""Cutting input into batches of lines."""

from __future__ import annotations

import contextlib
import gzip
import os
import threading
import time
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich.events import MAX_BYTES
from partnerenrich_server.source import InputError, Line, Source, batches

compressed = pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
NUMBERED = b"".join(b'{"number": %d}\n' % number for number in range(50_000))


@contextlib.contextmanager
def source_of(data: bytes):
    """A source that gives these bytes, as fast as a pipe does."""
    readable, writable = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writable, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with contextlib.closing(Source(readable)) as source:
        yield source
    os.close(readable)
    thread.join()


def lines_of(data: bytes, size: int = 500) -> list[Line]:
    with source_of(data) as source:
        return [line for batch in batches(source, size=size, linger=60) for line in batch]


def test_lines_are_numbered_from_one():
    assert lines_of(b'{"a":1}\n{"b":2}\n') == [Line(1, b'{"a":1}'), Line(2, b'{"b":2}')]


def test_blank_lines_count_but_are_left_out():
    assert lines_of(b"\n{}\n \t\n\n{}\n") == [Line(2, b"{}"), Line(5, b"{}")]


def test_the_last_line_needs_no_end():
    assert lines_of(b"{}\n[]") == [Line(1, b"{}"), Line(2, b"[]")]


def test_windows_line_ends_and_a_byte_order_mark_are_fine():
    assert lines_of(b"\xef\xbb\xbf{}\r\n[]\r\n") == [Line(1, b"{}"), Line(2, b"[]")]


def test_empty_input_has_no_batch():
    with source_of(b"") as source:
        assert list(batches(source, size=5, linger=0)) == []


def test_a_line_that_is_too_long_is_told_without_its_content():
    too_long = b'"' + b"x" * (3 * MAX_BYTES) + b'"'
    assert lines_of(b"{}\n" + too_long + b"\n[]\n" + too_long) == [
        Line(1, b"{}"),
        Line(2, None),
        Line(3, b"[]"),
        Line(4, None),
    ]


def test_a_line_of_the_longest_length_is_kept():
    longest = b"x" * MAX_BYTES
    assert lines_of(longest + b"\n") == [Line(1, longest)]


def test_batches_are_full_but_for_the_last():
    with source_of(b"{}\n" * 25) as source:
        assert [len(batch) for batch in batches(source, size=10, linger=60)] == [10, 10, 5]


def test_batches_of_large_lines_end_early():
    with source_of((b"x" * MAX_BYTES + b"\n") * 20) as source:
        sizes = [len(batch) for batch in batches(source, size=1000, linger=60)]
    assert sum(sizes) == 20
    assert max(sizes) <= 10


@compressed
def test_compressed_input_is_recognised_by_its_first_bytes(compress):
    assert lines_of(compress(NUMBERED)) == lines_of(NUMBERED)


@compressed
def test_compressed_files_may_be_joined(compress):
    assert lines_of(compress(b"{}\n") + compress(b"[]\n")) == [Line(1, b"{}"), Line(2, b"[]")]


def until_damage(data: bytes) -> tuple[list[Line], str]:
    """The lines that came out of damaged input, and what was said of it."""
    got: list[list[Line]] = []
    with source_of(data) as source, pytest.raises(InputError) as told:
        got.extend(batches(source, size=100, linger=60))
    return [line for batch in got for line in batch], str(told.value)


@compressed
def test_compressed_input_that_ends_early_is_an_error_after_every_whole_line_before(compress):
    lines, told = until_damage(compress(NUMBERED)[:-20])

    assert lines == lines_of(NUMBERED)[: len(lines)]
    assert len(lines) > 40_000
    assert told == f"the compressed input ends too early, in line {len(lines) + 1}; the lines before it were taken"


@compressed
def test_what_follows_compressed_input_and_is_none_is_an_error_after_every_line_before(compress):
    lines, told = until_damage(compress(b"{}\n[]\n") + b"garbage\n")

    assert lines == [Line(1, b"{}"), Line(2, b"[]")]
    assert told == "the compressed input is damaged, in line 3; the lines before it were taken"


@compressed
def test_every_whole_line_before_damage_comes_out(compress):
    """Also those of the piece of the input in which the damage is."""
    lines, told = until_damage(compress(b'{"n":1}\n' * 5 + b'{"n') + compress(NUMBERED)[:5] + b"\xff" * 10_000)

    assert lines == [Line(number, b'{"n":1}') for number in range(1, 6)]
    assert "is damaged, in line 6;" in told


@pytest.mark.parametrize(
    ("new", "flush"),
    [
        (lambda: zlib.compressobj(wbits=31), zlib.Z_SYNC_FLUSH),
        (lambda: zstandard.ZstdCompressor().compressobj(), zstandard.COMPRESSOBJ_FLUSH_BLOCK),
    ],
    ids=["gzip", "zstd"],
)
def test_every_block_before_a_damaged_one_comes_out(new, flush):
    """Though good and bad ones are decompressed together."""
    compressor = new()
    blocks = b"".join(compressor.compress(b'{"n":%d}\n' % n) + compressor.flush(flush) for n in range(50))
    lines, told = until_damage(blocks + b"\xff" * 100)

    assert lines == [Line(n + 1, b'{"n":%d}' % n) for n in range(50)]
    assert "is damaged, in line 51;" in told


@pytest.mark.parametrize("head", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"], ids=["gzip", "zstd"])
def test_damaged_compressed_input_is_an_error(head):
    with pytest.raises(InputError, match="damaged, in line 1;"):
        lines_of(head + b"nonsense" * 20)


def test_input_that_cannot_be_read_is_told_as_such(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    with contextlib.closing(Source(folder)) as source, pytest.raises(InputError, match="be read: Is a directory"):
        list(batches(source, size=5, linger=0))
    os.close(folder)


def test_a_trickling_line_is_not_held_back():
    readable, writable = os.pipe()
    with contextlib.closing(Source(readable)) as source:
        os.write(writable, b"{}\n")
        started = time.monotonic()
        assert next(batches(source, size=500, linger=0.02)) == [Line(1, b"{}")]
        assert time.monotonic() - started < 20
    os.close(readable)
    os.close(writable)


def test_a_stopped_source_gives_whole_lines_only():
    readable, writable = os.pipe()
    with contextlib.closing(Source(readable)) as source:
        cut = batches(source, size=2, linger=60)
        os.write(writable, b"{}\n[]\n1\n2")
        assert next(cut) == [Line(1, b"{}"), Line(2, b"[]")]
        source.stop()
        assert list(cut) == [[Line(3, b"1")]]
        assert source.stopped
    os.close(readable)
    os.close(writable)


def test_a_file_has_a_size_and_a_position(tmp_path):
    path = tmp_path / "events"
    path.write_bytes(b"{}\n" * 10)
    with path.open("rb", buffering=0) as file, contextlib.closing(Source(file.fileno())) as source:
        assert source.size == 30
        list(batches(source, size=5, linger=0))
        assert source.position == 30


@given(st.lists(st.binary(max_size=30), max_size=30), st.integers(1, 7))
def test_cutting_equals_splitting(pieces, size):
    """Whatever the bytes and the size of batches, the lines are those that split() gives."""
    data = b"{" + b"\n".join(pieces)
    expected = [Line(n, text.strip()) for n, text in enumerate(data.split(b"\n"), 1) if text.strip()]
    assert lines_of(data, size) == expected
