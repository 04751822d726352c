"""Who is in an event: known ids, linking keys, fingerprints, consent."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import attrs

from partnerenrich import identity_signature, recipes
from partnerenrich.events import NO_CONTEXT, at_path, object_of, value_of
from partnerenrich.models import KnownIDs, Link, Visitor
from partnerenrich.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

    from partnerenrich.events import Event
    from partnerenrich.models import LinkingKey

DEVICE_SOURCES = frozenset({"canonical_id", "anonymous_id"})
"""Sources that name a device. All others name a person."""

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_NO_OTHERS: dict[str, str] = {}


@attrs.frozen(eq=False)
class Fingerprints:
    """
    Turns identifiers into keyed digests that are safe in a store.

    Args:
        key: 32 secret bytes.
        org: The same identifier has another fingerprint in another organisation.
    """

    _hasher: Any = attrs.field(repr=False)
    _begun: dict[str, Any] = attrs.field(factory=dict, repr=False)

    @classmethod
    def of(cls, key: bytes, org: str) -> Fingerprints:
        """Fingerprints of one organisation."""
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - slow to import, needed once
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

        derived = HKDF(SHA256(), 32, salt=None, info=b"partnerenrich fingerprint " + org.encode()).derive(key)
        return cls(hashlib.blake2b(key=derived, digest_size=16))

    def __call__(self, source: str, value: str) -> str:
        """The fingerprint of one identifier: 32 hexadecimal digits."""
        hasher = (self._begun.get(source) or self._begin(source)).copy()
        hasher.update(value.encode())
        digest: str = hasher.hexdigest()
        return digest

    def _begin(self, source: str) -> Any:
        hasher = self._begun[source] = self._hasher.copy()
        hasher.update(f"{source}\0".encode())
        return hasher


@attrs.frozen(eq=False)
class Reader:
    """
    Reads the identity of one organisation's events.

    Attributes:
        fingerprint: Of this organisation.
        default_region: Country of phone numbers without a country code.
        paths: Further person ids, such as ``$traits.loyalty_id``, to their steps.
        identity_secret: Of signed person ids.
    """

    fingerprint: Fingerprints
    default_region: str | None
    paths: dict[str, tuple[str, ...]]
    identity_secret: Secret | None = None

    @classmethod
    def of(
        cls,
        fingerprint: Fingerprints,
        default_region: str | None,
        linking_keys: Iterable[LinkingKey],
        identity_secret: Secret | None = None,
    ) -> Reader:
        """A reader that knows all sources of these linking keys."""
        custom = {key.source for key in linking_keys if key.source.startswith("$")}
        paths = {path: tuple(path[1:].split(".")) for path in custom}
        return cls(fingerprint, default_region, paths, identity_secret)

    def known_ids(self, event: Event) -> KnownIDs:
        """All identifiers of an event, normalised. Of the places where one is found, the first valid wins."""
        head = event.head
        context = head.context or NO_CONTEXT
        anonymous_id = _first_id(head.anonymousId, head.anonymous_id)
        user_id = _first_id(head.userId, head.user_id)
        canonical_id = (
            _first_id(context.canonical_id, context.canonicalId)
            or _first_id(head.canonical_id, head.canonicalId)
            or anonymous_id
        )
        email = phone = None
        for contact in (head.properties, head.traits, context.traits):
            if contact is not None:
                if email is None and contact.email is not None:
                    email = recipes.normalise_email(contact.email)
                if phone is None and contact.phone is not None:
                    phone = recipes.normalise_phone(contact.phone, self.default_region)
        others = self._others(event) if self.paths else _NO_OTHERS
        return KnownIDs(canonical_id, anonymous_id, user_id, email, phone, others)

    def _others(self, event: Event) -> dict[str, str]:
        others = {}
        for source, path in self.paths.items():
            value = recipes.captured(source, at_path(event.fields, path), self.default_region)
            if value is None and path[0] == "traits":
                value = recipes.captured(source, at_path(event.context or {}, path), self.default_region)
            if value is not None:
                others[source] = value
        return others

    def safe_canonical_id(self, known: KnownIDs) -> str | None:
        """The canonical id in a form that is safe in a key: a fingerprint where it is not plain."""
        if known.canonical_id is None:
            return None if known.user_id is None else self.fingerprint("user_id", known.user_id)
        if _SAFE_ID(known.canonical_id):
            return known.canonical_id
        return self.fingerprint("canonical_id", known.canonical_id)

    def persons(self, known: KnownIDs) -> dict[str, str]:
        """Fingerprint of each person id, by source."""
        fingerprints = {}
        if known.user_id is not None:
            fingerprints["user_id"] = self.fingerprint("user_id", known.user_id)
        if known.email is not None:
            fingerprints["email"] = self.fingerprint("email", known.email)
        if known.phone is not None:
            fingerprints["phone"] = self.fingerprint("phone", known.phone)
        if known.others:
            fingerprints |= {source: self.fingerprint(source, value) for source, value in known.others.items()}
        return fingerprints

    def vouched(self, event: Event, known: KnownIDs) -> frozenset[str]:
        """Sources of the person ids that the event's ``signature`` vouches for."""
        if self.identity_secret is None or "signature" not in event.fields:
            return frozenset()
        traits = object_of(event.fields["traits"]) if "traits" in event.fields else None
        user_id = _text(event.fields.get("userId", event.fields.get("user_id")))
        email, phone = (_text((traits or {}).get(name)) for name in ("email", "phone"))
        secret, signature = self.identity_secret.reveal().encode(), _text(event.fields["signature"])
        if not identity_signature.verify(secret, signature, user_id=user_id, email=email, phone=phone):
            return frozenset()
        signed = {
            "user_id": recipes.normalise_id(user_id),
            "email": recipes.normalise_email(email),
            "phone": recipes.normalise_phone(phone, self.default_region),
        }
        return frozenset(source for source, value in signed.items() if value and value == identifier(known, source))

    def link(self, key: LinkingKey, known: KnownIDs) -> Link | None:
        """One linking key as it is sent to the partner; None when its recipe does not fit the identifier."""
        value = identifier(known, key.source)
        if value is None:
            return None
        sent = recipes.to_captured(key.hash, key.source)(value)
        return None if sent is None else Link(key.source, key.key, sent, key.hash)

    def visitor(self, event: Event, links: tuple[Link, ...]) -> Visitor:
        """What a partner may know of the visitor beyond one link."""
        context = event.context or {}
        page = object_of(context["page"]) if "page" in context else None
        return Visitor(
            links,
            ip=_text(context.get("ip")),
            user_agent=_text(context.get("userAgent", context.get("user_agent"))),
            page_url=_text((page or {}).get("url")),
        )


def identifier(known: KnownIDs, source: str) -> str | None:
    """The identifier that a linking key's source means."""
    value: str | None = known.others.get(source) if source[0] == "$" else getattr(known, source)
    return value


def event_id(event: Event | None) -> str | None:
    """The id of the event itself."""
    if event is None:
        return None
    head = event.head
    return _first_id(head.messageId, head.message_id)


def consents(event: Event) -> dict[str, bool]:
    """
    Purpose to decision, as the event says.

    ``context.consent.canonical`` where there is one, else the flat object
    ``context.consent``. A decision that is not a boolean is none.
    """
    context = event.head.context
    consent = None if context is None else context.consent
    if isinstance(consent, dict) and isinstance(consent.get("canonical"), dict):
        consent = consent["canonical"]
    if not isinstance(consent, dict):
        return {}
    return {purpose: decision for purpose, decision in consent.items() if isinstance(decision, bool)}


def _first_id(value: object, other: object) -> str | None:
    found = None if value is None else recipes.normalise_id(value)
    return found if found is not None or other is None else recipes.normalise_id(other)


def _text(raw: msgspec.Raw | None) -> str | None:
    value = value_of(raw)
    return value if isinstance(value, str) else None
