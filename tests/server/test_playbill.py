"""Who may log in to the shop of the demo, and what its hero goes by, whichever partners there are."""

from __future__ import annotations

import pytest

from partnerenrich_server.demo_shop.playbill import Hero, Playbill


def log_in(name, *, outcome="fresh", user_id=None, **profile):
    """An enriched log-in; `profile` is what partner ``a`` knows."""
    context = {"enrichment": {"a": {"outcome": outcome}}, "partner_attrs": {"a": profile} if profile else {}}
    event = {"type": "identify", "traits": {"email": f"{name}@example.test"}, "context": context}
    return event | ({"userId": user_id} if user_id else {})


def names(bill):
    return [(person.name, person.note) for person in bill.people]


def test_the_first_text_by_which_people_differ_decides_the_hero():
    bill = Playbill.of([log_in("pat", Club="x", Points=3, Mood="calm"), log_in("sam", Club="x", Points=5, Mood="wild")])

    assert bill.hero == Hero("a", "Mood", {"calm": 1, "wild": 2})
    assert bill.allowlists == {"a": ["Club", "Mood", "Points"]}


def test_one_text_for_all_is_better_than_none():
    bill = Playbill.of([log_in("pat", Club="x"), log_in("sam", Club="x")])

    assert bill.hero == Hero("a", "Club", {"x": 1})


@pytest.mark.parametrize("profile", [{}, {"Points": 3}, {"Tags": ["x"], "Nested": {}}, {"Blank": "  "}])
def test_without_a_text_there_is_no_hero(profile):
    """As with partners that know ids alone."""
    bill = Playbill.of([log_in("pat", **profile)])

    assert bill.hero is None
    assert names(bill) == [("Pat", "")]


def test_a_page_may_read_few_attributes_that_fit_on_it():
    profile = {"Tags": ["x"], "Tier": 2, "A": "a", "B": "b", "C": "c", "D": "d"}

    assert Playbill.of([log_in("pat", **profile)]).allowlists == {"a": ["A", "B", "C"]}


def test_people_with_pictures_of_their_own_come_first():
    moods = {"pat": "calm", "sam": "calm", "alex": "wild", "kim": None, "lee": "calm", "robin": "sad"}
    bill = Playbill.of([log_in(name, **({"Mood": mood} if mood else {"Tier": 1})) for name, mood in moods.items()])

    assert [name for name, _ in names(bill)] == ["Pat", "Alex", "Robin", "Sam"]


def test_one_of_each_other_kind_is_there_too():
    events = [
        log_in("gone", outcome="opted_out"),
        log_in("nobody", outcome="absent"),
        log_in("stranger", outcome="absent"),
        log_in("pat", Mood="calm"),
    ]

    assert names(Playbill.of(events)) == [
        ("Pat", ""),
        ("Gone", "has opted out"),
        ("Stranger", "not known to any partner"),
    ]


def test_who_refused_consent_or_did_not_log_in_is_nobody():
    anonymous = {"type": "page", "context": {"enrichment": {"a": {"outcome": "skipped"}}}}

    assert Playbill.of([anonymous, log_in("kim", outcome="denied")]).people == []


def test_a_person_is_listed_once():
    assert names(Playbill.of([log_in("pat", Mood="calm"), log_in("pat", outcome="hit", Mood="calm")])) == [("Pat", "")]


def test_a_person_may_go_by_something_else_than_an_address():
    phone = {"type": "identify", "traits": {"phone": "+12025550100"}, "context": {}}
    own = {"type": "identify", "userId": "u-7", "traits": {"loyalty_id": "L-1"}, "context": {}}
    bill = Playbill.of([phone, own])

    assert [(person.name, person.user_id) for person in bill.people] == [("Visitor 2", "u-7")]


def test_no_trait_and_no_attribute_is_in_a_repr():
    bill = Playbill.of([log_in("pat", Secret="canary")])

    assert "canary" not in repr(bill.people)
    assert "pat@example.test" not in repr(bill)
