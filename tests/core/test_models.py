"""The nouns: answers that cannot contradict themselves, and reprs without a visitor's values."""

from __future__ import annotations

import time

import pytest

from partnerenrich import TTL, Call, KnownIDs, Limits, Link, Outcome, Receipt, Resolution, Visitor, models

VALUE = "pat@example.test"


def test_a_receipt_has_a_state_that_there_is():
    assert Receipt("published").state == "published"
    with pytest.raises(ValueError, match="state"):
        Receipt("done")


def test_a_resolution_has_an_id_exactly_when_it_is_found():
    assert Resolution("p-1").reason == "found"
    for reason in ("absent", "invalid", "opted_out"):
        assert Resolution(reason=reason).partner_id is None
        with pytest.raises(ValueError, match="exactly when its reason is 'found'"):
            Resolution("p-1", reason=reason)
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="exactly when its reason is 'found'"):
            Resolution(nothing)


def test_answers_without_an_id_have_short_names():
    assert [Resolution.absent(), Resolution.invalid(), Resolution.opted_out()] == [
        Resolution(reason="absent"),
        Resolution(reason="invalid"),
        Resolution(reason="opted_out"),
    ]


@pytest.mark.parametrize(
    "noun",
    [
        KnownIDs(VALUE, VALUE, VALUE, VALUE, VALUE, {"$traits.x": VALUE}),
        Link("email", "email", VALUE),
        Visitor((Link("email", "email", VALUE),), VALUE, VALUE, VALUE),
        Resolution(VALUE, previous_id=VALUE, attributes={"Email": VALUE}),
        models.Batch("b", "acme", "club", "full", (), (), None, None, {"cursor": VALUE}, None),
    ],
    ids=lambda noun: type(noun).__name__,
)
def test_values_of_a_visitor_are_in_no_repr(noun):
    assert VALUE not in f"{noun!r} {noun}"


def test_nouns_are_frozen():
    for noun in (Link("email", "email", VALUE), Resolution("p"), TTL(), Limits(), Visitor()):
        name = next(name for name in dir(noun) if not name.startswith("_") and not callable(getattr(noun, name)))
        with pytest.raises(AttributeError):
            setattr(noun, name, None)


def test_a_call_knows_what_is_left_of_its_time():
    def call(deadline):
        return Call("acme", "club", "club", deadline)

    assert 9 < call(time.monotonic() + 10).seconds_left <= 10
    assert call(time.monotonic() - 10).seconds_left == 0


def test_times_to_live_are_those_of_the_guide():
    """15 min, 5 min, 30 s, 15 min, 2 min; stale for an hour."""
    ttl = TTL()

    assert (ttl.resolved, ttl.not_found, ttl.failed, ttl.attributes, ttl.personalize) == (900, 300, 30, 900, 120)
    assert ttl.stale_for == 3600


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"attempts": 0},
        {"concurrency": 0},
        {"calls_per_second": 0},
        {"calls_per_day": -1},
        {"response_bytes": 0},
    ],
    ids=str,
)
def test_limits_that_would_stop_every_call_are_refused(wrong):
    with pytest.raises(ValueError, match="must be between"):
        Limits(**wrong)


def test_outcomes_are_the_words_of_an_event():
    assert {outcome.value for outcome in Outcome} == {
        *("hit", "stale", "fresh", "absent", "opted_out", "denied", "limited", "late", "error", "skipped")
    }
