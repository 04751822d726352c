"""
What is remembered of links and visitors, and for how long: pure rules over records, no I/O.

Two kinds of record hold an `Answer`. The **link record** is the partner's
answer about one identifier. The **visitor record** is what the visitor of one
device was last told; it carries the stamp of the person under whom it was
made, and counts only while the device's **who** record has the same stamp. So
a write that comes late is harmless, without a lock.
"""

from __future__ import annotations

import json
import random
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from partnerenrich.store import BUCKETS, bucket_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich.models import TTL, Resolution
    from partnerenrich.store import Command

State = Literal["found", "absent", "invalid", "failed", "opted_out"]

JITTER: Final = 0.1
"""A time to live is shortened by up to this share, so that records do not end together."""
REFRESH_SHARE: Final = 0.8
"""After this share of its time a hit is refreshed in the background."""


class Verdict(StrEnum):
    """What a record is worth now."""

    MISS = "miss"
    HIT = "hit"
    REFRESH = "hit, and due for a refresh"
    EXPIRED = "past its time, may serve as stale"
    DAMPED = "past its time, and the partner failed a moment ago"
    LAPSED = "too old to serve, but the id is still known"
    ABSENT = "absent"
    OPTED_OUT = "opted out"
    FAILED = "the partner failed a moment ago"

    __hash__ = str.__hash__  # in C: looked up for every miss


class Answer(msgspec.Struct, array_like=True, gc=False):
    """
    What a partner answered, as it is remembered. All times are Unix seconds, all values JSON. None is in its repr.

    Attributes:
        version: Of the integration's settings; a record of another version is a miss.
        state: What the partner said.
        source: The linking key's source that led to it.
        at: When.
        refresh_at: From when a hit is refreshed in the background.
        fresh_until: Until when it is a hit.
        usable_until: Until when it may serve as stale.
        resolved_until: Until when the id is good without a new resolution.
        expires_at: The partner's own end of the answer.
        damped_until: Until when the partner is spared after a failure.
        step: Where the partner failed: ``resolve`` or ``attributes``; else empty.
        stamp: Of the person, in a visitor record and in the link record of a device id.
        partner_id: A text; empty when there is none.
        attributes: An object; empty when they were not fetched.
        previous_id: A text; empty when there is none.
    """

    version: str
    state: State
    source: str
    at: float = 0.0
    refresh_at: float = 0.0
    fresh_until: float = 0.0
    usable_until: float = 0.0
    resolved_until: float = 0.0
    expires_at: float | None = None
    damped_until: float = 0.0
    step: str = ""
    stamp: str = ""
    partner_id: bytes = b""
    attributes: bytes = b""
    previous_id: bytes = b""

    def __repr__(self) -> str:
        return f"Answer(state={self.state!r}, source={self.source!r}, at={self.at!r}, step={self.step!r})"


class Who(msgspec.Struct, array_like=True, gc=False):
    """
    Whom a device belongs to at the moment.

    Attributes:
        stamp: Names this person on this device, until somebody else is seen there.
        persons: Source to fingerprint, of all person ids seen.
        vouched: Sources whose ids the shop's backend has signed.
    """

    stamp: str
    persons: dict[str, str]
    vouched: list[str] = []

    @property
    def is_vouched(self) -> bool:
        """Whether no id is a mere claim of the browser."""
        return self.persons.keys() <= set(self.vouched)


NOBODY: Final = Who("", {})

encode = msgspec.json.Encoder().encode
"""A value as JSON."""
pack = msgspec.msgpack.Encoder().encode
"""A record as it stands in the store."""
unpack_answer = msgspec.msgpack.Decoder(Answer).decode
_unpack_who = msgspec.msgpack.Decoder(Who).decode


def encode_attributes(value: Any) -> bytes:
    """
    What a partner says, as JSON.

    Raises:
        TypeError: It holds something that is no JSON, such as an object of Python's.
        ValueError: The same: NaN, an infinity, or text with half of a character.
        RecursionError: It is nested too deeply.
    """
    encoded = encode(value)
    if b"null" in encoded:  # which is also what becomes of NaN and the infinities
        plain = msgspec.to_builtins(value, builtin_types=(msgspec.Raw,), str_keys=True)
        json.dumps(plain, allow_nan=False, default=str)
    return encoded


