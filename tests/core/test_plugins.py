"""Plugins are found by name, loaded when wanted, held to the contract; a broken one stops nothing else."""

from __future__ import annotations

import gc
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import httpx
import pytest

from partnerenrich import (
    Call,
    Link,
    NotCalled,
    NotSupported,
    PluginError,
    Resolution,
    Visitor,
    plugins,
)

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

PARTNER = """
import attrs
from partnerenrich import Partner, Resolution, hookimpl

@attrs.frozen
class Config:
    tenant: str

@hookimpl
def partner():
    return Partner(title="Sample", config=Config)
"""
RESOLVES = """
@hookimpl
async def resolve_id(link):
    return Resolution("p-" + link.value)
"""
EXTENSION = """
from partnerenrich import hookimpl

@hookimpl(wrapper=True)
def resolve_id():
    return (yield)
"""


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """A folder for one-file plugins; what it made importable is forgotten afterwards."""
    folder = tmp_path / "partners"
    folder.mkdir()
    yield folder
    for name in [name for name in sys.modules if name.startswith("partnerenrich_file_")]:
        del sys.modules[name]


@pytest.fixture(name="write")
def _write(folder):
    def write(key: str, *parts: str) -> Path:
        path = folder / f"{key}.py"
        path.write_text("\n".join(map(dedent, parts)), "utf-8")
        return path

    return write


@pytest.fixture(name="install")
def _install(tmp_path, monkeypatch):
    """Installs a distribution with entry points, as pip leaves it on the disk."""
    made = []

    def install(distribution: str, *, module: str, source: str, keys: dict[str, str]) -> None:
        site = tmp_path / f"site-{distribution}"
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = [f"{key} = {value}" for key, value in keys.items()]
        (info / "entry_points.txt").write_text("\n".join(["[partnerenrich]", *lines, ""]))
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        made.append(module)

    yield install
    for module in made:
        sys.modules.pop(module, None)


def a_call(org: str = "acme") -> Call:
    return Call(org, "sample", "sample", deadline=time.monotonic() + 5)


async def resolved(loaded: plugins.Plugins, key: str = "sample", call: Call | None = None) -> Resolution:
    async with httpx.AsyncClient() as http:
        link = Link("email", "email", "pat@example.test")
        return await loaded.partner(key).resolve_id(None, http, link, Visitor((link,)), call or a_call())


# Finding


def test_an_installed_plugin_is_found_without_an_import(install):
    """Keys are known from the entry points alone."""
    install(
        "sample-dist", module="sample_unimported", source="raise AssertionError", keys={"sample": "sample_unimported"}
    )

    (source,) = plugins.find()["sample"]

    assert (source.key, source.origin) == ("sample", "sample-dist 1.2")
    assert "sample_unimported" not in sys.modules


def test_only_what_is_wanted_is_imported(install):
    """A plugin that no configuration names costs nothing and breaks nothing."""
    install("wanted-dist", module="sample_wanted", source=PARTNER, keys={"wanted": "sample_wanted"})
    install("other-dist", module="sample_other", source="raise AssertionError", keys={"other": "sample_other"})

    loaded = plugins.load(["wanted"])

    assert list(loaded.partners) == ["wanted"]
    assert loaded.failures == {}
    assert "sample_other" not in sys.modules


def test_a_file_in_the_folder_is_a_plugin(folder, write):
    """Its stem is the key; no packaging is needed. Files that start with an underscore are none."""
    path = write("sample", PARTNER)
    write("_helpers", "raise AssertionError")

    (source,) = plugins.find(folder)["sample"]

    assert str(path) == source.origin
    assert "_helpers" not in plugins.find(folder)
    assert plugins.load(["sample"], plugins_dir=folder).partner("sample").facts.title == "Sample"


def test_a_plugins_dir_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(PluginError, match=r"nowhere.* is not a folder"):
        plugins.find(tmp_path / "nowhere")


