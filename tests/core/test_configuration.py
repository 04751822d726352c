"""A configuration is read as it is written, or every problem names its field, its line and the way out."""

from __future__ import annotations

import base64
import logging
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import ConfigError, LinkingKey, PluginError, Secret
from partnerenrich.configuration import Configuration, bind, decode_key, load_file, load_mapping

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-4711-never-show"

CLUB = """
import attrs
from partnerenrich import LinkingKey, Limits, Partner, Resolution, Secret, TTL, hookimpl

@attrs.frozen(kw_only=True)
class Config:
    tenant: str
    api_key: Secret

@hookimpl
def partner():
    return Partner(
        title="Club", config=Config, linking_keys=(LinkingKey("email", "mail"),),
        ttl=TTL(resolved=60), limits=Limits(timeout=0.3),
    )

@hookimpl
async def resolve_id(link):
    return Resolution.absent()
"""


@pytest.fixture(name="write")
def _write(tmp_path):
    """Writes the configuration next to a folder that holds the partner ``club``."""
    folder = tmp_path / "partners"
    folder.mkdir()
    (folder / "club.py").write_text(CLUB)

    def write(text: str) -> Path:
        path = tmp_path / "partnerenrich.yaml"
        path.write_text(dedent(text), "utf-8")
        return path

    yield write
    for name in [name for name in sys.modules if name.startswith("partnerenrich_file_")]:
        del sys.modules[name]


def problems_of(path: Path, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_file(path, environment or {})
    return [str(problem) for problem in raised.value.problems]


def integration(**changes: object) -> dict[str, object]:
    return {"org": "acme", "integrations": [{"provider": "club", **changes}]}


def refusal(raw: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as raised:
        load_mapping(raw, {})
    return {problem.where: problem.what for problem in raised.value.problems}


# Reading


def test_the_smallest_configuration_has_the_defaults():
    loaded = load_mapping({"org": "acme", "integrations": [{"provider": "club"}]}, {})

    (written,) = loaded.integrations
    assert (written.name, written.enabled, written.linking_keys, written.attributes) == ("club", True, (), None)
    assert (loaded.batch.size, loaded.store, loaded.hub.browser_identity) == (500, None, "signed")
    assert loaded.providers() == ["club"]


def test_every_problem_names_its_field_and_its_line(write):
    path = write(
        """\
        org: acme
        budget: 250
        batch: {size: many}
        integrations:
          - provider: club
            setings: {tenant: acme}
            linking_keys:
              - {source: email, key: mail, hash: sha257}
            enabled: yes please
        """
    )

    assert problems_of(path) == [
        "integrations[0].enabled (line 9): must be true or false",
        "integrations[0].linking_keys[0] (line 8): hash must be one of none, sha256, sha256_lower_trim, sha256_b64, "
        "sha256_digits_hex, sha1_national_hex, uid2",
        "integrations[0].setings (line 6): unknown field; did you mean 'settings'?",
        "batch.size (line 3): must be a whole number",
        "budget (line 2): unknown field; did you mean 'budget_ms'?",
    ]


def test_no_problem_hides_another(write):
    """Nor does a field of a wrong type hide one with a wrong value, however deep."""
    path = write(
        """\
        org: acme
        key: c2hvcnQ=
        default_region: uk
        batch: {size: 0, in_flight: many}
        integrations:
          - provider: club
            settings: {tenant: "${NO_TENANT}"}
            linking_keys:
              - {source: email, hash: sha257}
              - {source: "${NO_SOURCE}", key: x}
            ttl: {resolved: never}
            limits:
              timeout: -1
              calls_per_secnd: 5
        """
    )

    assert sorted(problem.partition(": ")[0] for problem in problems_of(path)) == [
        "batch.in_flight (line 4)",
        "batch.size (line 4)",
        "default_region (line 3)",
        "integrations[0].limits.calls_per_secnd (line 14)",
        "integrations[0].limits.timeout (line 13)",
        "integrations[0].linking_keys[0] (line 9)",
        "integrations[0].linking_keys[1].source (line 10)",
        "integrations[0].settings.tenant (line 7)",
        "integrations[0].ttl.resolved (line 11)",
        "key (line 2)",
    ]


def test_what_a_variable_that_is_not_set_makes_wrong_is_not_told_as_well():
    raw = integration(linking_keys="${KEYS}", consent="${CONSENT}") | {"org": "${ORG}", "key": "${KEY}"}

    assert set(refusal(raw).values()) == {
        f"the environment variable {name} is not set" for name in ("ORG", "KEY", "KEYS", "CONSENT")
    }


def test_a_field_that_is_missing_has_the_line_of_what_it_is_missing_in(write):
    assert problems_of(write("org: acme\nintegrations:\n  - name: a\n")) == [
        "integrations[0].provider (line 3): is required"
    ]


def bomb(level: str) -> str:
    """Nine levels, each of which names the one before nine times."""
    names = [f"*l{number}" for number in range(9)]
    levels = [f"l{number}: &l{number} " + level.format(",".join(9 * [name])) for number, name in enumerate(names, 1)]
    return "\n".join(["l0: &l0 {a: 1}", *levels])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("org: [a", "is no YAML: .*line 1"),
        ("org: a\norg: b", r"org \(line 2\): stands here twice; keep one"),
        ("org: \x07", "is no YAML: it holds a character that YAML does not allow"),
        ("org: 2026-13-45", "holds a date or a number that does not exist; put it in quotes"),
        ("org: " + "[" * 3000, "is nested too deeply"),
        ("org: &a [*a]", "is nested too deeply"),
        (bomb("[{}]"), "holds more than 100000 values, with its aliases written out; write fewer"),
        (bomb("{{<<: [{}]}}"), "holds more than 100000 values, with its aliases written out; write fewer"),
    ],
    ids=["empty", "list", "open", "twice", "character", "date", "deep", "loop", "bomb", "merges"],
)
def test_text_that_is_no_configuration_is_told(write, text, said):
    with pytest.raises(ConfigError, match=said):
        load_file(write(text), {})


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_file(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_file(tmp_path, {})


def test_a_file_that_is_not_utf_8_is_not_quoted(tmp_path):
    """The error of a decoder holds all that it was to decode."""
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"key: " + CANARY.encode() + b"\xe9")

    with pytest.raises(ConfigError, match="it is not UTF-8") as raised:
        load_file(path, {})

    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_anchors_aliases_and_merges_are_written_out(write):
    loaded = load_file(
        write(
            """\
            org: acme
            integrations:
              - &club
                provider: club
                name: one
                limits: &limits {timeout: 2}
              - {<<: *club, name: two, ttl: {resolved: 5}}
              - {provider: shop, limits: *limits}
            """
        ),
        {},
    )

    assert [(each.provider, each.name, each.limits) for each in loaded.integrations] == [
        ("club", "one", {"timeout": 2}),
        ("club", "two", {"timeout": 2}),
        ("shop", "shop", {"timeout": 2}),
    ]


