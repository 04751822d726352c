"""The settings: exactly four are required, and a wrong one is named."""

from __future__ import annotations

import attrs
import pytest

from partnerenrich import ConfigError
from partnerenrich.settings import structure
from partnerenrich_amperity.config import Config

REQUIRED = ["tenant_subdomain", "tenant_id", "profile_api_key", "profile_collection_id"]


def test_exactly_four_settings_are_required():
    required = [field.name for field in attrs.fields(Config) if field.default is attrs.NOTHING]

    assert required == REQUIRED


def test_each_missing_setting_is_named():
    with pytest.raises(ConfigError) as caught:
        structure(Config, {}, "settings")

    assert [f"settings.{name}: is required" for name in REQUIRED] == [str(p) for p in caught.value.problems]


def test_the_host_follows_from_the_subdomain_not_from_the_tenant(configured):
    assert configured().root == "https://acme.amperity.com"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8123/amperity", "http://127.0.0.1:8123/amperity/"])
def test_a_base_url_replaces_the_host_and_keeps_its_path(configured, url):
    assert configured(base_url=url).root == "http://127.0.0.1:8123/amperity"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant_subdomain", "acme.amperity.com"),
        ("tenant_subdomain", "Acme"),
        ("tenant_subdomain", "-acme"),
        ("tenant_id", "a b"),
        ("tenant_id", "a\r\nX-Evil: 1"),
        ("profile_api_key", "Bearer canary"),
        ("profile_api_key", "canary\n"),
        ("profile_collection_id", "../apc"),
        ("profile_collection_id", "apc/x"),
        ("base_url", "ftp://canary.example.test"),
        ("base_url", "https://user:canary@example.test"),
        ("base_url", "https://example.test?canary=1"),
        ("base_url", "example.test"),
        ("api", "canary"),
        ("lookup_style", "canary"),
        ("segments", ""),
        ("client_id", "a b"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_never_shown(configured, field, value):
    with pytest.raises(ConfigError) as caught:
        configured(**{field: value})

    (problem,) = caught.value.problems
    assert problem.where == f"settings.{field}"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("half", [{"client_id": "c"}, {"client_secret": "s"}])
def test_half_an_oauth_client_is_refused(configured, half):
    with pytest.raises(ConfigError, match="give both or neither"):
        configured(**half)


def test_indexes_have_no_segments(configured):
    with pytest.raises(ConfigError, match=r"settings\.segments: indexes have no segments"):
        configured(api="indexes", segments="Segments")


def test_an_unknown_setting_is_refused_with_a_suggestion(configured):
    with pytest.raises(ConfigError, match="did you mean 'tenant_id'"):
        configured(tenant_i="x")


def test_no_secret_is_in_the_repr(configured):
    shown = repr(configured(client_id="c", client_secret="canary-secret"))

    assert "canary" not in shown
