"""The package folder is complete, small, and typed as it behaves."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import partnerenrich_server

ROOT = Path(__file__).parents[2]
LIBRARY = Path(partnerenrich_server.__file__).parent / "datafly_js"
TYPESCRIPT = "typescript@5.9"
USAGE = """
/// <reference path="./datafly.d.ts" />
import type { Datafly, Profile } from "./datafly.js";

export async function gate(): Promise<void> {
  await datafly.onProfileReady();
  const persona = datafly.profile.amperity?.Persona;
  if (persona === 'Value Hunter') document.querySelector<HTMLElement>('#hero')!.dataset.variant = 'promo';
  datafly.identify('user-123', { email: 'pat@example.test' });
  const profile: Profile = await datafly.refreshProfile();
  datafly.onProfileReady((ready: Profile) => void ready.amperity);
  datafly.identify(1009, undefined, { signature: 'c0ffee' });
  datafly.track('Order', { value: 42 });
  datafly.page();
  datafly.page('Basket', { items: 2 });
  datafly.consent({ marketing: true });
  datafly.consent({ canonical: { marketing: true }, categories: { C0004: true } });
  datafly.push(['track', 'Order', { value: 42 }]);
  datafly.reset();
  const same: Datafly = window._df;
  void [profile, same];
}

export function mistakes(): void {
  // @ts-expect-error: an identify names somebody
  datafly.identify();
  // @ts-expect-error: a track has a name
  datafly.track({ value: 42 });
  // @ts-expect-error: the profile is the hub's
  datafly.profile = {};
  // @ts-expect-error: a provider may be unknown
  datafly.profile.amperity.Persona;
  // @ts-expect-error: no such method
  datafly.push(['trak', 'Order']);
}
"""


def test_what_a_browser_loads_is_at_most_three_kilobytes():
    """Of 1,000 bytes each, as compressed by a server that takes its time."""
    assert len(gzip.compress((LIBRARY / "datafly.js").read_bytes(), 9, mtime=0)) <= 3000


def test_the_package_names_files_that_are_there():
    """Nothing is built: what is in the folder is what is served."""
    package = json.loads((LIBRARY / "package.json").read_text("utf-8"))

    assert sorted(path.name for path in LIBRARY.iterdir()) == sorted([*package["files"], "package.json"])
    assert (package["main"], package["types"]) == ("datafly.js", "datafly.d.ts")
    assert package["exports"] == {".": {"types": "./datafly.d.ts", "default": "./datafly.js"}}
    assert "dependencies" not in package


def test_the_package_has_the_version_of_the_server():
    """The hub and the library that it serves are released together."""
    server = tomllib.loads((ROOT / "server" / "pyproject.toml").read_text("utf-8"))

    assert json.loads((LIBRARY / "package.json").read_text("utf-8"))["version"] == server["project"]["version"]


def test_the_library_needs_no_more_than_a_strict_policy_allows():
    """Neither code from text, nor markup, nor cookies, nor code that is loaded later."""
    source = (LIBRARY / "datafly.js").read_text("utf-8")
    forbidden = re.compile(r"eval|Function\(|innerHTML|document\.write|import\(|\.cookie|\.style|createElement")

    assert forbidden.findall(source) == []


@pytest.mark.asyncio(loop_scope="session")
async def test_the_types_name_what_the_library_has(visit):
    """No member is forgotten, none is invented."""
    types = (LIBRARY / "datafly.d.ts").read_text("utf-8")
    interface = re.search(r"interface Datafly \{\n(.*?)^\}", types, re.DOTALL | re.MULTILINE)
    assert interface
    declared = set(re.findall(r"^  (?:readonly )?(\w+)[(:<]", interface[1], re.MULTILINE))

    page = await visit()

    assert set(await page.evaluate("Object.keys(datafly)")) == declared


def test_the_types_accept_right_use_and_refuse_wrong_use(tmp_path):
    """By the TypeScript compiler, at its strictest."""
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("needs npx: apt-get install npm")
    for name in ("datafly.d.ts", "datafly.js"):
        shutil.copy(LIBRARY / name, tmp_path)
    (tmp_path / "usage.ts").write_text(USAGE, "utf-8")

    done = subprocess.run(
        [npx, "--yes", "-p", TYPESCRIPT, "tsc", "--noEmit", "--strict", "--lib", "es2020,dom", "usage.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    if "npm error" in done.stderr:
        pytest.skip(f"needs {TYPESCRIPT} from the npm registry")

    assert (done.stdout, done.returncode) == ("", 0)
