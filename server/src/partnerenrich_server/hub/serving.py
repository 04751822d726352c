"""Run the hub: one event loop, one listening socket, and a good end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from partnerenrich import PartnerEnrichError
from partnerenrich_server.engine import running_store
from partnerenrich_server.hub.app import open_hub
from partnerenrich_server.hub.protocol import HubProtocol
from partnerenrich_server.hub.proxies import BehindProxies
from partnerenrich_server.signals import ended_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp

    from partnerenrich.configuration import Configuration

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 15
GRACE_SECONDS: Final = 3
"""How long requests may take to end once the hub is told to stop."""


class ServingError(PartnerEnrichError):
    """The hub cannot listen."""


def listen(host: str, port: int) -> socket.socket:
    """
    A listening socket.

    Args:
        host: Name or address.
        port: 0 takes a free one.

    Raises:
        ServingError: The address is taken or not of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except socket.gaierror as error:
        reason = error.strerror
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    raise ServingError(f"{host} port {port}: {reason}")


async def serve(
    configuration: Configuration,
    listener: socket.socket,
    *,
    file: Path | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """
    Serve until SIGINT or SIGTERM; then end the requests that are under way and finish the events that were accepted.

    Args:
        configuration: Of the hub.
        listener: Where requests come in.
        file: Where the configuration was read from.
        ready: Called when the hub is about to accept requests.

    Raises:
        ConfigError: Something is missing or wrong in the configuration.
    """
    with running_store(configuration) as store:
        async with open_hub(configuration, store, file) as app:
            server = Server(app, configuration.hub.proxies)

            def end(signal_name: str) -> None:
                log.info("%s: finishing what was accepted; again to abort", signal_name)
                server.should_exit = True

            with ended_by_signals(end):
                ready()
                await server.serve([listener])


class Server(uvicorn.Server):
    """
    uvicorn, as the hub needs it. Signals are left to the caller.

    Args:
        app: What is served.
        proxies: Addresses whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, app: ASGIApp, proxies: tuple[str, ...] = ()) -> None:
        super().__init__(
            uvicorn.Config(
                BehindProxies(app, proxies) if proxies else app,
                http=HubProtocol,
                ws="none",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def run(configuration: Configuration, listener: socket.socket, file: Path, ready: Callable[[], None]) -> None:
    """Run `serve` in an event loop of its own. Arguments and errors are those of `serve`."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(configuration, listener, file=file, ready=ready))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The fastest event loop that is installed."""
    return uvicorn.Config("", log_config=None).get_loop_factory()
