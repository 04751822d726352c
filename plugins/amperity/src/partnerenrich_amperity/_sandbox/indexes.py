"""The Profile API, ``/api/indexes``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from partnerenrich_amperity._sandbox import people
from partnerenrich_amperity._sandbox.gate import Asked, Refusal
from partnerenrich_amperity._sandbox.pages import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partnerenrich_amperity._sandbox.people import Person

API_VERSION = "2025-07-31"

INDEXES: Mapping[str, str] = {"idx-demo0001": "hashed_email", "idx-demo0002": "email"}
"""Index to its lookup key, whose value is the profile's id."""

FILTER_FIELDS = ("LifetimeTier", "LifecycleStatus")

_FILTER = re.compile(r"filter\[(.*)\]")


async def list_of_indexes(asked: Asked) -> Response:
    """All indexes."""
    _check_version(asked)
    data, next_token = page(asked, [_described(index) for index in INDEXES], default=25)
    return JSONResponse({"data": data} | ({"next_token": next_token} if next_token else {}))


async def index(asked: Asked) -> Response:
    """One index."""
    return JSONResponse(_described(_index(asked)))


async def profiles_of_index(asked: Asked) -> Response:
    """Those with a name, filtered. The last page has no ``next_token``."""
    name = _index(asked)
    filters = [(match[1], value) for key, value in asked.query if (match := _FILTER.fullmatch(key))]
    if any(field not in FILTER_FIELDS for field, _ in filters):
        raise Refusal(400, "not a filter field of this index")
    everyone = [_profile(asked, name, person) for person in people.NAMED if INDEXES[name] in person.keys]
    found = [each for each in everyone if all(each["attributes"].get(field) == value for field, value in filters)]
    data, next_token = page(asked, found, default=25)
    body: dict[str, Any] = {"data": data}
    if next_token:
        body["next_token"] = next_token
    if ("with_total", "true") in asked.query:
        body["total"] = len(found)
    return JSONResponse(body)


async def profile_of_index(asked: Asked) -> Response:
    """One profile by the value of the index's lookup key."""
    name = _index(asked)
    person = people.find(INDEXES[name], asked.path("profile_id"))
    if person is None:
        raise Refusal(404, "no such profile")
    return JSONResponse(_profile(asked, name, person))


def _check_version(asked: Asked) -> None:
    if asked.request.headers.get("api-version") != API_VERSION:
        raise Refusal(400, "api-version is missing or not served")


def _index(asked: Asked) -> str:
    _check_version(asked)
    name = asked.path("index")
    if name not in INDEXES:
        raise Refusal(404, "no such index")
    return name


def _described(name: str) -> dict[str, Any]:
    """The fields of a description are assumed."""
    return {"id": name, "name": f"People by {INDEXES[name]}", "filter_fields": list(FILTER_FIELDS)}


def _profile(asked: Asked, name: str, person: Person) -> dict[str, Any]:
    """All attributes as text; one that is not known is left out."""
    known = {key: value for key, value in asked.tenant.attributes(person).items() if value is not None}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}
    return {"id": person.keys[INDEXES[name]], "index_id": name, "attributes": texts}
