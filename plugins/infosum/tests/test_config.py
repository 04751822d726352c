"""The settings."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from partnerenrich import ConfigError
from partnerenrich.settings import structure
from partnerenrich_infosum._startup import warn_of_key
from partnerenrich_infosum.config import Config

SETTINGS = {"api_key": "canary-v2-key", "dataset_id": "AWS_EU_WEST_2.7f", "importer_id": "IMP.42", "region": "uk"}


def configured(**others) -> Config:
    return structure(Config, SETTINGS | others, "settings")


def test_four_fields_are_enough():
    """All others have a default or are discovered."""
    config = configured()

    assert config.root == "https://api.infosum.com/api/v2"
    assert (config.target_folder, config.narrow_importer, config.stage_deadline) == ("partnerenrich", False, 7200)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_of_the_four_is_required(name):
    with pytest.raises(ConfigError) as raised:
        structure(Config, {key: value for key, value in SETTINGS.items() if key != name}, "settings")

    assert [str(problem) for problem in raised.value.problems] == [f"settings.{name}: is required"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key", "Bearer canary-v2-key"),
        ("api_key", ""),
        ("dataset_id", "a/b"),
        ("dataset_id", ".."),
        ("importer_id", "IMP 42"),
        ("importer_id", "IMP.42?x"),
        ("region", "EU"),
        ("region", "de"),
        ("base_url", "api.infosum.com"),
        ("base_url", "https://api.infosum.com/api/v2"),
        ("base_url", "https://user@api.infosum.com"),
        ("target_folder", "Recordsets"),
        ("target_folder", "Recordsets/crm"),
        ("target_folder", "/crm"),
        ("target_folder", "crm/"),
        ("target_folder", "crm/../x"),
        ("target_folder", "crm daily"),
        ("stage_deadline", 1),
        ("api_key_expires", "next year"),
        ("api_key_expires", "2026-02-30"),
        ("automation_id", "a b"),
    ],
)
def test_what_cannot_be_is_refused_by_name(field, value):
    """The message names the field, and not the value."""
    with pytest.raises(ConfigError) as raised:
        configured(**{field: value})

    assert [problem.where for problem in raised.value.problems] == [f"settings.{field}"]
    assert len(str(value)) < 8 or value == "Recordsets" or str(value) not in str(raised.value)


@pytest.mark.parametrize("region", ["eu", "uk", "us", "au"])
def test_regions(region):
    """Those of InfoSum's published API."""
    assert configured(region=region).REGIONS[region]


@pytest.mark.parametrize(
    ("key", "is_v1"),
    [("public-half/private-half", True), ("canary-v2-key", False), ("ey.J0/eXA/iOi", False), ("/private", False)],
)
def test_a_v1_pair_is_recognised_by_its_form(key, is_v1, caplog):
    """It is accepted, since the form of V2 keys is not published, and warned of."""
    config = configured(api_key=key)
    warn_of_key(config, datetime(2026, 1, 1, tzinfo=UTC))

    assert config.looks_like_v1 is is_v1
    assert ("only V2 API keys are supported" in caplog.text) is is_v1
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("day", "warned"), [("2026-01-31", "in 30 days"), ("2025-12-31", "in -1 days"), ("2026-02-01", "")]
)
def test_a_key_that_ends_soon_is_warned_of(day, warned, caplog):
    """A month before, and after."""
    with caplog.at_level(logging.WARNING):
        warn_of_key(configured(api_key_expires=day), datetime(2026, 1, 1, 12, tzinfo=UTC))

    assert (warned in caplog.text) if warned else (caplog.text == "")
