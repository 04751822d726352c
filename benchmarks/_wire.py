"""The least that a question to the partner `remote` takes: bytes out and bytes in, over connections that are kept."""

from __future__ import annotations

import asyncio
from typing import cast

import httpx

from benchmarks._remote import is_complete


class Wire:
    """
    Asks the partner, and does nothing else.

    Args:
        base_url: Of the partner.
    """

    def __init__(self, base_url: str) -> None:
        url = httpx.URL(base_url)
        self._host, self._port = url.host, url.port or 80
        self._idle: list[_Connection] = []

    async def post(self, body: bytes) -> None:
        """Send a body, and wait for the answer."""
        connection = self._idle.pop() if self._idle else await self._connect()
        await connection.ask(b"POST /lookup HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self._idle.append(connection)

    def close(self) -> None:
        """Disconnect."""
        for connection in self._idle:
            connection.transport.close()

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def ask(self, request: bytes) -> asyncio.Future[None]:
        self._received = b""
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        if is_complete(self._received):
            self._answered.set_result(None)
