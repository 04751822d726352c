"""What an operator answers, once a request is open."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich_uid2._sandbox import identities
from partnerenrich_uid2._sandbox.bucket_ids import bucket_id
from partnerenrich_uid2._sandbox.gate import Gate, client_error
from partnerenrich_uid2._sandbox.raw_uids import bucket_index, first_level, raw_uid
from partnerenrich_uid2._sandbox.salts import DAY, Bucket, Salts
from partnerenrich_uid2.config import Scope

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from partnerenrich_uid2._sandbox.identities import Identity

KINDS = tuple(identities.READERS)

ALWAYS_OUT = ("optout@example.com", "+00000000000")
NEVER_OUT = ("validate@example.com", "+12345678901")
"""Test identities that every operator knows, as do those of `ALWAYS_OUT`: IABTechLab/uid2-operator."""

BUCKET_NAMES_SALT = "sandbox-bucket-names"
OPTED_OUT_SINCE_MS = 1_764_547_200_000
MOST_STATUSES = 5_000

_LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?", re.ASCII)


@attrs.frozen
class Mapped:
    """
    A mapped identity.

    Attributes:
        raw_uid: Of today.
        previous: The one before, while it is told.
        refresh_at: Unix time in seconds.
        bucket: Where its salt comes from.
    """

    raw_uid: str
    previous: str | None
    refresh_at: int
    bucket: Bucket


@attrs.frozen(eq=False)
class Operator:
    """
    The handlers of all endpoints.

    Attributes:
        scope: UID2 or EUID.
        gate: Knows behaviour and time.
        salts: Where raw UIDs come from.
    """

    scope: Scope
    gate: Gate
    salts: Salts

    def map_v3(self, payload: dict[str, Any] | None) -> dict[str, Any]:
        """``/v3/identity/map``: kinds may be mixed."""
        if not payload or not payload.keys() <= set(KINDS):
            raise client_error(f"the payload must have some of {', '.join(KINDS)}, and nothing else")
        asked = {kind: [] if payload.get(kind) is None else _texts(payload[kind]) for kind in KINDS}
        self._limit(sum(map(len, asked.values())))
        out = self._opted_out()
        return {kind: [_entry_v3(self._answer(kind, value, out)) for value in values] for kind, values in asked.items()}

    def map_v2(self, payload: dict[str, Any] | None) -> dict[str, Any]:
        """``/v2/identity/map``: one kind."""
        asked = {kind: _texts(payload[kind]) for kind in KINDS if payload and payload.get(kind) is not None}
        used = [kind for kind, values in asked.items() if values]
        if not asked or len(used) > 1:
            raise client_error(f"the payload must have exactly one of {', '.join(KINDS)}")
        self._limit(sum(map(len, asked.values())))
        out = self._opted_out()
        mapped, unmapped = [], []
        for value, answer in ((value, self._answer(kind, value, out)) for kind in used for value in asked[kind]):
            if isinstance(answer, str):
                unmapped.append({"identifier": value, "reason": answer})
            else:
                name = _bucket_name(answer.bucket)
                mapped.append({"identifier": value, "advertising_id": answer.raw_uid, "bucket_id": name})
        return {"mapped": mapped, "unmapped": unmapped} if unmapped else {"mapped": mapped}

    def buckets_v2(self, payload: dict[str, Any] | None) -> list[dict[str, str]]:
        """``/v2/identity/buckets``: which have rotated."""
        since = _moment((payload or {}).get("since_timestamp"))
        return [
            {"bucket_id": _bucket_name(bucket), "last_updated": _local_time(rotated_at)}
            for bucket in self.salts.buckets(self._salt_time)
            if (rotated_at := bucket.rotated_at - self._ahead) >= since
        ]

    def optout_status(self, payload: dict[str, Any] | None) -> dict[str, Any]:
        """``/v2/optout/status``: which raw UIDs belong to people who opted out."""
        asked = _texts((payload or {}).get("advertising_ids"))
        if len(asked) > MOST_STATUSES:
            raise client_error(f"at most {MOST_STATUSES} advertising_ids")
        gone = {uid for found in map(self._mapped, self._opted_out()) for uid in (found.raw_uid, found.previous)}
        return {
            "opted_out": [
                {"advertising_id": uid, "opted_out_since": OPTED_OUT_SINCE_MS} for uid in asked if uid in gone
            ]
        }

    def _answer(self, kind: str, value: str, opted_out: AbstractSet[Identity]) -> Mapped | str:
        """What a value is mapped to, or why it is not."""
        identity = identities.READERS[kind](value)
        if identity is None:
            return "invalid identifier"
        return "optout" if identity in opted_out else self._mapped(identity)

    def _mapped(self, identity: Identity) -> Mapped:
        now = self._salt_time
        first = first_level(identity.digest, self.salts.first_level)
        bucket = self.salts.bucket(bucket_index(first, self.salts.size), now)
        before = bucket.previous_salt(now)
        return Mapped(
            raw_uid(self.scope, identity, first, bucket.salt),
            None if before is None else raw_uid(self.scope, identity, first, before),
            bucket.refresh_at(now) - self._ahead,
            bucket,
        )

    def _opted_out(self) -> set[Identity]:
        return _identities(*ALWAYS_OUT, *self.gate.behaviour.opted_out) - _identities(*NEVER_OUT)

    def _limit(self, count: int) -> None:
        most = self.gate.behaviour.most_identifiers
        if most and count > most:
            raise client_error(f"at most {most} identifiers")

    @property
    def _ahead(self) -> int:
        """Seconds by which the salts are ahead."""
        return self.gate.behaviour.salt_days * DAY

    @property
    def _salt_time(self) -> float:
        return self.gate.clock() + self._ahead


def _identities(*people: str) -> set[Identity]:
    read = (identities.email(who) if "@" in who else identities.phone(who) for who in people)
    return {identity for identity in read if identity is not None}


def _entry_v3(answer: Mapped | str) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"e": answer}
    return {"u": answer.raw_uid, "p": answer.previous, "r": answer.refresh_at}


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise client_error("identifiers must be given as an array of strings")
    return values


def _bucket_name(bucket: Bucket) -> str:
    return bucket_id(bucket.id, BUCKET_NAMES_SALT)


def _moment(text: Any) -> float:
    try:
        moment = datetime.fromisoformat(text) if _LOCAL_TIME.fullmatch(text) else None
    except (ValueError, TypeError):
        moment = None
    if moment is None:
        raise client_error("since_timestamp must be a date and time in UTC, without a zone")
    return moment.replace(tzinfo=UTC).timestamp()


def _local_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
