"""What a writer does with what its broker says, without a broker."""

import asyncio
import threading

import pytest
from confluent_kafka import KafkaError, KafkaException
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from partnerenrich.configuration import load_mapping
from partnerenrich.events import Event
from partnerenrich_server.stream.kafka import KafkaWriter, open_kafka
from partnerenrich_server.stream.redis_stream import RedisWriter


def events(*names, org="acme"):
    return [Event.parse(b'{"messageId":"%b"}' % name.encode(), org) for name in names]


class FakeRedis:
    """Takes pipelines, and answers them as it is told once `go` is set. `out` is set when the first one comes."""

    def __init__(self):
        self.round_trips = []
        self.out = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.failures = {}

    def pipeline(self, *, transaction):
        assert not transaction
        return FakePipeline(self)


class FakePipeline:
    def __init__(self, redis):
        self.redis = redis
        self.entries = []

    def xadd(self, name, fields, maxlen):
        self.entries.append((name, fields["org"], fields["event"], maxlen))

    async def execute(self, *, raise_on_error):
        assert not raise_on_error
        self.redis.round_trips.append([event.decode() for _, _, event, _ in self.entries])
        self.redis.out.set()
        await self.redis.go.wait()
        if None in self.redis.failures:
            raise self.redis.failures[None]
        return [self.redis.failures.get(event, b"1-1") for _, _, event, _ in self.entries]


async def test_what_gathers_during_a_round_trip_shares_the_next():
    redis = FakeRedis()
    redis.go.clear()
    writer = RedisWriter(redis, "out", None)
    first = writer.write(events("a"))
    await redis.out.wait()
    later = [writer.write(events("b", "c")), writer.write([]), writer.write(events("d"))]
    redis.go.set()

    assert await asyncio.gather(first, *later) == [[True], [True, True], [], [True]]
    assert redis.round_trips == [
        ['{"messageId":"a"}'],
        ['{"messageId":"b"}', '{"messageId":"c"}', '{"messageId":"d"}'],
    ]