def test_two_plugins_of_one_key_are_refused_and_both_are_named(install, folder, write):
    """Neither is loaded: which one would win is nobody's guess."""
    install("sample-dist", module="sample_clash", source=PARTNER, keys={"sample": "sample_clash"})
    path = write("sample", PARTNER)

    loaded = plugins.load(["sample"], plugins_dir=folder)

    assert loaded.partners == {}
    assert "sample-dist 1.2" in str(loaded.failures["sample"])
    assert str(path) in str(loaded.failures["sample"])


def test_an_unknown_key_is_answered_with_the_known_ones(folder, write):
    write("sample", PARTNER)

    loaded = plugins.load(["smaple"], plugins_dir=folder)

    assert "no plugin 'smaple' is installed" in str(loaded.failures["smaple"])
    assert "sample" in str(loaded.failures["smaple"]).split("installed:")[1]


def test_a_key_that_cannot_be_one_is_refused(folder, write):
    write("Sample-1", PARTNER)

    loaded = plugins.load(["Sample-1"], plugins_dir=folder)

    assert "must match" in str(loaded.failures["Sample-1"])


# Containing


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package_anywhere", "does not import: ModuleNotFoundError: No module named 'no_such_package_"),
        ("def broken(:", "does not import: SyntaxError"),
        ("raise SystemExit(3)", "does not import: SystemExit: 3"),
        ("answer = 42", "implements no hook; mark its functions with partnerenrich.hookimpl"),
        (RESOLVES.replace("resolve_id", "resolve_idd"), "unknown hook 'resolve_idd'"),
        (RESOLVES.replace("(link)", "(lnk)"), "lnk"),
        (RESOLVES.replace("async def", "def"), "resolve_id must be a plain 'async def' function"),
        ("@hookimpl\nasync def sandbox(): ...", "sandbox must be a plain 'def' function"),
        (EXTENSION, "wraps resolve_id: only an extension may"),
    ],
    ids=["import", "syntax", "exit", "no hook", "unknown", "argument", "sync", "async", "wrapper"],
)
def test_a_broken_plugin_is_listed_with_its_reason_and_stops_no_other(folder, write, source, reason):
    """Reasons name the plugin and what is wrong in it."""
    write("sound", PARTNER, RESOLVES)
    write("broken", PARTNER if "hookimpl" in source else "", source)

    loaded = plugins.load(["broken", "sound"], plugins_dir=folder)

    assert list(loaded.partners) == ["sound"]
    assert "'broken'" in str(loaded.failures["broken"])
    assert reason in str(loaded.failures["broken"])
    with pytest.raises(PluginError, match="broken"):
        loaded.partner("broken")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("from partnerenrich import hookimpl, Resolution\n" + RESOLVES, "has no partner() hook"),
        (PARTNER.replace('Partner(title="Sample", config=Config)', "None"), "partner() must return a Partner"),
        (PARTNER.replace("config=Config", "config=dict"), "config is an attrs class"),
        (PARTNER.replace("return", "raise OSError('gone')\n    return"), "partner() failed: OSError: gone"),
        (PARTNER.replace("return", "raise SystemExit(3)\n    return"), "partner() failed: SystemExit: 3"),
    ],
    ids=["missing", "none", "config", "raises", "exits"],
)
def test_a_partner_must_say_what_it_is(folder, write, source, reason):
    write("broken", source)

    assert reason in str(plugins.load(["broken"], plugins_dir=folder).failures["broken"])


def test_a_generator_is_no_async_hook(folder, write):
    """``async def`` with a ``yield`` makes no awaitable."""
    write("broken", PARTNER, "@hookimpl\nasync def resolve_id(link):\n    yield link")

    loaded = plugins.load(["broken"], plugins_dir=folder)

    assert "resolve_id must be a plain 'async def' function" in str(loaded.failures["broken"])


def test_a_file_that_failed_to_import_leaves_nothing_behind(folder, write):
    """After the author mends it, it loads."""
    write("sample", "raise ValueError")
    assert plugins.load(["sample"], plugins_dir=folder).failures

    assert "partnerenrich_file_sample" not in sys.modules


