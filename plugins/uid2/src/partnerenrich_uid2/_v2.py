"""
The identity map of before: one kind of identifier in a request, no previous id, no time of refresh.

Its end is announced for 30 September 2026. Wire facts: https://unifiedid.com/docs/endpoints/post-identity-map-v2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from partnerenrich import BadResponse, Resolution
from partnerenrich_uid2 import _answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partnerenrich_uid2._identifiers import Identifier, Kind
    from partnerenrich_uid2._operator import Operator

PATH = "/v2/identity/map"


class _Mapped(msgspec.Struct):
    identifier: str
    advertising_id: str


class _Unmapped(msgspec.Struct):
    identifier: str
    reason: str


class _Body(msgspec.Struct):
    mapped: list[_Mapped]
    unmapped: list[_Unmapped] = []


class _Answer(msgspec.Struct):
    status: Literal["success"]
    body: _Body


_decoder = msgspec.json.Decoder(_Answer)


async def map_identifiers(operator: Operator, identifiers: Sequence[Identifier]) -> list[Resolution]:
    """
    Map identifiers, with one request for each kind.

    Returns:
        One answer for each, in their order.

    Raises:
        partnerenrich.PartnerError: A request failed.
    """
    asked: dict[Kind, list[str]] = {}
    for identifier in identifiers:
        asked.setdefault(identifier.kind, []).append(identifier.value)
    answered = {kind: await _map_one_kind(operator, kind, values) for kind, values in asked.items()}
    return [answered[identifier.kind][identifier.value] for identifier in identifiers]


async def _map_one_kind(operator: Operator, kind: Kind, values: Sequence[str]) -> dict[str, Resolution]:
    body = _answers.decoded(_decoder, await operator.ask(PATH, msgspec.json.encode({kind: values}))).body
    answered = {entry.identifier: _answers.unmapped(entry.reason) for entry in body.unmapped}
    for entry in body.mapped:
        if not entry.advertising_id:
            raise BadResponse("the answer has an entry without a raw id")
        answered[entry.identifier] = Resolution(entry.advertising_id)
    if answered.keys() != set(values):
        raise BadResponse("the answer does not have one entry for each identifier")
    return answered
