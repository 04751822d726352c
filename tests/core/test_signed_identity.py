"""A page may claim a stranger: only what the shop's backend has signed feeds the browser copy."""

import json
import time

import pytest

from partnerenrich.identity_signature import sign

SECRET = "a secret of the shop's backend"
DEVICE = "0c2d9c1e-6a4f-4a7e-9b0a-1f2e3d4c5b6a"
COPY = f"partnerenrich:browser_attrs:acme:{DEVICE}"
ALLOWED = {"browser_attribute_allowlist": "name"}
SIGNED = {"hub": {"identity_secret": SECRET}}


def identify(email, signature=None, **more):
    event = {"type": "identify", "anonymousId": DEVICE, "userId": "u-1", "traits": {"email": email}, **more}
    return event | ({"signature": signature} if signature else {})


def signature_of(user_id="u-1", email="pat@example.test", phone=None):
    return sign(SECRET.encode(), user_id=user_id, email=email, phone=phone, expires=int(time.time()) + 300)


async def shown(redis):
    """What a reader of the copy may serve."""
    copy = await redis.hgetall(COPY)
    if b"p:toy" not in copy:
        return None
    stamp, _, attributes = json.loads(copy[b"p:toy"])
    return attributes if stamp.encode() == copy[b"who"] else None


async def test_signed_ids_feed_the_copy(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), integration=ALLOWED, config=SIGNED) as enricher:
        await enricher.enrich([identify("pat@example.test", signature_of())])

        assert await shown(redis) == {"name": "pat@example.test"}


@pytest.mark.parametrize(
    "event",
    [
        identify("pat@example.test"),
        identify("pat@example.test", "1.00"),
        identify("pat@example.test", signature_of(email="other@example.test")),
        identify("pat@example.test", signature_of(email="other@example.test"), context={"traits": {"email": "x"}}),
        identify("own@example.test", signature_of(email="own@example.test"), properties={"email": "pat@example.test"}),
        identify("pat@example.test", signature_of(), properties={"phone": "+12025550100"}),
    ],
    ids=["unsigned", "forged", "of others", "of others beside junk", "beside a stranger's e-mail", "beside a phone"],
)
async def test_claimed_ids_enrich_the_event_alone(open_enricher, resolver, redis, event):
    async with open_enricher(toy=resolver(), integration=ALLOWED, config=SIGNED) as enricher:
        (enriched,) = await enricher.enrich([event])

        assert enriched["context"]["partner_attrs"]["toy"] == {"name": "pat@example.test"}
        assert await shown(redis) is None


async def test_a_claim_that_is_signed_later_feeds_the_copy_then(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), integration=ALLOWED, config=SIGNED) as enricher:
        await enricher.enrich([identify("pat@example.test")])
        await enricher.enrich([identify("pat@example.test", signature_of())])

        assert await shown(redis) == {"name": "pat@example.test"}


async def test_an_unsigned_log_in_takes_the_copy_of_the_person_before(open_enricher, resolver, redis):
    async with open_enricher(toy=resolver(), integration=ALLOWED, config=SIGNED) as enricher:
        await enricher.enrich([identify("pat@example.test", signature_of())])
        await enricher.enrich([identify("stranger@example.test")])

        assert await shown(redis) is None
