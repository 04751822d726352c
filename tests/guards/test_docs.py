"""
What the guide shows works, and what it lists is complete.

Every fenced block of ``yaml``, ``python`` and ``json`` in docs/ and in the README is
checked. A comment in the line before a block says what it is:

=========================  ==========================================================
yaml, no comment           a configuration; if it has no ``integrations``, a part of one
``<!-- integration -->``   fields of one integration
``<!-- blueprint -->``     a blueprint; the ``event`` and ``payload`` that follow agree
python, no comment         compiles, and all that it imports is there
``<!-- run -->``           a program: it runs to its end
``<!-- plugin: NAME -->``  a one-file plugin: it loads, and keeps the contract
``<!-- continues: NAME -->``  more of that file
=========================  ==========================================================
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import attrs
import click
import pytest
import yaml

import partnerenrich
from partnerenrich import TTL, Limits, Outcome, Partner, PartnerError, errors, plugins, recipes
from partnerenrich.blueprint import Blueprint
from partnerenrich.configuration import (
    Batching,
    Configuration,
    DeliverSettings,
    IntegrationSettings,
    StreamSettings,
    load_mapping,
)
from partnerenrich.errors import BreakerEffect
from partnerenrich.settings import structure
from partnerenrich.testing import PluginContract
from partnerenrich.testing.loopback import served
from partnerenrich.transforms import DATE_FORMATS, TRANSFORMS
from partnerenrich_server.cli import main
from partnerenrich_server.embedded import open_store

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@attrs.frozen
class Block:
    """One fenced block, and what the comment before it says."""

    page: str
    line: int
    language: str
    comment: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class AnyVariable(dict[str, str]):
    """An environment in which every variable is set."""

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: object = None) -> str:
        return KEY if name == "PARTNERENRICH_KEY" else f"value of {name}"


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    fences = re.finditer(
        r"^(?:<!-- (?P<comment>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    return [
        Block(
            path.name, text.count("\n", 0, fence.start()) + 1, fence["language"], fence["comment"] or "", fence["text"]
        )
        for fence in fences
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(language: str, *comments: str) -> list[Block]:
    return [b for b in BLOCKS if b.language == language and b.comment.partition(":")[0] in comments]


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    level = heading.split(" ", maxsplit=1)[0]
    _, _, rest = f"\n{text}".partition(f"\n{heading}\n")
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without their headings."""
    tables = re.findall(r"^\|.*\n\|[-|]+\n((?:\|.*\n?)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def names(cells: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cells)


def listed(text: str) -> list[str]:
    """The names in the first column of all tables."""
    return [name for row in rows(text) for name in names(row[0])]


# YAML


@pytest.mark.parametrize("block", blocks("yaml", ""), ids=str)
def test_a_configuration_loads(block):
    """A file that holds just this is accepted; a part of one, with an organisation."""
    raw = yaml.safe_load(block.text)
    is_whole = not raw.keys().isdisjoint({"integrations", "orgs"})

    load_mapping(raw if is_whole else {"org": "acme", **raw}, AnyVariable())


@pytest.mark.parametrize("block", blocks("yaml", "integration"), ids=str)
def test_fields_of_an_integration_load(block):
    """They are accepted in any integration."""
    integration = {"provider": "any", **yaml.safe_load(block.text)}

    load_mapping({"org": "acme", "integrations": [integration]}, AnyVariable())


@pytest.mark.parametrize("block", blocks("yaml", "blueprint"), ids=str)
def test_a_blueprint_loads(block):
    """Nothing in it is misspelt."""
    assert Blueprint.from_yaml(block.text)


@pytest.mark.parametrize("block", blocks("json", "payload"), ids=str)
def test_a_payload_is_what_the_blueprint_makes(block):
    """Of the event and the blueprint before it."""
    before = [b for b in BLOCKS if b.page == block.page and b.line < block.line]
    blueprint = [b for b in before if b.comment == "blueprint"][-1]
    event = [b for b in before if b.comment == "event"][-1]

    payload = Blueprint.from_yaml(blueprint.text).payload(json.loads(event.text))

    assert json.loads(block.text) == payload


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=str)
def test_json_is_json(block):
    """It can be pasted."""
    assert json.loads(block.text)


def test_every_block_is_checked():
    """No comment is misspelt, so that no block escapes."""
    known = {
        "yaml": {"", "integration", "blueprint"},
        "python": {"", "run", "plugin", "continues"},
        "json": {"", "event", "payload"},
        "sh": {"", "command"},
        "text": {""},
        "toml": {""},
    }

    assert [str(b) for b in BLOCKS if b.comment.partition(":")[0] not in known.get(b.language, ())] == []


# Python


def one_file_plugin(name: str) -> str:
    return "\n\n".join(
        b.text for b in BLOCKS if b.page != "README.md" and b.comment in {f"plugin: {name}", f"continues: {name}"}
    )