# Environment


def test_variables_are_filled_in_anywhere_in_text():
    raw = integration(settings={"tenant": "${TENANT}-${STAGE}", "list": ["${TENANT}"], "n": 5})

    (written,) = load_mapping(raw, {"TENANT": "acme", "STAGE": "${TENANT}"}).integrations

    assert written.settings == {"tenant": "acme-${TENANT}", "list": ["acme"], "n": 5}


def test_a_variable_that_is_not_set_is_named_with_its_place(write):
    path = write(
        """\
        org: acme
        key: ${NO_KEY}
        integrations:
          - provider: club
            settings: {api_key: "${NO_TOKEN}"}
        """
    )

    assert problems_of(path) == [
        "key (line 2): the environment variable NO_KEY is not set",
        "integrations[0].settings.api_key (line 5): the environment variable NO_TOKEN is not set",
    ]


# Both ways to write a thing


@pytest.mark.parametrize(
    "written",
    [
        [{"source": "email", "key": "mail", "hash": "sha256"}, {"source": "$traits.loyalty_id"}],
        '[{"source": "email", "key": "mail", "hash": "sha256"}, {"source": "$traits.loyalty_id", "hash": null}]',
    ],
    ids=["list", "JSON text"],
)
def test_linking_keys_are_a_list_or_its_json_text(written):
    (loaded,) = load_mapping(integration(linking_keys=written), {}).integrations

    assert loaded.linking_keys == (
        LinkingKey("email", "mail", "sha256"),
        LinkingKey("$traits.loyalty_id", "$traits.loyalty_id"),
    )


