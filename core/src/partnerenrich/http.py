"""
The HTTP client that the core lends to plugins: pooled, capped, silent, and kept out of the private network.

What stands between a plugin and the wire, from the outside in::

    httpx.AsyncClient    no redirects, no cookies, no proxies from the environment
    CappedTransport      no endless and no compressed responses
    AiohttpTransport     connections of aiohttp; see docs/decisions/0015-httpx-over-aiohttp.md
    GuardedResolver      no private addresses
"""

from __future__ import annotations

import email.utils
import functools
import importlib.metadata
import io
import ipaddress
import logging
import socket
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import httpx
import msgspec
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from partnerenrich.errors import AuthError, BadResponse, PartnerError, RateLimited, RequestRefused, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping

    from partnerenrich.models import Limits

KEEP_ALIVE = 30.0
"""Seconds for which an idle connection is kept."""

ADDRESSES_KEPT = 30
"""Seconds for which the addresses of a host are remembered."""

SENT_AT_ONCE = 65_536
"""Bytes; a longer body is sent piece by piece, so that the event loop stays free."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a partner that asks for more is taken to ask for this."""


def open_client(
    limits: Limits, *, allowed_hosts: Collection[str] = (), transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """
    Make the client of one integration.

    Args:
        limits: Its `timeout`, `concurrency` and `response_bytes` hold for every request.
        allowed_hosts: Hosts that may have a private address; see `hosts_of`.
        transport: Takes the place of the network, for tests. The caps still hold.

    Returns:
        A client to be closed by the caller. Beside httpx's own errors it raises
        `BadResponse` for a response that is too long or compressed, and
        `RequestRefused` for a host with a private address.
    """
    network = transport or AiohttpTransport(limits.concurrency, GuardedResolver(allowed_hosts))
    return _Client(
        CappedTransport(network, limits.response_bytes),
        timeout=limits.timeout,
        headers={"User-Agent": f"partnerenrich/{_version()}", "Accept-Encoding": "identity"},
        follow_redirects=False,
        trust_env=False,
    )


class _NoCookies(httpx.Cookies):
    """Stays empty: one visitor's cookie must not reach the next call."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Leave them where they are."""


class _Client(httpx.AsyncClient):
    """
    Keeps no cookies, parses a URL once, and hands a plain request straight to the network.

    On its usual way httpx looks for credentials, redirects, cookies and hooks, which is a third of its work, and ties
    the response and its stream together, which only the garbage collector mends.
    """

    def __init__(self, network: httpx.AsyncBaseTransport, **options: Any) -> None:
        super().__init__(transport=network, **options)
        self._network = network

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """See `httpx.AsyncClient.build_request`."""
        return super().build_request(method, _parsed(url) if isinstance(url, str) else url, **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See `httpx.AsyncClient.send`."""
        if not self._is_plain(request, options):
            return await super().send(request, **options)
        started = time.perf_counter()
        try:
            response = await self._network.handle_async_request(request)
            response.request = request
            try:
                await response.aread()
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            error.request = request
            raise
        response.elapsed = timedelta(seconds=time.perf_counter() - started)
        return response

    def _is_plain(self, request: httpx.Request, options: Mapping[str, Any]) -> bool:
        asks_for_more = any(value not in _NOTHING_SPECIAL for value in options.values())
        return not (asks_for_more or self.auth or request.url.userinfo or any(self.event_hooks.values()))

    @property
    def cookies(self) -> httpx.Cookies:
        return _NoCookies()

    @cookies.setter
    def cookies(self, _: object) -> None:
        raise AttributeError("this client keeps no cookies; put a Cookie header into the request")


_parsed = functools.lru_cache(maxsize=256)(httpx.URL)  # most calls go to the same few
_NOTHING_SPECIAL = (False, httpx.USE_CLIENT_DEFAULT)


def hosts_of(config: Any) -> frozenset[str]:
    """The hosts of all URLs that stand in the text fields of a settings instance, as the operator wrote them."""
    values = (getattr(config, field.name) for field in attrs.fields(type(config)))
    hosts = set()
    for value in values:
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            with suppress(httpx.InvalidURL):
                hosts.add(_host(httpx.URL(value)))
    return frozenset(hosts)


# What comes back


def raise_for_status(response: httpx.Response) -> None:
    """
    Turn a status that is no success into an error of the project.

    A plugin that reads one of them as an answer, such as 404 for "not known",
    does so before.

    Raises:
        AuthError: 401, 403.
        RateLimited: 429; with ``Retry-After``, in seconds or as a date, at most an hour.
        Unavailable: 408, 5xx.
        BadResponse: 3xx; redirects are not followed.
        RequestRefused: Any other 4xx.
    """
    if error := status_error(response):
        raise error


def status_error(response: httpx.Response) -> PartnerError | None:
    """The error that `raise_for_status` raises, or None for a success. Holds the status and no other word of it."""
    if response.is_success:
        return None
    status = response.status_code
    answered = f"the partner answered {status}"
    if status in {401, 403}:
        return AuthError(f"{answered}: it refuses the credential, or the credential lacks a permission")
    if status == 429:
        return RateLimited(answered, retry_after=_retry_after(response.headers.get("Retry-After", "")))
    if status == 408 or status >= 500:
        return Unavailable(answered)
    if status >= 400:
        return RequestRefused(answered)
    return BadResponse(f"{answered}: redirects are not followed")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """
    The body, which must be one JSON object (RFC 8259, UTF-8).

    Whole numbers keep all digits; others become floats.

    Raises:
        BadResponse: It is something else, or nested too deeply. Nothing of it is in the message.
    """
    with suppress(ValueError, RecursionError):
        return _json_object.decode(response.content)
    raise BadResponse("the partner's answer is no JSON object")


_json_object = msgspec.json.Decoder(dict[str, Any])


def _retry_after(text: str) -> float | None:
    """Seconds, from either form of RFC 9110 section 10.2.3; None for anything else."""
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


# Silence

# Each by name: a filter of a parent logger does not see the records of its children.
_LOGGERS = (
    "httpx",
    "httpcore",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "aiohttp.access",
    "aiohttp.client",
    "aiohttp.internal",
    "aiohttp.server",
    "aiohttp.web",
    "aiohttp.websocket",
)
_is_quiet: ContextVar[bool] = ContextVar("partnerenrich_is_quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """
    Keep the log records of the HTTP libraries, which hold URLs and headers, from every handler.

    Holds for the running task and those that it starts; others in the process log as before.
    """
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def _passes(_: logging.LogRecord) -> bool:
    return not _is_quiet.get()


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_passes)


# Layers around the network


class CappedTransport(httpx.AsyncBaseTransport):
    """Gives up on a response as soon as it is longer than a limit, and on one that is compressed."""

    def __init__(self, transport: httpx.AsyncBaseTransport, limit: int) -> None:
        self._transport = transport
        self._limit = limit

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `BadResponse`, here or while the body is read."""
        response = await self._transport.handle_async_request(request)
        if problem := self._problem(request, response.headers):
            await response.aclose()
            raise problem
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_CappedStream(response.stream, self._limit),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close what is inside."""
        await self._transport.aclose()

    def _problem(self, request: httpx.Request, headers: httpx.Headers) -> BadResponse | None:
        if headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
            return BadResponse("the partner's answer is compressed, which was not asked for")
        length = headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and float(length) > self._limit and request.method != "HEAD":
            return _too_long(self._limit)
        return None


class _CappedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._stream:
            received += len(chunk)
            if received > self._limit:
                raise _too_long(self._limit)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _too_long(limit: int) -> BadResponse:
    return BadResponse(f"the partner's answer is longer than {limit} bytes (limits.response_bytes)")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    Sends httpx's requests over connections of aiohttp. Each is sent once: what fails is not repeated in secret.

    Of httpx's timeouts, the smaller of ``connect`` and ``pool`` holds for the wait for a free connection and the way
    to a new one together; ``write`` does not hold.

    Args:
        connections: At most so many are open to one host, and requests to it under way. The one that was used last
            is used first.
        resolver: Says which hosts may be reached, and where.
        tls: What a server has to prove; by default, what httpx asks of it.
    """

    def __init__(self, connections: int, resolver: GuardedResolver, tls: ssl.SSLContext | None = None) -> None:
        self._connections = connections
        self._resolver = resolver
        self._tls = tls

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `RequestRefused` for a private address, else `httpx.TransportError`."""
        self._resolver.check(_host(request.url))
        response = await self._session.request(
            request.method,
            _url(request.url),
            headers=_headers(request.headers),
            data=_body(request),
            allow_redirects=False,
            timeout=_timeout(request),
        )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_ResponseBody(response))

    async def aclose(self) -> None:
        """Close all connections."""
        if "_session" in self.__dict__:
            await self._session.close()

    @functools.cached_property
    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=self._connections,
            resolver=self._resolver,
            ttl_dns_cache=ADDRESSES_KEPT,
            keepalive_timeout=KEEP_ALIVE,
            ssl=self._tls or _ssl_context(),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            middlewares=(_send_once,),
        )


def _url(url: httpx.URL) -> yarl.URL:
    """As it is written, but for user and password, of which httpx has made a header."""
    return yarl.URL(str(url.copy_with(userinfo=b"") if url.userinfo else url), encoded=True)


def _headers(headers: httpx.Headers) -> list[tuple[str, str]]:
    """As they are written, but for the one that aiohttp adds itself."""
    pairs = [(name.decode(), value.decode()) for name, value in headers.raw]
    return [(name, value) for name, value in pairs if name.lower() != "transfer-encoding"]


def _body(request: httpx.Request) -> bytes | io.BytesIO | httpx.AsyncByteStream | None:
    try:
        content = request.content
        return io.BytesIO(content) if len(content) > SENT_AT_ONCE else content or None
    except httpx.RequestNotRead:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        return request.stream


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    timeouts = request.extensions.get("timeout", {})
    connect = (seconds for name in ("connect", "pool") if (seconds := timeouts.get(name)) is not None)
    return aiohttp.ClientTimeout(connect=min(connect, default=None), sock_read=timeouts.get("read"))


class _ResponseBody(httpx.AsyncByteStream):
    """What a partner answers. Left before its end, it takes its connection along."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            with _errors_of_httpx():
                async for chunk in self._response.content.iter_any():
                    yield chunk
        except BaseException:
            self._response.close()  # whether or not the response gets closed
            raise

    async def aclose(self) -> None:
        self._response.release()


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Around every attempt, so that aiohttp itself meets no error after which it would make another."""
    with _errors_of_httpx():
        return await send(request)


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        kind, words = next(told for theirs, told in _ERRORS.items() if isinstance(error, theirs))
        raise kind(words) from error


_ERRORS: dict[type[Exception], tuple[type[httpx.TransportError], str]] = {
    aiohttp.ClientConnectorDNSError: (httpx.ConnectError, "the name does not resolve"),
    aiohttp.ClientConnectorCertificateError: (httpx.ConnectError, "the certificate does not prove the host"),
    aiohttp.ClientConnectorError: (httpx.ConnectError, "nobody answers there"),
    aiohttp.ConnectionTimeoutError: (httpx.ConnectTimeout, "no connection in time"),
    aiohttp.ServerTimeoutError: (httpx.ReadTimeout, "no answer in time"),
    aiohttp.ServerDisconnectedError: (httpx.RemoteProtocolError, "the connection was closed before the answer"),
    aiohttp.ClientPayloadError: (httpx.RemoteProtocolError, "the answer breaks off"),
    aiohttp.ClientResponseError: (httpx.RemoteProtocolError, "the answer is no HTTP"),
    aiohttp.InvalidURL: (httpx.UnsupportedProtocol, "the URL cannot be used"),
    Exception: (httpx.NetworkError, "the connection broke"),
}
"""The first that fits counts. What aiohttp says itself may hold a URL."""


class GuardedResolver(AbstractResolver):
    """
    Finds public addresses only, unless a host is allowed by name.

    aiohttp connects to the very addresses that were checked, so that a name server cannot answer twice in two ways.

    Args:
        allowed_hosts: Those that may have a private address.
        resolver: What asks the name servers; by default, the system does.
    """

    def __init__(self, allowed_hosts: Collection[str] = (), resolver: AbstractResolver | None = None) -> None:
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._resolver = resolver

    def check(self, host: str, addresses: Collection[str] = ()) -> None:
        """
        See to where a host is; by itself, when it is an address.

        Raises:
            RequestRefused: One of its addresses is private.
        """
        if host not in self._allowed_hosts and not all(map(is_public, addresses or _written_in(host))):
            raise RequestRefused(f"{host} has a private address; if that is meant, name the host in the settings")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `RequestRefused` for a private address, OSError for a name that does not resolve."""
        try:
            found = await (self._resolver or aiohttp.ThreadedResolver()).resolve(host, port, family)
        except UnicodeError:
            found = []
        if not found:
            raise OSError("the name does not resolve")
        self.check(host, [each["host"] for each in found])
        return found

    async def close(self) -> None:
        """See `aiohttp.abc.AbstractResolver.close`."""


@functools.lru_cache(maxsize=256)
def _written_in(host: str) -> tuple[str, ...]:
    """The address that a host is, in whatever form; none for a name."""
    with suppress(OSError):
        return (socket.inet_ntoa(socket.inet_aton(host)),)  # 127.1 and 2130706433 are addresses too
    with suppress(ValueError):
        return (str(ipaddress.ip_address(host)),)
    return ()


def is_public(address: str) -> bool:
    """
    Whether an IP address is one of the public internet.

    It is not when it is private, shared, loopback, link-local, multicast or
    reserved; nor when it is an IPv6 address that stands for such an IPv4 one.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None
        if ipv4 := ip.ipv4_mapped or ip.sixtofour or translated:
            ip = ipv4
        elif ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@functools.cache
def _version() -> str:
    return importlib.metadata.version("partnerenrich")
