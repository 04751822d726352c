"""Who may know of whom: imports run one way, and a partner is named by its own plugin only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE, SERVER = ROOT / "core", ROOT / "server"
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))

PARTNERS = {"acxiom", "amperity", "euid", "fabrick", "infosum", "neustar", "uid2", *(path.name for path in PLUGINS)}
# The recipe bears the name of the specification that defines it.
NAMED_ON_PURPOSE = {("recipes.py", "uid2")}


def packages(distribution: Path) -> set[str]:
    return {path.parent.name for path in distribution.glob("src/*/__init__.py")}


EVERY_PACKAGE = set().union(*map(packages, (CORE, SERVER, *PLUGINS)))


def nodes(distribution: Path) -> list[tuple[str, ast.AST]]:
    """Every syntax node of a distribution's sources, with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node)
        for path in distribution.glob("src/**/*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path)))
    ]


def packages_named(node: ast.AST) -> set[str]:
    """Top-level packages that a node imports, or whose modules it names in a string for a late import."""
    match node:
        case ast.Import(names=names):
            modules = [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            modules = [module]
        case ast.Constant(value=str(text)):
            modules = [text]
        case _:
            modules = []
    return {re.split(r"[.:]", module)[0] for module in modules}


@pytest.mark.parametrize("distribution", [CORE, SERVER, *PLUGINS], ids=lambda path: path.name)
def test_imports_run_one_way(distribution):
    """All may import the core. Nothing imports the server or a plugin, but itself."""
    forbidden = EVERY_PACKAGE - packages(distribution) - packages(CORE)

    found = [place for place, node in nodes(distribution) if packages_named(node) & forbidden]

    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import rival",
        "import rival.api as api",
        "from rival.api import call",
        "def late():\n    from rival import call",
        'importlib.import_module("rival.api")',
        'load("rival.api:call")',
    ],
)
def test_every_way_to_import_is_seen(source):
    """An import that is late or by name does not slip through."""
    assert any("rival" in packages_named(node) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("distribution", [CORE, SERVER], ids=lambda path: path.name)
def test_no_partner_is_named_outside_its_plugin(distribution):
    """Neither code nor comments nor data of the core and the server know a partner."""
    word = re.compile(rf"(?<![a-z0-9])({'|'.join(PARTNERS)})(?![a-z0-9])", re.IGNORECASE)
    texts = [
        path
        for package in packages(distribution)
        for path in (distribution / "src" / package).rglob("*")
        if path.suffix in {".py", ".yaml", ".json", ".ndjson", ".lua", ".html", ".js", ".md", ".txt"}
    ]

    found = {
        (str(path.relative_to(ROOT)), name.lower())
        for path in texts
        for name in word.findall(path.read_text("utf-8"))
        if (path.name, name.lower()) not in NAMED_ON_PURPOSE
    }

    assert set() == found


def test_the_core_prints_nothing():
    """A library speaks through its results and its log."""
    calls = [(place, node.func) for place, node in nodes(CORE) if isinstance(node, ast.Call)]

    assert [place for place, called in calls if isinstance(called, ast.Name) and called.id == "print"] == []