def test_a_plugin_that_was_never_asked_for_is_no_key_error(folder):
    with pytest.raises(PluginError, match="plugin 'sample' is not loaded"):
        plugins.load([], plugins_dir=folder).partner("sample")


# Binding


async def test_each_partner_answers_for_itself(folder, write):
    """Two partners share a manager and never each other's calls."""
    write("one", PARTNER, RESOLVES)
    write("two", PARTNER, RESOLVES.replace('"p-"', '"q-"'))

    loaded = plugins.load(["one", "two"], plugins_dir=folder)

    assert (await resolved(loaded, "one")).partner_id == "p-pat@example.test"
    assert (await resolved(loaded, "two")).partner_id == "q-pat@example.test"


async def test_a_hook_that_is_left_out_is_not_supported(folder, write):
    write("sample", PARTNER, RESOLVES)
    partner = plugins.load(["sample"], plugins_dir=folder).partner("sample")

    assert partner.hooks == ("resolve_id",)
    assert partner.supports("resolve_id")
    assert not partner.supports("fetch_attributes")
    async with httpx.AsyncClient() as http:
        with pytest.raises(NotSupported, match="sample has no fetch_attributes hook"):
            await partner.fetch_attributes(None, http, "p", a_call())
        with pytest.raises(NotSupported):
            await partner.personalize(None, http, "p", {}, a_call())
        with pytest.raises(NotSupported):
            await partner.check(None, http, a_call())
    with pytest.raises(NotSupported):
        partner.sandbox()


async def test_an_answer_of_the_wrong_type_names_hook_and_type(folder, write):
    """And never the answer itself."""
    write(
        "sample",
        PARTNER,
        """
        @hookimpl
        async def resolve_id(): return "pat@example.test"
        @hookimpl
        async def fetch_attributes(): return ["pat@example.test"]
        @hookimpl
        async def resolve_ids(links): return []
        """,
    )
    partner = plugins.load(["sample"], plugins_dir=folder).partner("sample")
    link = Link("email", "email", "pat@example.test")

    async with httpx.AsyncClient() as http:
        with pytest.raises(PluginError, match=r"^sample: resolve_id must return a Resolution, not str$"):
            await partner.resolve_id(None, http, link, Visitor(), a_call())
        with pytest.raises(PluginError, match=r"^sample: fetch_attributes must return a mapping, not list$"):
            await partner.fetch_attributes(None, http, "p", a_call())
        with pytest.raises(PluginError, match="resolve_ids returned 0 answers for 1 links"):
            await partner.resolve_ids(None, http, [link], a_call())


TWO_IN_ONE = """
import attrs
from partnerenrich import Partner, Resolution, hookimpl

@attrs.frozen
class Config:
    tenant: str

class Region:
    def __init__(self, title):
        self.title = title

    @hookimpl
    def partner(self):
        return Partner(title=self.title, config=Config)

    @hookimpl
    async def resolve_id(self):
        return Resolution(self.title)

north, south = Region("North"), Region("South")
"""


async def test_one_module_may_hold_two_partners_as_two_instances(install):
    keys = {"north": "sample_regions:north", "south": "sample_regions:south"}
    install("regions-dist", module="sample_regions", source=TWO_IN_ONE, keys=keys)

    loaded = plugins.load(["north", "south"])

    assert loaded.failures == {}
    assert (await resolved(loaded, "north")).partner_id == "North"
    assert (await resolved(loaded, "south")).partner_id == "South"


def test_one_object_under_two_keys_is_refused_the_second_time(install):
    keys = {"north": "sample_same:north", "again": "sample_same:north"}
    install("regions-dist", module="sample_same", source=TWO_IN_ONE, keys=keys)

    loaded = plugins.load(["north", "again"])

    assert list(loaded.partners) == ["north"]
    assert "same object as another plugin; make one instance each" in str(loaded.failures["again"])


