"""
The identity map of today: e-mails and phones, plain and hashed, in one request.

Wire facts: https://unifiedid.com/docs/endpoints/post-identity-map
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from partnerenrich import BadResponse, Resolution
from partnerenrich_uid2 import _answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich_uid2._identifiers import Identifier
    from partnerenrich_uid2._operator import Operator

PATH = "/v3/identity/map"


class _Entry(msgspec.Struct):
    """The answer for one identifier: current and previous raw id and seconds of refresh, or else the reason."""

    u: str | None = None
    p: str | None = None
    r: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    e: str | None = None


class _Answer(msgspec.Struct):
    status: Literal["success"]
    body: dict[str, list[_Entry]]


_decoder = msgspec.json.Decoder(_Answer)


async def map_identifiers(operator: Operator, identifiers: Sequence[Identifier]) -> list[Resolution]:
    """
    Map identifiers of any kinds.

    Returns:
        One answer for each, in their order.

    Raises:
        partnerenrich.PartnerError: The request failed.
    """
    asked: dict[str, list[str]] = {}
    for identifier in identifiers:
        asked.setdefault(identifier.kind, []).append(identifier.value)
    body = _answers.decoded(_decoder, await operator.ask(PATH, msgspec.json.encode(asked))).body
    # Answers belong to identifiers by their place alone, so one too few would give everyone another person's id.
    if {kind: len(entries) for kind, entries in body.items() if entries} != {k: len(v) for k, v in asked.items()}:
        raise BadResponse("the answer does not have one entry for each identifier")
    now = operator.clock()
    entries = {kind: iter(body[kind]) for kind in asked}
    return [_resolution(next(entries[identifier.kind]), now) for identifier in identifiers]


def _resolution(entry: _Entry, now: float) -> Resolution:
    if entry.e is not None:
        return _answers.unmapped(entry.e)
    if not entry.u or entry.r is None:
        raise BadResponse("the answer has an entry with neither a raw id and its time nor a reason")
    return _answers.found(entry.u, entry.p, entry.r, now)
