"""Plain data becomes settings, or every wrong field is named, and no value is ever told."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import ConfigError, FieldError, Secret, between, one_of, pattern
from partnerenrich.settings import join, public, structure, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

CANARY = "canary-4711-never-show"


@attrs.frozen(kw_only=True)
class Inner:
    port: int = 80


@attrs.frozen(kw_only=True)
class Sample:
    tenant: str = attrs.field(validator=pattern(r"[a-z]+", "must be lower-case letters"))
    api_key: Secret
    mode: str = attrs.field(default="fast", validator=one_of("fast", "thorough"))
    share: float = attrs.field(default=0.5, validator=between(0, 1))
    retries: int = 1
    strict: bool = False
    region: str | None = None
    second_key: Secret | None = None
    tags: tuple[str, ...] = ()
    inner: Inner = Inner()


GOOD = {"tenant": "acme", "api_key": "s3cr3t-value"}


def problems_of(raw: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as raised:
        structure(Sample, raw, "settings")
    return {problem.where: problem.what for problem in raised.value.problems}


def everything_said_by(error: BaseException) -> str:
    """Text, arguments, and what hangs on it, as an error reporter would find it."""
    linked = [error, error.__cause__, error.__context__]
    return "\n".join(
        [*(f"{each!r} {vars(each) if each else ''}" for each in linked), *traceback.format_exception(error)]
    )


def test_plain_data_becomes_settings():
    made = structure(Sample, {**GOOD, "share": 1, "region": None, "tags": ["a", "b"], "inner": {"port": 8080}})

    assert made == Sample(
        tenant="acme", api_key=Secret("s3cr3t-value"), share=1, tags=("a", "b"), inner=Inner(port=8080)
    )


def test_every_wrong_type_is_named_at_once():
    """Nobody has to mend one, run, and mend the next."""
    raw = {
        "tenant": 5,
        "mode": None,
        "share": "2",
        "retries": "3",
        "strict": 1,
        "region": 5,
        "tags": ["a", 5],
        "inner": {"prot": 1},
        "retires": 3,
    }

    assert problems_of(raw) == {
        "settings.tenant": "must be text; put it in quotes",
        "settings.api_key": "is required",
        "settings.mode": "must be text; put it in quotes",
        "settings.share": "must be a number",
        "settings.retries": "must be a whole number",
        "settings.strict": "must be true or false",
        "settings.region": "must be text; put it in quotes",
        "settings.tags[1]": "must be text; put it in quotes",
        "settings.inner.prot": "unknown field; did you mean 'port'?",
        "settings.retires": "unknown field; did you mean 'retries'?",
    }


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("tenant", "ACME", "must be lower-case letters"),
        ("mode", "slow", "must be one of fast, thorough"),
        ("share", 2, "must be between 0 and 1"),
    ],
)
def test_a_validator_names_its_field_and_the_way_out(field, value, expected):
    assert problems_of({**GOOD, field: value}) == {f"settings.{field}": expected}


def test_a_wrong_type_hides_no_wrong_value():
    raw = {**GOOD, "tenant": "ACME", "mode": "slow", "share": 2, "strict": "yes", "inner": {"port": "x"}}

    assert problems_of(raw) == {
        "settings.tenant": "must be lower-case letters",
        "settings.mode": "must be one of fast, thorough",
        "settings.share": "must be between 0 and 1",
        "settings.strict": "must be true or false",
        "settings.inner.port": "must be a whole number",
    }


@pytest.mark.parametrize("value", ["abc", {"a": 1}, 5, None, True])
def test_a_list_is_nothing_else(value):
    """Text is no list of its letters, a mapping none of its keys."""
    assert problems_of({**GOOD, "tags": value}) == {"settings.tags": "must be a list"}


@pytest.mark.parametrize("value", ["port", [], ["port"], 5, None])
def test_nested_settings_are_a_mapping(value):
    assert problems_of({**GOOD, "inner": value}) == {"settings.inner": "must be a mapping"}


@pytest.mark.parametrize("raw", [None, [], "text", 5, [GOOD]], ids=["null", "list", "text", "number", "nested"])
def test_what_is_no_mapping_is_refused(raw):
    assert problems_of(raw) == {"settings": "must be a mapping"}


@pytest.mark.parametrize("value", [True, 1.5, "1", None, [1], {"a": 1}])
def test_a_whole_number_is_nothing_else(value):
    """Nothing is converted in silence: ``true`` is no 1, ``"1"`` is no 1."""
    assert list(problems_of({**GOOD, "retries": value})) == ["settings.retries"]


@pytest.mark.parametrize("value", [True, "0.5", None, [0.5]])
def test_a_number_is_nothing_else(value):
    assert list(problems_of({**GOOD, "share": value})) == ["settings.share"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_number_lies_in_its_range(value):
    assert problems_of({**GOOD, "share": value}) == {"settings.share": "must be between 0 and 1"}


@pytest.mark.parametrize("value", ["", "  ", 5, True, None, ["x"], {"a": "b"}])
def test_a_secret_is_text_that_says_something(value):
    """The way out is an environment variable."""
    assert "${NAME_OF_AN_ENVIRONMENT_VARIABLE}" in problems_of({**GOOD, "api_key": value})["settings.api_key"]


def test_a_secret_may_have_a_pattern():
    @attrs.frozen(kw_only=True)
    class Keyed:
        api_key: Secret = attrs.field(validator=pattern(r"[0-9a-f]+", "must be hexadecimal"))

    with pytest.raises(ConfigError, match=r"^api_key: must be hexadecimal$") as raised:
        structure(Keyed, {"api_key": CANARY})

    assert CANARY not in everything_said_by(raised.value)


def test_a_validator_of_the_plugin_that_names_its_value_is_not_quoted():
    """attrs' own validators put the value into their message."""

    @attrs.frozen(kw_only=True)
    class Careless:
        tenant: str = attrs.field(validator=attrs.validators.in_(["a", "b"]))

    with pytest.raises(ConfigError) as raised:
        structure(Careless, {"tenant": CANARY})

    assert CANARY not in everything_said_by(raised.value)
    assert str(raised.value) == "tenant: is of the wrong type, or not a possible value"