@pytest.mark.parametrize(
    ("written", "where", "said"),
    [
        ("email", "", "is text but no JSON array of {source, key, hash}"),
        ('{"source": "email"}', "", "must be a list of {source, key, hash}"),
        ("[" * 100_000, "", "is text but no JSON array"),
        (5, "", "must be a list of {source, key, hash}"),
        ([5], "[0]", "must have source and key"),
        ([{"key": "mail"}], "[0]", "must have source and key"),
        ([{"source": "email", "kee": "mail"}], "[0]", "and nothing else"),
        ([{"source": "email"}, {"source": 5}], "[1]", "must be text"),
        ([{"source": "mail"}], "[0]", "source must be one of canonical_id, anonymous_id, user_id, email, phone, or a"),
        ([{"source": "email", "hash": "md5"}], "[0]", "hash must be one of none, sha256"),
        ([{"source": "email", "hash": "sha1_national_hex"}], "[0]", "sha1_national_hex can make nothing of email"),
    ],
    ids=["text", "object", "deep", "number", "item", "no source", "unknown", "type", "source", "hash", "misfit"],
)
def test_linking_keys_that_are_wrong_are_told(written, where, said):
    told = refusal(integration(linking_keys=written))

    assert list(told) == [f"integrations[0].linking_keys{where}"]
    assert said in told[f"integrations[0].linking_keys{where}"]


@pytest.mark.parametrize("written", [["Persona", "LifetimeTier"], "Persona, LifetimeTier", " Persona,,LifetimeTier ,"])
def test_an_allowlist_is_a_list_or_names_between_commas(written):
    (loaded,) = load_mapping(integration(browser_attribute_allowlist=written), {}).integrations

    assert loaded.browser_attribute_allowlist == ("Persona", "LifetimeTier")


@pytest.mark.parametrize("empty", [[], "", " , "])
def test_an_empty_allowlist_exposes_nothing(empty):
    (loaded,) = load_mapping(integration(browser_attribute_allowlist=empty), {}).integrations

    assert loaded.browser_attribute_allowlist == ()


@pytest.mark.parametrize("written", [5, True, None, {"Persona": 1}, [5]])
def test_an_allowlist_is_nothing_else(written):
    assert refusal(integration(browser_attribute_allowlist=written)) == {
        "integrations[0].browser_attribute_allowlist": "must be a list of names, or names separated by commas"
    }


# Organisations


def test_several_organisations_each_have_their_own():
    loaded = load_mapping(
        {
            "default_region": "GB",
            "orgs": {
                "acme": {"integrations": [{"provider": "club"}]},
                "other": {"integrations": [{"provider": "club"}, {"provider": "shop"}], "default_region": "US"},
            },
        },
        {},
    )

    organisations = loaded.organisations()
    assert {slug: org.default_region for slug, org in organisations.items()} == {"acme": "GB", "other": "US"}
    assert loaded.providers() == ["club", "shop"]


@pytest.mark.parametrize(
    ("raw", "where", "said"),
    [
        ({}, "org", "give either org (one organisation) or orgs (several)"),
        ({"org": "a", "orgs": {"b": {}}}, "org", "give either"),
        ({"orgs": {"a": {}}, "integrations": [{"provider": "club"}]}, "integrations", "belongs below an organisation"),
        ({"orgs": {"Acme Ltd": {}}}, "orgs.Acme Ltd", "a slug has lower-case letters, digits and hyphens only"),
        ({"org": "Acme"}, "org", "must match"),
        ({"orgs": {"a": {"integrations": [{}]}}}, "orgs.a.integrations[0].provider", "is required"),
        ({"orgs": {"a": None}}, "orgs.a", "must be a mapping"),
        ({"orgs": ["a"]}, "orgs", "must be a mapping"),
        ({"org": "a", "integrations": {"provider": "club"}}, "integrations", "must be a list"),
        ({"org": "a", "default_region": "Britain"}, "default_region", "must be a country, such as GB"),
        ({"org": "a", "store": "http://x"}, "store", "must be redis://"),
        ({"org": "a", "budget_ms": 0}, "budget_ms", "must be between 1 and 600000"),
        ({"org": "a", "batch": {"size": 0}}, "batch.size", "must be between 1 and 10000"),
    ],
)
def test_contradictions_and_bad_values_are_told(raw, where, said):
    told = refusal(raw)

    assert where in told
    assert said in told[where]


def test_what_was_read_before_changes_no_message():
    load_mapping({"orgs": {"acme": {}}}, {})
    load_mapping(
        {"org": "acme", "integrations": [{"provider": "club", "deliver": {"staging": "s", "options": {}}}]}, {}
    )

    assert refusal({"orgs": ["acme"]}) == {"orgs": "must be a mapping"}


