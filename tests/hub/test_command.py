"""``partnerenrich hub``, as an operator meets it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

SHOP = {"Origin": "https://www.shop.example"}


def command_line(*arguments):
    return [sys.executable, "-c", "from partnerenrich_server.cli import main; main()", *map(str, arguments)]


@pytest.fixture(name="config")
def _config(raw, tmp_path):
    raw |= {"store": f"embedded:{tmp_path / 'memory'}", "budget_ms": 20_000}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(raw))
    return path


@pytest.fixture(name="started")
def _started(config):
    """Start the hub; its process and URL. It is killed at the end of the test if it still runs."""
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            command_line("hub", "--config", config, "--port", 0, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        processes.append(process)
        line = process.stdout.readline().decode()
        return process, re.search(r"http://\S+", line)[0]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_it_serves_and_ends_in_good_order(started):
    """Accepted events are enriched before the end; the log is JSON on stderr."""
    process, url = started("--log-level", "debug")
    with httpx.Client(base_url=url, headers=SHOP, trust_env=False) as client:
        assert client.get("/readyz").json() == {"ready": True, "degraded": False}
        event = {"type": "identify", "traits": {"email": "pat@example.test"}}
        accepted = client.post("/v1/batch?key=pk-shop", json={"batch": [event] * 200}, headers={"X-Request-Id": "r-1"})
        assert accepted.status_code == 202
    process.send_signal(signal.SIGTERM)
    told = process.stderr.read().decode()

    assert process.wait(20) == 0
    lines = [json.loads(line) for line in told.splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "r-1"]
    assert {name: line[name] for name in ("level", "message", "route", "method", "status")} == {
        "level": "info",
        "message": "request",
        "route": "/v1/batch",
        "method": "POST",
        "status": 202,
    }
    assert "SIGTERM: finishing what was accepted; again to abort" in [line["message"] for line in lines]
    assert not any("not enriched" in line["message"] for line in lines)
    assert "example.test" not in told


def test_a_request_that_is_under_way_is_answered(started):
    process, url = started()
    body = b'{"type": "page"}'
    headers = {**SHOP, "Host": "hub", "Content-Length": len(body), "Expect": "100-continue"}
    lines = ["POST /v1/events?key=pk-shop HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rb") as said:
        connection.sendall("\r\n".join(lines).encode())
        assert said.readline().startswith(b"HTTP/1.1 100 ")  # it waits for the body
        process.send_signal(signal.SIGTERM)
        assert any(b"finishing what was accepted" in line for line in process.stderr)
        connection.sendall(body)
        assert said.readline() == b"\r\n"
        answer = said.readline()

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert process.wait(20) == 0


def test_two_hubs_of_one_machine_share_a_folder(started):
    urls = [started()[1] for _ in range(2)]
    headers = {**SHOP, "Cookie": "_dfdid=0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"}
    statuses = [httpx.get(f"{urls[n % 2]}/v1/enrich", headers=headers, trust_env=False).status_code for n in range(11)]

    assert statuses == [200] * 10 + [429]


def run(*arguments):
    return subprocess.run(command_line("hub", *arguments), capture_output=True, timeout=50, check=False)


@pytest.mark.parametrize(
    ("hub", "told"),
    [
        ({"origins": ["https://shop.example"]}, "hub.public_key: is required beside origins"),
        ({"public_key": "pk"}, "hub.origins: is required beside public_key"),
        ({"origins": ["https://shop.example/"]}, "hub.origins (line 1): must be origins such as"),
        ({"origins": ["http://shop.example"]}, "http:// on localhost only"),
        ({"ingest_secret": "short"}, "hub.ingest_secret (line 1): must have at least 16 characters"),
        ({"hosts": ["https://id.shop.example"]}, "without scheme and port"),
        ({"hosts": ["id.shop.example"], "cookie_domain": "hop.example"}, "must be the domain of every host"),
        ({"proxies": ["nginx"]}, "must be IP addresses or networks"),
    ],
)
def test_a_wrong_configuration_names_the_field(config, raw, hub, told):
    config.write_text(json.dumps(raw | {"hub": hub}))
    done = run("--config", config, "--port", 0)

    assert done.returncode == 2
    assert told in done.stderr.decode()


def test_a_port_that_is_taken_is_a_clear_failure(config, hub):
    done = run("--config", config, "--port", hub.address[1])

    assert done.returncode == 1
    assert done.stderr.decode() == f"Error: 127.0.0.1 port {hub.address[1]}: Address already in use\n"


def test_a_private_store_is_for_trying_out(config, raw, started):
    config.write_text(json.dumps({**raw, "store": None}))
    process, _ = started()
    process.terminate()

    assert process.stderr.readline().startswith(b"Warning: the store is private to this process")
