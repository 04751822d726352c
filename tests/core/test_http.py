"""The client that plugins get: its caps, its guard, its silence, and how it reads an answer."""

import asyncio
import contextlib
import datetime as dt
import logging
import math
import pkgutil
import socket
import ssl
import subprocess
import sys
import time
import traceback
import weakref
from email.utils import format_datetime
from importlib import import_module

import aiohttp
import attrs
import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from partnerenrich import (
    AuthError,
    BadResponse,
    Limits,
    Partner,
    PartnerError,
    RateLimited,
    RequestRefused,
    Secret,
    Unavailable,
)
from partnerenrich import http as http_module
from partnerenrich.configuration import TTL, Integration
from partnerenrich.governor import Governor
from partnerenrich.http import (
    AiohttpTransport,
    GuardedResolver,
    hosts_of,
    is_public,
    json_object,
    open_client,
    quiet,
    raise_for_status,
)
from partnerenrich.plugins import BoundPartner

pytestmark = pytest.mark.real_time

PUBLIC = "192.88.98.7"
PUBLIC_TOO = "2a00:1450:4009::5"
TOKEN = "canary-token-83b1"
EMAIL = "pat.canary@example.test"


@pytest.fixture(name="serve")
async def _serve():
    """Starts servers on loopback that read one request and answer with fixed chunks, then hang up."""
    servers, handlers = [], []

    async def serve(*chunks, delay=0.0, tls=None, body=False):
        requests = []

        async def answer(reader, writer):
            handlers.append(asyncio.current_task())
            try:
                request = await reader.readuntil(b"\r\n\r\n")
                requests.append(request + await reader.read(1000) if body else request)
                for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(delay)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        return server.sockets[0].getsockname()[1], requests

    yield serve
    for handler in handlers:
        handler.cancel()
    for server in servers:
        server.close()
        await server.wait_closed()


def client_of(handler, **limits):
    """A client with a function in the place of the network."""
    return open_client(Limits(**limits), transport=httpx.MockTransport(handler))


def governor(**limits):
    """A governor with real clock and the given limits."""
    partner = BoundPartner("example", "here", Partner(title="Example", config=Settings), {})
    return Governor(
        Integration(
            org="acme",
            name="main",
            partner=partner,
            config=None,
            linking_keys=(),
            allowlist=frozenset(),
            attributes=None,
            consent=(),
            ttl=TTL(),
            limits=Limits(**limits),
            version="1",
        )
    )


@attrs.frozen
class Settings:
    base_url: str = ""
    token_url: str = ""
    note: str = ""
    retries: int = 0
    key: Secret = Secret("x")


