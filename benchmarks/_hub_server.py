"""
What `hub` compares, each in a process of its own with the uvicorn settings of the hub: the hub itself, and the least
that could answer: a Starlette route that does one Redis GET and returns it.

It listens on a free port, prints it, and ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from partnerenrich.configuration import load_mapping
from partnerenrich_server.embedded import Store
from partnerenrich_server.hub.app import open_hub
from partnerenrich_server.hub.serving import Server, loop_factory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

FLOOR_KEY = "floor"
"""What the floor reads."""


@contextlib.contextmanager
def serve(contender: str, store: Store, configuration: Mapping[str, Any]) -> Iterator[int]:
    """
    Run a contender.

    Args:
        contender: ``ours`` or ``floor``.
        store: Where the copies are.
        configuration: Of the hub.

    Yields:
        Its port on 127.0.0.1.
    """
    told = json.dumps([contender, store.url, store.key.hex(), configuration])
    with subprocess.Popen([sys.executable, "-m", __name__, told], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        try:
            yield int(run.stdout.readline())
        finally:
            run.stdin.close()


@contextlib.asynccontextmanager
async def _open_floor(url: str) -> AsyncIterator[ASGIApp]:
    async with Redis.from_url(url) as redis:

        async def profile(_: Request) -> Response:
            return Response(await redis.get(FLOOR_KEY), media_type="application/json")

        yield Starlette(routes=[Route("/v1/enrich", profile)])


async def _main(contender: str, url: str, key: str, configuration: Mapping[str, Any]) -> None:
    opening = (
        open_hub(load_mapping(configuration), Store(url, bytes.fromhex(key)))
        if contender == "ours"
        else _open_floor(url)
    )
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        async with opening as app:
            server = Server(app)
            serving = asyncio.create_task(server.serve([listener]))
            print(listener.getsockname()[1], flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            server.should_exit = True
            await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(*json.loads(sys.argv[1])))
