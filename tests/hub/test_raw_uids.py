"""Raw UIDs are for servers: no page reads one, though the allowlist asks for it by every name."""

import json

import pytest

from partnerenrich import memory
from partnerenrich_server.catalog import installed
from partnerenrich_server.sandboxes import serve

NAMES = "uid2, euid, id, raw_uid, advertising_id, advertising_token, partner_id, previous_id, current, vendor_ids, u, p"


@pytest.fixture(name="sandboxes")
def _sandboxes():
    partners = installed().partners
    with serve([partners["uid2"], partners["euid"]]) as sandboxes:
        yield sandboxes


@pytest.fixture(name="raw")
def _raw_with_uids(raw, sandboxes):
    raw["integrations"] = [
        {
            "provider": provider,
            "settings": dict(sandbox.settings),
            "browser_attribute_allowlist": NAMES,
        }
        for provider, sandbox in sandboxes.items()
    ]
    return raw


async def test_no_raw_uid_reaches_a_page(browser, hub, sandboxes, redis):
    person = dict(sandboxes["uid2"].sample["known"][0])
    email = person["email"]

    await browser.identify(email)

    records = [await redis.get(key) for key in await redis.keys("*:uid2:acme:*")]
    uids = {json.loads(memory.unpack_answer(record).partner_id) for record in records}
    assert all(isinstance(uid, str) and len(uid) > 40 for uid in uids)
    assert uids
    copy = await redis.hgetall(f"partnerenrich:browser_attrs:acme:{browser.cookies['_dfdid']}")
    answer = await browser.enrich()
    assert answer.status_code == 200
    assert set(answer.json().get("uid2", {})) == set(answer.json().get("euid", {})) == set()
    shown = answer.content + b"".join(copy.values())
    assert not [uid for uid in uids if uid.encode() in shown]
