"""What each call of the API does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from partnerenrich.events import EventError
from partnerenrich.models import Outcome
from partnerenrich_server.hub import arrivals, bodies, cookies, signing
from partnerenrich_server.hub.copies import BrowserCopies, LimitPassed, StoreDown
from partnerenrich_server.hub.inbox import Inbox, InboxFull
from partnerenrich_server.hub.metrics import Metrics
from partnerenrich_server.hub.replies import Refused, Reply, json_reply, raw_json_reply, retry_after
from partnerenrich_server.hub.sites import selected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from partnerenrich.browser import Extract
    from partnerenrich.events import Event
    from partnerenrich_server.hub.copies import Limit
    from partnerenrich_server.hub.endpoints import Call
    from partnerenrich_server.hub.replies import Header
    from partnerenrich_server.hub.sites import Window

LONGEST_WAIT_MS: Final = 800
"""How long a page may wait for its event to be enriched."""
CONTEXT_BYTES: Final = 16 * 1024

_EMPTY: Final = raw_json_reply(b"{}")


class _Personalize(msgspec.Struct):
    provider: str
    context: dict[str, Any] = {}


_read_personalize = msgspec.json.Decoder(_Personalize).decode


@attrs.frozen
class Api:
    """
    The calls of pages and backends.

    Attributes:
        copies: What browsers may read.
        inbox: Where events go.
        metrics: Counts limits, events and contextual calls.
        is_behind: Whether the store may still show what should be deleted.
        retire: Takes a device out of use, given its organisation; once the store is back, if it is gone.
        budget: Seconds that a page waits for a partner in a contextual call.
        patience: Seconds that a request waits until its events are written into the stream; None where there is none.
    """

    copies: BrowserCopies
    inbox: Inbox
    metrics: Metrics
    is_behind: Callable[[], bool]
    retire: Callable[[str, str], None]
    budget: float
    patience: float | None

    async def enrich(self, call: Call) -> Reply:
        """What is in memory of the visitor of this device and may be shown. Calls no partner."""
        provider = call.query.get("provider")
        if provider is not None:
            _known(call, provider)
        device = call.cookies.device
        windows = selected(call.site.windows, provider)
        if device is None or not windows:
            return _EMPTY
        shown = [
            window.head + window.shown(extract) for window, extract in await self._look(call, device, windows, "enrich")
        ]
        return raw_json_reply(b"{%b}" % b",".join(shown)) if shown else _EMPTY

    async def personalize(self, call: Call) -> Reply:
        """What a partner says of the visitor in the context of a page."""
        body = await bodies.read(call.headers, call.receive, CONTEXT_BYTES)
        _from_a_page(call)
        try:
            asked = _read_personalize(body)
            body.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "invalid_body", 'the body must be {"provider": "...", "context": {...}}') from None
        provider = _known(call, asked.provider)
        personalizer = call.site.personalizers.get(provider)
        if personalizer is None:
            raise Refused(501, "not_supported", "this partner has no contextual call")
        device = call.cookies.device
        windows = selected(call.site.windows, provider)
        if device is None or not windows:
            return _EMPTY
        looked = await self._look(call, device, windows, "personalize")
        if not looked:
            return _EMPTY
        [(window, extract)] = looked
        said = await personalizer.ask(device, extract, asked.context, wait_until=time.monotonic() + self.budget)
        self.metrics.personalized(personalizer.integration, said.outcome)
        if said.outcome not in {Outcome.HIT, Outcome.FRESH}:
            return _EMPTY
        return raw_json_reply(b"{%b%b}" % (window.head, said.attributes))

    async def event(self, call: Call) -> Reply:
        """One event."""
        wait = _wait(call)
        body, stamp = await self._arrived(call, arrivals.EVENT_BYTES)
        try:
            event = arrivals.read_event(body, call.site.slug, stamp)
        except EventError as error:
            self.metrics.events("rejected", 1)
            raise Refused(400, "invalid_event", f"the event {error}") from None
        renewed = _renewed(call, stamp)
        await self._take([event], len(body), wait, renewed)
        return self._taken({"success": True}, renewed)

    async def batch(self, call: Call) -> Reply:
        """Several events. Those that are no events are named; the others count."""
        wait = _wait(call)
        body, stamp = await self._arrived(call, arrivals.BATCH_BYTES)
        events: list[Event] = []
        errors = []
        for index, line in enumerate(arrivals.in_batch(body)):
            try:
                events.append(arrivals.read_event(line, call.site.slug, stamp))
            except EventError as error:
                errors.append({"index": index, "error": str(error)})
        self.metrics.events("rejected", len(errors))
        renewed = _renewed(call, stamp)
        if events:
            await self._take(events, len(body), wait, renewed)
        told: dict[str, Any] = {"success": bool(events) or not errors, "accepted": len(events)}
        if errors:
            told |= {"rejected": len(errors), "errors": errors}
        return self._taken(told, renewed)

    async def reset(self, call: Call) -> Reply:
        """Log-out: from now on this browser is another device, and what the old one could read is out of use."""
        _, stamp = await self._arrived(call, arrivals.EVENT_BYTES, signed=False)
        assert stamp is not None
        if call.cookies.device is not None:
            try:
                await self.copies.retire(call.site.copy_key(call.cookies.device), call.site.remember_seconds)
            except StoreDown:
                self.metrics.store_down("reset")
                self.retire(call.site.slug, call.cookies.device)
        fresh = cookies.new_id()
        renewed = attrs.evolve(call.cookies, device=fresh, anonymous=fresh)
        return json_reply({"success": True}, headers=cookies.issue(renewed, call.site.settings.cookie_domain))

    async def _look(
        self, call: Call, device: str, windows: Sequence[Window], purpose: str
    ) -> list[tuple[Window, Extract]]:
        """The extracts that may be shown to this device now. Counted, in the same round trip."""
        site = call.site
        limits = (site.address_limit(call.address, "reads"), site.visitor_limit(device, purpose))
        fields = ("who", "consent", *(window.field for window in windows))
        is_behind = self.is_behind()
        try:
            who, consent, *records = await self.copies.read(site.copy_key(device), fields, limits)
        except LimitPassed as passed:
            raise self._limited(passed) from None
        except StoreDown:
            self.metrics.store_down(purpose)
            return []
        if who is None or is_behind:
            return []
        extracts = ((window, window.extract(record, who, consent)) for window, record in zip(windows, records))
        return [(window, extract) for window, extract in extracts if extract is not None]

    async def _arrived(
        self, call: Call, most_bytes: int, *, signed: bool = True
    ) -> tuple[bytes, arrivals.Stamp | None]:
        """The body of a call that may write; with what its events are to be stamped, unless a backend signed it."""
        if signed and signing.SIGNATURE in call.headers:
            signing.check_time(call.headers)
            body = await bodies.read(call.headers, call.receive, most_bytes)
            signing.check(call.site.settings.ingest_secret, call.headers, body)
            return body, None
        _from_a_page(call)
        await self._count([call.site.address_limit(call.address, "writes")])
        body = await bodies.read(call.headers, call.receive, most_bytes)
        return body, arrivals.Stamp(call.cookies.completed(), call.address)

    async def _count(self, limits: Sequence[Limit]) -> None:
        try:
            await self.copies.count(limits)
        except LimitPassed as passed:
            raise self._limited(passed) from None
        except StoreDown:
            self.metrics.store_down("writes")

    def _limited(self, passed: LimitPassed) -> Refused:
        self.metrics.limited(passed.limit)
        message = f"too many requests of this {passed.limit} in a minute"
        return Refused(429, "rate_limited", message, [retry_after(passed.seconds)])

    async def _take(self, events: Sequence[Event], size: int, wait: float, renewed: Sequence[Header]) -> None:
        """
        Take the events of a request: all or none, as far as the client is told.

        Args:
            events: At least one.
            size: Their bytes.
            wait: Seconds to wait until they are enriched; where there is a stream, its acknowledgement is waited for.
            renewed: Cookies that the events are stamped with, so that they come again as those of the same device.

        Raises:
            Refused: 503, to come again.
        """
        try:
            through = self.inbox.put(events, size)
        except InboxFull:
            self.metrics.events("refused", len(events))
            raise Refused(503, "busy", "too many events wait to be enriched", [retry_after(1)]) from None
        self.metrics.events("accepted", len(events))
        longest = wait if self.patience is None else self.patience
        if longest:
            await asyncio.wait({through}, timeout=longest)
        if self.patience is not None and not (through.done() and through.result()):
            through.cancel()  # nobody works on what comes again
            message = "the stream did not acknowledge all events; send them again"
            raise Refused(503, "not_written", message, [retry_after(1), *renewed])

    def _taken(self, told: Mapping[str, Any], renewed: Sequence[Header]) -> Reply:
        durable = self.patience is not None
        return json_reply({**told, "durable": durable}, 200 if durable else 202, renewed)


def _known(call: Call, provider: str) -> str:
    if provider not in call.site.providers:
        raise Refused(404, "unknown_provider", "no integration of this organisation has this provider")
    return provider


def _from_a_page(call: Call) -> None:
    """
    Refuse what is neither signed nor from a page of the organisation.

    Raises:
        Refused: 401 or 403.
    """
    if call.origin is None:
        raise Refused(403, "unknown_origin", "a page must send its Origin; a backend must sign the call")
    if "key" not in call.query:
        raise Refused(401, "unknown_key", "a page must name its organisation by ?key=")


def _wait(call: Call) -> float:
    """Seconds."""
    text = call.query.get("wait_ms", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= LONGEST_WAIT_MS):
        raise Refused(400, "invalid_query", f"wait_ms must be a whole number from 0 to {LONGEST_WAIT_MS}")
    return int(text) / 1000


def _renewed(call: Call, stamp: arrivals.Stamp | None) -> list[Header]:
    return [] if stamp is None else cookies.issue(stamp.cookies, call.site.settings.cookie_domain)
