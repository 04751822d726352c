"""``GET /datafly.js``, as pages load it."""

import gzip
from importlib import resources

import pytest

SCRIPT = resources.files("partnerenrich_server").joinpath("datafly_js/datafly.js").read_bytes()


async def test_it_is_the_script_packed_where_that_is_understood(hub):
    packed = await hub.client.send(
        hub.client.build_request("GET", f"{hub.url}/datafly.js", headers={"accept-encoding": "br, gzip"}), stream=True
    )
    raw = b"".join([chunk async for chunk in packed.aiter_raw()])
    plain = await hub.client.get(f"{hub.url}/datafly.js", headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content == SCRIPT
    assert "content-encoding" not in plain.headers


async def test_any_page_may_load_it_and_keep_it_for_minutes(hub):
    answer = await hub.client.get(f"{hub.url}/datafly.js")

    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "public, max-age=300, stale-while-revalidate=86400"
    assert answer.headers["vary"] == "accept-encoding"


async def test_what_a_browser_has_is_not_sent_again(hub):
    tag = (await hub.client.get(f"{hub.url}/datafly.js")).headers["etag"]
    again = await hub.client.get(f"{hub.url}/datafly.js", headers={"if-none-match": tag})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


@pytest.mark.parametrize("path", ["/datafly.js", "/healthz", "/metrics"])
async def test_its_head_can_be_asked_for(hub, path):
    answer = await hub.client.head(f"{hub.url}{path}")

    assert (answer.status_code, answer.content) == (200, b"")
