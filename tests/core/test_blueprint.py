"""Blueprints: which events are sent, where values come from and go to, what is refused."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import ConfigError
from partnerenrich.blueprint import Blueprint
from partnerenrich.recipes import HASHES
from partnerenrich.transforms import DATE_FORMATS, TRANSFORMS

GUIDE = """\
global:
  mappings:
    - source: partner_attrs.amperity.Persona
      target: user_persona
    - source: partner_attrs.amperity.LifetimeTier
      target: user_tier
    - source: partner_attrs.amperity.FavoriteBrand
      target: user_favorite_brand
"""

FULL = """\
version: 2
delivery_mode: server_side
parameters: {account: demo-7, token: hush}
global:
  mappings:
    - source: vendor_ids.fbp
      target: person.browser_id
    - source: partner_attrs.amperity.LifetimeTier
      target: person.tier
    - source: timestamp
      target: sent_at
      transform: date_format
      format: epoch_micros
    - source: context.consent.canonical.marketing
      target: flags.may_market
      value_map: {'true': "yes", 'false': "no", '*': "no"}
  enrichments: []
  transforms: []
defaults: {action: drop, mappings: []}
events:
  Basket Viewed:
    vendor_event_name: basket
    enabled: true
    mappings:
      - source: properties.value
        target: amount
  Basket Emptied: {enabled: false}
  page:
"""

EVENT = {
    "type": "track",
    "event": "Basket Viewed",
    "properties": {"value": 42.0, "currency": "GBP", "email": "Pat@Example.test ", "items": [{"sku": "a"}, {"sku": 7}]},
    "userId": "u-1009",
    "anonymousId": "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a",
    "groupId": None,
    "context": {
        "userAgent": "UA",
        "consent": {"canonical": {"marketing": True}},
        "vendor_ids": {"fbp": "fb.1"},
        "partner_attrs": {"amperity": {"Persona": "Value Hunter", "LifetimeTier": "Gold"}},
    },
    "timestamp": "2026-08-01T10:00:00.000Z",
    "messageId": "m-1",
}


def one(source, event=EVENT, region=None, **rest):
    """The payload of a blueprint with one mapping to `x`."""
    blueprint = Blueprint.from_yaml(json.dumps({"global": {"mappings": [{"source": source, "target": "x", **rest}]}}))
    return blueprint.payload(event, default_region=region)


def of_value(value, region=None, source="properties.v", **rest):
    """The same for one property."""
    return one(source, {"properties": {source.rpartition(".")[2]: value}}, region, **rest)


def targets(*names, section="global"):
    return {section: {"mappings": [{"source": "event", "target": name} for name in names]}}


def problems(blueprint):
    with pytest.raises(ConfigError) as caught:
        Blueprint.from_yaml(blueprint if isinstance(blueprint, str) else json.dumps(blueprint, indent=1))
    return {problem.where: problem for problem in caught.value.problems}


# Which events are sent


def test_the_guides_snippet_carries_attributes():
    """Without a version and without events, every event is sent; a missing attribute leaves its field out."""
    payload = Blueprint.from_yaml(GUIDE).payload(EVENT)

    assert payload == {"user_persona": "Value Hunter", "user_tier": "Gold"}


def test_all_sections_together():
    blueprint = Blueprint.from_yaml(FULL)

    assert blueprint.payload(EVENT) == {
        "event_name": "basket",
        "person": {"browser_id": "fb.1", "tier": "Gold"},
        "sent_at": 1785578400000000,
        "flags": {"may_market": "yes"},
        "amount": 42.0,
    }


@pytest.mark.parametrize(
    ("event", "sent"),
    [
        ({"type": "track", "event": "Basket Viewed"}, {"event_name": "basket"}),
        ({"type": "Track", "event": "Basket Viewed"}, {"event_name": "basket"}),
        ({"event": "Basket Viewed"}, {"event_name": "basket"}),
        ({"type": "page", "event": "Basket Viewed"}, {}),
        ({"type": "PAGE"}, {}),
        ({"type": "track", "event": "Basket Emptied"}, None),
        ({"type": "track", "event": "Other"}, None),
        ({"type": "identify"}, None),
        ({"type": "track"}, None),
        ({"type": ["track"], "event": {}}, None),
        ({}, None),
    ],
)
def test_sections_match_the_event_of_a_track_else_the_type(event, sent):
    """An event that is not listed is dropped, unless the defaults say otherwise."""
    assert sent == Blueprint.from_yaml(FULL).payload(event)


def test_defaults_send_what_is_not_listed():
    blueprint = Blueprint.from_yaml(
        """
        global: {mappings: [{source: event, target: name}, {source: type, target: kind}]}
        defaults: {action: send, mappings: [{source: user_id, target: name}]}
        events: {page: {}}
        """
    )

    assert blueprint.payload({"type": "page", "event": "e", "userId": "u"}) == {"name": "e", "kind": "page"}
    assert blueprint.payload({"type": "group", "event": "e", "userId": "u"}) == {"name": "u", "kind": "group"}


def test_an_events_mapping_replaces_the_global_one():
    """Even when its own source is missing."""
    blueprint = Blueprint.from_yaml(
        """
        global: {mappings: [{source: type, target: a.b}, {source: type, target: a.c}]}
        events: {page: {mappings: [{source: name, target: a.b}]}}
        """
    )

    assert blueprint.payload({"type": "page", "name": "Home"}) == {"a": {"b": "Home", "c": "page"}}
    assert blueprint.payload({"type": "page"}) == {"a": {"c": "page"}}


@pytest.mark.parametrize("target", ["event_name", "event_name.text"])
def test_a_mapping_to_event_name_replaces_the_vendors(target):
    blueprint = Blueprint.from_yaml(
        f"events: {{page: {{vendor_event_name: view, mappings: [{{source: type, target: {target}}}]}}}}"
    )

    assert blueprint.payload({"type": "page"})["event_name"] in ("page", {"text": "page"})


# Sources


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("user_id", "u-1009"),
        ("userId", "u-1009"),
        ("message_id", "m-1"),
        ("anonymous_id", "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"),
        ("group_id", None),
        ("context.user_agent", "UA"),
        ("properties.value", 42.0),
        ("properties.items.1.sku", 7),
        ("properties.items", [{"sku": "a"}, {"sku": 7}]),
        ("vendor_ids.fbp", "fb.1"),
        ("context.vendor_ids.fbp", "fb.1"),
        ("partner_attrs.amperity.Persona", "Value Hunter"),
    ],
)
def test_sources(source, value):
    assert one(source) == {"x": value}


@pytest.mark.parametrize(
    "source",
    [
        *("nothing", "properties.nothing", "properties.value.deeper", "properties.items.2", "properties.items.sku"),
        *("properties.items.-1", "vendor_ids", "partner_attrs.other.Persona", "$traits.email", "userid"),
    ],
)
def test_a_missing_source_leaves_its_field_out(source):
    event = {key: value for key, value in EVENT.items() if key != "context"}

    assert one(source, event) == {}


def test_the_written_spelling_wins():
    assert one("user_id", {"userId": "camel", "user_id": "snake"}) == {"x": "snake"}
    assert one("user_id", {"userId": "camel", "user_id": None}) == {"x": None}


def test_the_wire_spelling_is_found_at_every_step():
    assert one("context.network_info.last_seen_ip", {"context": {"networkInfo": {"lastSeenIp": "::1"}}}) == {"x": "::1"}


def test_a_number_is_a_key_of_an_object_too():
    assert one("properties.0", {"properties": {"0": "zero"}}) == {"x": "zero"}


def test_traits_are_read_from_two_places():
    event = {"traits": {"email": "near"}, "context": {"traits": {"email": "far", "firstName": "Pat"}}}

    assert one("$traits.email", event) == {"x": "near"}
    assert one("$traits.first_name", event) == {"x": "Pat"}
    assert one("$traits", event) == {"x": {"email": "near"}}


def test_attributes_are_read_in_the_spelling_that_the_enrichment_owns():
    """A sender cannot pass an attribute off under another spelling."""
    event = {"context": {"partnerAttrs": {"my_p": {"a_b": 1}}, "partner_attrs": {"myP": {"a_b": 1}, "p": {"aB": 1}}}}

    for source in ("partner_attrs.my_p.a_b", "context.partner_attrs.my_p.a_b", "partner_attrs.p.a_b"):
        assert one(source, event) == {}


def test_values_are_carried_on_as_they_are():
    """A decoder may keep the text of a number."""
    number = Decimal("1.10")

    assert of_value(number)["x"] is number


def test_the_event_is_left_alone():
    event = json.loads(json.dumps(EVENT))
    Blueprint.from_yaml(FULL).payload(event)

    assert event == EVENT


# Transforms


def test_transforms_are_applied_in_order():
    assert of_value(" A ", transform=["trim", "lowercase"]) == {"x": "a"}
    assert of_value(True, transform=["to_string", "uppercase"]) == {"x": "TRUE"}
    assert of_value("a", transform=[]) == {"x": "a"}
    assert of_value("2026-08-01", transform="date_format", format="epoch_seconds") == {"x": 1785542400}


@pytest.mark.parametrize("transform", ["lowercase", ["to_number", "lowercase"], ["lowercase", "to_number"], "sha256"])
@pytest.mark.parametrize("value", [None, True, [], {}])
def test_what_cannot_be_transformed_is_left_out(transform, value):
    assert of_value(value, transform=transform) == {}


def test_recipes_know_an_email_and_a_phone_by_the_last_step():
    event = {"traits": {"email": " User@Example.com", "phone": "07700 900123", "plan": " Gold "}}

    assert one("$traits.email", event, transform="sha256") == {
        "x": "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514"
    }
    assert one("$traits.phone", event, "GB", transform="sha256") == {
        "x": "a8acc3a90a7b4e4dc65e93db9240ed26523050ef754d63b75b5161de76781436"
    }
    assert one("$traits.phone", event, "GB", transform="none") == {"x": "+447700900123"}
    assert one("$traits.phone", event, None, transform="sha256") == {}
    assert one("$traits.plan", event, transform="none") == {"x": "Gold"}


def test_a_digest_is_passed_on():
    digest = "B4C9A289323B21A01C3E940F150EB9B8C542587F1ABFD8F0E1CC1FFC5E475514"

    assert of_value(digest, source="properties.email", transform="sha256") == {"x": digest.lower()}


# Value maps


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (True, 1),
        ("true", 1),
        (False, 0),
        (None, "empty"),
        (7, "seven"),
        ("7", "seven"),
        (1.5, "half"),
        ("", "blank"),
        ("gone", None),
        ("other", "rest"),
        ([7], "rest"),
        ({}, "rest"),
    ],
)
def test_values_are_mapped_by_their_text(value, result):
    blueprint = Blueprint.from_yaml(
        """
        global:
          mappings:
            - source: v
              target: x
              value_map: {true: 1, 'false': 0, null: empty, 7: seven, 1.5: half, '': blank, gone: null, '*': rest}
        """
    )

    assert blueprint.payload({"v": value}) == {"x": result}


def test_without_a_fallback_other_values_are_left_out():
    assert of_value("other", value_map={"a": "b"}) == {}
    assert of_value([], value_map={"a": "b", "": "c"}) == {}


def test_transforms_come_before_the_map():
    assert of_value("GOLD", transform="lowercase", value_map={"gold": 1}) == {"x": 1}


def test_a_fallback_is_not_for_missing_sources():
    assert one("properties.nothing", value_map={"*": "rest"}) == {}


# What is refused


@pytest.mark.parametrize(
    ("blueprint", "where"),
    [
        ({"version": 1}, "version"),
        ({"version": "2.1"}, "version"),
        ({"name": "old", "steps": [{"type": "map"}]}, "steps"),
        ({"globals": {}}, "globals"),
        ({"delivery_mode": "client_side"}, "delivery_mode"),
        ({"parameters": []}, "parameters"),
        ({"global": []}, "global"),
        ({"global": {"mapping": []}}, "global.mapping"),
        ({"global": {"mappings": {"a": "b"}}}, "global.mappings"),
        ({"global": {"mappings": ["a"]}}, "global.mappings"),
        ({"global": {"enrichments": [1]}}, "global.enrichments"),
        ({"global": {"transforms": [1]}}, "global.transforms"),
        ({"defaults": {"action": "keep"}}, "defaults.action"),
        ({"defaults": {"action": "drop"}}, "defaults.action"),
        ({"events": []}, "events"),
        ({"events": {"a": []}}, "events.a"),
        ({"events": {"a": {"enabled": "yes"}}}, "events.a.enabled"),
        ({"events": {"a b": {"mappings": [{"source": "a"}]}}}, "events.a b.mappings[0].target"),
        (targets("a", "a"), "global.mappings[1].target"),
        (targets("a", "a.b"), "global.mappings[1].target"),
        (targets("a.b.c", "a.b"), "global.mappings[1].target"),
        (targets("a.b") | {"events": targets("a", section="page")}, "events.page.mappings[0].target"),
        (targets("a") | {"defaults": {"action": "send", "mappings": [{"source": "a", "target": "a.b"}]}},
         "defaults.mappings[0].target"),
        (targets("a..b"), "global.mappings[0].target"),
        (targets(""), "global.mappings[0].target"),
    ],
)  # fmt: skip
def test_problems_name_their_field(blueprint, where):
    assert where in problems(blueprint)


@pytest.mark.parametrize(
    ("mapping", "field"),
    [
        ({"source": "a."}, "source"),
        ({"source": "$properties.a"}, "source"),
        ({"source": 1}, "source"),
        ({"transform": "sha257"}, "transform"),
        ({"transform": 1}, "transform"),
        ({"transform": ["trim", 1]}, "transform"),
        ({"source": "user_id", "transform": "sha1_national_hex"}, "transform"),
        ({"transform": "date_format"}, "format"),
        ({"format": "date"}, "format"),
        ({"transform": "date_format", "format": "%Y"}, "format"),
        ({"value_map": "a"}, "value_map"),
        ({"value_map": {"a": []}}, "value_map"),
        ({"on_missing": "skip"}, "on_missing"),
    ],
)
def test_problems_of_a_mapping(mapping, field):
    blueprint = {"global": {"mappings": [{"source": "a", "target": "b", **mapping}]}}

    assert f"global.mappings[0].{field}" in problems(blueprint)


def test_a_key_of_a_value_map_is_no_yaml_date():
    mapping = "{source: a, target: b, value_map: {2026-08-01: today}}"

    assert "global.mappings[0].value_map" in problems(f"global: {{mappings: [{mapping}]}}")


def test_an_event_name_is_text():
    assert "quotes" in problems("events: {404: {}}")["events.404"].what


@pytest.mark.parametrize("text", ["", "a: [", "- a", "just text", "a: 1\na: 2"])
def test_what_is_no_blueprint(text):
    assert problems(text)


def test_a_problem_names_line_and_way_out():
    problem = problems(FULL.replace("transform: date_format", "transform: date_fromat"))["global.mappings[2].transform"]

    assert problem.line == 12
    assert "date_format" in problem.what


def test_all_problems_are_told_at_once():
    found = problems(FULL.replace("person.tier", "person").replace("source: properties.value", "source: ''"))

    assert {"global.mappings[1].target", "events.Basket Viewed.mappings[0].source"} == found.keys()


def test_the_older_format_is_named():
    assert "version 2" in problems("steps: []")["steps"].what


def test_a_file_is_read(tmp_path):
    path = tmp_path / "blueprint.yaml"
    path.write_text(GUIDE, "utf-8")

    assert Blueprint.from_file(path).payload(EVENT)["user_tier"] == "Gold"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "blueprint.yaml"
    with pytest.raises(ConfigError, match=r"blueprint\.yaml: cannot be read"):
        Blueprint.from_file(path)

    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Blueprint.from_file(path)


def test_parameters_never_show():
    """They may hold secrets."""
    blueprint = Blueprint.from_yaml(FULL)

    assert "hush" not in repr(blueprint)
    assert "hush" not in json.dumps(blueprint.payload(EVENT))


# Any event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["email", "phone", "v", "traits"]), children, max_size=3)
    ),
    max_leaves=6,
)
EVERY_TRANSFORM = Blueprint.from_yaml(
    json.dumps(
        {
            "global": {
                "mappings": [
                    {"source": source, "target": f"{source[1:].replace('.', '_')}.{name}", "transform": name}
                    for source in ("$traits.email", "$traits.phone", "$traits.v")
                    for name in TRANSFORMS
                    if name != "date_format" and not (name in HASHES and source != "$traits.phone")
                ]
                + [
                    {"source": "$traits.v", "target": f"dates.{name}", "transform": "date_format", "format": name}
                    for name in DATE_FORMATS
                ]
            }
        }
    )
)


@given(st.dictionaries(st.sampled_from(["type", "event", "traits", "context"]), JSON), st.sampled_from([None, "GB"]))
def test_no_event_raises(event, region):
    EVERY_TRANSFORM.payload(event, default_region=region)


@given(JSON)
def test_no_value_raises(value):
    event = {"traits": {"email": value, "phone": value, "v": value}}

    assert None not in EVERY_TRANSFORM.payload(event).values()


TABLE = """
global: {mappings: [{source: user_id, target: customer_id}, {source: $traits.email, target: email, transform: sha256}]}
events:
  identify: {mappings: [{source: traits.tier, target: loyalty.tier, value_map: {gold: 1}}]}
  Sold: {vendor_event_name: sale}
"""


def test_a_blueprint_tells_its_columns():
    """Of all events, in order; the name of an event where one may stand."""
    assert Blueprint.from_yaml(TABLE).columns == ("event_name", "customer_id", "email", "loyalty.tier")


def test_a_blueprint_tells_what_makes_the_payload_of_one_kind_of_event():
    customer, email, tier = Blueprint.from_yaml(TABLE).fields("identify")

    assert [field.name for field in (customer, email, tier)] == ["customer_id", "email", "loyalty.tier"]
    assert (customer.transforms, email.transforms, email.source) == ((), ("sha256",), "$traits.email")
    assert (email.mapped, tier.mapped, tier.change("gold", None), tier.change("tin", None)) == (False, True, 1, None)
    assert tier.read({"traits": {"tier": "gold"}}) == "gold"
    assert tier.read({}) is None
    assert Blueprint.from_yaml(TABLE).fields("page") == ()