def stream(**fields: object) -> dict[str, object]:
    return {"org": "acme", "stream": {"kind": "redis", "url": "redis://h", **fields}}


def test_a_stream_has_a_kind_a_url_and_a_name():
    loaded = load_mapping(stream(url="redis://:${PASSWORD}@h:1"), {"PASSWORD": CANARY}).stream

    assert loaded is not None
    assert (loaded.kind, loaded.url.reveal(), loaded.output) == ("redis", f"redis://:{CANARY}@h:1", "enriched-events")
    assert load_mapping({"org": "acme"}, {}).stream is None


@pytest.mark.parametrize(
    "url", ["kafka://h:9092", "kafka://[::1]:9092,h:1/", "kafka+ssl://user:p%2Fw@h.example.test:9093,other:9093"]
)
def test_a_stream_may_have_several_brokers(url):
    written = stream(kind="kafka", url=url, options={"ssl.ca.location": CANARY})

    loaded = load_mapping(written, {}).stream

    assert loaded is not None
    assert loaded.options["ssl.ca.location"].reveal() == CANARY
    assert CANARY not in repr(loaded)


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        ({"kind": "kinesis"}, "kind", "must be one of redis, kafka"),
        ({"kind": "kafka"}, "url", "is no URL for the kind kafka"),
        ({"url": "kafka://h:1"}, "url", "is no URL for the kind redis"),
        ({"url": f"amqp://u:{CANARY}@h"}, "url", "must be redis://, rediss:// or unix://, or kafka://"),
        ({"kind": "kafka", "url": f"kafka://u:{CANARY}@h"}, "url", "with host:port"),
        ({"kind": "kafka", "url": f"kafka://u:{CANARY}/@h:1"}, "url", "write / and @ in a password as %2F and %40"),
        ({"kind": "kafka", "url": "kafka://h:1", "output": "a:b"}, "output", "a topic has letters, digits"),
        ({"kind": "kafka", "url": "kafka://h:1", "max_length": 5}, "max_length", "is for redis; a topic has its own"),
        ({"options": {"acks": CANARY}}, "options", "is for kafka; remove it"),
        ({"options": {"acks": 1}}, "options.acks", "must be text"),
        ({"output": "a b"}, "output", "must be up to 249 letters"),
        ({"max_length": 0}, "max_length", "must be between 1 and"),
        ({"group": "g"}, "group", "unknown field; known are kind, max_length, options, output, url"),
    ],
)
def test_a_stream_that_cannot_be_is_told(fields, where, said):
    told = refusal(stream(**fields))

    assert list(told) == [f"stream.{where}"]
    assert said in told[f"stream.{where}"]
    assert CANARY not in repr(told)


def test_a_name_is_used_once_in_an_organisation():
    raw = {"org": "acme", "integrations": [{"provider": "club"}, {"provider": "shop", "name": "club"}]}
    assert refusal(raw) == {"integrations[1]": "name 'club' is used twice in one organisation"}


@pytest.mark.parametrize("first", [True, False])
def test_an_integration_that_is_switched_off_stands_in_nobodys_way(first):
    written = [{"provider": "club", "enabled": first}, {"provider": "club", "enabled": not first}]

    assert len(load_mapping({"org": "acme", "integrations": written}, {}).integrations) == 2


# Binding


@pytest.mark.parametrize("folder", ["partners", "./partners", None], ids=["relative", "dotted", "absolute"])
def test_the_folder_of_plugins_is_meant_from_the_file(write, tmp_path, monkeypatch, folder):
    """From wherever the program is started."""
    monkeypatch.chdir("/")
    folder = folder or str(tmp_path / "partners")
    path = write(
        f"org: acme\nplugins_dir: {folder}\nintegrations: [{{provider: club, settings: {{tenant: a, api_key: b}}}}]"
    )

    bound, loaded = bind(load_file(path, {}))

    (made,) = bound["acme"]
    assert loaded.failures == {}
    assert (made.org, made.name, made.provider, made.config.tenant) == ("acme", "club", "club", "a")


@pytest.fixture(name="bound")
def _bound(write, tmp_path):
    """Binds one integration with these fields."""

    def bound(**changes: object):
        settings = {"tenant": "acme", "api_key": CANARY}
        raw = integration(**{"settings": settings, **changes})
        (made,) = bind(load_mapping({**raw, "plugins_dir": str(tmp_path / "partners")}, {}))[0]["acme"]
        return made

    return bound


