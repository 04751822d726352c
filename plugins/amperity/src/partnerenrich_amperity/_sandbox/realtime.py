"""The real-time API, ``/prof``."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from partnerenrich_amperity._sandbox import people
from partnerenrich_amperity._sandbox.gate import Asked, Refusal, Tenant
from partnerenrich_amperity._sandbox.pages import page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from partnerenrich_amperity._sandbox.people import Person

COLLECTION = "apc-demo0001"
"""Every tenant has a collection of this id."""

SEGMENTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "rts-0001": ("Lapsing buyers", lambda known: known["LifecycleStatus"] in {"at risk", "highly at risk"}),
    "rts-0002": ("High value", lambda known: known["LifetimeTier"] in {"Platinum", "Gold", "Silver"}),
    "rts-0003": ("May be written to", lambda known: bool(known["OptIn"])),
    "rts-0004": ("Bargain hunters", lambda known: known["Persona"] in {"Value Hunter", "Seasonal Shopper"}),
    "rts-0005": ("Everyone", lambda _: True),
}

STREAMS = {"esm-demo0001": 202, "esm-drop0001": 204, "esm-reject0001": 409, "esm-busy0001": 503}
"""Stream to its answer: accepts, drops, rejects, cannot just now."""

LARGEST_EVENT = 64 * 1024
NOW = datetime(2026, 8, 1, 12, 30, tzinfo=UTC)
STEPS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


# Lookup


async def keychain(asked: Asked) -> Response:
    """Look up by any keys of the keychain, by GET or by POST."""
    collection = _collection(asked)
    if asked.request.method == "POST":
        try:
            body = json.loads(await asked.request.body())
        except ValueError:
            body = None
        keys = body.get("keys") if isinstance(body, dict) else None
        if not isinstance(keys, dict) or not isinstance(body.get("enrich", False), bool):
            raise Refusal(400, "keys must be an object, enrich true or false")
        return _looked_up(asked, collection, list(keys.items()))
    return _looked_up(asked, collection, [(key, value) for key, value in asked.query if key != "_enrich"])


async def older_lookup(asked: Asked) -> Response:
    """The lookup of the vendor's draft: by GET, with exactly one key."""
    collection = _collection(asked)
    keys = [(key, value) for key, value in asked.query if key != "enrich"]
    if len(keys) > 1:
        raise Refusal(400, "exactly one key is needed", "invalid-lookup-key", collection=collection)
    return _looked_up(asked, collection, keys)


def _looked_up(asked: Asked, collection: str, keys: list[tuple[str, Any]]) -> Response:
    """The profile of the first key that matches (several keys: assumed)."""
    if not keys or (len(keys) > 1 and asked.gate.behaviour.envelope == "draft"):
        raise Refusal(400, "a key is needed", "invalid-lookup-key", collection=collection)
    for key, value in keys:
        if key not in people.KEYCHAIN or not isinstance(value, str) or not value:
            raise Refusal(400, "no such key in the keychain", "invalid-lookup-key", collection=collection, key=key)
    person = next((found for key, value in keys if (found := people.find(key, value))), None)
    if person is None:
        key, value = keys[0]
        raise Refusal(404, "no such profile", "not-found", collection=collection, key=key, value=value)
    if person.scenario == "merging":
        asked.gate.merges[asked.tenant.id, person.name] += 1
    body = _profile_body(asked, collection, person)
    root = asked.request.scope.get("root_path", "")
    location = f"{root}/prof/profiles/{quote(collection, safe='')}/{quote(body['profile_id'], safe='')}"
    return JSONResponse(body, headers={"Location": location})


# Profiles and segments


async def profile(asked: Asked) -> Response:
    """One profile by its id."""
    collection = _collection(asked)
    return JSONResponse(_profile_body(asked, collection, _person(asked, collection)))


async def segments_of_profile(asked: Asked) -> Response:
    """The segments of one profile. The last page has an empty ``next_token``."""
    collection = _collection(asked)
    known = asked.tenant.attributes(_person(asked, collection))
    entries = [{"segment_id": key, "segment_name": name} for key, (name, rule) in SEGMENTS.items() if rule(known)]
    data, next_token = page(asked, entries, default=100)
    return JSONResponse({"data": data, "next_token": next_token or "", "total": len(entries)})


