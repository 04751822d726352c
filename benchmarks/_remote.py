"""
The partner `remote`: an HTTP server in a process of its own that answers the same JSON after a fixed time.

It reads requests no further than it must, to leave the cores to what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import httpx
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROFILE = msgspec.json.encode(
    {
        "id": "5d0c3b52-2f0a-3e8e-9d7e-1f6f0a9b7c11",
        "attributes": {
            "Persona": "Value Hunter",
            "LifetimeTier": "Gold",
            "FavouriteBrand": "Northwind",
            "PredictedValue": 412.5,
            "DaysSinceOrder": 3,
        },
    }
)


@attrs.frozen
class Remote:
    """
    The running partner.

    Attributes:
        base_url: Where it listens.
    """

    base_url: str

    async def calls(self) -> int:
        """Look-ups that it has answered or begun to answer."""
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{self.base_url}/calls")
            return int(response.text)


@contextlib.contextmanager
def serve(latency: float) -> Iterator[Remote]:
    """
    Run the partner.

    Args:
        latency: Seconds from the end of a request to its answer.
    """
    command = [sys.executable, "-m", __name__, str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Remote(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()  # its end is the end of the server


class _Connection(asyncio.Protocol):
    """One connection of HTTP/1.1 that is kept alive."""

    calls = 0

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not is_complete(self._received):
            return
        request, self._received = self._received, b""
        if request.startswith(b"GET /calls "):
            self._answer(str(_Connection.calls).encode())
        else:
            _Connection.calls += 1
            asyncio.get_running_loop().call_later(self._latency, self._answer, _PROFILE)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


def is_complete(message: bytes) -> bool:
    """Whether head and body of a message of HTTP are there."""
    head, has_ended, body = message.partition(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    return bool(has_ended) and len(body) >= int(length.partition(b"\r\n")[0] or 0)


async def _main(latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1])))
