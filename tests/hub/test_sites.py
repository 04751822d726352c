"""Which organisation is meant, and where its settings stand."""

import pytest

from partnerenrich import ConfigError
from partnerenrich.configuration import load_mapping
from partnerenrich_server.hub.sites import network_of, problems


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({"orgs": {"a": {}}, "hub": {"public_key": "pk"}}, "hub.public_key"),
        ({"orgs": {"a": {}}, "hub": {"browser_identity": "trusted"}}, "hub.browser_identity"),
        ({"orgs": {"a": {"hub": {"limits": {"queue": 5}}}}}, "orgs.a.hub.limits"),
        ({"orgs": {"a": {"hub": {"proxies": ["10.0.0.1"]}}}}, "orgs.a.hub.proxies"),
        ({"orgs": {"a": {"hub": {"public_key": "pk"}}, "b": {"hub": {"public_key": "pk"}}}}, "orgs.b.hub"),
        ({"orgs": {"a": {"hub": {"hosts": ["x.example"]}}, "b": {"hub": {"hosts": ["x.example"]}}}}, "orgs.b.hub"),
    ],
)
def test_a_field_of_the_hub_in_the_wrong_place_is_named(raw, where):
    with pytest.raises(ConfigError) as caught:
        load_mapping(raw)

    assert [problem.where for problem in caught.value.problems] == [where]


def test_organisations_that_cannot_be_told_apart_are_named():
    orgs = {"a": {}, "b": {"hub": {"hosts": ["id.b.example"]}}}

    assert [problem.where for problem in problems(load_mapping({"orgs": orgs}))] == ["orgs.a.hub"]


def test_one_organisation_needs_nothing():
    assert problems(load_mapping({"org": "acme"})) == []


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", ""),
        (None, ""),
    ],
)
def test_what_is_counted_as_one_address(address, network):
    assert network_of(address) == network