def read_answer(record: bytes | None, version: str) -> Answer | None:
    """The answer in a record; None when there is none, or it was made under other settings."""
    if record is None:
        return None
    try:
        answer = unpack_answer(record)
    except msgspec.DecodeError:
        return None
    return answer if answer.version == version else None


def read_who(record: bytes | None) -> Who:
    """Whom a device belongs to, `NOBODY` when that is not known."""
    if record is None:
        return NOBODY
    try:
        return _unpack_who(record)
    except msgspec.DecodeError:
        return NOBODY


def seen(who: Who, persons: dict[str, str], vouched: frozenset[str] = frozenset()) -> Who:
    """
    Whom a device belongs to after an event with these person ids.

    The same person as before only if at least one id agrees and none differs.

    Args:
        who: Whom it belonged to before.
        persons: Source to fingerprint, of at least one id.
        vouched: Sources of the ids that are signed.

    Returns:
        `who` itself when nothing changes; the same stamp with more ids for the
        same person; a new stamp for another one.
    """
    known = who.persons
    if persons.items() <= known.items():
        return who if vouched.issubset(who.vouched) else Who(who.stamp, known, _united(who, vouched))
    agrees = any(known.get(source) == fingerprint for source, fingerprint in persons.items())
    if agrees and all(known.get(source, fingerprint) == fingerprint for source, fingerprint in persons.items()):
        return Who(who.stamp, known | persons, _united(who, vouched))
    # A stamp that was never used before: ids that were seen then are not known any more.
    return Who(secrets.token_hex(8), dict(persons), sorted(vouched))


def _united(who: Who, vouched: frozenset[str]) -> list[str]:
    return sorted(vouched.union(who.vouched))


def judge(answer: Answer | None, now: float) -> Verdict:
    """What a record is worth at this moment."""
    if answer is None:
        return Verdict.MISS
    if answer.state == "found":
        if now < answer.fresh_until:
            return Verdict.HIT if now < answer.refresh_at or now < answer.damped_until else Verdict.REFRESH
        if now < answer.usable_until:
            return Verdict.DAMPED if now < answer.damped_until else Verdict.EXPIRED
        if answer.expires_at is not None and now >= answer.expires_at:
            return Verdict.MISS
        return Verdict.FAILED if now < answer.damped_until else Verdict.LAPSED
    return _REMEMBERED[answer.state] if now < answer.fresh_until else Verdict.MISS


_REMEMBERED = {
    "absent": Verdict.ABSENT,
    "invalid": Verdict.ABSENT,
    "opted_out": Verdict.OPTED_OUT,
    "failed": Verdict.FAILED,
}


def found(version: str, source: str, resolution: Resolution, attributes: bytes, ttl: TTL, now: float) -> Answer:
    """The record of a resolution with an id, and of the attributes that belong to it."""
    latest = now + ttl.cap
    expires_at = None if resolution.expires_at is None else _earlier(resolution.expires_at, latest)
    refresh_at = None
    if resolution.refresh_at is not None:
        resolved_until = _earlier(_later(resolution.refresh_at, now), latest)
        fresh_until = resolved_until if expires_at is None else _later(resolved_until, expires_at)
        if resolved_until < latest:
            refresh_at = resolved_until  # to ask before is in vain
    else:
        resolved_until = now + _shortened(ttl.resolved)
        fresh_until = _earlier(now + _shortened(ttl.attributes), resolved_until) if attributes else resolved_until
    return _timed(
        Answer(
            version,
            "found",
            source,
            resolved_until=resolved_until if expires_at is None else _earlier(resolved_until, expires_at),
            expires_at=expires_at,
            partner_id=encode(resolution.partner_id),
            attributes=attributes,
            previous_id=b"" if resolution.previous_id is None else encode(resolution.previous_id),
        ),
        now,
        fresh_until,
        ttl,
        refresh_at,
    )


