"""The JSON Schema of the configuration says what the configuration's own checks say."""

from __future__ import annotations

from enum import Enum
from typing import Literal

import attrs
import pytest
from jsonschema import Draft202012Validator

from partnerenrich import (
    ConfigError,
)
from partnerenrich.configuration import bind, load_mapping
from partnerenrich.plugins import load
from partnerenrich.schema import class_schema, config_schema

SETTINGS = '''
import attrs
from partnerenrich import LinkingKey, Partner, Resolution, Secret, between, hookimpl, one_of, pattern


@attrs.frozen(kw_only=True)
class Settings:
    """
    Settings.

    Attributes:
        tenant: Part of the host,
            in lower case.
        api_key: The credential.
    """

    tenant: str = attrs.field(validator=pattern("[a-z]+"))
    api_key: Secret = attrs.field(validator=pattern("k-.+"))
    region: str = attrs.field(default="eu", validator=one_of("eu", "us"))
    pages: int | None = attrs.field(default=None, validator=between(1, 9))


@hookimpl
def partner():
    return Partner(title="Loyalty Club", config=Settings, linking_keys=(LinkingKey("email", "mail"),))


@hookimpl
async def resolve_id():
    return Resolution.absent()
'''

GOOD = {"tenant": "shop", "api_key": "k-1"}


@pytest.fixture
def plugins_dir(tmp_path):
    (tmp_path / "loyalty.py").write_text(SETTINGS)
    return tmp_path


@pytest.fixture
def schema(plugins_dir):
    return config_schema(load(["loyalty"], plugins_dir=plugins_dir).partners.values())


@pytest.fixture
def is_valid(schema):
    return Draft202012Validator(schema).is_valid


@pytest.fixture
def is_accepted(plugins_dir):
    def accepted(raw) -> bool:
        try:
            bind(load_mapping(raw | {"plugins_dir": str(plugins_dir)}, environment={}))
        except ConfigError:
            return False
        return True

    return accepted


def with_integration(**fields):
    return {"org": "acme", "integrations": [{"provider": "loyalty", "settings": GOOD} | fields]}


def test_it_is_a_schema(schema):
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", ["IntegrationSettings", "OrgSettings", "LinkingKey", "TTL", "Limits"])
def test_every_field_is_described(schema, name):
    described = schema["$defs"][name]["properties"]

    assert [field for field, about in described.items() if not about.get("description")] == []
    assert schema["$defs"]["IntegrationSettings"]["properties"]["limits"]["$ref"] == "#/$defs/Limits"


@pytest.mark.parametrize(
    "raw",
    [
        with_integration(),
        with_integration(settings=GOOD | {"region": "us", "pages": 3}),
        with_integration(linking_keys=[{"source": "email", "key": "mail", "hash": "sha256"}]),
        with_integration(linking_keys='[{"source": "$traits.loyalty_id", "key": "card", "hash": null}]'),
        with_integration(browser_attribute_allowlist="Persona, Tier", attributes=None, consent=["marketing"]),
        with_integration(ttl={"resolved": 60}, limits={"calls_per_day": 5}, name="club", enabled=True),
        {"orgs": {"acme": {"integrations": [], "default_region": "GB"}}, "org_from": "tenant"},
        {"org": "acme", "stream": {"kind": "redis", "url": "unix:///s", "output": "acme:events", "max_length": 5}},
        {"org": "acme", "stream": {"kind": "kafka", "url": "kafka://a:1,b:2", "options": {"linger.ms": "1"}}},
        {"org": "acme", "store": "embedded:memory", "batch": {"size": 3}, "hub": {"browser_identity": "trusted"}},
    ],
)
def test_what_is_right_is_right_for_both(raw, is_valid, is_accepted):
    assert is_valid(raw)
    assert is_accepted(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"org": "acme", "orgs": {"other": {}}},
        {"org": "Not A Slug"},
        {"org": "acme", "unknown": 1},
        {"org": "acme", "store": "http://nowhere"},
        {"org": "acme", "budget_ms": 0},
        {"org": "acme", "stream": {"kind": "redis"}},
        {"org": "acme", "stream": {"kind": "redis", "url": "http://nowhere"}},
        {"org": "acme", "stream": {"kind": "kafka", "url": "kafka://nowhere"}},
        {"org": "acme", "stream": {"kind": "redis", "url": "redis://h", "input": "raw-events"}},
        {"org": "acme", "batch": {"size": "5"}},
        {"org": "acme", "hub": {"browser_identity": "maybe"}},
        {"org": "acme", "integrations": [{"provider": "loyalty"}]},
        with_integration(settings={"tenant": "shop"}),
        with_integration(settings=GOOD | {"tenant": "SHOP"}),
        with_integration(settings=GOOD | {"api_key": "1"}),
        with_integration(settings=GOOD | {"region": "mars"}),
        with_integration(settings=GOOD | {"pages": 10}),
        with_integration(settings=GOOD | {"unknown": 1}),
        with_integration(linking_keys=[{"source": "shoe_size", "key": "s"}]),
        with_integration(linking_keys=[{"source": "email", "key": "mail", "hash": "md5"}]),
        with_integration(ttl={"resolvd": 60}),
        with_integration(limits={"attempts": "two"}),
        with_integration(name="not a name"),
    ],
)
def test_what_is_wrong_is_wrong_for_both(raw, is_valid, is_accepted):
    assert not is_valid(raw)
    assert not is_accepted(raw)


def test_a_variable_may_stand_for_any_text(is_valid):
    assert is_valid(with_integration(settings={"tenant": "${TENANT}", "api_key": "${KEY}", "region": "${REGION}"}))


def test_secrets_are_write_only_and_descriptions_come_from_docstrings(schema):
    settings = schema["$defs"]["loyalty_settings"]["properties"]
    assert settings["api_key"]["writeOnly"] is True
    assert settings["api_key"]["description"] == "The credential."
    assert settings["tenant"]["description"] == "Part of the host, in lower case."
    assert schema["properties"]["key"]["anyOf"][0]["writeOnly"] is True
    assert schema["properties"]["stream"]["anyOf"][0]["properties"]["url"]["writeOnly"] is True


def test_only_installed_partners_may_be_named(schema):
    assert schema["$defs"]["IntegrationSettings"]["properties"]["provider"]["enum"] == ["loyalty"]


def test_without_partners_it_is_a_schema_too():
    Draft202012Validator.check_schema(config_schema([]))


def test_types_of_settings():
    class Colour(Enum):
        RED = "red"

    @attrs.frozen
    class Inner:
        depth: int = 1

    cls = attrs.make_class(
        "Wide",
        {
            "colour": attrs.field(type=Colour),
            "word": attrs.field(type=Literal["a", "b"]),
            "names": attrs.field(type=tuple[str, ...]),
            "numbers": attrs.field(type=dict[str, float]),
            "inner": attrs.field(type=Inner),
            "anything": attrs.field(type=object),
        },
    )
    properties = class_schema(cls)["properties"]
    assert properties == {
        "colour": {"enum": ["red"]},
        "word": {"enum": ["a", "b"]},
        "names": {"type": "array", "items": {"type": "string"}},
        "numbers": {"type": "object", "additionalProperties": {"type": "number"}},
        "inner": {
            "type": "object",
            "properties": {"depth": {"type": "integer", "default": 1}},
            "additionalProperties": False,
        },
        "anything": {},
    }
