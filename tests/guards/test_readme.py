"""What the README shows can be pasted and works."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest
import yaml

from partnerenrich import Call, Link, Resolution, Visitor, configuration, plugins
from partnerenrich.settings import structure

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def block(opening: str) -> str:
    """The one fenced block that follows this text."""
    [text] = re.findall(rf"^{re.escape(opening)}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return text


@pytest.fixture
def loyalty(tmp_path) -> plugins.BoundPartner:
    """The README's plugin, loaded from a folder."""
    (tmp_path / "loyalty.py").write_text(block("<!-- plugin: loyalty -->\n```python"), "utf-8")
    return plugins.load(["loyalty"], plugins_dir=tmp_path).partner("loyalty")


def test_the_configuration_is_accepted():
    """No field is misspelt or missing."""
    loaded = configuration.load_mapping(yaml.safe_load(block("```yaml")), {"AMPERITY_KEY": "of no account"})

    assert loaded.providers() == ["amperity"]


def test_the_program_is_complete():
    """Every module that it imports is there, and nothing is done before `main` runs."""
    program = block("## In Python\n\n```python").removesuffix("asyncio.run(main())\n")

    exec(compile(program, "README.md", "exec"), {})


def test_the_plugin_is_short():
    """A partner is one file of 40 lines or fewer."""
    assert len(block("<!-- plugin: loyalty -->\n```python").splitlines()) <= 40


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx.Response(200, json={"id": "m-1", "tier": "gold"}), Resolution("m-1", attributes={"Tier": "gold"})),
        (httpx.Response(404), Resolution.absent()),
    ],
)
async def test_the_plugin_resolves(loyalty, response, expected):
    """It loads without packaging, and turns answers into resolutions."""
    config = structure(loyalty.facts.config, {"base_url": "https://loyalty.example.test", "api_key": "of no account"})
    link = Link("email", "email_sha256", "0" * 64, "sha256")
    call = Call("acme", "loyalty", "loyalty", time.monotonic() + 1)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as http:
        resolution = await loyalty.resolve_id(config, http, link, Visitor((link,)), call)

    assert resolution == expected