def test_a_converter_of_the_plugin_that_names_its_value_is_not_quoted():
    """A KeyError holds the key that is missing, which may be a value."""

    @attrs.frozen(kw_only=True)
    class Careless:
        region: str = attrs.field(converter={"eu": "Frankfurt"}.__getitem__)

    with pytest.raises(ConfigError) as raised:
        structure(Careless, {"region": CANARY})

    assert CANARY not in everything_said_by(raised.value)


WRONG_PLACES = [
    {**GOOD, "tenant": CANARY.upper()},
    {**GOOD, "tenant": [CANARY]},
    {**GOOD, "mode": CANARY},
    {**GOOD, "share": CANARY},
    {**GOOD, "retries": CANARY},
    {**GOOD, "strict": CANARY},
    {**GOOD, "api_key": [CANARY]},
    {**GOOD, "api_key": {"value": CANARY}},
    {**GOOD, "tags": CANARY},
    {**GOOD, "tags": {CANARY: 1}},
    {**GOOD, "tags": [{"a": CANARY}]},
    {**GOOD, "inner": CANARY},
    {**GOOD, "inner": [CANARY]},
    {**GOOD, "inner": {"port": CANARY}},
    {**GOOD, "unknown": CANARY},
    [CANARY],
    CANARY,
]


@pytest.mark.parametrize("raw", WRONG_PLACES, ids=range(len(WRONG_PLACES)))
def test_a_value_in_the_wrong_place_is_not_told(raw):
    """Not even by an error that hangs on the error."""
    try:
        made = structure(Sample, raw)
    except ConfigError as error:
        said = everything_said_by(error)
    else:
        said = str(made.api_key)

    assert CANARY not in said
    assert CANARY.upper() not in said


def test_a_secret_shows_nowhere():
    made = structure(Sample, {**GOOD, "api_key": CANARY, "second_key": CANARY})

    for shown in (
        repr(made),
        str(made),
        f"{made.api_key} {made.api_key!r}",
        "%s %r" % (made.api_key, made.api_key),  # noqa: UP031 - one more way to show
        json.dumps(public(made)),
        repr(vars(Secret)),
    ):
        assert CANARY not in shown
    assert made.api_key.reveal() == CANARY


@pytest.mark.parametrize("give_away", [pickle.dumps, json.dumps, copy.deepcopy], ids=["pickle", "json", "deepcopy"])
def test_a_secret_is_not_given_away_whole(give_away):
    """Neither alone nor inside of settings."""
    for holder in (Secret(CANARY), structure(Sample, {**GOOD, "api_key": CANARY})):
        with pytest.raises(TypeError) as raised:
            give_away(holder)
        assert CANARY not in everything_said_by(raised.value)


def test_secrets_are_compared_and_hashed_by_value():
    """So that settings which did not change are equal."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Secret("a")._value = "b"


def test_a_field_error_is_a_value_error_with_a_way_out():
    assert isinstance(FieldError("must be even"), ValueError)
    assert FieldError("must be even").expected == "must be even"


def test_paths_are_written_as_in_the_file():
    assert join("", "a") == "a"
    assert join("a", "b") == "a.b"
    assert join("a", 0) == "a[0]"
    assert join(join("a", 0), "b") == "a[0].b"


def test_a_suggestion_is_the_closest_word_or_all():
    assert suggestion("smaple", ["sample", "other"]) == "did you mean 'sample'?"
    assert suggestion("zzz", ["sample", "other"]) == "known are other, sample"
    assert suggestion("zzz", []) == "known are none"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(CANARY) | st.binary()
NAMES = st.text(max_size=5) | st.integers() | st.none() | st.booleans()
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [field.name for field in attrs.fields(Sample)]


@given(st.dictionaries(st.sampled_from(FIELDS) | NAMES, JUNK))
def test_junk_is_refused_by_a_config_error_that_tells_no_value(raw: Mapping[Any, Any]):
    said = ""
    try:
        structure(Sample, raw)
    except ConfigError as error:
        said = everything_said_by(error)

    assert CANARY not in said
