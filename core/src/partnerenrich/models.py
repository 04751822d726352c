"""The nouns of the project, as frozen classes. Values of visitors are never in a repr."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, BinaryIO, Final, Literal, get_args

import attrs
import msgspec

from partnerenrich.settings import between


def _hidden(default: Any = attrs.NOTHING) -> Any:
    return attrs.field(default=default, repr=False)


def _number(default: Any, low: float, high: float) -> Any:
    return attrs.field(default=default, validator=between(low, high))


YEAR: Final = 366 * 86_400

# Who


class KnownIDs(msgspec.Struct, frozen=True, gc=False):
    """
    All identifiers that one event carries, normalised. A struct, since one is made for every event.

    Attributes:
        canonical_id: The ``_dfdid`` device cookie, stable for 400 days.
        anonymous_id: Datafly's anonymous id, usually the same value.
        user_id: The customer's own id of a person.
        email: Trimmed and lower-cased.
        phone: E.164.
        others: Identifiers found by a path such as ``$traits.loyalty_id``, path to value.
    """

    canonical_id: str | None = None
    anonymous_id: str | None = None
    user_id: str | None = None
    email: str | None = None
    phone: str | None = None
    others: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return "KnownIDs(***)"


@attrs.frozen
class LinkingKey:
    """
    Which identifier to try when a visitor is resolved.

    Attributes:
        source: ``canonical_id``, ``anonymous_id``, ``user_id``, ``email``, ``phone``
            or a path such as ``$traits.loyalty_id``.
        key: The partner's name for this identifier.
        hash: A recipe of `partnerenrich.recipes`, such as ``none`` or ``sha256``.
    """

    source: str
    key: str
    hash: str = "none"


class Link(msgspec.Struct, frozen=True, gc=False):
    """
    One identifier of a visitor, ready to be sent to the partner. A struct, since one is made for every miss.

    Attributes:
        source: As in `LinkingKey`.
        key: The partner's name for it.
        value: Normalised, and hashed as the integration asks.
        hash: The recipe that was applied.
    """

    source: str
    key: str
    value: str
    hash: str = "none"

    def __repr__(self) -> str:
        return f"Link(source={self.source!r}, key={self.key!r}, value=***, hash={self.hash!r})"


@attrs.frozen
class Visitor:
    """
    What else is known of the visitor of one event.

    Attributes:
        links: All links that the event offers, in the order of the linking keys.
        ip: Address of the visitor, as text.
        user_agent: The browser's own words.
        page_url: Where the event happened.
    """

    links: tuple[Link, ...] = ()
    ip: str | None = _hidden(None)
    user_agent: str | None = _hidden(None)
    page_url: str | None = _hidden(None)


@attrs.frozen
class Call:
    """
    On whose behalf a partner is called, and until when an answer counts.

    Attributes:
        org: Slug of the organisation.
        provider: Key of the partner.
        integration: Name of the integration.
        deadline: Moment of `time.monotonic`, in seconds.
        event_id: The event that caused the call, where there is one.
    """

    org: str
    provider: str
    integration: str
    deadline: float
    event_id: str | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())


# What a partner answers


class Resolution(msgspec.Struct, frozen=True, gc=False):
    """
    What a partner answered about one link. A struct, since one is made for every miss.

    Attributes:
        partner_id: The partner's own id; set exactly when `reason` is ``found``.
        reason: ``found``, ``absent`` (not known), ``invalid`` (not a possible
            identifier) or ``opted_out``.
        previous_id: An older id that is still valid.
        attributes: The profile, when the same answer holds it.
        refresh_at: Unix time in seconds from when the partner wants to be asked again.
        expires_at: Unix time in seconds after which the answer must not be used.
    """

    partner_id: str | None = None
    reason: Literal["found", "absent", "invalid", "opted_out"] = "found"
    previous_id: str | None = None
    attributes: Mapping[str, Any] | None = None
    refresh_at: float | None = None
    expires_at: float | None = None

    def __repr__(self) -> str:
        times = f"refresh_at={self.refresh_at!r}, expires_at={self.expires_at!r}"
        return f"Resolution(reason={self.reason!r}, {times}, ***)"

    def __post_init__(self) -> None:
        if (self.reason == "found") != bool(self.partner_id):
            raise ValueError("a resolution has a partner_id exactly when its reason is 'found'")

    @classmethod
    def absent(cls) -> Resolution:
        """The partner does not know this link."""
        return cls(reason="absent")

    @classmethod
    def invalid(cls) -> Resolution:
        """The partner says that this link is not a possible identifier."""
        return cls(reason="invalid")

    @classmethod
    def opted_out(cls) -> Resolution:
        """The person behind this link does not want to be known."""
        return cls(reason="opted_out")


# What a partner is


@attrs.frozen(kw_only=True)
class TTL:
    """
    How long answers are remembered, in seconds.

    Attributes:
        resolved: An answer with an id.
        not_found: The partner does not know the link.
        failed: The partner failed; its calls are spared meanwhile.
        attributes: A profile.
        personalize: An answer for one context.
        stale_for: How long past its time an answer may serve while the partner fails.
        remember_visitor: How long a visitor without identifiers is recognised.
        cap: The longest time that a partner's own expiry may ask for.
    """

    resolved: float = _number(900, 0.001, YEAR)
    not_found: float = _number(300, 0.001, YEAR)
    failed: float = _number(30, 0.001, YEAR)
    attributes: float = _number(900, 0.001, YEAR)
    personalize: float = _number(120, 0.001, YEAR)
    stale_for: float = _number(3600, 0, YEAR)
    remember_visitor: float = _number(86_400, 0.001, YEAR)
    cap: float = _number(86_400, 0.001, YEAR)


@attrs.frozen(kw_only=True)
class Limits:
    """
    What one integration may ask of its partner.

    Attributes:
        timeout: Seconds for one attempt.
        attempts: Attempts for one lookup, the first included.
        calls_per_second: Client-side rate; None for no limit.
        calls_per_day: Daily budget (UTC), shared through the store; None for no limit.
        concurrency: Calls under way at once in one process.
        failures: Failures in a row that open the circuit breaker.
        pause: Seconds for which an open breaker holds calls back.
        response_bytes: Longest body of a response.
        bulk: Most links in one `resolve_ids` call.
        bulk_bytes: Most bytes of links in one `resolve_ids` call: of each its value in
            UTF-8, and 32 more for what stands around it.
    """

    timeout: float = _number(1.0, 0.001, 3600)
    attempts: int = _number(2, 1, 10)
    calls_per_second: float | None = _number(None, 0.001, 1_000_000)
    calls_per_day: int | None = _number(None, 0, 10**12)
    concurrency: int = _number(64, 1, 10_000)
    failures: int = _number(10, 1, 1_000_000)
    pause: float = _number(10.0, 0.001, 3600)
    response_bytes: int = _number(1 << 20, 1, 1 << 30)
    bulk: int = _number(1000, 1, 1_000_000)
    bulk_bytes: int = _number(1 << 20, 1, 1 << 30)


@attrs.frozen(kw_only=True)
class Delivery:
    """
    How a destination takes batches.

    Attributes:
        formats: File formats it accepts, preferred first: ``csv``, ``parquet``, ``ndjson``.
        default_blueprint: YAML text of the mapping used when an integration has none.
        max_rows: Most rows in one batch.
        max_bytes: Largest file.
        modes: Delivery modes, default first.
        appends: Modes in which a batch adds to what was sent before; in all others it replaces it.
        resumes: Whether `deliver_batch` saves its progress before each request that must not be
            made twice, and finds out what became of that request when it is called again. Without
            this promise a batch whose call was cut off is not sent again: a person decides.
    """

    formats: tuple[str, ...]
    default_blueprint: str
    max_rows: int | None = None
    max_bytes: int | None = None
    modes: tuple[str, ...] = ()
    appends: tuple[str, ...] = ()
    resumes: bool = False


@attrs.frozen(kw_only=True)
class Partner:
    """
    What a partner says of itself.

    Attributes:
        title: Its name as people write it.
        config: The attrs class of its settings. Fields of type
            `partnerenrich.Secret` are kept out of every output.
        category: Shelf in a catalog, such as ``cdp``, ``identity`` or ``clean_room``.
        linking_keys: Used by an integration that names none.
        ttl: Used where an integration sets no other.
        limits: Used where an integration sets no other.
        delivery: For a destination of batches.
        docs: URL of the partner's own documentation.
    """

    title: str
    config: type[Any]
    category: str = "other"
    linking_keys: tuple[LinkingKey, ...] = ()
    ttl: TTL = TTL()
    limits: Limits = Limits()
    delivery: Delivery | None = None
    docs: str | None = None


@attrs.frozen(kw_only=True)
class Sandbox:
    """
    A local imitation of a partner.

    Attributes:
        app: An ASGI application that answers below its root path.
        settings: Settings that work with it, without ``base_url``.
        sample: ``known``, ``unknown`` and ``opted_out`` visitors, each a mapping of
            linking-key source to value, such as ``{"email": "pat@example.test"}``.
    """

    app: Callable[..., Awaitable[None]]
    settings: Mapping[str, Any]
    sample: Mapping[str, Sequence[Mapping[str, str]]]


# What becomes of an event


class Outcome(StrEnum):
    """Why an event carries, or does not carry, what a partner knows."""

    HIT = "hit"
    """From memory."""
    STALE = "stale"
    """From memory past its time, because the partner failed or was late."""
    FRESH = "fresh"
    """From the partner, now."""
    ABSENT = "absent"
    """The partner does not know the visitor."""
    OPTED_OUT = "opted_out"
    """The partner or an erasure says so."""
    DENIED = "denied"
    """Consent is missing or refused; no call was made."""
    LIMITED = "limited"
    """Rate, breaker or daily budget; no call was made."""
    LATE = "late"
    """The budget ran out; the lookup goes on in the background."""
    ERROR = "error"
    """The partner failed, now or a moment ago."""
    SKIPPED = "skipped"
    """No usable link."""

    __hash__ = str.__hash__  # in C: one is counted for every event and partner


# Delivery


@attrs.frozen
class StagedFile:
    """
    One file of a batch in object storage.

    Attributes:
        url: Where it lies.
        rows: Number of records.
        bytes: Size.
        sha256: Digest of the content, hex.
    """

    url: str
    rows: int
    bytes: int
    sha256: str


@attrs.frozen
class Batch:
    """
    A sealed batch of records.

    Attributes:
        id: Unique; the partner's idempotency key where it has one.
        org: Slug of the organisation.
        integration: Name of the integration.
        mode: One of `Delivery.modes`.
        files: The staged files.
        columns: Names in the order of the files.
        open: Opens one staged file for reading.
        rows: All records, column to text.
        progress: What the plugin saved at its last call.
        save: Makes new progress durable.
    """

    id: str
    org: str
    integration: str
    mode: str
    files: tuple[StagedFile, ...]
    columns: tuple[str, ...]
    open: Callable[[StagedFile], BinaryIO] = _hidden()
    rows: Callable[[], Iterable[Mapping[str, str]]] = _hidden()
    progress: Mapping[str, Any] = _hidden()
    save: Callable[[Mapping[str, Any]], Awaitable[None]] = _hidden()


ReceiptState = Literal["submitted", "running", "published", "handed_over", "rejected", "failed", "uncertain"]


@attrs.frozen
class Receipt:
    """
    How far a batch has come.

    Attributes:
        state: ``submitted``, ``running``, ``published``, ``handed_over``, ``rejected``,
            ``failed`` or ``uncertain``.
        accepted: Records taken, where known.
        rejected: Records refused, where known.
        malformed: Records that could not be read, where known.
        reasons: Code to number of records.
        partner_ref: The partner's own id of the delivery.
        message: What a person should know or do. Holds no value of a record.
    """

    state: ReceiptState = attrs.field(validator=attrs.validators.in_(get_args(ReceiptState)))
    accepted: int | None = None
    rejected: int | None = None
    malformed: int | None = None
    reasons: Mapping[str, int] = attrs.Factory(dict)
    partner_ref: str | None = None
    message: str | None = None
