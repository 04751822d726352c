"""Events as they come in: checked, and stamped with what the hub knows better than the page."""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from partnerenrich import recipes
from partnerenrich.events import Event, EventError, items_of, object_of, value_of
from partnerenrich_server.hub.cookies import Cookies
from partnerenrich_server.hub.replies import Refused, encode

EVENT_BYTES: Final = 64 * 1024
BATCH_BYTES: Final = 5 * 1024 * 1024
BATCH_EVENTS: Final = 500
TYPES: Final = ("track", "page", "identify", "group")


@attrs.frozen
class Stamp:
    """
    What a page cannot claim.

    Attributes:
        cookies: Name the device, and the anonymous visitor where the event names none.
        address: IP address of the browser.
    """

    cookies: Cookies
    address: str | None = attrs.field(repr=False)

    def put_on(self, event: Event) -> Event:
        """The event with it."""
        context = event.context
        assert context is not None
        for name in ("canonicalId", "ip"):
            context.pop(name, None)
        context["canonical_id"] = msgspec.Raw(encode(self.cookies.device))
        if self.address is not None:
            context["ip"] = msgspec.Raw(encode(self.address))
        fields = event.fields | {"context": msgspec.Raw(encode(context))}
        if not any(map(recipes.normalise_id, (event.head.anonymousId, event.head.anonymous_id))):
            fields["anonymousId"] = msgspec.Raw(encode(self.cookies.anonymous))
        return Event.of(fields, event.org)


def in_batch(body: bytes) -> list[bytes]:
    """
    The events of ``{"batch": [...]}``, unread.

    Raises:
        Refused: It is no such object, or has too many events, or one that is too long.
    """
    batch = (object_of(msgspec.Raw(body)) or {}).get("batch")
    items = None if batch is None else items_of(batch)
    if items is None:
        raise Refused(400, "invalid_body", 'the body must be {"batch": [event, ...]}')
    events = [bytes(item) for item in items]
    if len(events) > BATCH_EVENTS:
        raise Refused(400, "too_large", f"a batch has at most {BATCH_EVENTS} events")
    if any(len(event) > EVENT_BYTES for event in events):
        raise Refused(400, "too_large", f"an event has at most {EVENT_BYTES} bytes")
    return events


def read_event(line: bytes, org: str, stamp: Stamp | None) -> Event:
    """
    One event of an organisation.

    Args:
        line: A JSON object.
        org: Slug.
        stamp: For an event that comes from a page.

    Raises:
        EventError: It is none; says why, never what was sent.
    """
    event = Event.parse(line, org)
    kind = value_of(event.fields.get("type"))
    if kind not in TYPES:
        raise EventError(f"must have a type: {', '.join(TYPES)}")
    if kind == "track" and not _is_name(value_of(event.fields.get("event"))):
        raise EventError("is a track without the name of its event")
    if event.context is None:
        raise EventError("has a context that is no object")
    return event if stamp is None else stamp.put_on(event)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
