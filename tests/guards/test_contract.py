"""The contract is one file, its names are complete, and all of it is documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import partnerenrich
from partnerenrich import hookspecs

ROOT = Path(__file__).parents[2]
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, f"{hookspecs.PROJECT}_spec")}


def test_all_names_what_is_public():
    """`__all__` is exactly what a reader of the package finds there."""
    public = {
        name
        for name, value in vars(partnerenrich).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert public == set(partnerenrich.__all__)


def test_all_is_sorted():
    """Constants, then classes, then functions, each by name and once."""
    in_order = sorted(set(partnerenrich.__all__), key=lambda name: (not name.isupper(), not name[0].isupper(), name))

    assert in_order == partnerenrich.__all__


def test_the_root_contract_is_the_installed_one():
    """What one reads at the root is what plugins are checked against."""
    link = ROOT / "core" / "src" / "partnerenrich" / "hookspecs.py"

    assert Path("../../../hookspecs.py") == link.readlink()
    assert (ROOT / "hookspecs.py").read_text("utf-8") == Path(hookspecs.__file__).read_text("utf-8")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented(name):
    """docs/plugins.md shows each hook with the parameters that it offers."""
    shown = re.sub(r"\s+", " ", (ROOT / "docs" / "plugins.md").read_text("utf-8"))

    assert f"{name}({', '.join(inspect.signature(HOOKS[name]).parameters)})" in shown
