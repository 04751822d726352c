"""The shop of the demo as it is served: a real hub, a real store, a partner's sandbox; and a browser before it."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page
from rich.console import Console

from partnerenrich_server.catalog import installed
from partnerenrich_server.demo_shop import serving
from partnerenrich_server.sandboxes import serve
from partnerenrich_server.showcase import show

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Route

CREDENTIAL = "credential-canary-0123456789"
HIDDEN = "hidden-attribute-canary"
PARTNER_ID = "partner-id-canary"

PARTNER = f'''
import attrs
from partnerenrich import LinkingKey, Partner, Resolution, Sandbox, Secret, hookimpl
from partnerenrich.http import json_object, raise_for_status

PEOPLE = {{"pat": "Value Hunter", "sam": "Loyal", "alex": "Gift Giver", "kim": "Loyal"}}


@attrs.frozen(kw_only=True)
class Settings:
    base_url: str
    token: Secret


@hookimpl
def partner():
    return Partner(title="Rambling Club", config=Settings, linking_keys=(LinkingKey("email", "mail"),))


@hookimpl
async def resolve_id(config, http, link):
    headers = {{"authorization": config.token.reveal()}}
    answer = await http.post(f"{{config.base_url}}/find", json={{"mail": link.value}}, headers=headers)
    if answer.status_code in (404, 410):
        return Resolution.absent() if answer.status_code == 404 else Resolution.opted_out()
    raise_for_status(answer)
    member = json_object(answer)
    return Resolution(member["id"], attributes=member["profile"])


@hookimpl
def sandbox():
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def find(request):
        name = (await request.json())["mail"].partition("@")[0]
        if request.headers["authorization"] != "{CREDENTIAL}":
            return JSONResponse({{}}, 401)
        if name == "leaver":
            return JSONResponse({{}}, 410)
        if name not in PEOPLE:
            return JSONResponse({{}}, 404)
        profile = {{"Club": "Ramblers", "Persona": PEOPLE[name], "Tier": 2, "Margin": ["{HIDDEN}"]}}
        return JSONResponse({{"id": f"{PARTNER_ID}-{{name}}", "profile": profile}})

    return Sandbox(
        app=Starlette(routes=[Route("/find", find, methods=["POST"])]),
        settings={{"token": "{CREDENTIAL}"}},
        sample={{
            "known": [{{"email": f"{{name}}@example.test"}} for name in PEOPLE],
            "unknown": [{{"email": "nobody@example.test"}}],
            "opted_out": [{{"email": "leaver@example.test"}}],
        }},
    )
'''

WATCH = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
document.addEventListener('DOMContentLoaded', () => {
    const hero = document.querySelector('#hero');
    const {opacity} = getComputedStyle(document.querySelector('#headline'));
    window.atFirst = [hero.dataset.state, opacity, JSON.stringify(hero.getBoundingClientRect())];
});
window.shown = [];
new MutationObserver(() => {
    const hero = document.querySelector('#hero[data-state=ready]');
    if (hero) shown.push(hero.querySelector('#eyebrow').textContent);
}).observe(document, {subtree: true, childList: true, attributes: true});
"""


