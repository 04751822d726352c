"""Whatever comes in, a clear 4xx goes out, in one shape, and nothing of it stays."""

import asyncio
import json
from contextlib import suppress

import pytest

from partnerenrich_server.hub import bodies, protocol

JSON_ERROR = {"code", "message"}


async def say(hub, *parts: bytes, pause: float = 0.0) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; the status, headers and body that come back before the hub hangs up or waits."""
    reader, writer = await asyncio.open_connection(*hub.address)

    async def answer():
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))

    answered = asyncio.ensure_future(answer())  # it may come before all is said, and the end of the connection with it
    try:
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        return await asyncio.wait_for(answered, 20)
    finally:
        writer.close()


def is_refusal(body: bytes) -> bool:
    told = json.loads(body)
    return told.keys() == {"error"} and told["error"].keys() == JSON_ERROR and b"Traceback" not in body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_event"),
        ("{", "invalid_event"),
        ("[]", "invalid_event"),
        ("null", "invalid_event"),
        (b"\xff\xfe", "invalid_event"),
        (b"[" * 60_000, "invalid_event"),
        ('{"type": ' + "[" * 30_000 + "]" * 30_000 + "}", "invalid_event"),
        ('{"type": "track"}', "invalid_event"),
        ('{"type": {"a": 1}}', "invalid_event"),
        ('{"type": "track", "event": 5}', "invalid_event"),
        ('{"type": "page", "context": "x"}', "invalid_event"),
        ('{"type": "page", "context": null}', "invalid_event"),
        ("x" * (64 * 1024 + 1), "too_large"),
    ],
)
async def test_what_is_no_event_is_refused(browser, body, code):
    answer = await browser.call("POST", "/v1/events", body=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert is_refusal(answer.content)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "page", "context": {"consent": 1, "page": [], "userAgent": {}, "traits": "x"}},
        {"type": "identify", "traits": {"email": {"$gt": ""}}, "userId": [1], "anonymousId": {}},
        {"type": "identify", "traits": {"email": "a\u0000b@example.test"}, "userId": "\ud800"},
        {"type": "page", "context": {"canonical_id": ["x"], "vendor_ids": 5, "partner_attrs": [], "enrichment": "x"}},
        {"type": "page", "userId": "x" * 60_000},
    ],
)
async def test_odd_fields_of_an_event_do_no_harm(browser, event):
    answer = await browser.call("POST", "/v1/events", body=json.dumps(event), wait_ms=800)

    assert answer.status_code in {202, 400}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"provider": 5}',
        '{"provider": "toy", "context": []}',
        b'{"provider": "toy", "context": {"a": "\xff"}}',
        '{"provider": "toy", "context": ' + '{"a":' * 3000 + "1" + "}" * 3001,
        '{"provider": "toy", "context": {"x": "' + "y" * 16_384 + '"}}',
    ],
)
async def test_what_is_no_contextual_call_is_refused(browser, body):
    answer = await browser.call("POST", "/v1/personalize", body=body)

    assert answer.status_code == 400
    assert is_refusal(answer.content)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/enrich", "GET"),
        ("GET", "/v1/events", "POST"),
        ("DELETE", "/v1/batch", "POST"),
        ("PUT", "/v1/personalize", "POST"),
        ("PATCH", "/v1/reset", "POST"),
        ("POST", "/datafly.js", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_one(browser, method, path, allowed):
    answer = await browser.call(method, path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/enrich/", "/v1/enrich/x", "/v2/enrich", "/..%2f..%2fetc", "/v1/%00"])
async def test_an_unknown_path_is_not_found(browser, path):
    answer = await browser.call("GET", path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "query", ["key=pk-shop&key=pk-shop", "provider=a&provider=b", "%ff=%ff", "&".join(f"a{n}=1" for n in range(40))]
)
async def test_an_odd_query_is_refused(hub, query):
    status, _, body = await say(hub, b"GET /v1/enrich?%b HTTP/1.1\r\nHost: x\r\n\r\n" % query.encode())

    assert status == 400
    assert is_refusal(body)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 202),
        ({"content-type": "TEXT/PLAIN"}, 202),
    ],
)
async def test_only_json_is_read(browser, headers, status):
    assert (await browser.event(headers=headers)).status_code == status


class TestSizes:
    async def test_a_body_is_refused_by_its_length_before_it_is_read(self, hub):
        head = b"POST /v1/batch?key=pk-shop HTTP/1.1\r\nHost: x\r\nOrigin: https://www.shop.example\r\n"
        status, _, body = await say(hub, head + b"Content-Length: 99999999999\r\n\r\n")

        assert (status, json.loads(body)["error"]["code"]) == (400, "too_large")

    async def test_a_body_without_a_length_is_refused_while_it_comes(self, hub):
        head = b"POST /v1/events?key=pk-shop HTTP/1.1\r\nHost: x\r\nOrigin: https://www.shop.example\r\n"
        chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        status, _, body = await say(hub, head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 9)

        assert (status, json.loads(body)["error"]["code"]) == (400, "too_large")

    @pytest.mark.parametrize(
        "head",
        [
            b"GET /v1/enrich HTTP/1.1\r\nCookie: _dfdid=" + b"x" * 60_000 + b"\r\n\r\n",
            b"GET /v1/enrich HTTP/1.1\r\nCookie: _dfdid=" + b"x" * 40_000 + b"\r\n\r\n",
            b"GET /v1/enrich?" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
            b"GET /v1/enrich HTTP/1.1\r\n" + b"X: y\r\n" * 8_000,
        ],
    )
    async def test_a_head_that_is_too_long_is_refused(self, hub, head):
        status, headers, body = await say(hub, head)

        assert (status, headers["connection"]) == (431, "close")
        assert is_refusal(body)

    async def test_a_long_head_that_is_short_enough_is_read(self, hub):
        head = b"GET /v1/enrich HTTP/1.1\r\nHost: x\r\nCookie: _dfdid=" + b"x" * 20_000 + b"\r\n\r\n"

        assert (await say(hub, head[:100], head[100:], pause=0.05))[0] == 200


class TestSlowness:
    @pytest.mark.parametrize("parts", [[], [b"GET /v1/enr"], [b"GET / HTTP/1.1\r\n"] + [b"X: y\r\n"] * 50])
    async def test_a_slow_head_is_cut_off(self, hub, parts, monkeypatch):
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)

        status, headers, body = await say(hub, *parts[:5], pause=0.05)

        assert (status, headers["connection"]) == (408, "close")
        assert is_refusal(body)

    async def test_a_slow_body_is_given_up(self, hub, monkeypatch):
        monkeypatch.setattr(bodies, "BODY_SECONDS", 0.3)
        head = b"POST /v1/events?key=pk-shop HTTP/1.1\r\nHost: x\r\nOrigin: https://www.shop.example\r\n"
        status, _, body = await say(hub, head + b"Content-Length: 100\r\n\r\n", b'{"', b'"', pause=0.05)

        assert (status, json.loads(body)["error"]["code"]) == (408, "too_slow")

    async def test_who_goes_on_sending_what_was_refused_is_hung_up_on(self, hub, monkeypatch):
        monkeypatch.setattr(protocol, "MESSAGE_SECONDS", 2.0)
        reader, writer = await asyncio.open_connection(*hub.address)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")

        async def dribble():
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        try:
            said = await asyncio.wait_for(reader.readuntil(b"}"), 20)
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
        finally:
            dribbling.cancel()
            writer.close()

        assert said.startswith(b"HTTP/1.1 200 ")

    async def test_a_client_that_leaves_is_no_error(self, hub, log_lines, until):
        _, writer = await asyncio.open_connection(*hub.address)
        writer.write(b"POST /v1/events?key=pk-shop HTTP/1.1\r\nHost: x\r\nOrigin: https://www.shop.example\r\n")
        writer.write(b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

        await until(lambda: any('"status":499' in line for line in log_lines))
        assert not any("error" in json.loads(line) for line in log_lines)


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/enrich HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(hub, text):
    status, _, body = await say(hub, text)

    assert status == 400
    assert is_refusal(body)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_an_upgrade_is_answered_as_any_request_and_is_no_news(hub, protocol, log_lines):
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol

    status, _, body = await say(hub, head)

    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert [line for line in log_lines if json.loads(line)["level"] != "debug"] == []


@pytest.mark.parametrize("name", ["x" * 65, "a b", "a;b", "é".encode().decode("latin-1"), "<script>"])
async def test_an_odd_request_id_is_replaced(browser, name):
    answer = await browser.call("GET", "/v1/enrich", headers={"x-request-id": name.encode("latin-1")})

    assert answer.headers["x-request-id"] != name
    assert len(answer.headers["x-request-id"]) == 16


async def test_a_sane_request_id_is_kept(browser):
    answer = await browser.call("GET", "/v1/enrich", headers={"x-request-id": "trace-1.2_3"})

    assert answer.headers["x-request-id"] == "trace-1.2_3"


async def test_a_failure_of_ours_tells_the_caller_nothing(hub, browser, monkeypatch, log_lines):
    """Only the type and the place are logged."""
    from partnerenrich_server.hub import cookies

    def broken(_):
        raise RuntimeError("a secret of the visitor")

    monkeypatch.setattr(cookies, "read", broken)
    answer = await browser.enrich()

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text + "".join(log_lines)
    assert any("RuntimeError at test_bad_input.py:" in line for line in log_lines)
