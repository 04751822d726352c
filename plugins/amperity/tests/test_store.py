"""What the store holds of a visitor of an index, whose lookup key is the profile's id."""

from __future__ import annotations

import base64

import fakeredis
import pytest

from partnerenrich import recipes, store
from partnerenrich.configuration import load_mapping
from partnerenrich.enrichment import Enricher
from partnerenrich.testing.loopback import served
from partnerenrich_amperity._sandbox import new_app, new_sandbox

HASHED = "sha256", "idx-demo0001"
PLAIN = "none", "idx-demo0002"
ADDRESS, PHONE = "pat@example.test", "+12025550100"
DIGEST = recipes.apply("sha256", "email", ADDRESS)
"""The partner's id, where it may be one: it shows that what is looked through holds such ids."""


@pytest.fixture
def redis(monkeypatch):
    """A Redis inside the process, which the core finds at every URL."""
    server = fakeredis.FakeServer()

    class Redis:
        @staticmethod
        def from_url(_url, **_options):
            return fakeredis.FakeAsyncRedis(server=server)

    monkeypatch.setattr(store, "Redis", Redis)
    return Redis.from_url("")


async def outcome_of(source: str, recipe: str, index: str) -> str:
    """What becomes of an event of Pat's in an integration of this index and linking key."""
    with served(new_app()) as port:
        settings = {
            **new_sandbox().settings,
            "base_url": f"http://127.0.0.1:{port}",
            "api": "indexes",
            "profile_collection_id": index,
        }
        integration = {
            "provider": "amperity",
            "settings": settings,
            "linking_keys": [{"source": source, "key": source, "hash": recipe}],
            "limits": {"timeout": 10},
        }
        raw = {
            "org": "acme",
            "store": "redis://here",
            "key": base64.b64encode(b"k" * 32).decode(),
            "budget_ms": 10_000,
            "integrations": [integration],
        }
        event = {"userId": ADDRESS, "anonymousId": "device-1", "traits": {"email": ADDRESS, "phone": PHONE}}
        async with Enricher.open(load_mapping(raw)) as enricher:
            [enriched] = await enricher.enrich([event])
    return enriched["context"]["enrichment"]["amperity"]["outcome"]


async def everything_in(redis) -> bytes:
    keys = await redis.keys("*")
    return b"".join(keys) + b"".join([await redis.dump(key) for key in keys])


@pytest.mark.parametrize(
    ("source", "recipe", "index", "outcome"),
    [
        ("email", *HASHED, "fresh"),
        ("user_id", *HASHED, "fresh"),
        ("email", *PLAIN, "error"),
        ("user_id", *PLAIN, "error"),
        ("phone", *PLAIN, "error"),
    ],
)
async def test_no_address_and_no_number_reaches_the_store(redis, source, recipe, index, outcome):
    assert await outcome_of(source, recipe, index) == outcome
    held = await everything_in(redis)
    assert b"device-1" in held
    assert ADDRESS.encode() not in held
    assert PHONE.encode() not in held
    assert (DIGEST.encode() in held) == (outcome == "fresh")