def test_an_integration_overrides_what_the_partner_says(bound):
    assert bound().linking_keys == (LinkingKey("email", "mail"),)
    assert (bound().ttl.resolved, bound().ttl.not_found, bound().limits.timeout) == (60, 300, 0.3)

    made = bound(ttl={"not_found": 10}, limits={"attempts": 1}, linking_keys=[{"source": "user_id"}])
    assert (made.ttl.resolved, made.ttl.not_found) == (60, 10)
    assert (made.limits.timeout, made.limits.attempts) == (0.3, 1)
    assert made.linking_keys == (LinkingKey("user_id", "user_id"),)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"settings": {"tenant": "acme"}}, "integrations[0].settings.api_key"),
        ({"settings": {"tenant": "acme", "api_key": "k", "tennant": CANARY}}, "integrations[0].settings.tennant"),
        ({"settings": {"tenant": [CANARY], "api_key": "k"}}, "integrations[0].settings.tenant"),
        ({"ttl": {"resolvd": 5}}, "integrations[0].ttl.resolvd"),
        ({"ttl": {"resolved": CANARY}}, "integrations[0].ttl.resolved"),
        ({"ttl": {"resolved": -1}}, "integrations[0].ttl.resolved"),
        ({"limits": {"timeout": 0}}, "integrations[0].limits.timeout"),
        ({"limits": {"attempts": 1.5}}, "integrations[0].limits.attempts"),
    ],
)
def test_settings_of_an_integration_that_are_wrong_are_told(bound, changes, where):
    with pytest.raises(ConfigError) as raised:
        bound(**changes)

    assert [problem.where for problem in raised.value.problems] == [where]
    assert CANARY not in str(raised.value)


def test_wrong_settings_hide_no_wrong_delivery(bound):
    with pytest.raises(ConfigError) as raised:
        bound(settings={"tenant": "acme"}, deliver={"staging": "s"})

    assert [problem.where for problem in raised.value.problems] == [
        "integrations[0].settings.api_key",
        "integrations[0].deliver",
    ]


def test_an_integration_shows_no_secret(bound, caplog):
    made = bound()

    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").debug("%s %r %r", made, made, made.config)

    assert CANARY not in caplog.text
    assert made.config.api_key.reveal() == CANARY


def test_the_version_changes_with_what_makes_answers_different(bound):
    """And with nothing else: a new key does not throw the memory away."""
    version = bound().version

    assert bound().version == version
    assert bound(settings={"tenant": "acme", "api_key": "another"}).version == version
    assert bound(ttl={"resolved": 5}).version == version
    assert bound(settings={"tenant": "other", "api_key": CANARY}).version != version
    assert bound(linking_keys=[{"source": "user_id"}]).version != version
    assert bound(attributes=["Tier"]).version != version


ROOM = '''
import attrs
from partnerenrich import Delivery, Partner, Receipt, hookimpl

BLUEPRINT = """
global: {mappings: [{source: user_id, target: customer_id}, {source: $traits.email, target: email, transform: sha256}]}
"""


@attrs.frozen
class Config:
    pass


@hookimpl
def partner():
    delivery = Delivery(
        formats=("csv", "parquet"), default_blueprint=BLUEPRINT, modes=("staged", "per_event"), appends=("per_event",)
    )
    return Partner(title="Room", config=Config, delivery=delivery)


@hookimpl
async def deliver_batch():
    return Receipt(state="published")
'''


@pytest.fixture(name="delivering")
def _delivering(write, tmp_path):
    """``delivering(deliver, **integration)``: the integration of a partner that only takes batches."""
    (tmp_path / "partners" / "room.py").write_text(ROOM)

    def delivering(deliver=None, **changes: object):
        written = {"provider": "room", "deliver": deliver or {"staging": "staged"}, **changes}
        raw = {"org": "acme", "plugins_dir": str(tmp_path / "partners"), "integrations": [written]}
        return bind(load_mapping(raw, {}))[0]["acme"][0].delivery

    return delivering


def test_what_deliver_leaves_out_the_partner_decides(delivering):
    settings = delivering().settings

    assert (settings.mode, settings.format, settings.compression) == ("staged", "csv", "none")
    assert (settings.collect, settings.key) == ("snapshot", "customer_id")
    assert delivering({"staging": "s", "format": "parquet"}).settings.compression == "snappy"
    assert delivering({"staging": "s", "mode": "per_event"}).settings.collect == "append"


