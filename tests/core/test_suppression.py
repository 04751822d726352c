"""Who is not to be enriched: known to every process, durable, and read only when it has changed."""

import asyncio
import time

import pytest

from partnerenrich import suppression
from partnerenrich.identity import Fingerprints
from partnerenrich.store import Store, StoreFailed
from partnerenrich.suppression import EVER, KEPT_SECONDS, SuppressionList

PAT, SAM = "pat@example.test", "sam@example.test"


@pytest.fixture(name="new_list")
async def _new_list(server):
    """One more process that holds the list of an organisation."""
    stores = []

    def new_list(org="acme"):
        stores.append(Store("redis://here", command_seconds=1))
        return SuppressionList(org, Fingerprints.of(b"k" * 32, org), stores[-1], "GB")

    yield new_list
    for each in stores:
        await each.close()


async def heard(one):
    """What a batch does."""
    await one.heed((await one._store.read([one.version_key]))[0])
    return one


async def test_every_process_hears_of_it_with_its_next_batch(new_list):
    here, there = new_list(), await heard(new_list())
    await here.add(here.fingerprint("email", PAT), EVER)

    assert here.contains("email", PAT)
    assert not there.contains("email", PAT)
    assert (await heard(there)).contains("email", " Pat@EXAMPLE.test ")
    assert not there.contains("email", SAM)
    assert (await heard(new_list())).contains("email", PAT), "nor does a new process ask twice"


@pytest.mark.parametrize(
    ("source", "value", "same"),
    [
        ("phone", "+447700900123", "07700 900123"),
        ("user_id", "u-1", " u-1 "),
        ("canonical_id", "device-1", "device-1"),
    ],
)
async def test_an_identifier_counts_in_any_of_its_spellings(new_list, source, value, same):
    one = new_list()
    await one.add(one.fingerprint(source, value), EVER)
    assert one.contains(source, same)
    assert not one.contains("email", value)


async def test_what_is_no_identifier_is_not_on_the_list(new_list):
    one = new_list()
    assert one.fingerprint("email", "nobody") is None
    assert not one.contains("email", "nobody")


async def test_organisations_have_lists_of_their_own(new_list):
    one = new_list()
    await one.add(one.fingerprint("email", PAT), EVER)
    assert not (await heard(new_list("other"))).contains("email", PAT)


async def test_a_device_is_on_the_list_as_such(new_list):
    one = new_list()
    await one.add(one.fingerprint("canonical_id", "device-1"), EVER)
    assert one.holds_device("device-1")
    assert not one.holds_device("device-2")
    assert not one.holds_device(None)


async def test_an_entry_ends_by_itself(new_list):
    one = new_list()
    fingerprint = one.fingerprint("email", PAT)
    await one.add(fingerprint, time.time() + 0.05)
    assert one.until(fingerprint)
    await asyncio.sleep(0.06)
    assert not one.contains("email", PAT)
    assert one.until(fingerprint) is None


async def test_who_is_taken_off_is_off_everywhere(new_list):
    here, there = new_list(), new_list()
    fingerprint = here.fingerprint("email", PAT)
    await here.add(fingerprint, EVER)
    assert (await heard(there)).contains("email", PAT)
    await here.lift(fingerprint)
    assert not (await heard(there)).contains("email", PAT)
    assert not (await heard(new_list())).contains("email", PAT)


async def test_the_last_of_several_entries_counts(new_list):
    one = new_list()
    fingerprint = one.fingerprint("email", PAT)
    for until in (EVER, 1.0, EVER, time.time() + 60):
        await one.add(fingerprint, until)
    assert (await heard(new_list())).until(fingerprint) == one.until(fingerprint) < EVER


async def test_only_what_is_new_is_read(new_list, monkeypatch):
    one, other = await heard(new_list()), new_list()
    asked = []
    ask = Store.ask

    async def listen(store, commands):
        asked.extend((command[0], command[2]) for command in commands if command[0] == "XRANGE")
        return await ask(store, commands)

    await other.add(other.fingerprint("email", PAT), EVER)
    monkeypatch.setattr(Store, "ask", listen)
    await heard(one)
    await heard(one)
    assert asked == [("XRANGE", b"-")]
    monkeypatch.undo()
    await other.add(other.fingerprint("email", SAM), EVER)
    monkeypatch.setattr(Store, "ask", listen)
    await heard(one)
    assert [start[:1] for _, start in asked[1:]] == [b"("]
    assert one.contains("email", PAT)
    assert one.contains("email", SAM)


async def test_a_list_of_many_pages_is_read_whole(new_list, monkeypatch):
    monkeypatch.setattr(suppression, "PAGE", 3)
    one = new_list()
    for number in range(10):
        await one.add(one.fingerprint("user_id", f"u{number}"), EVER)
    other = await heard(new_list())
    assert all(other.contains("user_id", f"u{number}") for number in range(10))


async def test_a_process_is_told_who_is_new_while_it_runs_and_not_who_was_there_before(new_list):
    here, running = new_list(), await heard(new_list())
    fingerprint = here.fingerprint("email", PAT)
    await here.add(fingerprint, EVER)
    assert (await heard(running)).news == {fingerprint}
    running.news.clear()
    await here.lift(fingerprint)
    assert (await heard(running)).news == set(), "nothing is erased for who is taken off"
    assert (await heard(new_list())).news == set()


async def test_neither_key_ever_ends_and_old_entries_are_tidied_up(new_list, redis):
    one = new_list()
    ended = one.fingerprint("user_id", "long ago")
    await one.add(ended, time.time() - KEPT_SECONDS - 1)
    for _ in range(5):
        await one.add(one.fingerprint("email", PAT), EVER)
    keys = [key async for key in redis.scan_iter("*")]
    assert len(keys) == 2
    assert {await redis.ttl(key) for key in keys} == {-1}
    assert await redis.xlen(one._log) == 1
    assert PAT.encode() not in b"".join([str(await redis.xrange(one._log)).encode(), *keys])


async def test_while_the_store_is_down_what_was_known_counts(new_list, server, caplog):
    one, other = new_list(), new_list()
    await one.add(one.fingerprint("email", PAT), EVER)
    await heard(other)
    server.connected = False
    await suppression.hear(other._store, [other])
    await other.heed(b"7")
    assert other.contains("email", PAT)
    with pytest.raises(StoreFailed):
        await other.add(other.fingerprint("email", SAM), EVER)
    server.connected = True


async def test_a_store_that_lost_the_list_does_not_empty_that_of_a_process(new_list, redis, clock):
    """Nor are entries missed that the next store numbers by a clock that is behind."""
    one = new_list()
    await one.add(one.fingerprint("email", PAT), EVER)
    await one.add(one.fingerprint("email", PAT), EVER)
    await redis.flushall()
    assert (await heard(one)).contains("email", PAT)
    clock.now -= 60
    other = new_list()
    await other.add(other.fingerprint("email", SAM), EVER)
    await heard(one)
    assert one.contains("email", PAT)
    assert one.contains("email", SAM)


@pytest.mark.parametrize(("policy", "warns"), [("allkeys-lru", True), ("volatile-lru", False), (None, False)])
async def test_a_store_that_may_drop_the_list_is_warned_of(new_list, monkeypatch, caplog, policy, warns):
    async def eviction_policy(_store):
        return policy

    one = new_list()
    await one.add(one.fingerprint("email", PAT), EVER)
    monkeypatch.setattr(Store, "eviction_policy", eviction_policy)
    await heard(new_list())
    assert ("maxmemory-policy" in caplog.text) is warns
    assert bool(await suppression.eviction_problem(one._store)) is warns
