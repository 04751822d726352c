"""Transforms of one value: what each gives, and that none of them raises."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich.recipes import HASHES
from partnerenrich.transforms import DATE_FORMATS, TRANSFORMS, transform


def apply(name, value, date_format=None):
    return transform(name, "properties.v", date_format)(value, None)


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("lowercase", "AbC", "abc"),
        ("uppercase", "AbC", "ABC"),
        ("trim", " a ", "a"),
        ("to_string", "a", "a"),
        ("to_string", True, "true"),
        ("to_string", 42, "42"),
        ("to_string", 1.5, "1.5"),
        ("to_string", Decimal("1.10"), "1.10"),
        ("to_number", 42, 42),
        ("to_number", Decimal("1.10"), Decimal("1.10")),
        ("to_number", " 42 ", 42),
        ("to_number", "-1.5e3", -1500.0),
        ("to_boolean", True, True),
        ("to_boolean", " No", False),
        ("to_boolean", 1, True),
        ("to_boolean", "0", False),
    ],
)
def test_a_value_is_changed(name, value, result):
    changed = apply(name, value)

    assert result == changed
    assert type(changed) is type(result)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in TRANSFORMS if name != "date_format"),
        *((name, value) for name in ("lowercase", "uppercase", "trim") for value in (1, True, ["a"], {})),
        *(("to_string", value) for value in ([], {}, float("nan"), Decimal("Infinity"))),
        pytest.param("to_string", 10**5000, id="to_string-5001 digits"),
        *(("to_number", value) for value in (True, "", "a", "1,5", "1_000", "٣", "nan", "1e999", [], {}, float("inf"))),
        *(("to_boolean", value) for value in ("", "maybe", 2, [], {})),
    ],
)
def test_what_cannot_be_changed_gives_none(name, value):
    assert apply(name, value) is None


@pytest.mark.parametrize(
    ("date_format", "result"),
    [
        ("epoch_micros", 1785578400123456),
        ("epoch_millis", 1785578400123),
        ("epoch_seconds", 1785578400),
        ("iso8601", "2026-08-01T10:00:00.123Z"),
        ("date", "2026-08-01"),
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        "2026-08-01T10:00:00.123456Z",
        "2026-08-01T10:00:00.123456",
        "2026-08-01T12:00:00.123456+02:00",
        "20260801T100000.123456Z",
        1785578400.123456,
        Decimal("1785578400.123456"),
        1785578400123.456,
        1785578400123456,
        1785578400123456789,
        " 1785578400123456 ",
    ],
)
def test_dates(value, date_format, result):
    """ISO 8601 and epoch numbers of four units, to each form, in UTC."""
    assert result == apply("date_format", value, date_format)


@pytest.mark.parametrize(
    ("value", "day"),
    [("20260801", "2026-08-01"), ("2026-08-01", "2026-08-01"), (0, "1970-01-01"), (-1, "1969-12-31")],
)
def test_days(value, day):
    assert day == apply("date_format", value, "date")


@pytest.mark.parametrize(
    "value",
    ["", "2026", "soon", "2026-13-01", "0001-01-01T00:00:00+14:00", 1e300, 10**30, -(10**20), True, None, [], {}],
)
@pytest.mark.parametrize("date_format", DATE_FORMATS)
def test_what_is_no_date_gives_none(value, date_format):
    assert apply("date_format", value, date_format) is None


def test_recipes_are_transforms():
    digest = transform("sha256", "$traits.phone", None)("07700 900123", "GB")

    assert digest == "a8acc3a90a7b4e4dc65e93db9240ed26523050ef754d63b75b5161de76781436"
    assert set(HASHES) < set(TRANSFORMS)


@given(
    st.sampled_from([name for name in TRANSFORMS if name != "date_format"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text() | st.lists(st.text()),
)
def test_no_value_raises(name, value):
    apply(name, value)


@given(
    st.sampled_from([*DATE_FORMATS]),
    st.integers() | st.floats() | st.decimals() | st.text("0123456789-+:TZ. ") | st.datetimes().map(str),
)
def test_no_date_raises(date_format, value):
    apply("date_format", value, date_format)
