"""Redis behind methods that never raise: one round trip where one is enough, and a way on when it is gone."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, ResponseError

from partnerenrich import store as store_module
from partnerenrich.complaints import QUIET_SECONDS
from partnerenrich.store import (
    LINGER_SECONDS,
    LOCAL_ENTRIES,
    LOCAL_SECONDS,
    PAUSE_SECONDS,
    SCRIPT,
    LocalTier,
    Store,
    bucket,
)


@pytest.fixture(name="store")
async def _store(server):
    store = Store("redis://here", command_seconds=1)
    yield store
    await store.close()


def names_in(script):
    """Names of the commands that a run of a script holds."""
    words = list(script[3 + script[2] :])
    while words:
        name, length, commands = words[:3]
        yield from [name] * commands
        del words[: 3 + length * commands]


@pytest.fixture(name="trips")
async def _trips(store, monkeypatch):
    """The commands of each round trip, to a server that knows the script."""
    trips = []
    client = store._client
    await client.script_load(SCRIPT)
    execute_command = client.execute_command

    async def counted(*command, **options):
        trips.append(list(names_in(command)) if command[0] == "EVALSHA" else [command[0]])
        return await execute_command(*command, **options)

    monkeypatch.setattr(client, "execute_command", counted)
    return trips


# Reading and writing


async def test_all_keys_are_read_in_one_round_trip_in_their_order(store, redis, trips):
    await redis.mset({"a": 1, "c": 3})
    assert await store.read(["a", "b", "c", "a"]) == [b"1", None, b"3", b"1"]
    assert await store.read([]) == ()
    assert trips == [["MGET"]]


async def test_reads_that_are_asked_for_at_once_share_a_round_trip(store, redis, trips):
    await redis.mset({f"k{number}": number for number in range(1000)})
    assert await asyncio.gather(*(store.read([f"k{number}", "none"]) for number in range(1000))) == [
        [str(number).encode(), None] for number in range(1000)
    ]
    assert trips == [["MGET"]]


async def test_a_read_that_is_given_up_harms_no_other(store, redis):
    await redis.set("a", 1)
    first, second = asyncio.create_task(store.read(["a"])), asyncio.create_task(store.read(["b", "a"]))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [None, b"1"]


async def test_flushes_that_are_asked_for_at_once_share_a_round_trip(store, redis, trips):
    async def write(number):
        store.queue([("SET", f"k{number}", b"1", "PX", 1000)])
        await store.flush()
        assert await redis.exists(f"k{number}")

    await asyncio.gather(*map(write, range(100)))
    assert len(trips) == 1


async def test_all_queued_writes_go_out_in_one_round_trip(store, redis, trips):
    store.queue([("SET", "a", b"1", "PX", 1000)])
    store.queue([("HSET", "h", "f", "v"), ("EXPIRE", "h", 10)])
    await store.flush()
    await store.flush()
    assert trips == [["SET", "HSET", "EXPIRE"]]
    assert await redis.get("a") == b"1"


async def test_keys_are_read_behind_the_writes_in_the_same_round_trip(store, redis, trips):
    await redis.set("there", b"before")
    store.queue([("SET", "mine", b"1", "PX", 1000)])
    read, other = await asyncio.gather(store.flush(["mine", "none", "there"]), store.flush(["there"]))
    assert (read, other) == ([b"1", None, b"before"], [b"before"])
    assert trips == [["SET", "GET", "GET", "GET", "GET"]]


async def test_what_is_read_behind_writes_is_none_without_redis(store, server):
    server.connected = False
    store.queue([("SET", "mine", b"1", "PX", 1000)])
    assert await store.flush(["mine"]) == [None]
    assert store.down


async def test_a_write_that_no_batch_takes_along_goes_out_by_itself(store, redis):
    store.queue([("SET", "a", b"1", "PX", 1000)])
    await asyncio.sleep(10 * LINGER_SECONDS)
    assert await redis.get("a") == b"1"


async def test_a_flush_comes_back_only_when_writes_that_another_one_took_have_landed(store, redis, monkeypatch):
    landed, send = [], store._write

    async def slowly(commands):
        await asyncio.sleep(0.02)
        landed.append(await send(commands))
        return landed[-1]

    monkeypatch.setattr(store, "_write", slowly)
    store.queue([("SET", "a", b"1", "PX", 1000)])
    first = asyncio.create_task(store.flush())
    await asyncio.sleep(0.005)
    await store.flush()
    assert landed
    await first


async def test_writes_of_others_survive_a_flush_that_is_given_up(store, redis, monkeypatch):
    send = store._write

    async def slowly(commands):
        await asyncio.sleep(0.02)
        return await send(commands)

    monkeypatch.setattr(store, "_write", slowly)
    store.queue([("SET", "a", b"1", "PX", 1000)])
    flushing = asyncio.create_task(store.flush())
    await asyncio.sleep(0.005)
    flushing.cancel()
    await store.flush()
    assert await redis.get("a") == b"1"


async def test_a_refused_write_is_no_error(store, redis, caplog):
    await redis.lpush("list", "x")
    store.queue([("HSET", "list", "secret-canary", "v"), ("SET", "a", b"1", "PX", 1000)])
    await store.flush()
    assert await redis.get("a") == b"1"
    assert (store.failures, store.down) == (1, False)
    assert "WRONGTYPE" in caplog.text
    assert "canary" not in caplog.text


async def test_closing_sends_what_is_queued_and_leaves_nothing_behind(server, redis):
    store = Store("redis://here", command_seconds=1)
    store.queue([("SET", "a", b"1", "PX", 1000)])
    await store.close()
    assert await redis.get("a") == b"1"
    await asyncio.sleep(2 * LINGER_SECONDS)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Leases and counts


async def test_a_lease_is_granted_once_until_it_ends_or_is_released(store, redis):
    assert await store.lease(("l", 50, "a")) == (True, None)
    await redis.set("a", b"1")
    assert await store.lease(("l", 50, "a")) == (False, b"1")
    await asyncio.sleep(0.06)
    assert (await store.lease(("l", 60_000, "a")))[0]
    store.release("l")
    await store.flush()
    assert (await store.lease(("l", 50, "a")))[0]


async def test_leases_that_are_asked_for_at_once_share_a_round_trip(store, trips):
    granted = await asyncio.gather(*(store.lease((f"l{n % 50}", 1000, "a")) for n in range(100)))
    assert [one for one, _ in granted] == [True] * 50 + [False] * 50
    assert len(trips) == 1


async def test_a_few_claims_travel_with_the_writes_of_the_same_moment(store, redis, trips):
    await redis.set("known", b"1")
    store.queue([("SET", "a", b"1", "PX", 1000)])
    claimed, values = await asyncio.gather(
        asyncio.gather(store.lease(("new", 1000, "new")), store.lease(("known:~lease", 1000, "known"))),
        store.flush(["version"]),
    )
    assert (claimed, values) == ([(True, None), (True, b"1")], [None])
    assert trips == [["SET", "CLAIM", "CLAIM", "GET", "GET"]]


async def test_a_claim_that_is_given_up_harms_no_other(store, redis):
    await redis.set("known", b"1")
    first, second = (asyncio.create_task(store.lease((f"l{n}", 1000, "known"))) for n in range(2))
    reading = asyncio.create_task(store.flush(["known"]))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (True, b"1")
    assert await reading == [b"1"]


async def test_a_claim_leaves_what_stands_in_its_place(store, redis):
    await redis.set("record", b"1")
    assert await store.lease(("record", 1000, "record")) == (False, b"1")
    assert await redis.get("record") == b"1"


async def test_a_counter_counts_and_ends(store, redis):
    assert [await store.count("c", 100) for _ in range(3)] == [1, 2, 3]
    assert 90 < await redis.ttl("c") <= 100


# Without Redis


async def test_while_redis_is_gone_what_was_read_and_written_last_serves(store, server, redis):
    await redis.set("a", b"1")
    await store.read(["a", "b"])
    store.queue([("SET", "b", b"2", "PX", 1000), ("SET", "c", b"3", "PX", 1000), ("DEL", "c")])
    await store.flush()
    server.connected = False
    assert await store.read(["a", "b", "c", "d"]) == [b"1", b"2", None, None]
    assert store.down
    store.queue([("SET", "d", b"4", "PX", 1000), ("DEL", "a"), ("SET", "a", b"5", "PX", 1000)])
    await store.flush()
    assert await store.read(["a", "d"]) == [b"5", b"4"]
    assert await store.lease(("l", 1000, "a")) == (True, None)
    assert await store.count("c", 10) is None


async def test_while_redis_is_there_it_is_asked(store, redis):
    store.queue([("SET", "a", b"1", "PX", 1000)])
    await store.flush()
    await redis.set("a", b"2")
    assert await store.read(["a"]) == [b"2"]
    await redis.delete("a")
    assert await store.read(["a"]) == [None]


async def test_redis_is_left_alone_for_a_second_after_a_failure(store, server, clock, trips):
    server.connected = False
    for _ in range(5):
        await store.read(["a"])
    assert len(trips) == 1
    clock.now += PAUSE_SECONDS + 0.01
    await store.read(["a"])
    assert len(trips) == 2
    server.connected = True
    clock.now += PAUSE_SECONDS + 0.01
    await store.read(["a"])
    assert not store.down


@pytest.mark.parametrize(
    "failure",
    [RedisConnectionError("x"), RedisClusterException("x"), ResponseError("LOADING"), OSError(), TimeoutError()],
    ids=repr,
)
async def test_no_failure_of_redis_is_raised(store, monkeypatch, failure):
    async def fail(*_, **__):
        raise failure

    monkeypatch.setattr(store._client, "mget", fail)
    assert await store.read(["a"]) == [None]
    assert store.down


async def test_a_failure_is_logged_once_in_a_while_and_without_a_key(store, server, clock, caplog):
    caplog.set_level("DEBUG")
    server.connected = False
    for _ in range(3 * 8):
        await store.read(["canary"])
        clock.now += QUIET_SECONDS / 8
    assert len(caplog.records) == 3
    assert "canary" not in caplog.text


async def test_what_redis_refuses_is_logged_once_in_a_while_for_each_reason(store, redis, caplog):
    await redis.lpush("list", "x")
    for command in [("HSET", "list", "f", "v"), ("HSET", "list", "f", "v"), ("NONE", "list")]:
        store.queue([command])
        await store.flush()
    assert [record.args[-1] for record in caplog.records] == ["WRONGTYPE", "ResponseError"]
    assert store.failures == 3


# What Redis must not keep


async def test_a_deletion_that_redis_missed_is_made_up_for_before_it_is_believed_again(store, server, redis, clock):
    await redis.mset({"who": b"ann", "other": b"1"})
    await redis.hset("copy", mapping={"who": "ann", "x": "1"})
    server.connected = False
    store.queue([("DEL", "who"), ("SET", "who", b"bob", "PX", 1000), ("HDEL", "copy", "who")])
    await store.flush()
    assert await store.read(["who"]) == [b"bob"]
    server.connected = True
    clock.now += PAUSE_SECONDS + 0.01
    assert await store.read(["who", "other"]) == [None, b"1"]
    assert await redis.hkeys("copy") == [b"x"]


async def test_a_deletion_that_redis_missed_is_made_up_for_also_when_nobody_asks(store, server, redis, monkeypatch):
    monkeypatch.setattr(store_module, "PAUSE_SECONDS", 0.02)
    await redis.set("who", b"ann")
    server.connected = False
    store.queue([("DEL", "who")])
    await store.flush()
    await asyncio.sleep(0.05)
    server.connected = True
    async with asyncio.timeout(5):
        while await redis.get("who") is not None:  # noqa: ASYNC110 - Redis tells it in no other way
            await asyncio.sleep(0.01)


async def test_a_deletion_is_owed_after_a_mistake_in_the_client_too(store, redis, monkeypatch):
    """Who waits for it is told, and who came meanwhile is served."""
    await redis.set("who", b"ann")
    send, begun, gate = store._each, asyncio.Event(), asyncio.Event()

    async def fails(commands):
        monkeypatch.setattr(store, "_each", send)
        begun.set()
        await gate.wait()
        raise LookupError

    monkeypatch.setattr(store, "_each", fails)
    store.queue([("DEL", "who")])
    first = asyncio.create_task(store.flush())
    await begun.wait()
    store.queue([("SET", "other", b"1", "PX", 1000)])
    second = asyncio.create_task(store.flush())
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(LookupError):
        await first
    await second
    assert await redis.mget("who", "other") == [None, b"1"]
    assert not store.owes_deletions


async def test_deletions_that_are_lost_with_the_process_are_told(server, caplog):
    store = Store("redis://here", command_seconds=1)
    server.connected = False
    store.queue([("DEL", "canary"), ("HDEL", "canary", "f")])
    await store.close()
    assert caplog.records[-1].getMessage().startswith("deletions that the store missed are lost (2)")
    assert "canary" not in caplog.text


async def test_mistakes_in_the_client_do_not_end_the_making_up(store, redis, monkeypatch, caplog):
    await redis.set("who", b"ann")

    async def fails(commands):
        raise LookupError("canary")

    with monkeypatch.context() as broken:
        broken.setattr(store, "_each", fails)
        store.queue([("DEL", "who")])
        with pytest.raises(LookupError):
            await store.flush()
        await asyncio.sleep(2.5 * PAUSE_SECONDS)
    await asyncio.sleep(1.5 * PAUSE_SECONDS)
    assert await redis.get("who") is None
    assert not store.owes_deletions
    assert [record.getMessage() for record in caplog.records] == [
        "deletions that the store missed are still owed (LookupError)"
    ] * 2


async def test_what_was_written_after_a_missed_deletion_stays(store, server, redis, clock):
    server.connected = False
    store.queue([("DEL", "who")])
    await store.flush()
    server.connected = True
    clock.now += PAUSE_SECONDS + 0.01
    store.queue([("SET", "who", b"bob", "PX", 100_000)])
    await store.flush()
    assert await store.read(["who"]) == [b"bob"]


async def test_a_deletion_that_is_made_up_for_costs_nothing_later(store, server, redis, clock, trips):
    server.connected = False
    store.queue([("DEL", "a")])
    await store.flush()
    server.connected = True
    clock.now += PAUSE_SECONDS + 0.01
    await store.read(["a"])
    trips.clear()
    await store.read(["a"])
    await store.flush()
    assert trips == [["MGET"]]


# The local tier


def test_a_local_value_is_at_most_a_minute_old(clock):
    tier = LocalTier()
    for idle in (0.0, 29.0, 31.0, 59.0, 61.0):
        tier.keep(["k"], [b"v"])
        written = clock.now
        clock.now += idle
        tier.keep(["other"], [b"x"])
        while tier.get("k") is not None:
            assert clock.now - written <= 2 * LOCAL_SECONDS
            clock.now += 0.5
            if clock.now - written < LOCAL_SECONDS:
                tier.keep(["other"], [b"x"])
        assert clock.now - written > (LOCAL_SECONDS if idle < LOCAL_SECONDS else 0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["keep", "get", "wait"]), st.integers(0, 3), st.floats(0.1, 70)), max_size=30
)


def test_whatever_happens_no_older_value_and_no_wrong_one_comes_out(clock):
    @given(STEPS)
    def holds(steps):
        tier, written = LocalTier(), {}
        for kind, number, seconds in steps:
            key = f"k{number}"
            if kind == "wait":
                clock.now += seconds
            elif kind == "keep":
                written[key] = (clock.now, str(clock.now).encode())
                tier.keep([key], [written[key][1]])
            elif (value := tier.get(key)) is not None:
                assert value == written[key][1]
                assert clock.now - written[key][0] <= 2 * LOCAL_SECONDS

    holds()


def test_the_local_tier_is_bounded(clock):
    tier = LocalTier()
    for number in range(5 * LOCAL_ENTRIES):
        tier.keep([f"k{number}"], [b"v"])
    assert len(tier._young) + len(tier._old) <= 2 * LOCAL_ENTRIES + 2
    assert tier.get(f"k{5 * LOCAL_ENTRIES - 1}") == b"v"


def test_a_bucket_is_a_hash_tag_of_256():
    tags = {bucket(f"acme:{n}") for n in range(5000)}
    assert len(tags) == 256
    assert all(tag.startswith("{b") and tag.endswith("}") for tag in tags)