def refreshed(answer: Answer, attributes: bytes, ttl: TTL, now: float, latest: float = float("inf")) -> Answer:
    """A record of the same id, with attributes that were fetched anew; a hit until `latest` at most."""
    renewed = msgspec.structs.replace(answer, attributes=attributes, damped_until=0.0, step="")
    return _timed(renewed, now, min(now + _shortened(ttl.attributes), latest), ttl)


def without_attributes(answer: Answer, ttl: TTL, now: float) -> Answer:
    """A record whose attributes could not be fetched: asked for again when the failure is forgotten."""
    renewed = msgspec.structs.replace(answer, step="attributes")
    return _timed(renewed, now, now + _shortened(ttl.failed), ttl)


def nothing(version: str, source: str, state: State, ttl: TTL, now: float, step: str = "") -> Answer:
    """The record of an answer without an id, or of a failure."""
    life = {"failed": ttl.failed, "opted_out": ttl.cap}.get(state, ttl.not_found)
    until = now + _shortened(life)
    return Answer(version, state, source, now, until, until, until, step=step)


def damped(answer: Answer, step: str, ttl: TTL, now: float) -> Answer:
    """A record that stays as it is while the partner is spared."""
    return msgspec.structs.replace(answer, damped_until=now + ttl.failed, step=step)


def _timed(answer: Answer, now: float, fresh_until: float, ttl: TTL, refresh_at: float | None = None) -> Answer:
    usable_until, expires_at = fresh_until + ttl.stale_for, answer.expires_at
    if expires_at is not None:
        fresh_until = _earlier(fresh_until, expires_at)
        usable_until = _earlier(usable_until, expires_at)
    answer.at = now
    answer.fresh_until = fresh_until
    answer.usable_until = usable_until
    answer.refresh_at = now + REFRESH_SHARE * (fresh_until - now) if refresh_at is None else refresh_at
    return answer


def _earlier(one: float, other: float) -> float:
    return other if other < one else one  # noqa: FURB136 - `min` takes twice as long


def _later(one: float, other: float) -> float:
    return other if other > one else one  # noqa: FURB136


def _shortened(life: float) -> float:
    return life * (1 - JITTER * random.random())  # noqa: S311 - spreads load, hides nothing


class Keys:
    """
    The keys of one organisation. They hold fingerprints and safe ids only.

    Args:
        org: Slug of the organisation.
        providers: Keys of its partners, in a fixed order.
    """

    def __init__(self, org: str, providers: Sequence[str]) -> None:
        self._device = [[f"{tag}:{name}:{org}:" for name in ("~who", *providers)] for tag in BUCKETS]
        self._link = {
            provider: {f"{number:02x}": f"{tag}:{provider}:{org}:~" for number, tag in enumerate(BUCKETS)}
            for provider in providers
        }
        self._org = org

    def device(self, canonical_id: str) -> list[str]:
        """The who record of a device, then its visitor record for each partner."""
        return [start + canonical_id for start in self.device_starts(canonical_id)]

    def device_starts(self, canonical_id: str) -> list[str]:
        """What stands before the canonical id in the keys of `device`."""
        return self._device[bucket_number(canonical_id)]

    def link(self, provider: str, fingerprint: str) -> str:
        """The partner's answer about one identifier. Fingerprints are spread by their first two digits."""
        return self._link[provider][fingerprint[:2]] + fingerprint

    def browser(self, canonical_id: str) -> str:
        """What the browser of a device may read."""
        return f"partnerenrich:browser_attrs:{self._org}:{canonical_id}"


def lease_key(key: str) -> str:
    """The key under which one process claims the work on another key."""
    return f"{key}:~lease"


def save(key: str, value: Any, seconds: float) -> Command:
    """The command that remembers a value for so long."""
    milliseconds = int(seconds * 1000)
    return ("PSETEX", key, milliseconds if milliseconds > 0 else 1, pack(value))