def test_without_a_deliver_section_nothing_is_delivered(delivering, write, tmp_path):
    raw = {"org": "acme", "plugins_dir": str(tmp_path / "partners"), "integrations": [{"provider": "room"}]}

    assert bind(load_mapping(raw, {}))[0]["acme"][0].delivery is None


@pytest.mark.parametrize(
    ("deliver", "where", "said"),
    [
        ({}, "integrations[0].deliver.staging", "is required"),
        ({"staging": "ftp://somewhere"}, "integrations[0].deliver.staging", "must be a folder, or the URL of one"),
        ({"staging": "s", "mode": "magic"}, "integrations[0].deliver.mode", "must be one of staged, per_event"),
        ({"staging": "s", "format": "xml"}, "integrations[0].deliver.format", "must be one of csv, parquet"),
        ({"staging": "s", "compression": "snappy"}, "integrations[0].deliver.compression", "none, gzip, zstd for csv"),
        (
            {"staging": "s", "key": "mail"},
            "integrations[0].deliver.key",
            "customer_id, email; or write collect: append",
        ),
        ({"staging": "s", "columns": {"Mail": "e_mail"}}, "integrations[0].deliver.columns", "did you mean 'email'?"),
        ({"staging": "s", "schedule": "daily"}, "integrations[0].deliver.schedule", "must be five fields as for cron"),
        ({"staging": "s", "max_rejected": 2}, "integrations[0].deliver.max_rejected", "must be between 0 and 1"),
        ({"staging": "s", "options": {"key": 7}}, "integrations[0].deliver.options.key", "must be text"),
    ],
)
def test_what_is_wrong_with_deliver_is_told(delivering, deliver, where, said):
    with pytest.raises(ConfigError) as raised:
        delivering(deliver or {"mode": "staged"})

    told = {problem.where: problem.what for problem in raised.value.problems}
    assert said in told[where]


def test_only_who_takes_batches_may_deliver(bound, delivering, tmp_path):
    with pytest.raises(ConfigError, match="this partner takes no batches; remove it"):
        bound(settings={"tenant": "a", "api_key": CANARY}, deliver={"staging": "s"})
    with pytest.raises(ConfigError, match="blueprint: is for delivery; add deliver, too"):
        bound(settings={"tenant": "a", "api_key": CANARY}, blueprint="b.yaml")


def test_a_blueprint_of_ones_own_is_read(delivering, tmp_path):
    (tmp_path / "records.yaml").write_text("global: {mappings: [{source: user_id, target: customer_id}]}")
    (tmp_path / "wrong.yaml").write_text("global:\n  mappings:\n    - {source: user_id}")

    assert delivering(blueprint=str(tmp_path / "records.yaml")).blueprint.columns == ("customer_id",)
    with pytest.raises(ConfigError, match=r"integrations\[0\]\.blueprint: global\.mappings.*\(line 3\): is required"):
        delivering(blueprint=str(tmp_path / "wrong.yaml"))


def test_paths_of_a_delivery_are_meant_from_the_file(write, tmp_path):
    loaded = load_file(
        write(
            "org: acme\nintegrations: [{provider: room, blueprint: b.yaml, deliver: {staging: out}}]\nledger: sqlite:///l.db"
        )
    )

    (written,) = loaded.integrations
    assert written.blueprint == str(tmp_path / "b.yaml")
    assert written.deliver.staging == str(tmp_path / "out")
    assert loaded.ledger == f"sqlite:///{tmp_path}/l.db"


def test_urls_of_a_delivery_stay_as_they_are(write):
    text = "org: acme\nintegrations: [{provider: room, deliver: {staging: 's3://b/p'}}]\nledger: postgresql://h/d"
    loaded = load_file(write(text))

    assert (loaded.integrations[0].deliver.staging, loaded.ledger) == ("s3://b/p", "postgresql://h/d")


def test_options_of_the_storage_do_not_show(delivering):
    made = delivering({"staging": "s3://b", "options": {"secret_access_key": CANARY}})

    assert made.settings.options["secret_access_key"].reveal() == CANARY
    assert CANARY not in repr(made.settings) + repr(made)


