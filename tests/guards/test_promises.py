"""What the front matter promises is what is run and released."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = sorted(
    [ROOT / "core", ROOT / "server", *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
)


def readme_command(name: str) -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    [block] = re.findall(rf"^<!-- command: {name} -->\n```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return block.strip()


@pytest.fixture
def run_ci(tmp_path):
    """Run `.ci/run` in a checkout of its own, whose README gives another test command."""

    def run(command: str) -> subprocess.CompletedProcess[str]:
        shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
        text = (ROOT / "README.md").read_text("utf-8").replace(readme_command("test"), command)
        (tmp_path / "README.md").write_text(text, "utf-8")
        installed = tmp_path / "bin" / "redis-server"
        installed.parent.mkdir()
        installed.write_text("#!/bin/sh\n", "utf-8")
        installed.chmod(0o755)
        path = f"{installed.parent}:{os.environ['PATH']}"
        return subprocess.run(
            [tmp_path / ".ci" / "run"], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )

    return run


def test_ci_runs_the_test_command_of_the_readme(run_ci, tmp_path):
    """What is run is read from the README, at the root of the checkout."""
    result = run_ci("echo found by CI > proof.txt")

    assert (result.returncode, (tmp_path / "proof.txt").read_text("utf-8")) == (0, "found by CI\n")


def test_ci_fails_when_the_command_fails(run_ci):
    """A failure anywhere in the line is CI's own exit code."""
    assert run_ci("(exit 3) && echo not reached").returncode == 3


def test_ci_fails_when_the_readme_has_no_command(run_ci):
    """An empty block is not a success."""
    result = run_ci("")

    assert (result.returncode, "README.md" in result.stderr) == (1, True)


@pytest.mark.parametrize("name", ["demo", "test"])
def test_a_command_of_the_readme_is_one_line_that_starts_from_nothing(name):
    """It makes its own environment, and every folder that it names is here."""
    command = readme_command(name)

    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert "\n" not in command
    assert all((ROOT / folder / "pyproject.toml").is_file() for folder in re.findall(r" \./(\S+)", command))


def test_the_demo_command_runs_the_demo():
    """The first line of the README ends in something to see."""
    assert readme_command("demo").endswith(" && .venv/bin/partnerenrich demo")


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_the_changelog_has_the_current_version(distribution):
    """No version is released without a word about it."""
    project = tomllib.loads((distribution / "pyproject.toml").read_text("utf-8"))["project"]

    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert project["version"] in headings


@pytest.mark.parametrize("plugin", [path.name for path in DISTRIBUTIONS if path.parent.name == "plugins"])
def test_every_plugin_is_tested_together_and_alone(plugin):
    """tox installs it beside all others, and has an environment for it alone."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", "utf-8")
    [alone] = (section for section in tox.sections() if section.startswith("testenv:plugin-"))
    listed = re.findall(r"plugin-\{([^}]*)\}", f"{tox['tox']['env_list']} {alone}")

    assert f"-e ./plugins/{plugin}" in tox["workspace"]["deps"].splitlines()
    assert f"{plugin}: PLUGIN = {plugin}" in tox[alone]["set_env"].splitlines()
    assert [plugin in names.split(",") for names in listed] == [True, True]