async def test_only_the_events_that_redis_refuses_have_failed(log_lines):
    redis = FakeRedis()
    redis.failures = {b'{"messageId":"b"}': OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")}
    writer = RedisWriter(redis, "out", None)

    assert await asyncio.gather(writer.write(events("a", "b")), writer.write(events("c"))) == [[True, False], [True]]
    assert "(OutOfMemoryError)" in log_lines[0]


async def test_a_mistake_in_the_client_keeps_nobody_waiting():
    redis = FakeRedis()
    redis.failures = {None: RuntimeError()}
    writer = RedisWriter(redis, "out", None)
    failed = await writer.write(events("a"))
    redis.failures = {}

    assert (failed, await writer.write(events("b"))) == ([False], [True])


@pytest.mark.parametrize("where", ["pipeline", "execute"])
async def test_a_mistake_in_the_client_keeps_nobody_waiting_who_came_meanwhile(monkeypatch, log_lines, where):
    redis = FakeRedis()
    redis.go.clear()
    writer = RedisWriter(redis, "out", None)
    first = writer.write(events("a"))
    await redis.out.wait()

    def fails(*_, **__):
        raise LookupError("a value of the visitor")

    later = writer.write(events("b", "c"))
    monkeypatch.setattr(redis if where == "pipeline" else FakePipeline, where, fails)
    redis.go.set()

    assert await asyncio.wait_for(asyncio.gather(first, later), 20) == [[True], [False, False]]
    monkeypatch.undo()
    assert await asyncio.wait_for(writer.write(events("d")), 20) == [True]
    assert "(LookupError)" in log_lines[0]
    assert "value of the visitor" not in "".join(log_lines)


async def test_a_mistake_in_the_client_ends_with_its_round_trip():
    redis = FakeRedis()
    redis.go.clear()
    redis.failures = {None: RuntimeError()}
    writer = RedisWriter(redis, "out", None)
    first = writer.write(events("a"))
    await redis.out.wait()
    later = writer.write(events("b"))
    redis.go.set()

    assert await asyncio.wait_for(asyncio.gather(first, later), 20) == [[False], [False]]
    await writer.arrived()


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (RedisConnectionError("of a host"), "ConnectionError"),
        (ResponseError("WRONGTYPE of a value"), "WRONGTYPE"),
        (ResponseError("unknown command with a value"), "ResponseError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
async def test_a_failure_is_logged_by_its_name_once(log_lines, error, name):
    redis = FakeRedis()
    redis.failures = {None: error}
    writer = RedisWriter(redis, "out", None)

    assert [await writer.write(events("a", "b")) for _ in range(3)] == [[False, False]] * 3
    assert len(log_lines) == 1
    assert f"({name})" in log_lines[0]
    assert "value" not in log_lines[0]


class FakeProducer:
    """Reports what it was given when it is polled, and fails for good when it is told."""

    def __init__(self, on_error):
        self.on_error = on_error
        self.lock = threading.Lock()
        self.waiting = []
        self.keys = []
        self.error = None
        self.room = 100
        self.is_silent = False

    def produce(self, topic, value, key, headers, on_delivery):
        with self.lock:
            if self.error is not None and self.error.fatal():
                raise KafkaException(self.error)
            if len(self.waiting) >= self.room:
                raise BufferError
            self.keys.append((topic, key, headers))
            self.waiting.append(on_delivery)

    def poll(self, timeout):
        threading.Event().wait(0.01)
        if self.error is not None and self.error.fatal():
            raise KafkaException(self.error)
        if not self.is_silent:
            self.flush(timeout)

    def purge(self):
        with self.lock:
            self.room = 0

    def flush(self, timeout):
        while True:
            with self.lock:
                if not self.waiting:
                    return
                report = self.waiting.pop(0)
            report(self.error, None)  # when it raises, those after it stay, as in librdkafka


@pytest.fixture(name="producers")
def _producers():
    return []


@pytest.fixture(name="writer")
async def _writer(producers):
    def connect(on_error):
        producers.append(FakeProducer(on_error))
        return producers[-1]

    writer = KafkaWriter(connect, "out", lambda event: None if b"nobody" in event.encode() else "v1")
    yield writer
    await asyncio.to_thread(writer.end)


async def test_a_visitor_is_the_key_and_the_organisation_a_header(writer, producers):
    assert await writer.write([*events("a"), *events("nobody", org="other")]) == [True, True]
    assert producers[0].keys == [("out", "acme:v1", [("org", "acme")]), ("out", None, [("org", "other")])]


async def test_no_events_are_written_at_once(writer):
    assert await writer.write([]) == []


async def test_what_finds_no_room_has_failed(writer, producers, log_lines):
    producers[0].room = 0

    assert await writer.write(events("a", "b")) == [False, False]
    assert "(_QUEUE_FULL)" in log_lines[0]


async def test_what_the_broker_refuses_has_failed(writer, producers, log_lines):
    producers[0].error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    assert await writer.write(events("a")) == [False]
    assert "(TOPIC_AUTHORIZATION_FAILED)" in log_lines[0]


async def test_who_waits_for_a_report_does_not_wait_for_ever(writer, producers):
    producers[0].is_silent = True

    async with asyncio.timeout(20):
        assert await writer.write(events("a")) == [False]


async def test_a_report_that_comes_too_late_changes_no_answer(writer, producers, until, monkeypatch):
    monkeypatch.setattr("partnerenrich_server.stream.kafka.LONGEST_SECONDS", 0.05)
    producers[0].is_silent = True
    answer = await writer.write(events("a"))
    producers[0].is_silent = False
    await until(lambda: not producers[0].waiting)
    await asyncio.sleep(0.05)

    assert answer == [False]


async def test_what_goes_wrong_beside_the_events_is_told_once(producers, writer, log_lines):
    for code in (KafkaError._TRANSPORT, KafkaError._TRANSPORT, KafkaError._SSL):
        producers[0].on_error(KafkaError(code, "a reason"))

    assert len([line for line in log_lines if "Kafka: a reason" in line]) == 2


async def test_a_producer_that_has_failed_for_good_is_replaced(writer, producers, until):
    producers[0].error = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "lost count", True)

    assert await writer.write(events("a")) == [False]
    await until(lambda: len(producers) == 2)
    assert await writer.write(events("b")) == [True]
    assert producers[1].error is None


async def test_a_producer_that_cannot_be_replaced_at_once_is_replaced_later(until, log_lines):
    made = []

    def connect(on_error):
        made.append(FakeProducer(on_error))
        if len(made) in {2, 3}:
            raise KafkaException(KafkaError(KafkaError._FAIL, "a value"))
        return made[-1]

    writer = KafkaWriter(connect, "out", lambda _: None)
    made[0].error = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "lost count", True)
    try:
        await until(lambda: len(made) == 4)
        assert await writer.write(events("a")) == [True]
    finally:
        await asyncio.to_thread(writer.end)
    assert [line for line in log_lines if "(KafkaException)" in line and "a value" not in line] == log_lines


async def test_whose_loop_is_gone_keeps_nobody_else_waiting(writer, producers, log_lines):
    """A report that finds nobody does not end the polling."""

    async def write_and_go():
        producers[0].is_silent = True
        writer.write(events("a"))

    await asyncio.to_thread(asyncio.run, write_and_go())
    producers[0].is_silent = False

    assert await asyncio.wait_for(writer.write(events("b")), 20) == [True]
    assert "(RuntimeError)" in log_lines[0]


@pytest.mark.parametrize(
    "url",
    [
        "kafka://127.0.0.1:1",
        "kafka://127.0.0.1:1,[::1]:1/",
        "kafka+ssl://127.0.0.1:1",
        "kafka://user:p%40ss%2F@127.0.0.1:1",
        "kafka+ssl://user:pass@127.0.0.1:1,127.0.0.1:2",
    ],
)
async def test_librdkafka_accepts_what_a_url_may_say(url):
    settings = load_mapping({"org": "acme", "stream": {"kind": "kafka", "url": url}}).stream

    async with open_kafka(settings, lambda _: None) as writer:
        assert not await writer.answers()