class TestClient:
    async def test_says_who_it_is_and_asks_for_plain_bytes(self):
        """The core's own headers are on every request, and no other compression is asked for."""
        seen = []

        async with client_of(lambda request: seen.append(request) or httpx.Response(200)) as http:
            await http.get("https://partner.example.test/")

        assert seen[0].headers["user-agent"].startswith("partnerenrich/")
        assert seen[0].headers["accept-encoding"] == "identity"

    async def test_environment_names_no_proxy(self, monkeypatch, serve):
        """A proxy in the environment is not used."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        port, _ = await serve(b"HTTP/1.1 204 No Content\r\n\r\n")

        async with open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            response = await http.get(f"http://127.0.0.1:{port}/")

        assert response.status_code == 204

    async def test_forgets_cookies(self):
        """What a partner sets in one answer is not sent with the next visitor's request."""
        seen = []

        def handler(request):
            seen.append(request)
            return httpx.Response(200, headers={"Set-Cookie": "visitor=1; Path=/"})

        async with client_of(handler) as http:
            await http.get("https://partner.example.test/")
            await http.get("https://partner.example.test/")

        assert "cookie" not in seen[1].headers

    async def test_follows_no_redirect(self, serve):
        """A redirect is an answer like any other, and no answer that can be used."""
        port, requests = await serve(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

        async with open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            response = await http.get(f"http://127.0.0.1:{port}/")

        assert len(requests) == 1
        with pytest.raises(BadResponse, match="302: redirects are not followed"):
            raise_for_status(response)

    async def test_timeouts_are_those_of_the_limits(self):
        async with open_client(Limits(timeout=0.7)) as http:
            assert httpx.Timeout(0.7) == http.timeout

    def test_core_does_not_import_it(self):
        """Who only wants the nouns does not pay for an HTTP client."""
        script = "import partnerenrich, sys; sys.exit('partnerenrich.http' in sys.modules)"

        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


class TestCaps:
    async def test_body_at_the_limit_passes(self):
        async with client_of(lambda _: httpx.Response(200, content=b"x" * 10), response_bytes=10) as http:
            assert (await http.get("https://partner.example.test/")).content == b"x" * 10

    async def test_body_over_the_limit_is_refused(self):
        async with client_of(lambda _: httpx.Response(200, content=b"x" * 11), response_bytes=10) as http:
            with pytest.raises(BadResponse, match=r"longer than 10 bytes \(limits.response_bytes\)"):
                await http.get("https://partner.example.test/")

    async def test_declared_length_is_refused_before_the_body(self, serve):
        """The body, which never comes, is not waited for."""
        port, _ = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n", delay=60)

        async with open_client(Limits(timeout=60), allowed_hosts=["127.0.0.1"]) as http:
            started = time.monotonic()
            with pytest.raises(BadResponse):
                await http.get(f"http://127.0.0.1:{port}/")

        assert time.monotonic() - started < 20

    async def test_endless_body_is_left_early(self, serve):
        """A body of unknown length is read up to the limit and no further."""
        chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        port, _ = await serve(head, *[chunk] * 1000, delay=0.05)

        async with open_client(Limits(response_bytes=2000, timeout=60), allowed_hosts=["127.0.0.1"]) as http:
            started = time.monotonic()
            with pytest.raises(BadResponse):
                await http.get(f"http://127.0.0.1:{port}/")

        assert time.monotonic() - started < 20

    async def test_length_of_an_answer_without_body_is_no_body(self):
        """HEAD tells how long a file is; that is not too long an answer."""

        def handler(_):
            return httpx.Response(200, headers={"Content-Length": "999"})

        async with client_of(handler, response_bytes=10) as http:
            assert (await http.head("https://partner.example.test/")).status_code == 200

    async def test_cap_holds_for_a_stream(self):
        """A plugin that reads in pieces meets the same limit."""

        async def endless():
            while True:
                yield b"x" * 100

        async with (
            client_of(lambda _: httpx.Response(200, content=endless()), response_bytes=1000) as http,
            http.stream("GET", "https://partner.example.test/") as response,
        ):
            received = response.aiter_bytes()
            for _ in range(10):
                assert len(await anext(received)) == 100
            with pytest.raises(BadResponse):
                await anext(received)

    @pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "GZIP"])
    async def test_compressed_answer_is_refused(self, encoding):
        """A small body could unfold to a large one."""

        async def body():
            yield b"\x1f\x8b"

        def handler(_):
            return httpx.Response(200, headers={"Content-Encoding": encoding}, content=body())

        async with client_of(handler) as http:
            with pytest.raises(BadResponse, match="compressed"):
                await http.get("https://partner.example.test/")

    async def test_identity_encoding_passes(self):
        def handler(_):
            return httpx.Response(200, headers={"Content-Encoding": "identity"}, content=b"{}")

        async with client_of(handler) as http:
            assert json_object(await http.get("https://partner.example.test/")) == {}


