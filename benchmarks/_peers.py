"""
What `warm` compares us with: the least that has to be done, and what is usually done.

Both read answers that are in Redis already. Neither looks anything up, keeps the consent or
the order of a visitor's events, or says what became of an event.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, cast

import msgspec

from benchmarks.partners.instant import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from benchmarks._events import Visitor

Fields = dict[str, msgspec.Raw]

_encode = msgspec.json.encode
_read_fields = msgspec.json.Decoder(Fields).decode
_read_text = msgspec.json.Decoder(str).decode
_read_json = msgspec.json.Decoder().decode


class _Traits(msgspec.Struct):
    email: str


class _Record(msgspec.Struct, array_like=True):
    partner_id: msgspec.Raw
    attributes: msgspec.Raw


_read_traits = msgspec.json.Decoder(_Traits).decode
_read_record = msgspec.json.Decoder(_Record).decode


class Floor:
    """
    A hand-written loop over a batch: decode, two keys an event, one MGET, attach, encode.

    Args:
        redis: Where the records are.
        provider: Key of the partner.
    """

    def __init__(self, redis: Redis, provider: str) -> None:
        self._redis = redis
        self._head = f'{{"{provider}":'.encode()

    async def fill(self, visitors: Sequence[Visitor]) -> None:
        """Put the answers for these visitors into Redis."""
        records = {}
        for visitor in visitors:
            record = _encode([f"id-of-{visitor.email}", ATTRIBUTES])
            records[f"floor:visitor:{visitor.anonymous_id}"] = record
            records[f"floor:link:{_fingerprint(visitor.email)}"] = record
        await self._redis.mset(records)

    async def enrich(self, events: Sequence[bytes]) -> list[bytes]:
        """Enrich one batch."""
        parsed = []
        keys = []
        for event in events:
            fields = _read_fields(event)
            anonymous_id = _read_text(fields["anonymousId"])
            keys.append(f"floor:visitor:{anonymous_id}")
            traits = fields.get("traits")
            keys.append(f"floor:link:{anonymous_id if traits is None else _fingerprint(_read_traits(traits).email)}")
            parsed.append((fields, _read_fields(fields["context"])))
        values = iter(cast("list[bytes | None]", await self._redis.mget(keys)))
        head = self._head
        enriched = []
        for (fields, context), of_visitor, of_link in zip(parsed, values, values):
            record = _read_record(of_link or of_visitor or b"")
            context["vendor_ids"] = msgspec.Raw(b"%b%b}" % (head, record.partner_id))
            context["partner_attrs"] = msgspec.Raw(b"%b%b}" % (head, record.attributes))
            fields["context"] = msgspec.Raw(_encode(context))
            enriched.append(_encode(fields))
        return enriched


class Usual:
    """
    The usual design: one coroutine an event, the partner's id by one GET, its attributes by another.

    Args:
        redis: Where the answers are.
        provider: Key of the partner.
    """

    def __init__(self, redis: Redis, provider: str) -> None:
        self._redis = redis
        self._provider = provider

    async def fill(self, visitors: Sequence[Visitor]) -> None:
        """Put the answers for these visitors into Redis."""
        answers = {}
        for visitor in visitors:
            partner_id = f"id-of-{visitor.email}"
            answers[f"usual:id:{visitor.anonymous_id}"] = _encode(partner_id)
            answers[f"usual:attributes:{partner_id}"] = _encode(ATTRIBUTES)
        await self._redis.mset(answers)

    async def enrich(self, events: Sequence[bytes]) -> list[bytes]:
        """Enrich one batch."""
        return await asyncio.gather(*map(self._enrich_one, events))

    async def _enrich_one(self, line: bytes) -> bytes:
        event: dict[str, Any] = _read_json(line)
        partner_id = _read_json(await self._get(f"usual:id:{event['anonymousId']}"))
        attributes = _read_json(await self._get(f"usual:attributes:{partner_id}"))
        context = event.setdefault("context", {})
        context.setdefault("vendor_ids", {})[self._provider] = partner_id
        context.setdefault("partner_attrs", {})[self._provider] = attributes
        return _encode(event)

    async def _get(self, key: str) -> bytes:
        return cast("bytes", await self._redis.get(key))


def _fingerprint(email: str) -> str:
    return hashlib.blake2b(email.encode(), key=b"k" * 32, digest_size=16).hexdigest()