def module_of(name: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(one_file_plugin(name), f"{name}.py", "exec", dont_inherit=True), vars(module))
    return module


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=str)
def test_a_program_compiles_and_finds_what_it_imports(block):
    """Every module and every name is there."""
    tree = compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST)

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("block", blocks("python", "plugin"), ids=str)
def test_a_plugin_is_short_and_loads(block, tmp_path):
    """40 lines or fewer in a folder, without packaging, make a partner."""
    key = block.comment.removeprefix("plugin: ")
    (tmp_path / f"{key}.py").write_text(block.text, "utf-8")

    loaded = plugins.load([key], plugins_dir=tmp_path)

    assert loaded.failures == {}
    assert loaded.partner(key).supports("resolve_id")
    assert len(block.text.splitlines()) <= 40


class TestTheCompletePlugin(PluginContract):
    """The plugin of the guide, with its sandbox, keeps to everything that the kit asks for."""

    provider = "loyalty"
    plugin = module_of("loyalty")


@pytest.fixture
def place(tmp_path):
    """A folder with all that the programs of the guide name, beside a store and a loyalty service that work."""
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "loyalty.py").write_text(one_file_plugin("loyalty"), "utf-8")
    (tmp_path / "blueprint.yaml").write_text(blocks("yaml", "blueprint")[0].text, "utf-8")
    with open_store("embedded:") as store, served(_loyalty_service) as port:
        url = f"http://127.0.0.1:{port}"
        settings = {"base_url": url, "api_key": "a-key-for-tests"}
        integration = {"provider": "loyalty", "settings": settings, "limits": {"timeout": 30}}
        written = {"org": "acme", "store": store.url, "key": KEY, "plugins_dir": "partners", "budget_ms": 30_000}
        (tmp_path / "partnerenrich.yaml").write_text(json.dumps(written | {"integrations": [integration]}), "utf-8")
        variables = {"REDIS_URL": store.url, "LOYALTY_URL": url, "LOYALTY_KEY": "a-key-for-tests"}
        yield tmp_path, {**os.environ, **variables}


async def _loyalty_service(scope, receive, send):
    """Knows everybody."""
    body = json.dumps({"id": "member-20931", "attributes": {"Tier": "gold-plus"}}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("block", blocks("python", "run"), ids=str)
def test_a_program_runs(block, place):
    """It ends well and says something; what enriches, enriches."""
    folder, environment = place

    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout
    if "traits" in block.text:
        assert "'outcome': 'fresh'" in result.stdout


# Tables


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_table_is_whole(path):
    """No blank line cuts it: rows without a heading are shown as they are written."""
    blocks_of_rows = re.findall(r"^\|.*\n(?:\|.*\n?)*", prose(path), re.MULTILINE)

    assert [block for block in blocks_of_rows if not re.match(r".*\n\|[-|]+\n", block)] == []


@pytest.mark.parametrize(
    ("heading", "described"),
    [
        ("### At the top", Configuration),
        ("### `batch`", Batching),
        ("### `integrations`", IntegrationSettings),
        ("## `ttl`", TTL),
        ("## `limits`", Limits),
        ("## `deliver`", DeliverSettings),
        ("## `stream`", StreamSettings),
    ],
)
def test_every_field_is_documented_with_its_default(heading, described):
    """In the configuration page, and no field that is not there."""
    table = rows(section(page("configuration.md"), heading))
    defaults = {
        field.name: str(field.default)
        for field in attrs.fields(described)
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
    }

    assert {name for row in table for name in names(row[0])} == {field.name for field in attrs.fields(described)}
    assert {names(row[0])[0]: row[1] for row in table if names(row[0])[0] in defaults} == {
        name: default.removesuffix(".0") for name, default in defaults.items()
    }


def test_every_field_of_the_configuration_is_shown():
    """The example under "Every field" has each of them."""
    shown = yaml.safe_load(section(page("configuration.md"), "## Every field").split("```")[1].removeprefix("yaml\n"))

    assert {f.name for f in attrs.fields(Configuration)} - {"orgs"} == set(shown)
    assert {f.name for f in attrs.fields(IntegrationSettings)} == set(shown["integrations"][0])


def test_every_recipe_is_documented():
    assert [row[0] for row in rows(section(page("configuration.md"), "### Hash recipes"))[: len(recipes.HASHES)]] == [
        f"`{name}`" for name in recipes.HASHES
    ]


def test_recipes_give_what_the_table_shows():
    """Each example of the configuration page."""
    _, _, table = page("configuration.md").partition("<!-- recipes -->\n")
    examples = [[names(cell)[0] for cell in row] for row in rows(table.split("\n\n")[0])]

    assert examples
    for recipe, source, value, sent in examples:
        assert recipes.apply(recipe, source, value, "GB") == sent


def test_every_outcome_is_explained():
    _, _, table = page("how-it-works.md").partition("<!-- outcomes -->\n")

    assert sorted(listed(table.split("\n\n")[0])) == sorted(outcome.value for outcome in Outcome)


def test_every_error_is_documented_as_it_behaves():
    """Retry, memory and breaker, for each class that a plugin may raise."""
    _, _, table = page("plugins.md").partition("<!-- errors -->\n")
    documented = {names(row[0])[0]: tuple(row[2:]) for row in rows(table.split("\n\n")[0])}
    breaker = {BreakerEffect.NONE: "none", BreakerEffect.COUNTS: "counts", BreakerEffect.OPENS: "opens"}
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PartnerError)]

    assert documented == {
        c.__name__: ("yes" if c.retry else "no", "yes" if c.remembered else "no", breaker[c.breaker])
        for c in classes
        if c is not PartnerError
    }
    assert documented.keys() <= set(partnerenrich.__all__)


