"""Serve the partners' own imitations on this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from partnerenrich import PartnerEnrichError
from partnerenrich.plugins import BoundPartner
from partnerenrich.testing.faults import FaultMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from partnerenrich import Sandbox

HOST = "127.0.0.1"


class SandboxError(PartnerEnrichError):
    """A sandbox cannot be served."""


@attrs.frozen(kw_only=True)
class Served:
    """
    A sandbox that accepts connections.

    Attributes:
        partner: Whom it imitates.
        base_url: Where; ``POST /_faults`` below it makes it fail.
        settings: All settings that an integration needs, `base_url` included.
        sample: See `partnerenrich.Sandbox`.
    """

    partner: BoundPartner
    base_url: str
    settings: Mapping[str, Any]
    sample: Mapping[str, Sequence[Mapping[str, str]]]


@contextlib.contextmanager
def serve(partners: Iterable[BoundPartner], port: int = 0) -> Iterator[dict[str, Served]]:
    """
    Serve the sandboxes of some partners, each below its key, from a thread of its own.

    Args:
        partners: Each has a sandbox.
        port: On 127.0.0.1; 0 takes a free one.

    Yields:
        Key of each partner to its sandbox. They accept connections.

    Raises:
        SandboxError: The port is taken, or a sandbox cannot be built.
    """
    sandboxes = {partner: _built(partner) for partner in partners}
    app = Starlette(
        routes=[Mount(f"/{partner.key}", FaultMiddleware(sandbox.app)) for partner, sandbox in sandboxes.items()]
    )
    try:
        listener = _listen(port)
    except OSError as error:
        raise SandboxError(f"port {port} of {HOST}: {error.strerror}; --port 0 takes a free one") from None
    origin = f"http://{HOST}:{listener.getsockname()[1]}"
    with listener, _running(app, listener):
        yield {partner.key: _served(partner, sandbox, origin) for partner, sandbox in sandboxes.items()}


def _listen(port: int) -> socket.socket:
    # with its protocol named, asyncio turns Nagle's delays off; those of `socket.create_server` keep them
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def _served(partner: BoundPartner, sandbox: Sandbox, origin: str) -> Served:
    base_url = f"{origin}/{partner.key}"
    settings = {**sandbox.settings, "base_url": base_url}
    return Served(partner=partner, base_url=base_url, settings=settings, sample=sandbox.sample)


def _built(partner: BoundPartner) -> Sandbox:
    try:
        return partner.sandbox()
    except Exception as error:
        raise SandboxError(f"the sandbox of {partner.key} fails: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _running(app: Starlette, listener: socket.socket) -> Iterator[None]:
    settings = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SandboxError("the sandboxes do not start")
            time.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        thread.join()
