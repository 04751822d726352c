"""A UID2 operator, the plugin's own imitation, in a process of its own. What it costs is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import httpx
import uvicorn

from partnerenrich_uid2._sandbox import new_app
from partnerenrich_uid2._sandbox.gate import Behaviour, credentials

if TYPE_CHECKING:
    from collections.abc import Iterator


@attrs.frozen
class Operator:
    """
    The running operator.

    Attributes:
        base_url: Where it listens.
    """

    base_url: str

    @property
    def settings(self) -> dict[str, str]:
        """Settings of an integration that may map."""
        return {"base_url": self.base_url, **credentials("UID2")["mapper"].settings}

    def calls(self) -> int:
        """Requests to map that have arrived."""
        answer = httpx.get(f"{self.base_url}/_sandbox", trust_env=False).raise_for_status().json()
        return int(answer["calls"].get("/v3/identity/map", 0))


@contextlib.contextmanager
def serve(latency_ms: int) -> Iterator[Operator]:
    """
    Run the operator.

    Args:
        latency_ms: Milliseconds before it works on a request.
    """
    command = [sys.executable, "-m", __name__, str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Operator(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()  # its end is the end of the server


async def _main(latency_ms: int) -> None:
    app = new_app("UID2", Behaviour(latency_ms=latency_ms))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    loop = asyncio.get_running_loop()
    serving = loop.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
