"""What one can do with the released files in an environment that holds nothing else."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

pytestmark = pytest.mark.timeout(300)  # environments are made, and packages fetched

PARTNER = dedent(
    '''
    """A partner that knows everybody."""

    import attrs

    from partnerenrich import LinkingKey, Partner, Resolution, hookimpl


    @attrs.frozen(kw_only=True)
    class Config:
        greeting: str = "hello"


    @hookimpl
    def partner():
        return Partner(title="Neighbour", config=Config, linking_keys=(LinkingKey("email", "email"),))


    @hookimpl
    async def resolve_id(config, link):
        return Resolution("n-1", attributes={"greeting": config.greeting})
    '''
)

PYPROJECT = dedent(
    """
    [build-system]
    requires = ["setuptools>=77"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "someone-elses-neighbour"
    version = "3.2"
    dependencies = ["partnerenrich>=0.1,<0.2"]

    [project.entry-points.partnerenrich]
    neighbour = "neighbour"

    [tool.setuptools]
    py-modules = ["neighbour"]
    """
)

FIND = dedent(
    """
    import json, pathlib, sys
    from partnerenrich import plugins

    folder = pathlib.Path(sys.argv[1]) if sys.argv[1:] else None
    found = plugins.find(folder)
    loaded = plugins.load(found, plugins_dir=folder)
    print(json.dumps({
        "origins": {key: source.origin for key, [source] in found.items()},
        "hooks": {key: partner.hooks for key, partner in loaded.partners.items()},
        "failures": {key: str(error) for key, error in loaded.failures.items()},
    }))
    """
)


def test_the_core_alone_can_be_imported_and_has_no_plugin(core_alone):
    """Nothing in the core asks for the server or for a partner."""
    core_alone.python(
        "import importlib, partnerenrich, pkgutil\n"
        "for module in pkgutil.iter_modules(partnerenrich.__path__, 'partnerenrich.'):\n"
        "    if module.name != 'partnerenrich.testing':\n"
        "        importlib.import_module(module.name)\n"
    )

    assert json.loads(core_alone.python(FIND))["origins"] == {}


def test_a_plugin_of_others_is_found_once_installed_and_gone_once_uninstalled(core_alone, build_wheel, tmp_path):
    """A wheel built anywhere is a plugin by its entry point alone."""
    source = tmp_path / "neighbour"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    (source / "neighbour.py").write_text(PARTNER, "utf-8")
    wheel = build_wheel(source)

    core_alone.pip("install", "--no-index", wheel)
    installed = json.loads(core_alone.python(FIND))
    core_alone.pip("uninstall", "--yes", "someone-elses-neighbour")
    uninstalled = json.loads(core_alone.python(FIND))

    assert installed == {
        "origins": {"neighbour": "someone-elses-neighbour 3.2"},
        "hooks": {"neighbour": ["resolve_id"]},
        "failures": {},
    }
    assert uninstalled["origins"] == {}


def test_one_file_in_a_folder_is_a_plugin(core_alone, tmp_path):
    """No packaging is needed to try a partner out."""
    (tmp_path / "neighbour.py").write_text(PARTNER, "utf-8")

    found = json.loads(core_alone.python(FIND, tmp_path))

    assert {
        "origins": {"neighbour": str(tmp_path / "neighbour.py")},
        "hooks": {"neighbour": ["resolve_id"]},
        "failures": {},
    } == found


def test_every_plugin_of_ours_loads_from_its_wheel(everything):
    """Each has its entry point and all the files that it needs."""
    found = json.loads(everything.python(FIND))

    assert found["failures"] == {}
    assert found["origins"].keys() == found["hooks"].keys()


def test_the_demo_runs_from_wheels(everything):
    """The data that it streams and the store that it starts are in the release."""
    everything.script("partnerenrich", "demo", "--once")