def test_a_partner_that_is_an_attrs_instance_is_contained(install):
    """Equal instances cannot be told apart, and one without a hash cannot be registered."""
    source = TWO_IN_ONE.replace("class Region:", "@attrs.define\nclass Region:\n    title: str").replace(
        "    def __init__(self, title):\n        self.title = title\n", ""
    )
    install("regions-dist", module="sample_attrs", source=source, keys={"north": "sample_attrs:north"})

    loaded = plugins.load(["north"])

    assert "'north' breaks the contract" in str(loaded.failures["north"])


# Extensions


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package_anywhere", "does not import"),
        (EXTENSION.replace("resolve_id", "resolve_idd"), "unknown hook 'resolve_idd'"),
        (EXTENSION.replace("(wrapper=True)", ""), "resolve_id must be a wrapper, @hookimpl(wrapper=True)"),
        ("", "implements no hook"),
    ],
    ids=["import", "unknown", "no wrapper", "no hook"],
)
def test_an_extension_that_does_not_load_is_an_error(folder, write, source, reason):
    """It may be there to deny, so nothing goes on without it."""
    write("sample", PARTNER, RESOLVES)
    write("guard", source)

    with pytest.raises(PluginError) as raised:
        plugins.load(["sample"], extensions=["guard"], plugins_dir=folder)

    assert "'guard'" in str(raised.value)
    assert reason in str(raised.value)


def test_an_extension_that_is_not_there_is_an_error(folder):
    with pytest.raises(PluginError, match="no plugin 'guard' is installed"):
        plugins.load([], extensions=["guard"], plugins_dir=folder)


@pytest.fixture(name="with_examples")
def _with_examples(folder, write):
    """Loads one partner behind extensions of the guide."""
    write("sample", PARTNER, RESOLVES)

    def load(*extensions: str) -> plugins.Plugins:
        for extension in extensions:
            write(extension, (EXAMPLES / f"{extension}.py").read_text("utf-8"))
        return plugins.load(["sample"], extensions=extensions, plugins_dir=folder)

    return load


@pytest.fixture(name="at_hour")
def _at_hour(monkeypatch):
    """Sets the clock of the example that denies."""

    def at(hour: int) -> None:
        module = sys.modules["partnerenrich_file_deny_extension"]
        monkeypatch.setattr(module, "now", lambda: datetime(2026, 1, 2, hour, tzinfo=UTC))

    return at


async def test_the_example_that_times_tells_how_long_a_call_took(with_examples, caplog):
    loaded = with_examples("timing_extension")

    with caplog.at_level(logging.INFO, "partner_timing"):
        answer = await resolved(loaded)

    assert answer.partner_id == "p-pat@example.test"
    (message,) = caplog.messages
    assert message.startswith("sample resolve_id took ")
    assert "pat@" not in message


@pytest.mark.parametrize(("org", "hour"), [("trial", 12), ("acme", 3)], ids=["org", "hour"])
@pytest.mark.parametrize("others", [[], ["timing_extension"]], ids=["alone", "timed"])
async def test_the_example_that_denies_leaves_nothing_un_awaited(with_examples, at_hour, recwarn, org, hour, others):
    """The partner is not called, and Python has no coroutine to complain of."""
    loaded = with_examples("deny_extension", *others)
    at_hour(hour)

    with pytest.raises(NotCalled):
        await resolved(loaded, call=a_call(org))

    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


async def test_the_example_that_denies_lets_others_through(with_examples, at_hour):
    loaded = with_examples("deny_extension", "timing_extension")
    at_hour(12)

    assert (await resolved(loaded)).partner_id == "p-pat@example.test"


def test_the_example_that_denies_forgets_no_way_to_a_partner(with_examples):
    """Every hook that sends a visitor's data is wrapped."""
    with_examples("deny_extension")
    module = sys.modules["partnerenrich_file_deny_extension"]

    assert {"resolve_id", "resolve_ids", "fetch_attributes", "personalize", "deliver_batch"} <= set(vars(module))
