"""What keeps a stream from being written, said to the operator, without a secret or a value of a visitor."""

import json
import subprocess
import sys

import pytest

from partnerenrich import ConfigError
from partnerenrich.configuration import load_mapping
from partnerenrich_server.hub.app import open_hub

CANARY = "canary-4711-never-show"
EMAIL = "canary-email@example.test"


async def refused(raw, store):
    with pytest.raises(ConfigError) as raised:
        async with open_hub(load_mapping(raw), store):
            pass
    assert CANARY not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}"
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"acks": "1"}, "acks is set by the hub; remove it"),
        ({"bootstrap.servers": CANARY}, "bootstrap.servers is set by the hub; remove it"),
        ({"sasl.mechanisn": CANARY}, 'librdkafka says: No such configuration property: "sasl.mechanisn"'),
        ({"compression.type": CANARY}, 'says: Invalid value "***" for configuration property "compression.codec"'),
        ({"linger.ms": "5000"}, "`message.timeout.ms` must be greater than `linger.ms`"),
    ],
)
async def test_options_that_cannot_be_are_named(raw, store, options, told):
    raw["stream"] = {"kind": "kafka", "url": "kafka://127.0.0.1:1", "options": options}

    [problem] = await refused(raw, store)

    assert problem.startswith("stream.options: ")
    assert told in problem


async def test_a_url_that_redis_cannot_read_is_named(raw, store):
    raw["stream"] = {"kind": "redis", "url": f"redis://:{CANARY}@127.0.0.1:none"}

    assert await refused(raw, store) == ["stream.url: is no URL of a Redis, such as redis://127.0.0.1:6379"]


async def test_without_the_client_of_kafka_the_command_that_installs_it_is_named(raw, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "partnerenrich_server.stream.kafka", raising=False)
    raw["stream"] = {"kind": "kafka", "url": "kafka://127.0.0.1:1"}

    assert await refused(raw, store) == ["stream.kind: kafka needs more: pip install 'partnerenrich-server[kafka]'"]


@pytest.mark.parametrize(
    "stream",
    [
        {"kind": "redis", "url": f"redis://{CANARY}:{CANARY}@127.0.0.1:1/0"},
        {"kind": "redis", "url": f"rediss://{CANARY}:{CANARY}@127.0.0.1:1/0"},
        {"kind": "kafka", "url": f"kafka://{CANARY}:{CANARY}@127.0.0.1:1"},
        {"kind": "kafka", "url": f"kafka+ssl://{CANARY}:{CANARY}@127.0.0.1:1", "options": {"sasl.mechanism": "PLAIN"}},
    ],
    ids=["redis", "rediss", "kafka", "kafka+ssl"],
)
async def test_a_hub_starts_without_its_broker_and_tells_no_secret(raw, store, open_running_hub, stream, log_lines):
    raw["stream"] = stream

    async with open_running_hub(raw, store) as hub:
        answer = await hub.browser().identify(EMAIL)
        ready = await hub.client.get(f"{hub.url}/readyz")
        numbers = await hub.client.get(f"{hub.url}/metrics")

    assert answer.status_code == 503
    assert ready.json()["degraded"] is True
    assert any("the stream does not take events" in line for line in log_lines)
    told = [answer.text, ready.text, numbers.text, *log_lines, repr(load_mapping(raw))]
    assert [text for text in told if CANARY in text or EMAIL in text] == []


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_the_log_names_what_redis_refuses(raw, store, new_broker, open_running_hub, kind, log_lines):
    broker = new_broker(kind)
    broker.ask("SET", "enriched-events", "no stream")

    async with open_running_hub({**raw, "stream": broker.stream}, store) as hub:
        refused = await hub.browser().identify(EMAIL)
        broker.ask("DEL", "enriched-events")
        taken = await hub.browser().identify(EMAIL)
        broker.ask("CONFIG", "SET", "maxmemory", "1")
        full = await hub.browser().identify(EMAIL)
        broker.ask("CONFIG", "SET", "maxmemory", "0", "requirepass", "another")
        before = await hub.browser().identify(EMAIL)

    assert [answer.status_code for answer in (refused, taken, full, before)] == [503, 200, 503, 200]
    assert any("(WRONGTYPE)" in line for line in log_lines)
    assert not any(EMAIL in line for line in log_lines)


async def test_a_stream_may_have_a_length(raw, store, new_broker, open_running_hub):
    broker = new_broker("valkey")
    raw["stream"] = {**broker.stream, "max_length": 100}

    async with open_running_hub(raw, store) as hub:
        for _ in range(5):
            await hub.browser().call("POST", "/v1/batch", body={"batch": [{"type": "page"}] * 100})

    assert 100 <= len(broker.entries()) < 300


def command_line(*arguments):
    return [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *map(str, arguments)]


@pytest.fixture(name="config")
def _config(raw, tmp_path):
    raw["store"] = f"embedded:{tmp_path / 'memory'}"
    return tmp_path / "config.yaml"


def test_run_reads_and_writes_files_whatever_the_stream(config, raw):
    raw["stream"] = {"kind": "kafka", "url": "kafka://127.0.0.1:1"}
    config.write_text(json.dumps(raw))
    command = command_line("run", "--config", config)
    done = subprocess.run(command, input=b'{"type": "page"}\n', capture_output=True, timeout=50, check=False)

    assert done.returncode == 0
    assert json.loads(done.stdout)["type"] == "page"