class Names(aiohttp.abc.AbstractResolver):
    """Name servers that answer as they are told, and what they were asked."""

    def __init__(self, answers, delay=0.0):
        self.answers = answers
        self.delay = delay
        self.asked = []

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        self.asked.append((host, port))
        await asyncio.sleep(self.delay)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return [
            {"hostname": host, "host": each, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for each in answer
        ]

    async def close(self):
        pass


def named(names, *, timeout=5.0, tls=None):
    """A client whose names resolve as given."""
    transport = AiohttpTransport(4, GuardedResolver(resolver=names), tls)
    return httpx.AsyncClient(transport=transport, timeout=timeout)


@pytest.fixture(name="loopback_is_public")
def _loopback_is_public(monkeypatch):
    monkeypatch.setattr(http_module, "is_public", lambda address: address.startswith("127."))


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture(name="silent")
def _silent():
    """An address whose port takes no connection and refuses none: nobody accepts, and its queue is full."""

    with contextlib.ExitStack() as sockets:

        def silent(address, port):
            listener = sockets.enter_context(socket.socket())
            listener.bind((address, port))
            listener.listen(0)
            for _ in range(3):
                client = sockets.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((address, port))

        yield silent


class TestGuard:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
            "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%1", "fec0::1",
            "fd00::1", "ff02::1", "ff0e::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::",
            "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2001:0:1::1",
        ],
    )  # fmt: skip
    def test_address_of_no_public_host(self, address):
        assert not is_public(address)

    @pytest.mark.parametrize(
        "address", ["8.8.8.8", PUBLIC, PUBLIC_TOO, "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::8.8.8.8"]
    )
    def test_address_of_a_public_host(self, address):
        assert is_public(address)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
    async def test_loopback_is_refused_however_it_is_written(self, host, serve):
        """The check is on the address, after the system resolved it; nothing is connected."""
        port, requests = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        async with open_client(Limits()) as http:
            with pytest.raises(RequestRefused, match="name the host in the settings"):
                await http.get(f"http://{host}:{port}/")

        assert requests == []

    async def test_allowed_host_is_reached(self, serve):
        port, requests = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        async with open_client(Limits(), allowed_hosts=["LOCALHOST"]) as http:
            response = await http.get(f"http://localhost:{port}/")

        assert json_object(response) == {}
        assert f"Host: localhost:{port}".encode() in requests[0]

    async def test_one_private_address_among_public_ones_is_refused(self, serve):
        port, requests = await serve(OK)

        async with named(Names({"partner.example.test": [PUBLIC, "127.0.0.1"]})) as http:
            with pytest.raises(RequestRefused):
                await http.get(f"http://partner.example.test:{port}/")

        assert requests == []

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_connects_to_the_checked_address_under_the_old_name(self, serve):
        """Only the address is new: method, path, query, headers and body are as they were."""
        port, requests = await serve(OK, body=True)

        async with named(Names({"partner.example.test": ["127.0.0.2"]})) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://partner.example.test:{port}/")
        async with named(Names({"partner.example.test": ["127.0.0.1"]})) as http:
            await http.post(f"http://partner.example.test:{port}/a%2Fb/c%40?x=%2B1&y=a+b%7E", content=b'{"q":1}')

        (request,) = requests
        head, body = request.split(b"\r\n\r\n")
        assert head.startswith(b"POST /a%2Fb/c%40?x=%2B1&y=a+b%7E HTTP/1.1\r\n")
        assert f"\r\nHost: partner.example.test:{port}\r\n".encode() in head
        assert body == b'{"q":1}'

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_name_is_resolved_once_for_many_calls(self, serve):
        """Also when they begin at the same moment."""
        port, _ = await serve(OK)
        names = Names({"partner.example.test": ["127.0.0.1"]})

        async with named(names) as http:
            await asyncio.gather(*(http.get(f"http://partner.example.test:{port}/") for _ in range(20)))

        assert names.asked == [("partner.example.test", port)]

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_changed_answer_is_checked_again(self, monkeypatch, serve):
        """A name server that changes its mind later is refused then."""
        monkeypatch.setattr(http_module, "ADDRESSES_KEPT", 0)
        names = Names({"partner.example.test": ["127.0.0.1"]})
        port, _ = await serve(OK)

        async with named(names) as http:
            await http.get(f"http://partner.example.test:{port}/")
            names.answers["partner.example.test"] = ["10.0.0.1"]
            with pytest.raises(RequestRefused):
                await http.get(f"http://partner.example.test:{port}/")

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_next_address_is_tried(self, serve):
        """Where the first refuses the connection."""
        port, requests = await serve(OK, body=True)

        async with named(Names({"partner.example.test": ["127.0.0.2", "127.0.0.1"]})) as http:
            for _ in range(3):
                await http.post(f"http://partner.example.test:{port}/", content=b'{"q":1}')

        assert [request.partition(b"\r\n\r\n")[2] for request in requests] == [b'{"q":1}'] * 3

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_one_of_several_addresses_does_not_take_all_the_time(self, serve, silent):
        port, _ = await serve(OK)
        silent("127.0.0.2", port)
        started = time.monotonic()

        async with named(Names({"partner.example.test": ["127.0.0.2", "127.0.0.1"]}), timeout=55) as http:
            await http.get(f"http://partner.example.test:{port}/")

        assert time.monotonic() - started < 20

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_all_addresses_fail(self, serve):
        port, requests = await serve(OK)

        async with named(Names({"partner.example.test": ["127.0.0.2", "127.0.0.3"]})) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://partner.example.test:{port}/")

        assert requests == []

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_failure_after_connecting_is_not_repeated(self, serve):
        """The partner may have acted on the request."""
        port, requests = await serve()

        async with named(Names({"partner.example.test": ["127.0.0.1", "127.0.0.1"]})) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(f"http://partner.example.test:{port}/")

        assert len(requests) == 1

    @pytest.mark.parametrize("answer", [OSError("unknown"), UnicodeError("label too long"), []])
    async def test_name_that_does_not_resolve(self, answer):
        async with named(Names({"partner.example.test": answer})) as http:
            with pytest.raises(httpx.ConnectError, match="does not resolve"):
                await http.get("https://partner.example.test/")

    async def test_slow_name_server(self):
        async with named(Names({}, delay=30), timeout=0.01) as http:
            with pytest.raises(httpx.ConnectTimeout):
                await http.get("https://partner.example.test/")

    @pytest.mark.usefixtures("loopback_is_public")
    async def test_hosts_of_one_address_share_no_connection(self, server):
        """TLS proved the name of one host, not that of its neighbour."""
        port = httpx.URL(server.url).port

        async with named(Names({"a.example.test": ["127.0.0.1"], "b.example.test": ["127.0.0.1"]})) as http:
            for name in "aba":
                await http.get(f"http://{name}.example.test:{port}/ok")

        assert server.opened == 2

    @pytest.mark.usefixtures("loopback_is_public")
    @pytest.mark.parametrize(("name", "trusted"), [("partner.example.test", True), ("stranger.example.test", False)])
    async def test_certificate_is_checked_against_the_name(self, name, trusted, serve, tmp_path):
        """The server holds a certificate for partner.example.test; its address alone proves nothing."""
        of_server, of_client = certified("partner.example.test", tmp_path)
        port, requests = await serve(OK, tls=of_server)

        async with named(Names({name: ["127.0.0.1"]}), tls=of_client) as http:
            if trusted:
                await http.get(f"https://{name}:{port}/")
            else:
                with pytest.raises(httpx.ConnectError, match="certificate"):
                    await http.get(f"https://{name}:{port}/")

        assert trusted == bool(requests)


