"""Map many links: whatever can be asked, in as few requests as the operator allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from partnerenrich_uid2 import _v2, _v3
from partnerenrich_uid2._identifiers import Identifier, identifier_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from partnerenrich import Link, PartnerError, Resolution
    from partnerenrich_uid2._operator import Operator

MOST = 5_000
"""Identifiers in one request, all kinds together. https://unifiedid.com/docs/endpoints/post-identity-map"""

MOST_BYTES = 700_000
"""Of JSON: in base64 still below the 1 MiB that an operator reads."""


async def resolve(operator: Operator, links: Sequence[Link]) -> list[Resolution | PartnerError]:
    """
    Ask for all links.

    Returns:
        One answer for each, in their order.

    Raises:
        partnerenrich.PartnerError: A whole request failed.
    """
    map_identifiers = _v3.map_identifiers if operator.config.protocol == "v3" else _v2.map_identifiers
    wanted = [identifier_of(link) for link in links]
    mapped: list[Resolution] = []
    for portion in portions(one for one in wanted if isinstance(one, Identifier)):
        mapped += await map_identifiers(operator, portion)
    answers = iter(mapped)
    return [next(answers) if isinstance(one, Identifier) else one for one in wanted]


async def check(operator: Operator) -> None:
    """Send a request for nobody: key, role, secret and clock are proven, and no person is touched."""
    path = _v3.PATH if operator.config.protocol == "v3" else _v2.PATH
    await operator.ask(path, b'{"email":[]}')


def portions(identifiers: Iterable[Identifier]) -> Iterator[list[Identifier]]:
    """Cut into requests that are neither too many identifiers nor too many bytes."""
    portion: list[Identifier] = []
    total = 0
    for identifier in identifiers:
        size = len(msgspec.json.encode(identifier.value)) + 1
        if portion and (len(portion) == MOST or total + size > MOST_BYTES):
            yield portion
            portion, total = [], 0
        portion.append(identifier)
        total += size
    if portion:
        yield portion
