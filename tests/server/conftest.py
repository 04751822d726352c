"""A partner in one file, its sandbox, a configuration that uses it, and the command line."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from partnerenrich_server.catalog import installed
from partnerenrich_server.sandboxes import serve

if TYPE_CHECKING:
    from pathlib import Path

PARTNER = '''
import attrs
from partnerenrich import Limits, LinkingKey, Partner, Resolution, Sandbox, Secret, hookimpl, pattern

PEOPLE = {
    "pat@example.test": ("p1", {"Persona": "Value Hunter", "Tier": 2}),
    "sam@example.test": ("p2", {"Persona": "Loyal", "Tier": 1}),
}


@attrs.frozen(kw_only=True)
class Settings:
    """
    Settings.

    Attributes:
        base_url: Where the partner is.
        token: The credential.
    """

    base_url: str = attrs.field(validator=pattern("https?://.+"))
    token: Secret


@hookimpl
def partner():
    keys = (LinkingKey("email", "mail"),)
    return Partner(title="Loyalty Club", config=Settings, linking_keys=keys, limits=Limits(timeout=30))


@hookimpl
async def resolve_id(config, http, link):
    headers = {"authorization": config.token.reveal()}
    answer = await http.post(f"{config.base_url}/find", json={link.key: link.value}, headers=headers)
    if answer.status_code in (404, 410):
        return Resolution.absent() if answer.status_code == 404 else Resolution.opted_out()
    answer.raise_for_status()
    return Resolution(answer.json()["id"], attributes=answer.json()["profile"])


@hookimpl
async def check(config, http):
    (await http.post(f"{config.base_url}/find", json={})).read()


@hookimpl
def sandbox():
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def find(request):
        mail = (await request.json()).get("mail")
        if mail == "gone@example.test":
            return JSONResponse({}, 410)
        if mail not in PEOPLE:
            return JSONResponse({}, 404)
        return JSONResponse({"id": PEOPLE[mail][0], "profile": PEOPLE[mail][1]})

    return Sandbox(
        app=Starlette(routes=[Route("/find", find, methods=["POST"])]),
        settings={"token": "sandbox-token"},
        sample={
            "known": [{"email": mail} for mail in PEOPLE],
            "unknown": [{"email": "nobody@example.test"}],
            "opted_out": [{"email": "gone@example.test"}],
        },
    )
'''


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Path:
    """A folder with the one-file partner ``loyalty``."""
    folder = tmp_path / "partners"
    folder.mkdir()
    (folder / "loyalty.py").write_text(PARTNER)
    return folder


@pytest.fixture
def sandbox(plugins_dir):
    """The sandbox of ``loyalty``, served."""
    with serve([installed(plugins_dir).partners["loyalty"]]) as sandboxes:
        yield sandboxes["loyalty"]


@pytest.fixture
def config(tmp_path, plugins_dir, sandbox) -> Path:
    """A configuration of one organisation with ``loyalty``."""
    path = tmp_path / "config.yaml"
    path.write_text(
        json.dumps(
            {
                "org": "acme",
                "plugins_dir": str(plugins_dir),
                "integrations": [{"provider": "loyalty", "settings": dict(sandbox.settings)}],
            }
        )
    )
    return path


@pytest.fixture
def several(config) -> Path:
    """The configuration with a second organisation, ``other``, which has no partner."""
    raw = json.loads(config.read_text())
    raw["orgs"] = {raw.pop("org"): {"integrations": raw.pop("integrations")}, "other": {}}
    config.write_text(json.dumps(raw))
    return config


@pytest.fixture
def partnerenrich():
    """Run the command as a user does: its arguments and stdin to the finished process, all in bytes."""

    def run(*arguments, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command_line(*arguments), input=stdin, capture_output=True, timeout=50, check=False)

    return run


@pytest.fixture
def redirected():
    """Run the command as a shell does that redirects its streams, such as by ``>/dev/full``."""

    def run(redirections: str, *arguments, **options) -> subprocess.CompletedProcess[bytes]:
        shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command_line(*arguments)]
        return subprocess.run(shell, capture_output=True, timeout=50, check=False, **options)

    return run


@pytest.fixture
def started():
    """Start the command with pipes; kill it at the end of the test if it still runs."""
    processes = []

    def start(*arguments, **options) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command_line(*arguments), **pipes | options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def command_line(*arguments) -> list[str]:
    return [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *map(str, arguments)]
