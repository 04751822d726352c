"""
The HTTP client that the core lends to plugins: pooled, capped, silent, and kept out of the private network.

What stands between a plugin and the wire, from the outside in::

    httpx.AsyncClient     no redirects, no cookies, no proxies from the environment
    CappedTransport       no endless and no compressed responses
    GuardedTransport      no private addresses
    PoolsTransport        connections, in small pools
    httpx.AsyncHTTPTransport
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import importlib.metadata
import ipaddress
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import msgspec

from partnerenrich.errors import AuthError, BadResponse, PartnerError, RateLimited, RequestRefused, Unavailable

if TYPE_CHECKING:
    import ssl

    from partnerenrich.models import Limits

KEEP_ALIVE = 30.0
"""Seconds for which an idle connection is kept."""

POOL_SIZE = 4
"""Connections in one pool of httpcore; see docs/decisions/0009-small-connection-pools.md."""

ADDRESSES_KEPT = 30.0
"""Seconds for which the addresses of a host are remembered."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a partner that asks for more is taken to ask for this."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to IP addresses, best first. Raises OSError or UnicodeError."""


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
    network = transport or GuardedTransport(functools.partial(PoolsTransport, limits.concurrency), allowed_hosts)
    return httpx.AsyncClient(
        transport=CappedTransport(network, limits.response_bytes),
        timeout=limits.timeout,
        headers={"User-Agent": f"partnerenrich/{_version()}", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # one visitor's cookie must not reach the next call
        follow_redirects=False,
        trust_env=False,
    )


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
)
_is_quiet: ContextVar[bool] = ContextVar("partnerenrich_is_quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """
    Keep the log records of httpx and httpcore, which hold URLs and headers, from every handler.

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


@attrs.define
class _Host:
    """One pool for each host: connections of a shared one would be matched by address, whatever name TLS had proven."""

    pool: httpx.AsyncBaseTransport
    addresses: tuple[str, ...] = ()
    resolved_until: float = 0.0
    resolving: asyncio.Lock = attrs.Factory(asyncio.Lock)


class GuardedTransport(httpx.AsyncBaseTransport):
    """
    Connects to public addresses only, unless a host is allowed by name.

    A name is resolved once and the connection goes to the very address that was
    checked, so that a name server cannot answer twice in two ways. The ``Host``
    header and the TLS server name stay those of the name.
    """

    def __init__(
        self,
        new_pool: Callable[[], httpx.AsyncBaseTransport],
        allowed_hosts: Collection[str] = (),
        resolve: Resolve | None = None,
    ) -> None:
        self._new_pool = new_pool
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._resolve = resolve or _resolve
        self._hosts: dict[str, _Host] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `RequestRefused` for a private address, `httpx.ConnectError` for a name that does not resolve."""
        name = _host(request.url)
        if name not in self._hosts:
            self._hosts[name] = _Host(self._new_pool())
        host = self._hosts[name]
        if name in self._allowed_hosts:
            return await host.pool.handle_async_request(request)
        failure: httpx.TransportError | None = None
        addresses = await self._addresses(host, request)
        for address in addresses:
            try:
                return await host.pool.handle_async_request(_pinned(request, address, len(addresses)))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
                host.addresses = tuple(sorted(host.addresses, key=address.__eq__))  # to the end, for the next call
        assert failure is not None
        raise failure

    async def aclose(self) -> None:
        """Close the connections to all hosts."""
        for host in self._hosts.values():
            await host.pool.aclose()

    async def _addresses(self, host: _Host, request: httpx.Request) -> tuple[str, ...]:
        async with host.resolving:
            if time.monotonic() >= host.resolved_until:
                addresses = await self._look_up(request)
                if not all(map(is_public, addresses)):
                    raise RequestRefused(
                        f"{_host(request.url)} has a private address; if that is meant, name the host in the settings"
                    )
                host.addresses = addresses
                host.resolved_until = time.monotonic() + ADDRESSES_KEPT
        return host.addresses

    async def _look_up(self, request: httpx.Request) -> tuple[str, ...]:
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(_timeouts(request).get("connect")):
                addresses = await self._resolve(_host(request.url), port)
        except TimeoutError:
            raise httpx.ConnectTimeout("the name was not resolved in time", request=request) from None
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise httpx.ConnectError("the name does not resolve", request=request)
        return tuple(addresses)


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


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _pinned(request: httpx.Request, address: str, addresses: int) -> httpx.Request:
    """The same request to one address. Where there are several, one may take half of the time to connect."""
    timeouts = dict(_timeouts(request))
    if addresses > 1 and timeouts.get("connect"):
        timeouts["connect"] /= 2
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "timeout": timeouts, "sni_hostname": _host(request.url)},
    )


def _timeouts(request: httpx.Request) -> Mapping[str, Any]:
    timeouts: Mapping[str, Any] = request.extensions.get("timeout", {})
    return timeouts


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


class PoolsTransport(httpx.AsyncBaseTransport):
    """
    Spreads requests over pools of `POOL_SIZE` connections, as httpcore is slow with large ones.

    There is a numbered slot for each connection. A request holds one until its
    response is closed, so its pool never lets it wait. The lowest free number goes
    first: few requests at once share few connections, which stay open.

    Args:
        connections: At most so many are open, and requests under way.
    """

    def __init__(self, connections: int) -> None:
        self._pools = [
            _new_pool(min(POOL_SIZE, connections - first_slot)) for first_slot in range(0, connections, POOL_SIZE)
        ]
        self._free_slots: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
        for slot in range(connections):
            self._free_slots.put_nowait(slot)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `httpx.PoolTimeout` if no connection comes free in time."""
        slot = await self._take_slot(request)
        give_back = functools.partial(self._free_slots.put_nowait, slot)
        try:
            response = await self._pools[slot // POOL_SIZE].handle_async_request(request)
        except BaseException:
            give_back()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _HoldingStream(response.stream, give_back)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()

    async def _take_slot(self, request: httpx.Request) -> int:
        try:
            async with asyncio.timeout(_timeouts(request).get("pool")):
                return await self._free_slots.get()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection came free in time", request=request) from None


class _HoldingStream(httpx.AsyncByteStream):
    """The body of a response that holds a slot, which is given back once: when the body is closed or breaks off."""

    def __init__(self, stream: httpx.AsyncByteStream, give_back: Callable[[], None]) -> None:
        self._stream = stream
        self._give_back = give_back
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except BaseException:  # httpcore lets go of the connection here too, whether or not the response gets closed
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._stream.aclose()
        finally:
            self._give_back()


def _new_pool(size: int) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=KEEP_ALIVE)
    return httpx.AsyncHTTPTransport(verify=_ssl_context(), limits=limits, http2=False, trust_env=False)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@functools.cache
def _version() -> str:
    return importlib.metadata.version("partnerenrich")
