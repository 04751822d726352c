"""What all tests of the workspace share."""

from __future__ import annotations

import contextlib
import secrets
import socket

import pytest
from hypothesis import settings

# The speed of a busy machine is no property of the code.
settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session", name="free_port")
def _free_port():
    """
    Gives a port for a server of our own, which keeps it while it is down.

    It is none of those that the system gives to whoever asks for any: one of them would be taken meanwhile.
    """
    given = set()

    def free_port():
        while True:
            port = 10_000 + secrets.randbelow(20_000)
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                if port not in given:
                    given.add(port)
                    return port

    return free_port
