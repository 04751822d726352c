"""An event survives the way through the core: all that is not ours to write stays what it was."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import Resolution
from partnerenrich.attachment import Attacher
from partnerenrich.events import MAX_BYTES, Event, EventError, at_path, items_of, object_of, read_fields, value_of
from partnerenrich.lookup import Reply
from partnerenrich.memory import found
from partnerenrich.models import TTL, Outcome

NUMBERS = [
    "1.10",
    "1E5",
    "-0",
    "-0.0",
    "1e-7",
    "123456789012345678901234567890",
    "1E400",
    "0.1000000000000000055511151231257",
]


def written(members, comma=","):
    """A JSON object of members that are JSON."""
    return "{" + comma.join(f"{json.dumps(name)} :{value}" for name, value in members.items()) + "}"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.one_of(st.sampled_from(NUMBERS), TEXTS.map(json.dumps), st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(TEXTS, inner, max_size=3).map(lambda members: written(members, " , ")),
    ),
    max_leaves=8,
)
OURS = ("vendor_ids", "partner_attrs", "enrichment")


def exactly(text):
    """JSON with the spelling of its numbers and the order of its members."""
    return json.loads(
        text, parse_float=lambda n: ("number", n), parse_int=lambda n: ("number", n), object_pairs_hook=list
    )


def attached(line, *, outcome=Outcome.FRESH):
    event = Event.parse(line if isinstance(line, bytes) else line.encode(), "acme")
    answer = found("1", "email", Resolution("p-1"), b'{"Persona":"x"}', TTL(), 1000.0)
    Attacher(["toy"]).attach(event, [Reply(outcome, answer)], 1000.0)
    return event.encode()


@given(st.dictionaries(TEXTS.filter(lambda name: name != "context"), VALUES, max_size=5))
def test_every_value_outside_of_the_context_keeps_its_spelling_and_its_place(members):
    line = written(members, ", ")
    assert exactly(attached(line))[:-1] == exactly(line)


@given(st.dictionaries(TEXTS.filter(lambda name: name not in OURS), VALUES, max_size=5))
def test_every_value_of_the_context_that_is_not_ours_keeps_its_spelling_and_its_place(members):
    context = written(members)
    ((name, after),) = exactly(attached(written({"context": context})))
    assert name == "context"
    assert [pair for pair in after if pair[0] not in OURS] == exactly(context)


@given(st.sampled_from(OURS), st.dictionaries(TEXTS.filter(lambda name: name != "toy"), VALUES, max_size=4))
def test_what_others_wrote_beside_us_is_kept(name, members):
    theirs = written({**members, "toy": '"forged"'})
    after = dict(exactly(attached(written({"context": written({name: theirs})}))))["context"]
    ours = dict(after)[name]
    assert [pair for pair in ours if pair[0] != "toy"] == [pair for pair in exactly(theirs) if pair[0] != "toy"]
    assert "forged" not in str(ours)


@pytest.mark.parametrize("theirs", ["null", "7", '"text"', "[1]", "true"])
def test_a_claim_of_another_shape_is_replaced(theirs):
    after = json.loads(attached(written({"context": written({"vendor_ids": theirs})})))
    assert after["context"]["vendor_ids"] == {"toy": "p-1"}


def test_a_forged_claim_is_taken_out_when_the_partner_says_nothing():
    event = Event.parse(
        b'{"context":{"vendor_ids":{"toy":"forged","fbp":"1"},"partner_attrs":{"toy":{"a":1}}}}', "acme"
    )
    Attacher(["toy"]).attach(event, [Reply(Outcome.ABSENT)], 0.0)
    assert json.loads(event.encode())["context"] == {
        "vendor_ids": {"fbp": "1"},
        "partner_attrs": {},
        "enrichment": {"toy": {"outcome": "absent"}},
    }


def test_a_missing_context_is_created():
    assert json.loads(attached("{}"))["context"]["vendor_ids"] == {"toy": "p-1"}


@pytest.mark.parametrize("context", ["null", "7", '"text"', "[{}]", "false", "1E400"])
def test_a_context_that_is_no_object_stays_as_it_is(context):
    line = written({"a": 1, "context": context})
    assert exactly(attached(line)) == exactly(line)


CONTEXT_NAMES = st.sampled_from(['"context"', '"c\\u006fntext"', '"\\u0063ontext"', '"conte\\u0078t"'])
OTHER_NAMES = st.sampled_from(
    ['"a"', '"properties"', '"Context"', '"context "', '"\\\\u0063ontext"', '"context\\ud83d"']
)
CONTEXTS = st.sampled_from(
    ["null", "7", '"context"', "[]", "{}", ' {"vendor_ids":{"toy":"forged"}} ', '{"enrichment":{"toy":"forged"},"a":1}']
)
OTHERS = CONTEXTS | st.sampled_from(['{"context":{"vendor_ids":{"toy":"nested"}}}', '"\\"context\\":{}"', '"\\ud83d"'])
MEMBERS = st.tuples(CONTEXT_NAMES, CONTEXTS) | st.tuples(OTHER_NAMES, OTHERS)


@given(st.lists(MEMBERS, max_size=6), st.tuples(CONTEXT_NAMES, CONTEXTS), st.lists(MEMBERS, max_size=2))
def test_of_a_context_given_more_than_once_the_last_one_alone_is_left(before, one, after):
    """Whatever its spelling: an earlier one could hold claims that some parsers see."""
    line = "{" + ", ".join(f"{name} :{value}" for name, value in [*before, one, *after]) + "}"
    given_members = exactly(line)
    last = max(index for index, (name, _) in enumerate(given_members) if name == "context")
    kept = [pair for index, pair in enumerate(given_members) if pair[0] != "context" or index == last]
    context = json.loads(line)["context"]

    members = exactly(attached(line))

    assert [pair for pair in members if pair[0] != "context"] == [pair for pair in kept if pair[0] != "context"]
    assert [name for name, _ in members] == [name for name, _ in kept]
    if isinstance(context, dict):
        ours = json.loads(attached(line))["context"]
        assert ours.pop("vendor_ids") == {"toy": "p-1"}
        assert ours.pop("enrichment")["toy"]["outcome"] == "fresh"
        assert ours == {"partner_attrs": {"toy": {"Persona": "x"}}} | ({"a": 1} if "a" in context else {})
    else:
        assert members == kept


def test_a_context_given_very_often_takes_no_time():
    line = b'{%b"context":null}' % (b'"context":{},' * 80_000)

    assert attached(line) == b'{"context":null}'


def test_where_no_partner_enriches_all_contexts_stay():
    event = Event.parse(b'{"context":{"a":1},"context":null}', "acme")
    Attacher(()).attach(event, [], 0.0)
    assert event.encode() == b'{"context":{"a":1},"context":null}'


@pytest.mark.parametrize(
    "line",
    [
        '{"properties":{"context":{"a":1}},"context":{"a":1}}',
        '{"context":{"a":1},"properties":{"context":{"a":1}}}',
        '{"properties":{"context":{"a":1}},"c\\u006fntext":{"a":1}}',
        '{"properties":{"context":{"a":1}},"context" : {"a":1}}',
    ],
)
def test_an_object_of_the_same_text_elsewhere_in_the_event_is_not_touched(line):
    after = json.loads(attached(line))
    assert after["properties"] == {"context": {"a": 1}}
    assert after["context"]["vendor_ids"] == {"toy": "p-1"}


def test_a_claim_whose_name_is_written_with_escapes_is_replaced():
    after = json.loads(attached('{"c\\u006fntext":{"vend\\u006fr_ids":{"toy":"forged"}}}'))
    assert after["context"]["vendor_ids"] == {"toy": "p-1"}


def test_white_space_and_the_order_of_members_survive():
    line = '{ "b" : 1.10,  "context":{"z": [1,  2]} , "a":{ } }'
    assert attached(line).decode().startswith('{ "b" : 1.10,  "context":{"vendor_ids"')
    assert attached(line).endswith(b',"z": [1,  2]} , "a":{ } }')


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"hello", "is not JSON"),
        (b'{"a":1}}', "is not JSON"),
        (b'{"a":01}', "is not JSON"),
        (b'{"a":NaN}', "is not JSON"),
        (b'{"a":"\x01"}', "is not JSON"),
        (b"{'a':1}", "is not JSON"),
        (b'{"a":1,}', "is not JSON"),
        (b'\xef\xbb\xbf{"a":1}', "is not JSON"),
        (rb'{"a":"\ud80"}', "is not JSON"),
        (rb'{"a":"\ud8zz"}', "is not JSON"),
        (rb'{"a":"\ud800","b":01}', "is not JSON"),
        (rb'["\ud800"]', "is JSON but no object"),
        (b"[]", "is JSON but no object"),
        (b"null", "is JSON but no object"),
        (b'"text"', "is JSON but no object"),
        (b"7", "is JSON but no object"),
        (b'{"a":"\xff"}', "is not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "is not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
        (b'{"a":"%s"}' % (b"x" * MAX_BYTES), "is longer than 1048576 bytes"),
    ],
)
def test_a_line_that_is_no_event_is_refused_with_a_reason_without_its_content(line, reason):
    with pytest.raises(EventError) as caught:
        read_fields(line)
    assert str(caught.value) == reason
    assert caught.value.__cause__ is None


HALVES = [r"\ud83d", r"\uDE00", r"\uD800", r"\udfff"]
PIECES = [*HALVES, r"\ud83d\ude00", r"\\", r"\"", "ud83d", r"\n", r"\u00e9", "\u00e9", "a", "{", ":"]
BROKEN_TEXTS = st.lists(st.sampled_from(PIECES), max_size=5).map(lambda pieces: f'"{"".join(pieces)}"')
BROKEN_VALUES = st.recursive(
    st.one_of(st.sampled_from(NUMBERS), BROKEN_TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(BROKEN_TEXTS, inner), max_size=3).map(
            lambda members: f"{{{','.join(f'{name} : {value}' for name, value in members)} }}"
        ),
    ),
    max_leaves=8,
)


def mended(value):
    """Python values with U+FFFD for each half of a character."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [mended(item) for item in value]
    return {mended(name): mended(item) for name, item in value.items()} if isinstance(value, dict) else value


