"""The settings: two are required, and a wrong one is named and never shown."""

from __future__ import annotations

import attrs
import pytest

from partnerenrich import ConfigError
from partnerenrich.schema import class_schema
from partnerenrich.settings import structure
from partnerenrich_uid2.config import EUIDConfig, UID2Config

BOTH = pytest.mark.parametrize("cls", [UID2Config, EUIDConfig])


@BOTH
def test_key_and_secret_are_required(cls):
    with pytest.raises(ConfigError) as caught:
        structure(cls, {}, "settings")

    assert sorted(map(str, caught.value.problems)) == [
        "settings.api_key: is required",
        "settings.client_secret: is required",
    ]


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ("integration", "https://operator-integ.uidapi.com"),
        ("production", "https://global.prod.uidapi.com"),
        ("us-east-2", "https://prod.uidapi.com"),
        ("us-west-2", "https://usw.prod.uidapi.com"),
        ("ap-southeast-2", "https://au.prod.uidapi.com"),
        ("ap-northeast-1", "https://jp.prod.uidapi.com"),
        ("ap-southeast-1", "https://sg.prod.uidapi.com"),
    ],
)
def test_environments_of_uid2(configured, environment, root):
    assert root == configured(environment=environment).root


@pytest.mark.parametrize(
    ("environment", "root"), [("integration", "https://integ.euid.eu"), ("production", "https://prod.euid.eu")]
)
def test_environments_of_euid(euid_configured, environment, root):
    assert root == euid_configured(environment=environment).root


def test_production_is_the_default(configured, euid_configured):
    assert configured().root == "https://global.prod.uidapi.com"
    assert euid_configured().root == "https://prod.euid.eu"


def test_a_region_of_uid2_is_none_of_euid(euid_configured):
    with pytest.raises(ConfigError, match=r"settings\.environment: must be one of production, integration"):
        euid_configured(environment="us-east-2")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8123/uid2", "http://127.0.0.1:8123/uid2/"])
def test_a_private_operator_replaces_the_environment(configured, url):
    assert configured(base_url=url).root == "http://127.0.0.1:8123/uid2"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key", "Bearer canary"),
        ("api_key", "canary\r\nX-Evil: 1"),
        ("client_secret", "canary"),
        ("client_secret", "Y2FuYXJ5"),
        ("client_secret", "canary" * 7 + "=="),
        ("client_secret", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("client_secret", "__ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("environment", "canary"),
        ("base_url", "ftp://canary.example.test"),
        ("base_url", "https://user:canary@example.test"),
        ("base_url", "https://canary.example.test/v2"),
        ("base_url", "https://canary.example.test/v3/"),
        ("base_url", "canary.example.test"),
        ("protocol", "canary"),
        ("body", "canary"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_never_shown(configured, field, value):
    with pytest.raises(ConfigError) as caught:
        configured(**{field: value})

    (problem,) = caught.value.problems
    assert problem.where == f"settings.{field}"
    assert "canary" not in str(caught.value)


def test_the_secret_is_an_aes_256_key(configured, key):
    assert key == configured().key


@BOTH
def test_every_field_is_described_in_the_schema(cls):
    """Subclasses of the settings must not lose what users are told of each field."""
    described = class_schema(cls)["properties"]

    assert {field.name for field in attrs.fields(cls)} == {
        n for n, field in described.items() if "description" in field
    }


def test_no_secret_is_in_the_repr(configured):
    shown = repr(configured())

    assert "canary" not in shown
    assert "AAECAwQF" not in shown