async def profiles_of_segment(asked: Asked) -> Response:
    """Those with a name who are in a segment, on one page. The entries' fields are assumed."""
    if asked.query:
        raise Refusal(400, "this list takes no parameters")
    segment = asked.path("segment")
    if segment not in SEGMENTS:
        raise Refusal(404, "no such segment", "not-found")
    _, rule = SEGMENTS[segment]
    members = [person for person in people.NAMED if rule(asked.tenant.attributes(person))]
    data = [{"collection_id": COLLECTION, "profile_id": _id_of(asked, COLLECTION, person)} for person in members]
    return JSONResponse({"data": data, "total": len(data)})


def _profile_body(asked: Asked, collection: str, person: Person) -> dict[str, Any]:
    required = {"collection_id": collection, "profile_id": _id_of(asked, collection, person)}
    if person.scenario == "bare":
        return required
    links: Any = people.links(person)
    if "array" in {person.scenario, asked.gate.behaviour.links}:
        links = [{"type": kind, "values": values} for kind, values in links.items()]
    return {
        **required,
        "attributes": asked.tenant.attributes(person),
        "created_at": "2026-03-01T09:00:00.000Z",
        "updated_at": "2026-08-01T12:30:00.000Z",
        "ticked_at": "2026-08-01T12:31:00.000Z",
        "links": links,
    }


# The collection


async def stats(asked: Asked) -> Response:
    """How many profiles and links there are; the endless visitors are not counted."""
    _collection(asked)
    cardinality = {key: sum(key in person.keys for person in people.NAMED) for key in people.KEYCHAIN}
    return JSONResponse({"total_profiles": len(people.NAMED), "link_cardinality": cardinality})


async def history(asked: Asked) -> Response:
    """Profiles by time: a week of buckets up to a fixed moment, unless asked otherwise (the default is assumed)."""
    _collection(asked)
    query = dict(asked.query)
    step = STEPS.get(query.get("scale", "day"))
    if step is None:
        raise Refusal(400, "scale must be minute, hour or day")
    try:
        before = _moment(query["before"]) if "before" in query else NOW
        after = _moment(query["after"]) if "after" in query else before - 7 * step
    except ValueError:
        raise Refusal(400, "after and before must be ISO 8601") from None
    if after >= before:
        raise Refusal(400, "after must lie before before")
    count = min(1000, -(-(before - after) // step))
    data = [
        {"bucket": f"{after + place * step:%Y-%m-%dT%H:%M:%S.000Z}", "count": 12 + place % 5} for place in range(count)
    ]
    return JSONResponse({"scale": query.get("scale", "day"), "data": data})


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# Events


async def event(asked: Asked) -> Response:
    """Take one event and forget it."""
    stream = asked.path("stream")
    if stream not in STREAMS:
        raise Refusal(404, "no such stream", "not-found", stream=stream)
    length = asked.request.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise Refusal(411, "Content-Length is needed")
    if int(length) > LARGEST_EVENT:
        raise Refusal(413, "an event has at most 64 KB")
    if asked.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "an event is application/json")
    try:
        body = json.loads(await asked.request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "an event is one JSON object")
    status = STREAMS[stream]
    if status == 409:
        raise Refusal(409, "the stream rejects events", "stream-rejected", stream=stream)
    if status == 503:
        raise Refusal(503, "try again")
    return Response(status_code=status)


# Who and where


def _collection(asked: Asked) -> str:
    collection = asked.path("collection")
    if collection != COLLECTION:
        raise Refusal(404, "no such collection", "not-found", collection=collection)
    return collection


def _person(asked: Asked, collection: str) -> Person:
    wanted = asked.path("profile_id")
    scope = _scope(asked.tenant, collection)
    named = (person for person in people.NAMED if _id_of(asked, collection, person) == wanted)
    person = people.visitor_of(scope, wanted) or next(named, None)
    if person is None:
        raise Refusal(404, "no such profile", "not-found", collection=collection, profile=wanted)
    return person


def _id_of(asked: Asked, collection: str, person: Person) -> str:
    return people.profile_id(_scope(asked.tenant, collection), person, asked.gate.merges[asked.tenant.id, person.name])


def _scope(tenant: Tenant, collection: str) -> str:
    return f"{tenant.id} {collection}"
