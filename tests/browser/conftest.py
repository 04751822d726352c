"""A browser, a shop whose pages a test writes, and a hub that answers what a test says."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import attrs
import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import partnerenrich_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LIBRARY = Path(partnerenrich_server.__file__).parent / "datafly_js"
PATIENT = 'defer data-timeout="8000"'
COOKIE = "_dfdid=0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"


@attrs.frozen
class Answer:
    """What the hub says to one call: `body` is JSON, or text as it stands; it waits until `hold` is set."""

    body: Any = attrs.field(factory=dict)
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    hold: asyncio.Event | None = None


@attrs.frozen
class Call:
    """One request that the hub got."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str

    @property
    def events(self) -> list[Any]:
        """Events of a call to `/v1/events` or `/v1/batch`, in order."""
        value = json.loads(self.body)
        return value["batch"] if self.path == "/v1/batch" else [value]


@attrs.define
class Hub:
    """The contract of the identity hub, with answers that a test scripts; the last one of a path stays."""

    url: str
    shop: str
    key: str = attrs.Factory(lambda: f"pk-{uuid4()}")
    calls: list[Call] = attrs.Factory(list)
    abandoned: list[str] = attrs.Factory(list)  # paths of calls that the browser gave up before their answer
    _answers: dict[str, list[Answer]] = attrs.Factory(dict)
    _held: list[asyncio.Event] = attrs.Factory(list)
    _called: asyncio.Event = attrs.Factory(asyncio.Event)

    says = Answer

    def will(self, path: str, *answers: Answer) -> None:
        self._answers[path] = list(answers)

    def hold(self) -> asyncio.Event:
        """An event that a test sets, and the end of the test at the latest."""
        event = asyncio.Event()
        self._held.append(event)
        return event

    def to(self, *paths: str) -> list[Call]:
        return [call for call in self.calls if call.path in paths]

    @property
    def events(self) -> list[Any]:
        return [event for call in self.to("/v1/events", "/v1/batch") for event in call.events]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for calls that the browser makes on its own."""
        async with asyncio.timeout(20):
            while not condition():
                self._called.clear()
                await self._called.wait()

    async def quiet(self) -> None:
        """Give a request that must not come the time to come."""
        await asyncio.sleep(0.15)

    def release(self) -> None:
        for event in self._held:
            event.set()

    async def answer(self, request: Request) -> Response:
        if request.url.path == "/datafly.js":
            library = (LIBRARY / "datafly.js").read_bytes()
            return Response(library, headers={"Access-Control-Allow-Origin": "*"}, media_type="text/javascript")
        if request.query_params.get("key") != self.key:  # the last word of a page of another test
            return Response(status_code=410)
        body = (await request.body()).decode()
        path = request.url.path
        self.calls.append(Call(request.method, path, dict(request.query_params), dict(request.headers), body))
        self._called.set()
        script = self._answers.get(path, [Answer()])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if answer.hold:
            await answer.hold.wait()
            if await request.is_disconnected():
                self.abandoned.append(path)
        return Response(
            answer.body if isinstance(answer.body, str) else json.dumps(answer.body),
            answer.status,
            {
                "Access-Control-Allow-Origin": self.shop,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Expose-Headers": "Retry-After",
                "Set-Cookie": f"{COOKIE}; HttpOnly; Path=/; SameSite=Lax",
                **answer.headers,
            },
            "application/json",
        )


@attrs.define
class Site:
    """Two origins of one server: the shop's pages and the hub."""

    shop: str
    hub: Hub
    html: str = ""
    headers: dict[str, str] = attrs.Factory(dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if f"{request.url.scheme}://{request.url.netloc}" == self.hub.url:
            response = await self.hub.answer(request)
        elif request.url.path == "/favicon.ico":
            response = Response(status_code=204)
        else:
            response = HTMLResponse(self.html, headers=self.headers)
        with suppress(OSError):  # the page is gone
            await response(scope, receive, send)


@attrs.define
class Server:
    """A running server; `site` is exchanged for each test."""

    shop: str
    hub: str
    site: Site | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.site is not None
        await self.site(scope, receive, send)


@pytest_asyncio.fixture(name="server", scope="session", loop_scope="session")
async def _server() -> AsyncIterator[Server]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    server = Server(*(f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets))
    config = uvicorn.Config(server, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1)
    runner = uvicorn.Server(config)
    task = asyncio.create_task(runner.serve(sockets))
    yield server
    runner.should_exit = True
    await task


@pytest_asyncio.fixture(name="browser", scope="session", loop_scope="session")
async def _browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    arguments += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(name="site", loop_scope="session")
async def _site(server) -> AsyncIterator[Site]:
    server.site = Site(server.shop, Hub(server.hub, server.shop))
    yield server.site
    server.site.hub.release()


@pytest.fixture(name="hub")
def _hub(site) -> Hub:
    return site.hub


@pytest.fixture(name="expected_errors")
def _expected_errors() -> list[str]:
    """How lines begin that the browser itself may log; a test may add to them."""
    return ["Failed to load resource"]


@pytest_asyncio.fixture(name="context", loop_scope="session")
async def _context(browser, site, expected_errors) -> AsyncIterator[BrowserContext]:
    """A visitor's browser. No page may throw or log an error."""
    context = await browser.new_context()
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda line: line.type == "error" and errors.append(line.text))
    yield context
    site.hub.release()
    with suppress(TimeoutError):  # now and then Chromium never says that it has closed a page
        await asyncio.wait_for(context.close(), 10)

    assert [text for text in errors if not text.startswith(tuple(expected_errors))] == []


@pytest_asyncio.fixture(name="clock", loop_scope="session")
async def _clock(context):
    """The time of all pages. It stands still until a test moves it: ``await clock.run_for(milliseconds)``."""
    await context.clock.install(time=0)
    await context.clock.pause_at(1000)
    return context.clock


@pytest.fixture(name="visit")
def _visit(context, site) -> Callable[..., Awaitable[Page]]:
    """
    Open a page of the shop, in a new tab or the given one; `tag` holds attributes of the script tag.

    By default the page is patient, for a machine may stand still for a while.
    """

    async def visit(body: str = "", *, tag: str = PATIENT, page: Page | None = None, html: str | None = None) -> Page:
        script = f'<script src="{site.hub.url}/datafly.js" data-key="{site.hub.key}" {tag}></script>'
        site.html = html or f"<!doctype html><title>Shop</title>{script}<main id=hero></main>{body}"
        page = page or await context.new_page()
        await page.goto(f"{site.shop}/basket?step=2")
        return page

    return visit
