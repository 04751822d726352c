"""The example of a contextual call in the guide works as it stands."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from partnerenrich.testing.loopback import served

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


async def members(request: Request):
    known = (await request.json()).get("email") == "pat@example.test"
    return JSONResponse({"id": 7} if known else {}, 200 if known else 404)


async def placements(request: Request):
    asked = await request.json()
    return JSONResponse({"Banner": f"{asked['placement']} of {asked['member']}", "Margin": 0.4})


@pytest.fixture(name="raw")
def _raw(raw):
    app = Starlette(
        routes=[Route("/members", members, methods=["POST"]), Route("/placements", placements, methods=["POST"])]
    )
    with served(app) as port:
        settings = {"base_url": f"http://127.0.0.1:{port}", "api_key": "a-key-for-tests"}
        integration = {"provider": "placements", "settings": settings, "browser_attribute_allowlist": "Banner"}
        yield raw | {"plugins_dir": str(EXAMPLES), "integrations": [integration]}


async def test_a_page_gets_what_belongs_into_its_placement(hub):
    browser = hub.browser()
    await browser.identify("pat@example.test")

    answer = await browser.call(
        "POST", "/v1/personalize", body={"provider": "placements", "context": {"placement": "hero"}}
    )

    assert answer.json() == {"placements": {"Banner": "hero of 7"}}