@given(BROKEN_TEXTS, BROKEN_VALUES, BROKEN_VALUES)
def test_half_a_character_is_kept_as_it_is_and_harms_nothing_else(name, one, other):
    """What JavaScript leaves of a pair that it cuts in two."""
    line = f'{{"a" :1.10 , {name}: {one},  "b":{{"c":{other}}}, "context": {{ "d" :{one} }} }}'

    event = Event.parse(line.encode(), "acme")

    assert event.encode() == line.encode()
    assert list(event.fields) == list(mended(json.loads(line)))
    assert bytes(event.fields["b"]) == f'{{"c":{other}}}'.encode()
    after = attached(line).decode()
    assert exactly(after)[:-1] == exactly(line)[:-1]
    assert exactly(after)[-1][1][-1] == exactly(line)[-1][1][-1]


@given(BROKEN_VALUES.filter(lambda value: "1E400" not in value))
def test_half_a_character_is_read_as_the_sign_for_what_cannot_be_read(value):
    event = Event.parse(f'{{"a":{value}}}'.encode(), "acme")

    assert value_of(event.fields["a"]) == mended(json.loads(value))
    assert event.plain() == mended(json.loads(f'{{"a":{value}}}'))


@given(st.lists(BROKEN_VALUES), st.sampled_from(["", " ", "\n\t"]))
def test_half_a_character_is_kept_in_the_items_of_an_array(values, space):
    items = items_of(msgspec.Raw(f"[{space}{f'{space},{space}'.join(values)}{space}]".encode()))

    assert [bytes(item).decode() for item in items] == values


