"""A column as SQL makes it holds exactly what the recipe makes of each value."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partnerenrich import recipes
from partnerenrich.blueprint import Blueprint
from partnerenrich_server.delivery.hashing import Column, changer
from partnerenrich_server.delivery.query import connected

SOURCES = {"email": "$traits.email", "phone": "$traits.phone", "other": "user_id"}
CASES = [
    (recipe, kind) for kind, source in SOURCES.items() for recipe in recipes.HASHES if recipes.fits(recipe, source)
]

text = st.text(max_size=20)
ascii_text = st.text(st.characters(max_codepoint=127), max_size=20)
spaces = st.text(" \t\u00a0\u200b", max_size=2)
local = st.text("abcXYZ019.+_-'!", min_size=0, max_size=10) | text
emails = st.builds(
    "{}{}@{}.{}{}".format,
    spaces,
    local,
    st.text("abcZ0-", max_size=8),
    st.sampled_from(["test", "TEST", "co.uk", ""]),
    spaces,
)
separators = st.text(" -.()", max_size=2)
codes = st.sampled_from(sorted(map(str, recipes.phonenumbers.COUNTRY_CODE_TO_REGION_CODE)))
groups = st.lists(st.text("0123456789", min_size=1, max_size=5), min_size=1, max_size=5)
phones = st.builds(
    lambda before, plus, code, parts, separator, after: (
        before + plus + code + separator + separator.join(parts) + after
    ),
    spaces,
    st.sampled_from(["+", "00", "+ ", "0", "", "+0", "011"]),
    codes | st.just(""),
    groups,
    separators,
    spaces | st.just(" ext 5"),
)
digests = st.binary(min_size=32, max_size=32).flatmap(
    lambda raw: st.sampled_from([raw.hex(), raw.hex().upper(), f" {raw.hex()} ", recipes._base64(raw), raw.hex()[:-1]])
)
words = st.sampled_from(
    ["null", "None", " N/A ", "undefined", "", " ", "0", "x@y", "a@b.c@d.e", "o'hare@x.test", 'q"@x.test']
)
values = st.lists(emails | phones | digests | words | ascii_text | text, max_size=40).map(
    lambda found: [value.encode("utf-8", "ignore").decode() for value in found]
)


def field_of(recipe, source):
    mapping = f"global: {{mappings: [{{source: {source}, target: made, transform: {recipe}}}]}}"
    (field,) = Blueprint.from_yaml(mapping).fields("identify")
    return field


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    with connected(tmp_path_factory.mktemp("scratch")) as connection:
        connection.run("CREATE TABLE given (n INTEGER, v VARCHAR)")
        for index, (recipe, kind) in enumerate(CASES):
            field = field_of(recipe, SOURCES[kind])
            connection.function(f"slow_{index}", changer(field, "GB", lambda: None), "VARCHAR")
        yield connection


def made_by_sql(connection, field, slow, given_values):
    column = Column(field, "v", slow)
    connection.run("DELETE FROM given")
    if given_values:
        rows = ", ".join("({}, '{}')".format(n, value.replace("'", "''")) for n, value in enumerate(given_values))
        connection.run(f"INSERT INTO given VALUES {rows}")
    stripped, normal = column.stripped, column.normal("s")
    query = f"SELECT *, {normal} AS n1 FROM (SELECT *, {stripped} AS s FROM given)"
    return [row[0] for row in connection.run(f"SELECT {column.value('n1')} FROM ({query}) ORDER BY n")]


@pytest.mark.parametrize(("recipe", "kind"), CASES)
def test_sql_makes_what_the_recipe_makes(connection, recipe, kind):
    """For e-mails, phones, digests, words and any text, of every kind of column."""
    field = field_of(recipe, SOURCES[kind])
    slow = f"slow_{CASES.index((recipe, kind))}"

    @settings(max_examples=25)
    @given(values.map(lambda found: [value for value in found if "\0" not in value]))
    def same(given_values):
        expected = [recipes.apply(recipe, SOURCES[kind], value, "GB") or None for value in given_values]
        assert made_by_sql(connection, field, slow, given_values) == expected

    same()


@pytest.mark.parametrize(
    ("recipe", "kind", "value"),
    [
        ("sha256", "email", "Pat@Example.test"),
        ("sha256", "email", "  pat@example.test "),
        ("sha256_b64", "email", "pat@example.test"),
        ("sha256", "phone", "+44 20 7946 0123"),
        ("sha256", "phone", "0044 (20) 7946-0123"),
        ("sha256_digits_hex", "phone", "+12125550123"),
        ("sha256", "other", "Member-20931"),
        ("sha256", "email", "5AA8DF94A4D25F16D8141700F225CE7D3284CE3A63B3DCD3DD9817109A81161D"),
    ],
)
def test_what_is_usual_takes_the_quick_way(connection, recipe, kind, value):
    """It never gets to Python."""

    def never(_):
        raise AssertionError("the slow way")

    name = "never_" + re.sub(r"\W", "_", f"{recipe}{kind}{value}")
    connection.function(name, never, "VARCHAR")
    field = field_of(recipe, SOURCES[kind])

    assert made_by_sql(connection, field, name, [value]) == [recipes.apply(recipe, SOURCES[kind], value, "GB")]


def test_a_number_that_the_library_would_rewrite_does_not_take_the_quick_way(connection):
    """A British number with the zero that is dialled at home."""
    field = field_of("sha256", SOURCES["phone"])
    slow = f"slow_{CASES.index(('sha256', 'phone'))}"

    made = made_by_sql(connection, field, slow, ["+44 020 7946 0123"])

    assert made == [recipes.apply("sha256", "phone", "+442079460123")]


def test_a_country_code_without_its_plus_does_not_take_the_quick_way(connection):
    """Whether it is one, the region tells."""
    field = field_of("uid2", SOURCES["phone"])
    connection.function("slow_in_singapore", changer(field, "SG", lambda: None), "VARCHAR")

    made = made_by_sql(connection, field, "slow_in_singapore", ["65 1243 5678"])

    assert made == [recipes.apply("uid2", "phone", "+6512435678")]


def test_a_value_is_worked_out_once(connection):
    """Of many that are the same, the library sees one."""
    field = field_of("sha256", SOURCES["phone"])
    seen = []

    class Spy:
        def change(self, value, region):
            seen.append(value)
            return field.change(value, region)

    change = changer(Spy(), "GB", lambda: None)

    assert {change("020 7946 0123") for _ in range(100)} == {recipes.apply("sha256", "phone", "+442079460123")}
    assert seen == ["020 7946 0123"]
