"""
An imitation of Amperity: the real-time API, the Profile API and the token endpoint.

Shapes, limits and the order of checks follow the vendor's public documentation. What that leaves open
is said to be assumed, where it is built. The module is imported only where a sandbox is wanted.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from partnerenrich import Sandbox
from partnerenrich_amperity._sandbox import indexes, people, realtime
from partnerenrich_amperity._sandbox.gate import EVENTS, PII, READ, SEGMENTS, Behaviour, Gate, Refusal, refuse_route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DEFAULT = Behaviour()


def new_sandbox() -> Sandbox:
    """The imitation, settings of its first tenant, and whom to ask for."""
    return Sandbox(
        app=new_app(),
        settings={
            "tenant_subdomain": "demo",
            "tenant_id": "demo-sb-10001",
            "profile_api_key": "sandbox-key-of-demo",
            "profile_collection_id": realtime.COLLECTION,
        },
        sample={
            "known": [{key: person.keys[key] for key in ("email", "phone")} for person in people.ORDINARY],
            "unknown": [{"email": "nobody@example.test", "phone": "+12025550199"}, {"email": "stranger@example.test"}],
            "opted_out": [],
        },
    )


def new_app(
    behaviour: Behaviour = DEFAULT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Starlette:
    """
    The imitation as an ASGI application.

    Args:
        behaviour: How it starts; ``POST /_sandbox`` changes it.
        clock: Seconds, for rate limits and the life of tokens.
        sleep: Waits some seconds, for the latency.
    """
    gate = Gate(behaviour, clock, sleep)
    prof = partial(gate.guarded, api="realtime")
    api = partial(gate.guarded, api="indexes")
    return Starlette(
        routes=[
            _route("GET POST", "/prof/lookup/{collection}/keychain", prof(realtime.keychain, all_of=(READ, PII))),
            _route("GET", "/prof/profiles/{collection}/lookup", prof(realtime.older_lookup, all_of=(READ, PII))),
            _route(
                "GET",
                "/prof/profiles/{collection}/{profile_id:path}/segments",
                prof(realtime.segments_of_profile, all_of=(SEGMENTS, PII)),
            ),
            _route("GET", "/prof/profiles/{collection}/{profile_id:path}", prof(realtime.profile, all_of=(READ, PII))),
            _route(
                "GET",
                "/prof/segments/{segment}/profiles",
                prof(realtime.profiles_of_segment, all_of=(SEGMENTS, PII)),
            ),
            _route("GET", "/prof/collections/{collection}/stats", prof(realtime.stats, all_of=(READ,))),
            _route("GET", "/prof/collections/{collection}/history", prof(realtime.history, all_of=(READ,))),
            _route("POST", "/prof/events/{stream}", prof(realtime.event, any_of=EVENTS)),
            _route("GET", "/api/indexes", api(indexes.list_of_indexes)),
            _route("GET", "/api/indexes/{index}", api(indexes.index)),
            _route("GET", "/api/indexes/{index}/profiles", api(indexes.profiles_of_index)),
            _route("GET", "/api/indexes/{index}/profiles/{profile_id:path}", api(indexes.profile_of_index)),
            _route("POST", "/api/v0/oauth2/token", gate.issue_token),
            _route("GET POST DELETE", "/_sandbox", gate.control),
        ],
        exception_handlers={HTTPException: refuse_route, Refusal: gate.refuse},
    )


def _route(methods: str, path: str, endpoint: Callable[..., object]) -> Route:
    return Route(path, endpoint, methods=methods.split())