@pytest.mark.parametrize("text", [b"{}", b'"[]"', b"", b"[", b"[1,]", b'["\\ud83d",]', b"[1]2", b'{"a":' * 50_000])
def test_what_is_no_array_has_no_items(text):
    assert items_of(msgspec.Raw(text)) is None


def test_an_item_nested_too_deeply_hides_no_other():
    deep = b"[" * 50_000 + b"]" * 50_000

    assert list(map(bytes, items_of(msgspec.Raw(b'[{"a":1}, %b ,2]' % deep)))) == [b'{"a":1}', deep, b"2"]


def test_an_event_as_python_values_lacks_only_what_python_cannot_hold():
    event = Event.parse(b'{"a":1E400,"b":1,"c":"\\ud83d"}', "acme")

    assert event.plain() == {"a": None, "b": 1, "c": "\ufffd"}


@pytest.mark.parametrize("claim", [r'"vendor_ids":{"toy":"forged","\ud83d":"\udc00"}', r'"enrichment":"\ud83d"'])
def test_a_claim_beside_half_a_character_is_replaced(claim):
    after = json.loads(attached(f'{{"context":{{{claim},"x":"\\ud83d"}}}}'))["context"]

    assert after["vendor_ids"]["toy"] == "p-1"
    assert after["enrichment"] == {"toy": {"outcome": "fresh", "link": "email", "age_ms": 0}}
    assert after["x"] == "\ud83d"