def test_who_only_takes_batches_may_be_there_twice(delivering, bound, tmp_path):
    two = [{"provider": "room", "name": name, "deliver": {"staging": name}} for name in ("one", "two")]
    raw = {"org": "acme", "plugins_dir": str(tmp_path / "partners"), "integrations": two}
    assert [integration.name for integration in bind(load_mapping(raw, {}))[0]["acme"]] == ["one", "two"]

    raw["integrations"] = [
        {"provider": "club", "name": name, "settings": {"tenant": "a", "api_key": "b"}} for name in ("one", "two")
    ]
    with pytest.raises(ConfigError, match="provider 'club' is used twice in one organisation"):
        bind(load_mapping(raw, {}))


def test_a_partner_that_does_not_load_disables_its_own_integrations_only(write, tmp_path):
    (tmp_path / "partners" / "broken.py").write_text("import no_such_package_anywhere")
    path = write(
        """\
        org: acme
        plugins_dir: partners
        integrations:
          - {provider: broken}
          - {provider: absent_one}
          - {provider: club, settings: {tenant: a, api_key: b}}
        """
    )

    bound, loaded = bind(load_file(path, {}))

    assert [made.name for made in bound["acme"]] == ["club"]
    assert set(loaded.failures) == {"broken", "absent_one"}


def test_an_extension_that_does_not_load_stops_everything(write):
    with pytest.raises(PluginError, match="no plugin 'guard' is installed"):
        bind(load_file(write("org: acme\nplugins_dir: partners\nextensions: guard"), {}))


def test_an_integration_that_is_switched_off_is_not_loaded(write):
    bound, loaded = bind(load_file(write("org: acme\nintegrations: [{provider: nowhere, enabled: false}]"), {}))

    assert (bound, loaded.failures) == ({"acme": ()}, {})


# The key


def test_a_key_is_32_bytes_in_base64():
    raw = bytes(range(32))

    assert decode_key(Secret(base64.b64encode(raw).decode())) == raw


@pytest.mark.parametrize("key", ["x", "not base64!", base64.b64encode(bytes(31)).decode(), "é"])
def test_a_key_that_is_none_tells_how_to_make_one(key):
    with pytest.raises(ConfigError, match="partnerenrich secrets generate-key makes one"):
        decode_key(Secret(key))

    assert "generate-key makes one" in refusal({"org": "acme", "key": key})["key"]


# Nothing shows, whatever is written


def places_for(value: object) -> list[dict[str, object]]:
    """A configuration with this value, once in each field."""
    top = [{"org": "acme", field.name: value} for field in attrs.fields(Configuration)]
    fields = ("provider", "name", "enabled", "settings", "linking_keys", "attributes", "consent", "ttl", "limits")
    return [*top, *(integration(**{name: value}) for name in fields)]


@pytest.mark.parametrize("raw", places_for([{"x": [CANARY]}]), ids=lambda raw: list(raw)[-1])
def test_a_value_in_any_wrong_place_is_not_told(raw):
    said = ""
    try:
        said = repr(load_mapping(raw, {}))
    except ConfigError as error:
        said = f"{error!r} {error.__cause__!r} {error.__context__!r}"

    assert CANARY not in said


def test_secrets_of_a_configuration_do_not_show():
    key = base64.b64encode(b"canary".ljust(32)).decode()
    raw = {**integration(settings={"api_key": CANARY}), "key": key, "store": f"redis://:{CANARY}@127.0.0.1"}
    shown = repr(load_mapping(raw, {}))

    assert CANARY not in shown
    assert key not in shown


NAMES = st.sampled_from(
    [
        "org",
        "orgs",
        "integrations",
        "provider",
        "settings",
        "linking_keys",
        "source",
        "hash",
        "ttl",
        "batch",
        "key",
        "x",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(CANARY)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES | st.none(), JUNK, max_size=5))
def test_junk_is_refused_by_a_config_error_that_tells_no_value(raw):
    said = ""
    try:
        load_mapping(raw, {})
    except ConfigError as error:
        said = f"{error!r} {error.__cause__!r} {error.__context__!r}"

    assert CANARY not in said


@given(st.text(alphabet="org: a-[]{}&*!|>'\"\n\t#%@`,?\\${}\x00é", max_size=40))
def test_any_text_is_a_configuration_or_a_config_error(text):
    from partnerenrich.yamltext import read_yaml

    try:
        read_yaml(text)
    except ConfigError as error:
        said = error
    else:
        said = None

    assert said is None or said.problems