def test_every_field_of_a_partner_is_documented():
    table = section(page("plugins.md"), "### `partner()`")

    assert listed(table)[: len(attrs.fields(Partner))] == [
        name for name in listed(table) if name in attrs.fields_dict(Partner)
    ]
    assert set(listed(table)) == set(attrs.fields_dict(Partner))


def test_every_transform_is_documented():
    table = listed(section(page("blueprints.md"), "## Transforms"))

    assert set(TRANSFORMS) - set(recipes.HASHES) <= set(table)
    assert set(DATE_FORMATS) <= set(table)


# Commands


def commands(group: click.Group, name: str) -> dict[str, click.Command]:
    """Every command by its full name."""
    found: dict[str, click.Command] = {name: group}
    context = click.Context(group, info_name=name)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        found |= (
            commands(command, f"{name} {child}") if isinstance(command, click.Group) else {f"{name} {child}": command}
        )
    return found


COMMANDS = commands(main, "partnerenrich")
TOP = [name for name in COMMANDS if name.count(" ") == 1]


def options(command: click.Command) -> set[str]:
    """Of the command and of its own subcommands; those of `partnerenrich` stand for themselves."""
    children = command.commands.values() if isinstance(command, click.Group) else ()
    with click.Context(command) as context:
        return {
            spelling
            for parameter in command.get_params(context)
            for spelling in parameter.opts
            if spelling.startswith("--") and spelling != "--help"
        }.union(*map(options, children))


def test_every_command_has_a_section():
    headings = re.findall(r"^## (partnerenrich .+)$", page("command-line.md"), re.MULTILINE)

    assert sorted(headings) == sorted(TOP)


@pytest.mark.parametrize("name", ["partnerenrich", *TOP])
def test_the_options_of_a_command_are_listed(name):
    """Each option that `--help` has, and none that it has not."""
    written = section(page("command-line.md"), f"## {name}")
    listed_options = {option.split()[0] for option in listed(written) if option.startswith("--")} - {"--help"}

    assert listed_options == options(COMMANDS[name])


def used_commands() -> list[tuple[str, str]]:
    """Every use of the command line in the pages, with its place."""
    uses = []
    for path in PAGES:
        text = path.read_text("utf-8")
        shell = "\n".join(b.text for b in BLOCKS if b.page == path.name and b.language == "sh")
        uses += [(path.name, use) for use in re.findall(r"partnerenrich (?!-)[a-z][^\n&|>)\"]*", shell)]
        uses += [(path.name, use) for use in re.findall(r"`(partnerenrich [a-z-]+ ?[^`\n]*)`", text)]
    return uses


@pytest.mark.parametrize(("place", "use"), sorted(set(used_commands())))
def test_a_command_that_is_used_exists(place, use):
    """So do its options."""
    words = use.split()
    name = " ".join(words[:3]) if " ".join(words[:3]) in COMMANDS else " ".join(words[:2])
    if words[1] == "COMMAND":
        return

    assert name in COMMANDS
    assert {word for word in words if word.startswith("--")} - {"--help"} <= options(COMMANDS[name])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_an_option_that_is_named_exists(path):
    """Some command has it."""
    named = {option for code in names(prose(path)) for option in re.findall(r"(?<!\S)--[a-z-]+", code)}

    assert named - {"--help"} - set().union(*map(options, COMMANDS.values())) == set()


# Links


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    seen: dict[str, int] = defaultdict(int)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """Each file is there, and so is each heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)

    assert broken == []


def test_every_page_is_linked_from_the_index():
    """A reader who starts at the index finds all."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", page("index.md")))

    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} == linked


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, None),
        ({"api_key": "with space"}, "must be the token alone, without spaces"),
        ({"region": "moon"}, "must be one of eu, us"),
        ({"page_size": 0}, "must be between 1 and 1000"),
        ({"page_size": 5}, "needs segments: true; leave it out or set that"),
        ({"page_size": 5, "segments": True}, None),
    ],
)
def test_the_settings_class_of_the_guide_works(wrong, said):
    """Each rule refuses what it should, under the name of its field."""
    [text] = [b.text for b in blocks("python", "") if "class Config" in b.text and b.page == "plugins.md"]
    module = ModuleType("settings_of_the_guide")
    exec(compile(text, "plugins.md", "exec", dont_inherit=True), vars(module))
    problems = []

    try:
        structure(module.Config, {"api_key": "a-key-for-tests", **wrong})
    except partnerenrich.ConfigError as error:
        problems = [(problem.where, problem.what) for problem in error.problems]

    assert problems == ([] if said is None else [(next(iter(wrong)), said)])
