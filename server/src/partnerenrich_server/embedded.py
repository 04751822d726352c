"""
The store that needs no installation: a real Valkey on a unix socket, shared by who names the same folder.

``embedded:`` is private to one process and gone with it. ``embedded:PATH`` is kept:
each write reaches an append-only file at once and the disk within a second, so a
killed process loses nothing and a power cut at most the last second. Any number of
processes may use one PATH at a time; it must be on a local file system.

The memory is limited to 1 GiB. When it is full, the least recently used answers make
room; what must not be forgotten has no time to live and is never evicted.

The key of the fingerprints is on the disk before the server starts, and never made anew
beside data: with another one the suppression list would mean nobody.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from partnerenrich import ConfigError, PartnerEnrichError
from partnerenrich.errors import Problem
from partnerenrich_server import _store_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEME = "embedded:"

_SECONDS_TO_JOIN = 60.0


class StoreError(PartnerEnrichError):
    """The embedded store does not start."""


@attrs.frozen
class Store:
    """
    A running store.

    Attributes:
        url: Of its socket, or of a server of one's own.
        key: 32 bytes for the fingerprints.
    """

    url: str = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)


@contextlib.contextmanager
def open_store(url: str, key: bytes | None = None) -> Iterator[Store]:
    """
    Use an embedded store; start it when nobody else does.

    Args:
        url: ``embedded:`` or ``embedded:PATH``. The folder is made when it is missing.
        key: 32 bytes for the fingerprints; when left out, the folder's own, made when it is new.

    Raises:
        ConfigError: PATH cannot be used as a store.
        StoreError: The server does not start.
    """
    path = url.removeprefix(SCHEME)
    with contextlib.ExitStack() as stack:
        try:
            folder = _own_folder(Path(path).expanduser().absolute()) if path else _private_folder()
            users = stack.enter_context((folder / "users").open("ab"))
            key = key or _key(folder)
        except OSError as error:
            raise ConfigError([Problem("store", f"{path or tempfile.gettempdir()}: {error.strerror}")]) from None
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while the last users' server is being stopped
        address = _join(folder, private=not path)
        yield Store(f"unix://{address}", key)


def _private_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="partnerenrich-"))


def _own_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / "users").exists():
        raise ConfigError([Problem("store", f"{folder} holds other files; name a new or empty folder")])
    folder.chmod(0o700)
    return folder


def _key(folder: Path) -> bytes:
    """The key of the folder. Made before there is any data: beside data, one that is not there is lost."""
    file = folder / "key"
    directory = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        text = file.read_bytes() if file.exists() else b""
        if not text and not (folder / _store_supervisor.DATA).exists():
            text = base64.b64encode(os.urandom(32))
            _write_durably(file, text)
            os.fsync(directory)
    finally:
        os.close(directory)
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        problem = "is damaged" if text else "is missing or empty, though the folder holds data"
        remedy = "restore it, or remove the whole folder to begin with an empty memory and suppression list"
        raise ConfigError([Problem(str(file), f"{problem}: {remedy}")])
    return raw


def _write_durably(file: Path, content: bytes) -> None:
    """All of it or nothing, for the owner alone. Its name is on the disk when its folder is."""
    new = file.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:  # noqa: PTH123  Path.open sets no mode
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)


def _join(folder: Path, *, private: bool) -> Path:
    """The socket of the running server. The caller holds the lock on ``users``, so it stays."""
    until = time.monotonic() + _SECONDS_TO_JOIN
    while (address := _store_supervisor.answering(folder)) is None:
        report = _start_supervisor(folder, private=private)
        if report == _store_supervisor.BUSY and time.monotonic() < until:
            time.sleep(0.02)
        elif report != _store_supervisor.READY:
            raise StoreError(f"the embedded store does not start: {report or 'its supervisor failed'}")
    return address


def _start_supervisor(folder: Path, *, private: bool) -> str:
    command = [sys.executable, "-P", "-m", _store_supervisor.__name__, str(folder), "private" if private else "kept"]
    with (folder / "log").open("ab") as log:
        supervisor = subprocess.run(  # noqa: S603  our own module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, check=False
        )
    return supervisor.stdout.decode()
