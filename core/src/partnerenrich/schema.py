"""The JSON Schema of the configuration, made from the same classes that check it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin

import attrs

from partnerenrich import recipes
from partnerenrich.configuration import (
    SOURCES,
    Configuration,
    IntegrationSettings,
    LinkingKeys,
    Names,
    OrgSettings,
    WrittenLimits,
    WrittenTTL,
)
from partnerenrich.models import TTL, Limits
from partnerenrich.secret import Secret
from partnerenrich.settings import Rule

if TYPE_CHECKING:
    from partnerenrich.plugins import BoundPartner

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE: Final = r"\$\{[^}]*\}"
_SIMPLE: Final[Mapping[Any, Schema]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Secret: {"type": "string", "writeOnly": True},
    NoneType: {"type": "null"},
    Any: {},
    Names: {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
    WrittenTTL: {"$ref": "#/$defs/TTL"},
    WrittenLimits: {"$ref": "#/$defs/Limits"},
    LinkingKeys: {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/LinkingKey"}}, {"type": "string"}]},
}
_REFERRED: Final = (IntegrationSettings, OrgSettings)
_LINKING_KEY: Final[Schema] = {
    "type": "object",
    "description": "Which identifier to try.",
    "properties": {
        "source": {
            "description": "Where the identifier stands in an event, or a path such as $traits.loyalty_id.",
            "anyOf": [{"enum": list(SOURCES)}, {"type": "string", "pattern": r"^\$"}],
        },
        "key": {"type": "string", "description": "The partner's name for it."},
        "hash": {"enum": [*recipes.HASHES, None], "description": "How it is normalised and hashed.", "default": "none"},
    },
    "required": ["source"],
    "additionalProperties": False,
}


def config_schema(partners: Iterable[BoundPartner]) -> Schema:
    """
    Describe the configuration file.

    A text may hold ``${NAME}``, so a field with a rule accepts that too. Secrets
    are ``writeOnly``.

    Args:
        partners: Their keys are the providers that an integration may name, and
            their settings classes say what belongs below ``settings``.

    Returns:
        A schema of the dialect 2020-12.
    """
    known = sorted(partners, key=lambda partner: partner.key)
    integration = class_schema(IntegrationSettings)
    provider = integration["properties"]["provider"]
    integration["properties"]["provider"] = {
        "enum": [partner.key for partner in known],
        "description": provider["description"],
    }
    if known:
        integration["allOf"] = [_settings_of(partner) for partner in known]
    schema = class_schema(Configuration)
    schema["oneOf"] = [{"required": ["org"]}, {"required": ["orgs"]}]
    return {
        "$schema": DIALECT,
        "title": "partnerenrich configuration",
        **schema,
        "$defs": {
            "IntegrationSettings": integration,
            "OrgSettings": class_schema(OrgSettings),
            "LinkingKey": _LINKING_KEY,
            "TTL": class_schema(TTL),
            "Limits": class_schema(Limits),
            **{f"{partner.key}_settings": class_schema(partner.facts.config) for partner in known},
        },
    }


def class_schema(cls: type[Any]) -> Schema:
    """
    Describe an attrs class: types, rules, defaults, and the ``Attributes:`` of its docstring.

    Nested attrs classes are described in place.
    """
    attrs.resolve_types(cls)
    fields = [field for field in attrs.fields(cls) if field.init]
    descriptions = _descriptions(cls)
    schema: Schema = {
        "type": "object",
        "properties": {field.name: _field(field, descriptions.get(field.name)) for field in fields},
        "additionalProperties": False,
    }
    if required := [field.name for field in fields if field.default is attrs.NOTHING]:
        schema["required"] = required
    return schema


def _field(field: attrs.Attribute[Any], description: str | None) -> Schema:
    schema = _type(field.type)
    if isinstance(field.validator, Rule):
        for branch in schema.get("anyOf", [schema]):
            if branch != {"type": "null"}:
                branch.update(_keywords(field.validator, branch))
    if description:
        schema["description"] = description
    if isinstance(field.default, (str, int, float)):
        schema["default"] = field.default
    return schema


def _keywords(rule: Rule, branch: Schema) -> Schema:
    """The rule's keywords; text may also name a variable, whose value is checked when it is known."""
    if branch.get("type") == "string":
        return {"anyOf": [dict(rule.schema), {"pattern": _VARIABLE}]}
    return dict(rule.schema)


def _type(kind: Any) -> Schema:
    origin, arguments = get_origin(kind), get_args(kind)
    schema: Schema = {}
    if kind in _SIMPLE:
        schema = dict(_SIMPLE[kind])
    elif kind in _REFERRED:
        schema = {"$ref": f"#/$defs/{kind.__name__}"}
    elif origin in {Union, UnionType}:
        schema = {"anyOf": [_type(argument) for argument in arguments]}
    elif origin is Literal:
        schema = {"enum": list(arguments)}
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        schema = {"type": "object", "additionalProperties": _type(arguments[1])}
    elif isinstance(origin, type) and issubclass(origin, (Sequence, AbstractSet)):
        schema = {"type": "array", "items": _type(arguments[0])}
    elif isinstance(kind, type) and issubclass(kind, Enum):
        schema = {"enum": [member.value for member in kind]}
    elif attrs.has(kind):
        schema = class_schema(kind)
    return schema


def _settings_of(partner: BoundPartner) -> Schema:
    reference = {"$ref": f"#/$defs/{partner.key}_settings"}
    then: Schema = {"properties": {"settings": reference}}
    if any(field.default is attrs.NOTHING for field in attrs.fields(partner.facts.config)):
        then["required"] = ["settings"]
    return {"if": {"properties": {"provider": {"const": partner.key}}, "required": ["provider"]}, "then": then}


def _descriptions(cls: type[Any]) -> dict[str, str]:
    section = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
