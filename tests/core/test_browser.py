"""What the page of one device may read, and to whom it belongs."""

import json

import msgspec
import pytest

from partnerenrich import Resolution, browser, memory
from partnerenrich.browser import Extract, is_device_cookie
from partnerenrich.models import TTL

KEY = "partnerenrich:browser_attrs:acme:0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"


def answer(stamp, attributes, now=1000.0):
    raw = b"" if attributes is None else memory.encode(attributes)
    made = memory.found("1", "email", Resolution("p-1"), raw, TTL(), now)
    made.stamp = stamp
    return made


async def write(redis, commands):
    for command in commands:
        await redis.execute_command(*command)


async def served(redis, now=1000.0):
    """What a reader may serve: extracts whose stamp is that of the person, and whose time has not come."""
    copy = {name.decode(): value for name, value in (await redis.hgetall(KEY)).items()}
    who = copy.get("who", b"").decode()
    extracts = {
        name[2:]: msgspec.json.decode(value, type=Extract) for name, value in copy.items() if name.startswith("p:")
    }
    return {
        name: msgspec.json.decode(extract.attributes)
        for name, extract in extracts.items()
        if "who" in copy and extract.stamp == who and now < extract.expires_at
    }


async def test_only_allowlisted_attributes_are_published(redis):
    await write(
        redis,
        browser.publish(KEY, "toy", answer("s1", {"a": 1, "b": {"c": 2}, "secret": 3}), {"a", "b"}, {"m": True}, 60),
    )
    assert await served(redis) == {"toy": {"a": 1, "b": {"c": 2}}}
    assert json.loads(await redis.hget(KEY, "consent")) == {"m": True}
    assert b"secret" not in b"".join((await redis.hgetall(KEY)).values())
    assert 0 < await redis.ttl(KEY) <= 60


async def test_the_next_person_sees_nothing_of_the_one_before(redis):
    await write(redis, browser.belongs(KEY, "s1", 60))
    await write(redis, browser.publish(KEY, "toy", answer("s1", {"a": 1}), {"a"}, {}, 60))
    await write(redis, browser.belongs(KEY, "s2", 60))
    assert await served(redis) == {}


async def test_a_late_write_for_the_person_before_neither_shows_nor_takes_the_device_back(redis):
    await write(redis, browser.belongs(KEY, "s2", 60))
    await write(redis, browser.publish(KEY, "toy", answer("s1", {"a": 1}), {"a"}, {}, 60))
    assert await redis.hget(KEY, "who") == b"s2"
    assert await served(redis) == {}


async def test_a_withdrawal_takes_out_one_partner(redis):
    await write(redis, browser.publish(KEY, "toy", answer("", {"a": 1}), {"a"}, {}, 60))
    await write(redis, browser.publish(KEY, "other", answer("", {"a": 2}), {"a"}, {}, 60))
    await write(redis, browser.withdraw(KEY, "toy"))
    assert await served(redis) == {"other": {"a": 2}}


async def test_an_extract_ends_with_its_answer(redis):
    made = answer("", {"a": 1})
    await write(redis, browser.publish(KEY, "toy", made, {"a"}, {}, 60))
    assert await served(redis, made.usable_until - 1) == {"toy": {"a": 1}}
    assert await served(redis, made.usable_until) == {}


async def test_an_id_without_attributes_publishes_an_empty_extract(redis):
    await write(redis, browser.publish(KEY, "toy", answer("", None), {"a"}, {}, 60))
    assert await served(redis) == {"toy": {}}


def test_the_person_before_is_taken_out_first_for_a_full_store_refuses_the_rest():
    assert browser.belongs(KEY, "s1", 60)[0] == ("HDEL", KEY, "who")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a", True),
        ("0C2D9C1E-6A4F-4A7E-9B0A-1F2E3D4C5B6A", False),
        ("0c2d9c1e6a4f4a7e9b0a1f2e3d4c5b6a", False),
        ("0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a\n", False),
        ("anon-1", False),
    ],
)
def test_only_the_form_that_a_hub_issues_is_a_device_cookie(text, is_one):
    assert bool(is_device_cookie(text)) is is_one
