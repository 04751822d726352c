"""What is written into the context of an event, and what is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import Resolution, memory
from partnerenrich.attachment import Attacher
from partnerenrich.events import Event
from partnerenrich.lookup import Reply
from partnerenrich.models import TTL, Outcome

NOW = 1000.0


def answer(resolution=None, attributes=None):
    raw = b"" if attributes is None else memory.encode(attributes)
    return memory.found("1", "email", resolution or Resolution("p-1"), raw, TTL(), NOW)


def context(*replies, now=NOW, providers=("toy", "other")):
    event = Event.parse(b'{"context":{"page":{"url":"x"}}}', "acme")
    Attacher(providers[: len(replies)]).attach(event, replies, now)
    return json.loads(event.encode())["context"]


def test_ids_attributes_and_outcomes_of_all_partners_stand_side_by_side():
    assert context(
        Reply(Outcome.FRESH, answer(attributes={"Persona": "x"}), 0.0412), Reply(Outcome.ERROR, None, None, "resolve")
    ) == {
        "page": {"url": "x"},
        "vendor_ids": {"toy": "p-1"},
        "partner_attrs": {"toy": {"Persona": "x"}},
        "enrichment": {
            "toy": {"outcome": "fresh", "link": "email", "latency_ms": 41, "age_ms": 0},
            "other": {"outcome": "error", "step": "resolve"},
        },
    }


def test_the_age_counts_from_the_answer():
    assert context(Reply(Outcome.HIT, answer()), now=NOW + 1.5)["enrichment"]["toy"]["age_ms"] == 1500
    assert context(Reply(Outcome.HIT, answer()), now=NOW - 1.5)["enrichment"]["toy"]["age_ms"] == 0


def test_an_id_without_attributes_leaves_no_attributes():
    assert "partner_attrs" not in context(Reply(Outcome.FRESH, answer()))


def test_attributes_that_are_none_at_all_are_an_empty_object():
    assert context(Reply(Outcome.FRESH, answer(attributes={})))["partner_attrs"] == {"toy": {}}


@pytest.mark.parametrize("state", ["absent", "invalid", "failed", "opted_out"])
def test_an_answer_without_an_id_attaches_its_outcome_alone(state):
    nothing = memory.nothing("1", "email", state, TTL(), NOW)
    assert context(Reply(Outcome.ABSENT, nothing)) == {
        "page": {"url": "x"},
        "enrichment": {"toy": {"outcome": "absent", "link": "email", "age_ms": 0}},
    }


def test_nothing_is_attached_past_the_end_that_the_partner_set():
    short = answer(Resolution("p-1", expires_at=NOW + 5), {"a": 1})
    assert context(Reply(Outcome.STALE, short), now=NOW + 4.9)["vendor_ids"] == {"toy": "p-1"}
    assert "vendor_ids" not in context(Reply(Outcome.STALE, short), now=NOW + 5)


def test_the_id_before_is_told_while_it_is_valid():
    rotated = answer(Resolution("p-2", previous_id="p-\u00e91", expires_at=NOW + 5))
    told = {"outcome": "stale", "link": "email", "previous_id": "p-\u00e91", "age_ms": 4000}
    assert context(Reply(Outcome.STALE, rotated), now=NOW + 4)["enrichment"]["toy"] == told
    assert "previous_id" not in context(Reply(Outcome.STALE, rotated), now=NOW + 5)["enrichment"]["toy"]


def test_no_other_value_of_the_visitor_is_in_the_enrichment():
    full = answer(Resolution("id-canary"), {"a": "attribute-canary"})
    assert "canary" not in json.dumps(context(Reply(Outcome.FRESH, full, 0.1))["enrichment"])


@pytest.mark.parametrize("event", [b'{"a":1}', b'{"context":{}}', b'{"context":{"enrichment":{"toy":1}}}'])
def test_where_no_partner_enriches_an_event_stays_as_it_is(event):
    for attach in (Attacher(()).attach, Attacher(()).attach_hits):
        parsed = Event.parse(event, "acme")
        attach(parsed, [], NOW)
        assert parsed.encode() == event


@given(
    has=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=3),
    given_context=st.sampled_from(["", '"context":{},', '"context":{"vendor_ids":{"toy":"x","z":1}},', '"context":3,']),
)
def test_hits_are_attached_as_any_other_reply(has, given_context):
    answers = [
        answer(Resolution(f"p-{number}", previous_id="p-0" if previous else None), {"a": 1} if attributes else None)
        for number, (attributes, previous) in enumerate(has)
    ]
    attacher = Attacher(("toy", "other", "third")[: len(has)])
    one, other = (Event.parse(b'{%b"b":2}' % given_context.encode(), "acme") for _ in range(2))
    attacher.attach(one, [Reply(Outcome.HIT, each) for each in answers], NOW + 2)
    attacher.attach_hits(other, answers, NOW + 2)
    assert json.loads(other.encode()) == json.loads(one.encode())