def certified(name, folder):
    """TLS contexts of a server that can prove this name, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(pem)
    return of_server, ssl.create_default_context(cafile=str(pem))


ANSWERS = {
    "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    "/nonsense": b"this is not HTTP\r\n\r\n",
    "/mute": b"",
    "/stuck": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx",
    "/large": b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n",
    "/gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
}


class KeepAliveServer:
    """Answers many requests on one connection, each as its path says; one to /hold waits for `release`."""

    def __init__(self):
        self.opened = self.connected = self.held = self.most_held = 0
        self.release = asyncio.Event()
        self.changed = asyncio.Condition()
        self.handlers = set()

    async def answer(self, reader, writer):
        self.handlers.add(asyncio.current_task())
        self.opened += 1
        await self.change(connected=1)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                if path == "/hold":
                    await self.change(held=1)
                    await self.release.wait()
                    await self.change(held=-1)
                writer.write(ANSWERS.get(path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
                if path in {"/cut", "/nonsense"}:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            await self.change(connected=-1)

    async def change(self, *, connected=0, held=0):
        async with self.changed:
            self.connected += connected
            self.held += held
            self.most_held = max(self.most_held, self.held)
            self.changed.notify_all()

    async def until(self, condition):
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)


@pytest.fixture(name="server")
async def _server():
    keeper = KeepAliveServer()
    server = await asyncio.start_server(keeper.answer, "127.0.0.1", 0)
    keeper.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield keeper
    server.close()
    for handler in keeper.handlers:
        handler.cancel()
    await asyncio.gather(*keeper.handlers)


def pooled(concurrency):
    return open_client(Limits(concurrency=concurrency, timeout=5), allowed_hosts=["127.0.0.1"])


async def hold(http, server, requests, at_once):
    """Send requests and see that so many are under way at the same time before any is answered."""
    tasks = [asyncio.create_task(http.get(f"{server.url}/hold")) for _ in range(requests)]
    try:
        await server.until(lambda: server.held == at_once)
        server.release.set()
        responses = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        server.release.clear()
    assert [response.status_code for response in responses] == [200] * requests


async def never_connected(http, url):
    """The server waits for a request and answers no TLS handshake."""
    with pytest.raises(httpx.ConnectTimeout):
        await http.get(url.replace("http:", "https:"), timeout=0.03)


async def cancelled_before_the_answer(http, url):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await http.get(f"{url}/mute")


async def cancelled_within_the_body(http, url):
    has_begun = asyncio.Event()

    async def read():
        async with http.stream("GET", f"{url}/stuck") as response:
            async for _ in response.aiter_bytes():
                has_begun.set()

    reader = asyncio.create_task(read())
    await has_begun.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def too_slow(http, url):
    with pytest.raises(httpx.ReadTimeout):
        await http.get(f"{url}/mute", timeout=httpx.Timeout(5, read=0.03))


async def no_http(http, url):
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(f"{url}/nonsense")


async def cut_off(http, url):
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(f"{url}/cut")


async def cut_off_and_never_closed(http, url):
    response = await http.send(http.build_request("GET", f"{url}/cut"), stream=True)
    with pytest.raises(httpx.RemoteProtocolError):
        async for _ in response.aiter_bytes():
            pass


async def refused_for_its_length(http, url):
    with pytest.raises(BadResponse):
        await http.get(f"{url}/large")


async def refused_as_compressed(http, url):
    with pytest.raises(BadResponse):
        await http.get(f"{url}/gzip")


async def closed_unread(http, url):
    async with http.stream("GET", f"{url}/stuck"):
        pass


async def closed_half_read(http, url):
    async with http.stream("GET", f"{url}/stuck") as response:
        assert await anext(response.aiter_bytes()) == b"x"


async def closed_twice(http, url):
    async with http.stream("GET", f"{url}/ok") as response:
        await response.aread()
        await response.stream.aclose()
        await response.stream.aclose()


class TestRequests:
    """What the partner sees of a request."""

    async def test_user_and_password_of_a_url_become_a_header(self, serve):
        port, requests = await serve(OK)

        async with open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            await http.get(f"http://someone:secret@127.0.0.1:{port}/")

        assert b"\r\nAuthorization: Basic c29tZW9uZTpzZWNyZXQ=\r\n" in requests[0]
        assert b"\r\nHost: 127.0.0.1:" in requests[0]

    async def test_nothing_is_said_that_the_plugin_did_not_say(self, serve):
        """Such as the type of a body, which is part of what some partners have signed."""
        port, requests = await serve(OK)

        async with open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            await http.put(f"http://127.0.0.1:{port}/", content=b"x", headers={"X-Case": "Kept"})

        names = {line.partition(b":")[0] for line in requests[0].split(b"\r\n")[1:-2]}
        assert names == {
            b"Host", b"Accept", b"Accept-Encoding", b"Connection", b"User-Agent", b"X-Case", b"Content-Length",
        }  # fmt: skip

    async def test_body_of_unknown_length_goes_in_chunks(self, serve):
        async def content():
            yield b"one "
            yield b"two"

        port, requests = await serve(OK, body=True)

        async with open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            await http.post(f"http://127.0.0.1:{port}/", content=content())

        head, _, body = requests[0].partition(b"\r\n\r\n")
        assert head.lower().count(b"transfer-encoding: chunked") == 1
        assert body.startswith(b"4\r\none ")

    async def test_body_of_known_length_goes_as_it_is(self, serve):
        async def content():
            yield b"one two"

        port, requests = await serve(OK, body=True)

        async with open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            await http.put(f"http://127.0.0.1:{port}/", content=content(), headers={"Content-Length": "7"})

        head, _, body = requests[0].partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body == b"one two"

    async def test_idempotent_request_on_a_connection_that_ended_is_sent_once(self):
        """Whether it is sent again is for the governor to say, who counts it."""
        paths = []

        async def answer(reader, writer):
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                for response in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""):
                    paths.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
                    writer.write(response)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, open_client(Limits(), allowed_hosts=["127.0.0.1"]) as http:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            await http.get(f"{url}/first")
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(f"{url}/second")

        assert paths == [b"/first", b"/second"]


class TestWhatPluginsMayAskOfHttpx:
    """A plain request takes a short way; what else httpx offers still works."""

    @pytest.mark.parametrize(
        "credentials", [{"auth": ("user", "word")}, {"url": "https://user:word@partner.example.test/"}]
    )
    async def test_credentials(self, credentials):
        async with client_of(lambda request: httpx.Response(200, text=request.headers["Authorization"])) as http:
            response = await http.get(**{"url": "https://partner.example.test/", **credentials})

            assert response.text == "Basic dXNlcjp3b3Jk"

    async def test_credentials_of_the_client(self):
        async with client_of(lambda request: httpx.Response(200, text=request.headers["Authorization"])) as http:
            http.auth = ("user", "word")

            assert (await http.get("https://partner.example.test/")).text == "Basic dXNlcjp3b3Jk"

    async def test_hooks(self):
        seen = []

        async def see(response):
            seen.append(response.status_code)

        async with client_of(lambda _: httpx.Response(200)) as http:
            http.event_hooks = {"response": [see]}
            await http.get("https://partner.example.test/")

        assert seen == [200]

    async def test_redirects_where_they_are_wanted(self):
        def handler(request):
            return (
                httpx.Response(302, headers={"Location": "/there"}) if request.url.path == "/" else httpx.Response(200)
            )

        async with client_of(handler) as http:
            assert (await http.get("https://partner.example.test/")).status_code == 302
            assert (await http.get("https://partner.example.test/", follow_redirects=True)).status_code == 200

    async def test_request_and_time_are_known_of_a_response(self, server):
        async with pooled(1) as http:
            response = await http.get(f"{server.url}/ok")

            assert (response.request.url, response.elapsed > dt.timedelta(0)) == (f"{server.url}/ok", True)
            assert response.raise_for_status() is response

    async def test_request_is_known_of_an_error(self, server):
        async with pooled(1) as http:
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await http.get(f"{server.url}/nonsense")

            assert caught.value.request.url == f"{server.url}/nonsense"

    async def test_timeout_of_one_request(self, server):
        async with pooled(1) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.get(f"{server.url}/mute", timeout=httpx.Timeout(5, read=0.01))


class TestConnections:
    @pytest.mark.parametrize("concurrency", [1, 4, 6, 64])
    async def test_as_many_requests_at_once_as_allowed_and_no_more(self, concurrency, server):
        """The others wait and are answered too, over the same connections."""
        async with pooled(concurrency) as http:
            await hold(http, server, requests=2 * concurrency + 1, at_once=concurrency)

        assert server.most_held == concurrency
        assert server.opened == concurrency

    @pytest.mark.parametrize(
        "go_wrong",
        [
            never_connected, cancelled_before_the_answer, cancelled_within_the_body, too_slow, no_http, cut_off,
            cut_off_and_never_closed, refused_for_its_length, refused_as_compressed, closed_unread, closed_half_read,
            closed_twice,
        ],
    )  # fmt: skip
    async def test_every_connection_can_be_used_again(self, go_wrong, server):
        """However a request ends, none of the connections is lost and none is counted twice."""
        async with pooled(6) as http:
            for _ in range(2):
                await asyncio.gather(*(go_wrong(http, server.url) for _ in range(6)))
            await hold(http, server, requests=9, at_once=6)

        assert server.most_held == 6

    async def test_a_response_that_was_read_needs_no_garbage_collector(self, server):
        async with pooled(1) as http:
            response = weakref.ref(await http.get(f"{server.url}/ok"))

            assert response() is None

    async def test_a_response_that_was_read_can_be_read_again(self, server):
        async with pooled(1) as http:
            response = await http.get(f"{server.url}/ok")

            assert (await response.aread(), response.text) == (response.content, response.content.decode())
            await response.aclose()

    async def test_waiting_for_a_connection_has_an_end(self, server):
        """Who waited in vain, or was cancelled meanwhile, holds nothing."""
        async with pooled(1) as http:
            busy = asyncio.create_task(http.get(f"{server.url}/hold"))
            await server.until(lambda: server.held == 1)
            with pytest.raises(httpx.ConnectTimeout):
                await http.get(f"{server.url}/ok", timeout=httpx.Timeout(5, pool=0.01))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await http.get(f"{server.url}/ok")
            server.release.set()

            assert (await busy).status_code == 200
            assert (await http.get(f"{server.url}/ok")).status_code == 200

        assert server.opened == 1

    @pytest.mark.parametrize("at_once", [1, 3, 6])
    async def test_low_load_stays_on_warm_connections(self, at_once, server):
        async with pooled(64) as http:
            for _ in range(5):
                await hold(http, server, requests=at_once, at_once=at_once)

        assert server.opened == at_once

    async def test_connections_of_a_burst_serve_the_next_one(self, server):
        async with pooled(64) as http:
            await hold(http, server, requests=64, at_once=64)
            await http.get(f"{server.url}/ok")
            await hold(http, server, requests=64, at_once=64)

        assert server.opened == 64

    async def test_closing_the_client_closes_all_connections(self, server):
        async with pooled(64) as http:
            await hold(http, server, requests=64, at_once=64)
            assert server.connected == 64

        await server.until(lambda: server.connected == 0)


class TestHostsOf:
    def test_hosts_of_url_fields(self):
        """Text that is a URL names a host; other text, numbers and secrets do not."""
        settings = Settings(
            base_url="http://127.0.0.1:8080/x",
            token_url="https://Login.Example.test",
            note="see http://other",
            retries=1,
        )

        assert {"127.0.0.1", "login.example.test"} == hosts_of(settings)

    def test_international_and_ipv6_hosts_are_in_the_form_of_the_wire(self):
        settings = Settings(base_url="http://[::1]:80/", token_url="https://bücher.example.test/")

        assert {"::1", "xn--bcher-kva.example.test"} == hosts_of(settings)

    def test_broken_url_names_no_host(self):
        assert frozenset() == hosts_of(Settings(base_url="http://partner.example.test:eighty/"))


class TestStatus:
    @pytest.mark.parametrize("status", [200, 201, 204, 299])
    def test_success(self, status):
        raise_for_status(httpx.Response(status))

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (301, BadResponse), (304, BadResponse), (307, BadResponse),
            (401, AuthError), (403, AuthError),
            (408, Unavailable), (500, Unavailable), (502, Unavailable), (503, Unavailable), (599, Unavailable),
            (429, RateLimited),
            (400, RequestRefused), (404, RequestRefused), (409, RequestRefused), (422, RequestRefused),
        ],
    )  # fmt: skip
    def test_each_status_has_its_error(self, status, error):
        with pytest.raises(error, match=str(status)) as caught:
            raise_for_status(httpx.Response(status))

        assert error is type(caught.value)

    @pytest.mark.parametrize("status", [302, 400, 401, 429, 500])
    def test_message_holds_the_status_only(self, status):
        """No body, no URL, no header."""
        request = httpx.Request("GET", f"https://partner.example.test/{EMAIL}", headers={"X-Key": TOKEN})
        response = httpx.Response(
            status, request=request, text=f"{EMAIL} {TOKEN}", headers={"Location": EMAIL, "Retry-After": TOKEN}
        )

        with pytest.raises(PartnerError) as caught:
            raise_for_status(response)

        assert_clean("".join(traceback.format_exception(caught.value)), repr(caught.value), repr(vars(caught.value)))

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("0", 0), ("7", 7), ("86400", 3600), ("9" * 5000, 3600),
            ("-5", None), ("1.5", None), ("soon", None), ("", None), ("٣", None), ("inf", None), ("nan", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
            ("Wed, 21 Oct 9999 07:28:00 GMT", 3600), ("Wed, 99 Oct 2015 07:28:00 GMT", None),
            ("Wed, 21 Oct 2015 07:28:00 +999999", None),
        ],
    )  # fmt: skip
    def test_retry_after(self, text, seconds):
        """Seconds or a date; nonsense is no time, and no time is longer than an hour."""
        response = httpx.Response(429, headers={"Retry-After": text.encode()})

        with pytest.raises(RateLimited) as caught:
            raise_for_status(response)

        assert seconds == caught.value.retry_after

    def test_retry_after_as_a_date(self):
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)

        with pytest.raises(RateLimited) as caught:
            raise_for_status(httpx.Response(429, headers={"Retry-After": format_datetime(moment, usegmt=True)}))

        assert math.isclose(29.5, caught.value.retry_after, abs_tol=1.5)

    def test_no_retry_after(self):
        with pytest.raises(RateLimited) as caught:
            raise_for_status(httpx.Response(429))

        assert caught.value.retry_after is None


class TestJson:
    def test_object(self):
        content = b'{"a": 123456789012345678901234567890, "b": 1.5, "c": [null, true], "d": "\xc3\xa9"}'

        assert json_object(httpx.Response(200, content=content)) == {
            "a": 123456789012345678901234567890,
            "b": 1.5,
            "c": [None, True],
            "d": "é",
        }

    @pytest.mark.parametrize(
        "content",
        [
            b"", b"[]", b'"text"', b"null", b"{", b"{}{}", b"<html>", b'{"a": NaN}', b'{"a": Infinity}',
            b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"{'a': 1}", b'{"a": 01}',
            b'{"a": ' + b"[" * 100_000, f'{{"{EMAIL}": "{TOKEN}"'.encode(),
        ],
        ids=range(16),
    )  # fmt: skip
    def test_anything_else_is_refused_without_a_word_of_it(self, content):
        with pytest.raises(BadResponse, match="no JSON object") as caught:
            json_object(httpx.Response(200, content=content))

        assert_clean(str(caught.value), repr(caught.value.__context__))


def assert_clean(*texts):
    for text in texts:
        assert TOKEN not in text
        assert EMAIL not in text
        assert EMAIL.replace("@", "%40") not in text


class TestQuiet:
    async def request(self, port):
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.get(f"http://127.0.0.1:{port}/{EMAIL}", headers={"Authorization": TOKEN})

    async def test_nothing_is_logged_inside(self, serve, caplog):
        caplog.set_level(logging.DEBUG)
        port, _ = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        with quiet():
            await self.request(port)

        assert [record for record in caplog.records if record.name.startswith(("http", "aiohttp"))] == []

    async def test_others_log_as_before(self, serve, caplog):
        """Outside, and at the same time in another task, httpx tells what it does."""
        caplog.set_level(logging.DEBUG)
        port, _ = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        other = asyncio.create_task(self.request(port))

        with quiet():
            await other

        names = {record.name for record in caplog.records}
        assert {"httpx", "httpcore.connection", "httpcore.http11"} <= names

    def test_every_logger_of_the_http_libraries_is_known(self):
        """A release that adds a logger fails here, before it tells a URL."""
        libraries = (httpx, httpcore, aiohttp)
        for package in libraries:
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                with contextlib.suppress(ImportError):  # what needs an extra that is not installed
                    import_module(module.name)
        names = {package.__name__ for package in libraries}
        loggers = {name for name in logging.root.manager.loggerDict if name.partition(".")[0] in names}

        assert loggers == {*http_module._LOGGERS, "aiohttp"}


class TestWithGovernor:
    """Client and governor together, against a server that misbehaves."""

    async def fail(self, port, caplog, body=EMAIL, **limits):
        """One call that carries canaries. Returns its error, having looked for them everywhere."""
        caplog.set_level(logging.DEBUG)
        caller = governor(attempts=1, **limits)
        async with open_client(Limits(**limits), allowed_hosts=["127.0.0.1"]) as http:

            async def attempt(call):
                response = await http.post(
                    f"http://127.0.0.1:{port}/{EMAIL}?email={EMAIL}",
                    json={"email": body},
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                raise_for_status(response)
                return json_object(response)

            with pytest.raises(PartnerError) as caught:
                await caller.call(attempt, wait_until=time.monotonic() + 5)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        texts = [record.getMessage() + str(vars(record)) for record in caplog.records]
        assert_clean(str(error), repr(error), *traceback.format_exception(error), repr(caller.statistics), *texts)
        return error

    async def test_connection_drop(self, serve, caplog):
        port, _ = await serve()

        assert str(await self.fail(port, caplog)) == "the connection to the partner failed (RemoteProtocolError)"

    async def test_reset_while_the_request_is_sent(self, caplog):
        """The partner hangs up on a body that it does not read."""

        async def reset(reader, writer):
            writer.transport.abort()

        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            error = await self.fail(port, caplog, body=EMAIL * 1_000_000)

        assert Unavailable is type(error)

    async def test_nobody_listens(self, caplog):
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()

        error = await self.fail(port, caplog)

        assert Unavailable is type(error)
        assert "(ConnectError)" in str(error)

    async def test_truncated_body(self, serve, caplog):
        port, _ = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

        assert Unavailable is type(await self.fail(port, caplog))

    async def test_silence(self, serve, caplog):
        port, _ = await serve(b"", delay=30)

        assert str(await self.fail(port, caplog, timeout=0.1)) == "the partner did not answer within 0.1 s"

    async def test_slow_drip(self, serve, caplog):
        """Each byte comes in time; the whole does not."""
        port, _ = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000, delay=0.05)
        started = time.monotonic()

        error = await self.fail(port, caplog, timeout=0.3)

        assert Unavailable is type(error)
        assert 0.25 < time.monotonic() - started < 20

    async def test_nonsense_for_http(self, serve, caplog):
        port, _ = await serve(f"{TOKEN} {EMAIL}\r\n\r\n".encode())

        assert Unavailable is type(await self.fail(port, caplog))

    @pytest.mark.parametrize(
        ("status", "error"), [("302 Found", BadResponse), ("401 Unauthorized", AuthError), ("503 No", Unavailable)]
    )
    async def test_status_with_a_telling_body(self, status, error, serve, caplog):
        body = f"{TOKEN} {EMAIL}"
        head = f"HTTP/1.1 {status}\r\nLocation: /{EMAIL}\r\nContent-Length: {len(body)}\r\n\r\n"
        port, _ = await serve((head + body).encode())

        assert error is type(await self.fail(port, caplog))

    async def test_telling_body_that_is_no_json(self, serve, caplog):
        body = f'{{"{EMAIL}": "{TOKEN}'
        port, _ = await serve(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        assert BadResponse is type(await self.fail(port, caplog))

    async def test_oversized_body(self, serve, caplog):
        port, _ = await serve(b"HTTP/1.1 200 OK\r\n\r\n", EMAIL.encode() * 1000)

        assert BadResponse is type(await self.fail(port, caplog, response_bytes=100))

    async def test_private_address(self, serve, caplog):
        """The refusal passes the governor as it is, and does not open the breaker."""
        port, _ = await serve()
        caller = governor(failures=1)

        async with open_client(Limits()) as http:
            for _ in range(3):
                with pytest.raises(RequestRefused, match="name the host in the settings"):
                    await caller.call(lambda call: http.get(f"http://localhost:{port}/"), wait_until=time.monotonic())