def test_an_event_may_be_exactly_as_long_as_the_limit():
    line = b'{"a":"%s"}' % (b"x" * (MAX_BYTES - 8))
    assert len(line) == MAX_BYTES
    assert read_fields(line)


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b' {"a":1}\n', b"[]", b"{]", b'{"context":{}}']))
def test_any_bytes_are_an_event_or_an_event_error(line):
    try:
        fields = read_fields(line)
    except EventError:
        with pytest.raises(EventError):
            Event.parse(line, "acme")
        return
    event = Event.parse(line, "acme")
    assert event.fields == fields
    assert event.encode() == line.strip()


@pytest.mark.parametrize("raw", [b"1E400", b"9" * 5000])
def test_a_value_that_python_cannot_hold_is_none(raw):
    assert value_of(read_fields(b'{"a":%s}' % raw)["a"]) is None


def test_a_value_nested_almost_too_deeply_harms_nobody_who_asks_for_it():
    fields = read_fields(b'{"a":{"b":%s},"c":1}' % (b"[" * 900 + b"]" * 900))

    def deeper(levels):
        if levels:
            return deeper(levels - 1)
        return value_of(fields["a"]), object_of(fields["a"]), at_path(fields, ("a", "b")), at_path(fields, ("c",))

    assert deeper(200)[-1] == 1  # how deep Python goes is its own affair; that nothing is raised is ours


@pytest.mark.parametrize("place", [b'"a":%b,"context":{"vendor_ids":{}}', b'"a":1,"context":{"vendor_ids":{},"b":%b}'])
@pytest.mark.parametrize("depth", [700, 900, 940, 950, 960, 970])
def test_an_event_that_was_read_can_be_read_again_wherever_it_is_wanted(depth, place):
    """Python's stack may be fuller there."""
    try:
        event = Event.parse(b'{"traits":5,%b}' % (place % (b"[" * depth + b"]" * depth)), "acme")
    except EventError:
        return  # how deep Python goes is its own affair

    def deeper(levels):
        if levels:
            return deeper(levels - 1)
        Attacher(["toy"]).attach(event, [Reply(Outcome.ABSENT)], 0.0)
        return event.head.userId, list(event.fields), list(event.plain()), "enrichment" in event.context

    assert deeper(60) == (None, ["traits", "a", "context"], ["traits", "a", "context"], True)


def test_a_path_ends_where_a_step_is_missing_or_no_object():
    fields = read_fields(b'{"a":{"b":{"c":7}},"d":[1]}')
    assert at_path(fields, ("a", "b", "c")) == 7
    assert at_path(fields, ("a", "x", "c")) is None
    assert at_path(fields, ("d", "0")) is None
    assert at_path(fields, ("missing",)) is None


def test_an_event_that_grew_beyond_the_longest_can_still_be_read():
    event = Event.parse(b'{"a":"' + b"x" * (MAX_BYTES - 8) + b'"}', "acme")
    Attacher(["toy"]).attach(event, [Reply(Outcome.ABSENT)], 0.0)
    assert value_of(event.context["enrichment"]) == {"toy": {"outcome": "absent"}}


def test_so_can_one_with_members_of_unexpected_shapes():
    event = Event.parse(b'{"traits":5,"userId":"u","a":"' + b"x" * (MAX_BYTES - 32) + b'"}', "acme")
    Attacher(["toy"]).attach(event, [Reply(Outcome.ABSENT)], 0.0)
    assert len(event.encode()) > MAX_BYTES
    assert event.head.userId == "u"
