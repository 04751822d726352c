"""What the hub's API is, as an OpenAPI 3.1 document."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from partnerenrich_server.hub.arrivals import BATCH_EVENTS, TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

Schema = dict[str, Any]

_ANY_REFUSALS: Final = ("400", "405", "408", "431", "500")


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _refusals(*codes: str) -> dict[str, Any]:
    """These, and those that any request may meet."""
    return {code: {"$ref": f"#/components/responses/{code}"} for code in sorted({*_ANY_REFUSALS, *codes})}


def _answers(description: str, schema: Schema, *refusals: str, status: int = 200) -> dict[str, Any]:
    return {str(status): {"description": description, "content": _json(schema)}, **_refusals(*refusals)}


def _body(schema: Schema) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind in ("application/json", "text/plain")}
    return {"required": True, "content": content}


_PROFILE: Final = {
    "type": "object",
    "description": "Provider to attribute to value.",
    "additionalProperties": {"type": "object"},
}
_EVENT: Final = _object(
    ["type"],
    type={"enum": list(TYPES)},
    event={"type": "string", "description": "Required in a track.", "pattern": r"\S"},
    userId={"type": ["string", "integer", "null"]},
    anonymousId={"type": ["string", "null"]},
    traits={"type": "object"},
    properties={"type": "object"},
    context={"type": "object"},
    signature={"type": "string", "description": "By which the shop's backend vouches for the person ids."},
) | {"if": {"properties": {"type": {"const": "track"}}}, "then": {"required": ["event"]}}
_WRITERS: Final[list[Schema]] = [{"page": []}, {"signature": [], "timestamp": []}]
_WRITE_REFUSALS: Final = ("401", "403", "404", "415", "429", "503")
_WAIT: Final = {
    "name": "wait_ms",
    "in": "query",
    "description": "Answer when the event is enriched, at the latest after so many milliseconds. Without effect where"
    " there is a stream: its acknowledgement is waited for.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 800, "default": 0},
}
_KEY: Final = {
    "name": "key",
    "in": "query",
    "description": "The organisation's public key. Not needed where the host tells the organisation.",
    "schema": {"type": "string"},
}


def _taken(description: str, required: Sequence[str] = (), **properties: Schema) -> dict[str, Any]:
    """The answers of a call that takes events: with a stream, and without."""

    def told(*, durable: bool) -> Schema:
        described = {"const": durable, "description": "Whether the events survive the loss of this process."}
        return _object(["success", "durable", *required], success={"type": "boolean"}, durable=described, **properties)

    return {
        **_answers(f"{description} The stream has acknowledged them.", told(durable=True), *_WRITE_REFUSALS),
        **_answers(f"{description} There is no stream.", told(durable=False), status=202),
    }


DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "partnerenrich identity hub",
        "version": version("partnerenrich-server"),
        "description": "What a page may read of its visitor, and where events come in. The device is known by the"
        " cookies _dfid and _dfdid, which only the hub sets.",
    },
    "paths": {
        "/v1/enrich": {
            "get": {
                "summary": "The allowlisted attributes of this visitor, from memory.",
                "parameters": [
                    _KEY,
                    {"name": "provider", "in": "query", "description": "One only.", "schema": {"type": "string"}},
                ],
                "responses": _answers(
                    "An empty object when nothing is known or allowed.", _PROFILE, "401", "403", "404", "429"
                ),
            }
        },
        "/v1/personalize": {
            "post": {
                "summary": "What one partner says of this visitor in the context of a page.",
                "security": [{"page": []}],
                "requestBody": _body(_object(["provider"], provider={"type": "string"}, context={"type": "object"})),
                "responses": _answers(
                    "An empty object when nothing is known or allowed, or the partner fails.",
                    _PROFILE,
                    *("401", "403", "404", "415", "429", "501"),
                ),
            }
        },
        "/v1/events": {
            "post": {
                "summary": "Take one event.",
                "security": _WRITERS,
                "parameters": [_WAIT],
                "requestBody": _body(_EVENT),
                "responses": _taken("Accepted."),
            }
        },
        "/v1/batch": {
            "post": {
                "summary": "Take several events. Those that are not valid are listed, the others count.",
                "security": _WRITERS,
                "parameters": [_WAIT],
                "requestBody": _body(
                    _object(["batch"], batch={"type": "array", "items": _EVENT, "maxItems": BATCH_EVENTS})
                ),
                "responses": _taken(
                    "Accepted, all or some.",
                    ["accepted"],
                    accepted={"type": "integer"},
                    rejected={"type": "integer"},
                    errors={
                        "type": "array",
                        "items": _object(["index", "error"], index={"type": "integer"}, error={"type": "string"}),
                    },
                ),
            }
        },
        "/v1/reset": {
            "post": {
                "summary": "Log-out: this browser becomes another device.",
                "security": [{"page": []}],
                "requestBody": {"content": {"text/plain": {"schema": {"type": "string", "maxLength": 0}}}},
                "responses": _answers(
                    "Done.", _object(["success"], success={"type": "boolean"}), *_WRITE_REFUSALS[:-1]
                ),
            }
        },
        "/datafly.js": {
            "get": {
                "summary": "The library for pages.",
                "responses": {
                    "200": {"description": "The script.", "content": {"text/javascript": {}}},
                    "304": {"description": "Not changed."},
                    **_refusals(),
                },
            }
        },
        "/healthz": {
            "get": {
                "summary": "Whether the process lives.",
                "responses": _answers("It does.", _object(["status"], status={"const": "ok"})),
            }
        },
        "/readyz": {
            "get": {
                "summary": "Whether it serves; degraded while the store or the stream is gone.",
                "responses": _answers(
                    "It does.",
                    _object(["ready", "degraded"], ready={"type": "boolean"}, degraded={"type": "boolean"}),
                ),
            }
        },
        "/metrics": {
            "get": {
                "summary": "Numbers for Prometheus.",
                "responses": {"200": {"description": "All of them.", "content": {"text/plain": {}}}, **_refusals()},
            }
        },
        "/openapi.json": {
            "get": {
                "summary": "This document.",
                "responses": _answers("OpenAPI 3.1.", {"type": "object"}),
            }
        },
    },
    "components": {
        "securitySchemes": {
            "page": {
                "type": "apiKey",
                "in": "query",
                "name": "key",
                "description": "The organisation's public key, from a page of one of its origins.",
            },
            "signature": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Signature",
                "description": "sha256= and the hexadecimal HMAC-SHA256 of <X-Timestamp>.<raw body>.",
            },
            "timestamp": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Timestamp",
                "description": "Unix time in milliseconds, at most five minutes off.",
            },
        },
        "schemas": {
            "Error": _object(
                ["error"],
                error=_object(["code", "message"], code={"type": "string"}, message={"type": "string"}),
            )
        },
        "responses": {
            code: {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
            for code, text in {
                "400": "The request is not as it must be.",
                "401": "The public key or the signature is wrong.",
                "403": "Pages of this origin may not call.",
                "404": "No such organisation, or no such provider.",
                "405": "The path has no such method; Allow tells which it has.",
                "408": "The request came too slowly.",
                "415": "The body is no JSON.",
                "429": "Too many requests; Retry-After tells when to come again.",
                "431": "The head of the request is too long.",
                "500": "The hub failed; its log tells where.",
                "501": "The partner has no contextual call.",
                "503": "Too many events wait, or the stream did not take all of these; Retry-After tells when to come"
                " again.",
            }.items()
        },
    },
}
