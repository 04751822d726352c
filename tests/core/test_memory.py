"""The rules of what is remembered, and for how long: time is a number here."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partnerenrich import TTL, Resolution, memory
from partnerenrich.memory import NOBODY, Answer, Keys, Verdict, Who, judge, read_answer, read_who, seen

NOW = 1_000_000.0
MINUTE, HOUR, DAY = 60, 3600, 86_400
ATTRIBUTES = b'{"a":1}'
JITTERS = pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])


@pytest.fixture(name="jitter_of")
def _jitter_of(monkeypatch):
    return lambda share: monkeypatch.setattr(memory.random, "random", lambda: share)


def found(resolution=None, attributes=ATTRIBUTES, ttl=None, now=NOW):
    return memory.found("1", "email", resolution or Resolution("p-1"), attributes, ttl or TTL(), now)


def last_moment(answer, *verdicts):
    """Seconds after `NOW` until when an answer has one of these verdicts, to a hundredth."""
    low, high = 0.0, 10.0 * DAY
    assert judge(answer, NOW) in verdicts
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (middle, high) if judge(answer, NOW + middle) in verdicts else (low, middle)
    return low


@JITTERS
@pytest.mark.parametrize(
    ("answer", "verdict", "seconds"),
    [
        (found, (Verdict.HIT, Verdict.REFRESH), 15 * MINUTE),
        (lambda: found(attributes=b""), (Verdict.HIT, Verdict.REFRESH), 15 * MINUTE),
        (lambda: memory.nothing("1", "email", "absent", TTL(), NOW), (Verdict.ABSENT,), 5 * MINUTE),
        (lambda: memory.nothing("1", "email", "invalid", TTL(), NOW), (Verdict.ABSENT,), 5 * MINUTE),
        (lambda: memory.nothing("1", "email", "failed", TTL(), NOW), (Verdict.FAILED,), 30),
        (lambda: memory.nothing("1", "email", "opted_out", TTL(), NOW), (Verdict.OPTED_OUT,), DAY),
    ],
)
def test_the_times_of_the_table_and_jitter_only_shortens_them(jitter_of, jitter, answer, verdict, seconds):
    jitter_of(jitter)
    assert last_moment(answer(), *verdict) == pytest.approx(seconds * (1 - 0.1 * jitter), abs=0.02)


def test_an_integration_may_set_its_own_times(jitter_of):
    jitter_of(0.0)
    ttl = TTL(resolved=10, not_found=20, failed=30, attributes=5, stale_for=7)
    assert last_moment(found(ttl=ttl), Verdict.HIT, Verdict.REFRESH) == pytest.approx(5, abs=0.02)
    assert last_moment(found(ttl=ttl), Verdict.HIT, Verdict.REFRESH, Verdict.EXPIRED) == pytest.approx(12, abs=0.02)
    assert last_moment(memory.nothing("1", "email", "absent", ttl, NOW), Verdict.ABSENT) == pytest.approx(20, abs=0.02)
    assert last_moment(memory.nothing("1", "email", "failed", ttl, NOW), Verdict.FAILED) == pytest.approx(30, abs=0.02)


@JITTERS
def test_the_last_fifth_of_a_hit_is_due_for_a_refresh(jitter_of, jitter):
    jitter_of(jitter)
    answer = found()
    life = last_moment(answer, Verdict.HIT, Verdict.REFRESH)
    assert last_moment(answer, Verdict.HIT) == pytest.approx(0.8 * life, abs=0.02)


def test_after_its_time_an_answer_may_serve_as_stale_for_an_hour(jitter_of):
    jitter_of(0.0)
    answer = found()
    assert judge(answer, NOW + 15 * MINUTE) is Verdict.EXPIRED
    assert judge(answer, NOW + 15 * MINUTE + HOUR - 1) is Verdict.EXPIRED
    assert judge(answer, NOW + 15 * MINUTE + HOUR) is Verdict.LAPSED


@pytest.mark.parametrize("state", ["absent", "invalid", "failed", "opted_out"])
def test_only_what_was_found_is_ever_stale(state):
    answer = memory.nothing("1", "email", state, TTL(), NOW)
    assert judge(answer, answer.fresh_until) is Verdict.MISS


@JITTERS
@pytest.mark.parametrize("after", [1, 5 * MINUTE, 40 * MINUTE])
def test_the_end_that_the_partner_sets_is_the_end_of_hits_and_of_stale_answers(jitter_of, jitter, after):
    jitter_of(jitter)
    answer = found(Resolution("p-1", expires_at=NOW + after))
    assert judge(answer, NOW + after) is Verdict.MISS
    assert judge(answer, NOW + after - 0.01) is not Verdict.MISS
    spared = memory.damped(answer, "resolve", TTL(), NOW)
    assert judge(spared, NOW + after) is Verdict.MISS


@pytest.mark.parametrize(
    ("refresh_at", "expires_at", "hit", "with_refresh", "usable"),
    [
        (2 * HOUR, None, 2 * HOUR, 2 * HOUR, 3 * HOUR),  # then it may be stale
        (2 * HOUR, 2 * HOUR, 2 * HOUR, 2 * HOUR, 2 * HOUR),
        (2 * HOUR, 5 * HOUR, 2 * HOUR, 5 * HOUR, 5 * HOUR),  # due is not over
        (2 * HOUR, HOUR, HOUR, HOUR, HOUR),
        (2 * HOUR, 9 * DAY, 2 * HOUR, DAY, DAY),  # the cap
        (9 * DAY, None, 0.8 * DAY, DAY, DAY + HOUR),  # ours, so refreshed in its last fifth
        (9 * DAY, 9 * DAY, 0.8 * DAY, DAY, DAY),
    ],
)
def test_the_partner_is_not_asked_before_its_own_refresh_time_and_a_hit_ends_no_sooner_than_it_says(
    refresh_at, expires_at, hit, with_refresh, usable
):
    answer = found(
        Resolution("p-1", refresh_at=NOW + refresh_at, expires_at=None if expires_at is None else NOW + expires_at)
    )
    verdicts = (Verdict.HIT, Verdict.REFRESH, Verdict.EXPIRED)
    moments = [last_moment(answer, *verdicts[:count]) for count in (1, 2, 3)]
    assert moments == pytest.approx([hit, with_refresh, usable], abs=1)
    assert answer.resolved_until <= NOW + min(refresh_at, expires_at or DAY, DAY)


def test_a_refresh_time_that_has_passed_is_now():
    assert judge(found(Resolution("p-1", refresh_at=NOW - 5)), NOW) is Verdict.EXPIRED
    assert judge(found(Resolution("p-1", refresh_at=NOW - 5, expires_at=NOW + 5)), NOW) is Verdict.REFRESH


def test_the_partners_own_end_is_obeyed_within_a_day():
    answer = found(Resolution("p-1", refresh_at=NOW + 9 * DAY, expires_at=NOW + 9 * DAY))
    assert judge(answer, NOW + DAY - 1) is Verdict.REFRESH
    assert judge(answer, NOW + DAY) is Verdict.MISS


@pytest.mark.parametrize("expires_at", [0.0, -1.0, NOW])
def test_an_answer_that_came_too_late_is_worth_nothing(expires_at):
    assert judge(found(Resolution("p-1", expires_at=expires_at)), NOW) is Verdict.MISS


def test_a_refresh_of_the_attributes_does_not_lengthen_the_life_of_the_id(jitter_of):
    jitter_of(0.0)
    answer = found()
    later = memory.refreshed(answer, ATTRIBUTES, TTL(), NOW + 14 * MINUTE, answer.resolved_until)
    assert judge(later, NOW + 15 * MINUTE - 1) is Verdict.REFRESH
    assert judge(later, NOW + 15 * MINUTE) is Verdict.EXPIRED


def test_after_a_failure_the_partner_is_spared_for_30_seconds():
    answer = found()
    for moment, spared in [(0.0, Verdict.HIT), (20 * MINUTE, Verdict.DAMPED), (3 * HOUR, Verdict.FAILED)]:
        damped = memory.damped(answer, "resolve", TTL(), NOW + moment)
        assert judge(damped, NOW + moment) is spared
        assert judge(damped, NOW + moment + 29.9) is spared
        assert judge(damped, NOW + moment + 30) is judge(answer, NOW + moment + 30)


def test_attributes_that_could_not_be_fetched_are_asked_for_again_after_30_seconds(jitter_of):
    jitter_of(0.0)
    answer = memory.without_attributes(found(attributes=b""), TTL(), NOW)
    assert last_moment(answer, Verdict.HIT, Verdict.REFRESH) == pytest.approx(30, abs=0.02)
    assert answer.step == "attributes"
    assert answer.resolved_until == NOW + 15 * MINUTE


def test_a_record_of_other_settings_is_a_miss():
    record = memory.pack(found())
    assert read_answer(record, "1").state == "found"
    assert read_answer(record, "2") is None


@given(st.binary(max_size=30))
def test_any_bytes_in_the_store_are_a_record_or_nothing(record):
    assert read_answer(record, "1") is None
    assert isinstance(read_who(record), Who)


def test_a_record_survives_the_store_with_every_number_as_it_was():
    attributes = b'{"a":1.10,"b":123456789012345678901234567890}'
    answer = found(Resolution("p-\u00e9", previous_id="p-0"), attributes)
    again = read_answer(memory.pack(answer), "1")
    assert again.attributes == attributes
    assert msgspec.json.decode(again.partner_id) == "p-\u00e9"
    assert (again.at, again.fresh_until, again.usable_until) == (answer.at, answer.fresh_until, answer.usable_until)


def test_no_repr_shows_a_value():
    answer = found(Resolution("id-canary", previous_id="canary"), b'{"a":"canary"}')
    assert "canary" not in repr(answer)
    assert "canary" not in repr([Who("s", {}), answer])


# Whom a device belongs to

PERSONS = st.dictionaries(st.sampled_from(["email", "user_id", "phone"]), st.sampled_from(["1", "2", "3"]), min_size=1)


def test_the_same_person_has_one_id_in_common_and_none_that_differs():
    pat = seen(NOBODY, {"email": "1"})
    assert seen(pat, {"email": "1"}) is pat
    assert seen(pat, {"email": "1", "user_id": "7"}) == Who(pat.stamp, {"email": "1", "user_id": "7"})
    assert seen(pat, {"user_id": "7"}).stamp != pat.stamp
    assert seen(pat, {"email": "2"}).stamp != pat.stamp
    both = seen(pat, {"email": "1", "user_id": "7"})
    assert seen(both, {"user_id": "7"}) is both
    other = seen(both, {"email": "2", "user_id": "7"})
    assert other.persons == {"email": "2", "user_id": "7"}
    assert other.stamp != both.stamp


def test_a_log_in_is_another_person_than_the_anonymous_visitor_before():
    assert seen(NOBODY, {"email": "1"}).stamp != NOBODY.stamp


@given(st.lists(PERSONS, max_size=12))
def test_ids_of_one_stamp_never_contradict_each_other_however_often_people_take_turns(events):
    who, met = NOBODY, {}
    for persons in events:
        who = seen(who, persons)
        assert persons.items() <= who.persons.items()
        ids = met.setdefault(who.stamp, {})
        assert all(ids.get(source, one) == one for source, one in who.persons.items())
        ids.update(who.persons)


# Keys


def test_keys_hold_a_bucket_the_provider_and_the_organisation_and_no_value():
    keys = Keys("acme", ["toy", "other"])
    who, toy, other = keys.device("anon-1")
    tag = who[: who.index("}") + 1]
    assert [who, toy, other] == [f"{tag}:~who:acme:anon-1", f"{tag}:toy:acme:anon-1", f"{tag}:other:acme:anon-1"]
    assert keys.link("toy", "f" * 32) == "{b255}:toy:acme:~" + "f" * 32
    assert keys.browser("anon-1") == "partnerenrich:browser_attrs:acme:anon-1"


def test_no_two_organisations_providers_or_kinds_share_a_key():
    names = ["a", "b"]
    keys = [
        key
        for org in names
        for keys in [Keys(org, names)]
        for key in (*keys.device("x"), keys.link("a", "00"), keys.link("b", "00"), keys.browser("x"))
    ]
    keys += [memory.lease_key(key) for key in keys]
    assert len(set(keys)) == len(keys)


def test_records_spread_over_256_buckets():
    tags = {Keys("acme", []).device(f"anon-{n}")[0].partition(":")[0] for n in range(4000)}
    assert 250 <= len(tags) <= 256


def test_a_record_is_kept_at_least_a_millisecond():
    assert memory.save("k", Answer("1", "failed", "email"), -5)[:3] == ("PSETEX", "k", 1)