@attrs.define
class Shop:
    """A page of the shop in the browser of one visitor."""

    url: str
    page: Page
    console: list[str] = attrs.Factory(list)
    elsewhere: list[str] = attrs.Factory(list)

    async def open(self) -> None:
        await self.page.goto(self.url)
        await self.ready()

    async def ready(self) -> None:
        await self.page.wait_for_selector("#hero[data-state=ready]")

    async def log_in(self, name: str) -> None:
        await self.page.click("#account")
        await self.page.click(f"#people button:has-text('{name}')")
        await self.page.wait_for_selector(f"#account:text-is('{name}')")
        await self.ready()

    async def hero(self) -> str:
        """The line above the headline, which says for whom the page is."""
        return await self.page.text_content("#eyebrow")

    async def shows(self, line: str) -> None:
        """Wait for it, however busy the machine is."""
        await self.page.wait_for_selector(f"#hero[data-state=ready] #eyebrow:text-is('{line}')")

    async def profile(self) -> dict[str, Any]:
        return await self.page.evaluate("datafly.profile")

    async def outcomes(self) -> dict[str, float]:
        """Of all events, as the hub's metrics tell."""
        text = await self.page.evaluate("fetch('/metrics').then((answer) => answer.text())")
        lines = [line for line in text.splitlines() if line.startswith("partnerenrich_outcomes_total")]
        return {line.partition('outcome="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}

    async def identify(self, email: str, *, user_id: str = "made-up", signature: str | None = None) -> dict[str, Any]:
        """What a script of the page gets for a claim."""
        options = [user_id, {"email": email}, {"signature": signature}]
        return await self.page.evaluate("(all) => (datafly.identify(...all), datafly.refreshProfile())", options)

    async def session(self, place: int) -> dict[str, Any]:
        """What the shop's backend says of somebody who has logged in."""
        return await self.page.evaluate(
            """(person) => fetch('/shop/session', {
                method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({person})
            }).then((answer) => answer.json())""",
            place,
        )

    async def hold(self, path: str) -> asyncio.Event:
        """Keep requests to a path on the way until the event is set."""
        released = asyncio.Event()

        async def keep(route: Route) -> None:
            await released.wait()
            await route.continue_()

        await self.page.route(f"**{path}*", keep)
        return released

    async def stored(self) -> str:
        return json.dumps(await self.page.evaluate("[{...localStorage}, {...sessionStorage}]"))


@pytest.fixture(name="sandboxes", scope="session")
def _sandboxes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partners")
    (folder / "club.py").write_text(PARTNER)
    with serve([installed(folder).partners["club"]]) as served:
        yield list(served.values()), folder


@pytest_asyncio.fixture(name="enriched", scope="session", loop_scope="session")
async def _enriched(sandboxes):
    """The sample events of the terminal's part."""
    return await show(Console(file=io.StringIO()), *sandboxes)


@pytest.fixture(name="configurations")
def _configurations(monkeypatch):
    """What the hub of the shop was configured with."""
    seen = []

    def remember(raw, **options):
        seen.append(raw)
        return load(raw, **options)

    load = serving.load_mapping
    monkeypatch.setattr(serving, "load_mapping", remember)
    return seen


@pytest.fixture(name="limits")
def _limits():
    return {"visitor_per_minute": 1000}


@pytest_asyncio.fixture(name="url", loop_scope="session")
async def _url(sandboxes, enriched, limits, configurations) -> AsyncIterator[str]:
    served, folder = sandboxes
    async with serving.open_shop(served, enriched, plugins_dir=folder, limits=limits) as url:
        yield url
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.delete(f"{served[0].base_url}/_faults")).raise_for_status()


@pytest.fixture(name="size")
def _size():
    return {"width": 1440, "height": 900}


@asynccontextmanager
async def visiting(browser, url, **options):
    """A visitor with cookies of their own. The page may throw nothing, log nothing and ask nobody else."""
    context = await browser.new_context(**options)
    await context.add_init_script(WATCH)
    shop = Shop(url, await context.new_page())
    errors: list[str] = []

    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda line: shop.console.append(f"{line.type}: {line.text}"))
    context.on("request", lambda request: request.url.startswith(url) or shop.elsewhere.append(request.url))
    yield shop
    await shop.page.unroute_all(behavior="ignoreErrors")
    await context.close()

    assert (errors, shop.elsewhere) == ([], [])


@pytest.fixture(name="visitor")
def _visitor(browser, url, size):
    """``async with visitor() as shop``: a browser of somebody's own."""

    def visit(**options):
        return visiting(browser, url, **{"viewport": size, "reduced_motion": "reduce", **options})

    return visit


@pytest_asyncio.fixture(name="shop", loop_scope="session")
async def _shop(visitor) -> AsyncIterator[Shop]:
    async with visitor() as shop:
        yield shop
