"""
An imitation of an operator of either scope: identity map (v3 and v2), rotated buckets, opt-out status.

Shapes, limits and the order of checks follow the public documentation and, where it is silent or says
something else, the source of IABTechLab/uid2-operator. Tokens of publishers are no part of it. The module
is imported only where a sandbox is wanted.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from partnerenrich import Sandbox
from partnerenrich_uid2._sandbox.gate import (
    ID_READER,
    MAPPER,
    SHARER,
    Behaviour,
    Gate,
    Handler,
    Refusal,
    credentials,
    refuse,
)
from partnerenrich_uid2._sandbox.operator import Operator
from partnerenrich_uid2._sandbox.salts import Calendar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from partnerenrich_uid2._sandbox.salts import Salts
    from partnerenrich_uid2.config import Scope

DEFAULT = Behaviour()

_NAMES = ("pat", "sam", "alex", "kim", "lee", "robin")


def new_sandbox(scope: Scope) -> Sandbox:
    """
    The imitation, a credential that may map, and whom to ask for.

    An operator has a raw UID for every address. Unknown to it is only what cannot be an identifier, such as
    a phone of fewer than ten digits.
    """
    return Sandbox(
        app=new_app(scope),
        settings=credentials(scope)["mapper"].settings,
        sample={
            "known": [
                {"email": f"{name}@example.test", "phone": f"+1202555{100 + number:04d}"}
                for number, name in enumerate(_NAMES)
            ],
            "unknown": [{"phone": "+68200000"}],
            "opted_out": [{"email": "optout@example.com"}, {"email": "leaver@example.test", "phone": "+12025550190"}],
        },
    )


def new_app(
    scope: Scope,
    behaviour: Behaviour = DEFAULT,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    salts: Salts | None = None,
) -> Starlette:
    """
    The imitation as an ASGI application.

    Args:
        scope: ``UID2`` or ``EUID``.
        behaviour: How it starts; ``POST /_sandbox`` changes it.
        clock: Unix time in seconds.
        sleep: Waits some seconds, for the latency.
        salts: Where raw UIDs come from; a `Calendar` by default.
    """
    gate = Gate(scope, behaviour, clock, sleep)
    operator = Operator(scope, gate, salts or Calendar(scope))

    def route(path: str, handler: Handler, *roles: str) -> Route:
        return Route(path, gate.guarded(path, handler, *roles), methods=["POST"])

    return Starlette(
        routes=[
            route("/v3/identity/map", operator.map_v3, MAPPER),
            route("/v2/identity/map", operator.map_v2, MAPPER),
            route("/v2/identity/buckets", operator.buckets_v2, MAPPER),
            route("/v2/optout/status", operator.optout_status, MAPPER, SHARER, ID_READER),
            Route("/_sandbox", gate.control, methods=["GET", "POST", "DELETE"]),
        ],
        exception_handlers={HTTPException: refuse, Refusal: refuse},
    )
