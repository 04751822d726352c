"""What an organisation wants: its integrations, the store, the budget. Read from YAML or given as a mapping."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from partnerenrich import plugins as plugin_loader
from partnerenrich import recipes
from partnerenrich.blueprint import Blueprint
from partnerenrich.errors import ConfigError, PluginError, Problem
from partnerenrich.models import TTL, Delivery, Limits, LinkingKey
from partnerenrich.plugins import BoundPartner, Plugins
from partnerenrich.secret import Secret
from partnerenrich.settings import (
    FieldError,
    Rule,
    between,
    converter,
    join,
    one_of,
    pattern,
    public,
    structure,
    suggestion,
)
from partnerenrich.yamltext import read_yaml

SLUG = r"[a-z0-9][a-z0-9-]{0,62}"
SOURCES = ("canonical_id", "anonymous_id", "user_id", "email", "phone")
FORMATS = {"csv": ("none", "gzip", "zstd"), "parquet": ("snappy", "zstd", "gzip", "none")}
"""Formats of staged files, each with its compressions, default first."""


class Names(tuple[str, ...]):
    """Names, written as a list or separated by commas."""

    __slots__ = ()


class LinkingKeys(tuple[LinkingKey, ...]):
    """Linking keys, written as a list or as JSON text."""

    __slots__ = ()


class WrittenTTL(dict[str, Any]):
    """Fields of `partnerenrich.TTL`, as they are written."""

    __slots__ = ()


class WrittenLimits(dict[str, Any]):
    """Fields of `partnerenrich.Limits`, as they are written."""

    __slots__ = ()


@attrs.frozen(kw_only=True)
class Batching:
    """
    How events are grouped.

    Attributes:
        size: Events in one batch.
        linger_ms: Milliseconds to wait for a batch to fill.
        in_flight: Batches under way at once.
    """

    size: int = attrs.field(default=500, validator=between(1, 10_000))
    linger_ms: float = attrs.field(default=5, validator=between(0, 60_000))
    in_flight: int = attrs.field(default=4, validator=between(1, 64))


@attrs.frozen(kw_only=True)
class DeliverSettings:
    """
    How records are staged for a destination of batches, and when they leave.

    Attributes:
        staging: Where files are staged: a folder, relative to this file, or the URL of a
            folder in object storage, such as ``s3://bucket/prefix``, ``az://container/prefix``
            or ``gs://bucket/prefix``.
        mode: One of the partner's delivery modes; its first when left out.
        options: For the object storage, such as ``endpoint`` and ``access_key_id``; all of them text.
        format: ``csv`` or ``parquet``; the first that the partner takes when left out.
        compression: ``none``, ``gzip`` or ``zstd``, for Parquet also ``snappy``; by default
            none for CSV and snappy for Parquet.
        collect: ``snapshot``: a batch holds everybody, the latest record of each. ``append``: only
            what is new. By default as the mode needs it.
        key: Column that tells people apart in a snapshot; ``customer_id`` where there is one.
        columns: Column of an input file to column of the blueprint.
        part_rows: About the most records in one Parquet file.
        part_bytes: About the largest size of one file.
        flush_rows: A batch is sealed when so many records have collected.
        flush_bytes: Or so many bytes of them.
        flush_seconds: Or when the oldest has waited for so long; by default a day, and
            no limit beside a schedule.
        schedule: Or at these times, written as for cron, in UTC.
        max_rejected: Share of records that may be set aside; beyond it nothing is sealed.
        deadline: Seconds after its first submission in which a batch has to be taken.
        keep_seconds: For how long the files of a batch are kept once its delivery is over.
    """

    staging: str = attrs.field(
        validator=pattern(
            r"(s3|az|gs|file)://.+|(?![A-Za-z0-9+.-]+://).+",
            "must be a folder, or the URL of one: s3://, az://, gs:// or file://",
        )
    )
    mode: str | None = None
    options: dict[str, Secret] = attrs.field(factory=dict, repr=False)
    format: str | None = attrs.field(default=None, validator=one_of(*FORMATS))
    compression: str | None = attrs.field(default=None, validator=one_of("none", "gzip", "zstd", "snappy"))
    collect: str | None = attrs.field(default=None, validator=one_of("snapshot", "append"))
    key: str | None = None
    columns: dict[str, str] = attrs.field(factory=dict)
    part_rows: int = attrs.field(default=1_000_000, validator=between(1, 100_000_000))
    part_bytes: int = attrs.field(default=256 << 20, validator=between(1 << 16, 5 << 30))
    flush_rows: int = attrs.field(default=1_000_000, validator=between(1, 10**12))
    flush_bytes: int = attrs.field(default=1 << 30, validator=between(1, 10**15))
    flush_seconds: float | None = attrs.field(default=None, validator=between(1, 366 * 86_400))
    schedule: str | None = attrs.field(
        default=None,
        validator=pattern(r"\s*\S+(\s+\S+){4}\s*", "must be five fields as for cron, such as 0 2 * * *"),
    )
    max_rejected: float = attrs.field(default=0.1, validator=between(0, 1))
    deadline: float = attrs.field(default=7200, validator=between(1, 30 * 86_400))
    keep_seconds: float = attrs.field(default=30 * 86_400, validator=between(0, 3660 * 86_400))


@attrs.frozen(kw_only=True)
class IntegrationSettings:
    """
    One partner as one organisation uses it, as it was written.

    Attributes:
        provider: Key of the partner.
        name: Unique in the organisation; the provider by default.
        enabled: False to leave it out.
        settings: The partner's own settings.
        linking_keys: Which identifiers to try, in order; the partner's default when empty.
        browser_attribute_allowlist: Attributes that a browser may see. None by default.
        attributes: Attributes to attach and keep; all when left out.
        consent: Purposes that all must be granted; no gate when left out.
        ttl: How long answers are remembered, in seconds; the partner's own where left out.
        limits: What may be asked of the partner; the partner's own where left out.
        blueprint: For a destination of batches: file of the mapping from events to records,
            relative to this file; the partner's own when left out.
        deliver: For a destination of batches: where records are staged and when they leave.
            Nothing is delivered when left out.
    """

    provider: str = attrs.field(validator=pattern(plugin_loader.KEY_PATTERN.pattern))
    name: str = attrs.field(
        default=attrs.Factory(lambda self: self.provider, takes_self=True), validator=pattern(r"[A-Za-z0-9_-]{1,64}")
    )
    enabled: bool = True
    settings: dict[str, Any] = attrs.field(factory=dict, repr=False)
    linking_keys: LinkingKeys = LinkingKeys()
    browser_attribute_allowlist: Names = Names()
    attributes: Names | None = None
    consent: Names = Names()
    ttl: WrittenTTL = attrs.field(factory=WrittenTTL)
    limits: WrittenLimits = attrs.field(factory=WrittenLimits)
    blueprint: str | None = None
    deliver: DeliverSettings | None = None


@attrs.frozen(kw_only=True)
class HubLimits:
    """
    What the hub takes from outside.

    Attributes:
        visitor_per_minute: Profiles that one visitor may read in a minute, at all hubs together.
        address_per_minute: Reads, and likewise writes, of all browsers behind one address in a minute.
        queue: Events that wait to be enriched in one process.
    """

    visitor_per_minute: int = attrs.field(default=10, validator=between(1, 1_000_000))
    address_per_minute: int = attrs.field(default=1200, validator=between(1, 100_000_000))
    queue: int = attrs.field(default=10_000, validator=between(1, 1_000_000))


def _are_networks(names: Names) -> bool:
    try:
        return all(ipaddress.ip_network(name) for name in names)
    except ValueError:
        return False


def _each(regex: str, expected: str) -> Rule:
    matches = re.compile(regex).fullmatch
    return Rule(lambda names: all(map(matches, names)), expected, {})


_HOST = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]"
_ORIGIN = rf"https://({_HOST})(:\d{{1,5}})?|http://(localhost|127\.0\.0\.1|\[::1\])(:\d{{1,5}})?"
_LONG_SECRET = pattern(r"[\s\S]{16,}", "must have at least 16 characters")


@attrs.frozen(kw_only=True)
class HubSettings:
    """
    What concerns the browser. `limits` and `proxies` are of the whole process, all else is of one organisation.

    Attributes:
        hosts: Host names under which the hub serves this organisation, without a port.
            Any, where there is but one organisation and it names none.
        origins: Pages that may call the hub, such as ``https://www.shop.example``.
        public_key: Names the organisation in calls of its pages; no secret.
        ingest_secret: Signs the calls of the shop's backend.
        identity_secret: Signs the person ids that a page passes to ``identify``.
        cookie_domain: Domain of the cookies, such as ``shop.example``; the hub's own host when left out.
        browser_identity: ``signed``: a person id feeds the browser copy only when the
            shop's backend signed it. ``trusted``: as the event says.
        limits: What the hub takes from outside.
        proxies: Addresses or networks of reverse proxies whose ``X-Forwarded-For`` is believed.
    """

    hosts: Names = attrs.field(
        default=Names(), validator=_each(_HOST, "must be host names in lower case, without scheme and port")
    )
    origins: Names = attrs.field(
        default=Names(),
        validator=_each(_ORIGIN, "must be origins such as https://www.shop.example; http:// on localhost only"),
    )
    public_key: str | None = attrs.field(
        default=None, validator=pattern(r"[A-Za-z0-9_-]{1,64}", "must be up to 64 letters, digits, _ and -")
    )
    ingest_secret: Secret | None = attrs.field(default=None, validator=_LONG_SECRET)
    identity_secret: Secret | None = attrs.field(default=None, validator=_LONG_SECRET)
    cookie_domain: str | None = attrs.field(
        default=None, validator=pattern(r"([a-z0-9-]+\.)+[a-z0-9-]+", "must be a domain, such as shop.example")
    )
    browser_identity: str = attrs.field(default="signed", validator=one_of("signed", "trusted"))
    limits: HubLimits = HubLimits()
    proxies: Names = attrs.field(
        default=Names(), validator=Rule(_are_networks, "must be IP addresses or networks, such as 10.0.0.0/8", {})
    )


_BROKER = r"[^/@,\s]+:\d{1,5}"


@attrs.frozen(kw_only=True)
class StreamSettings:
    """
    Where the hub writes the events that it has enriched.

    Attributes:
        kind: ``redis``, a Redis Stream, or ``kafka``.
        url: Of the broker: ``redis://``, ``rediss://`` or ``unix://``; ``kafka://`` or, with TLS,
            ``kafka+ssl://``, with one or more ``host:port``, and a user and password for SASL.
        output: Name of the stream or topic.
        max_length: About how many events the Redis Stream keeps; all when left out.
        options: For Kafka, further properties of librdkafka, such as ``ssl.ca.location``; all of them text.
    """

    kind: str = attrs.field(validator=one_of("redis", "kafka"))
    url: Secret = attrs.field(
        validator=pattern(
            rf"(redis|rediss|unix)://.+|kafka(\+ssl)?://([^/@]*@)?{_BROKER}(,{_BROKER})*/?",
            "must be redis://, rediss:// or unix://, or kafka:// or kafka+ssl:// with host:port, several separated by"
            " commas; write / and @ in a password as %2F and %40",
        )
    )
    output: str = attrs.field(
        default="enriched-events",
        validator=pattern(r"[A-Za-z0-9._:-]{1,249}", "must be up to 249 letters, digits, ., _, : and -"),
    )
    max_length: int | None = attrs.field(default=None, validator=between(1, 10**12))
    options: dict[str, Secret] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True)
class OrgSettings:
    """
    One organisation.

    Attributes:
        integrations: Its partners.
        default_region: ISO 3166 country of phone numbers written without a country code.
        hub: What concerns its browsers.
    """

    integrations: tuple[IntegrationSettings, ...] = ()
    default_region: str | None = attrs.field(
        default=None, validator=pattern("[A-Z]{2}", "must be a country, such as GB")
    )
    hub: HubSettings = HubSettings()


_KEY = pattern("[A-Za-z0-9+/]{43}=", "must be 32 bytes in base64; partnerenrich secrets generate-key makes one")


@attrs.frozen(kw_only=True)
class Configuration:
    """
    The whole configuration.

    Attributes:
        org: Slug, for a configuration of one organisation.
        integrations: Its partners, when `org` is used.
        orgs: Slug to organisation, for several.
        store: URL of the memory: ``redis://``, ``rediss://``, ``unix://``,
            ``redis+cluster://``, or what the server adds, ``embedded:``.
        key: 32 random bytes, base64, for the fingerprints in the memory.
        default_region: See `OrgSettings`; for all organisations that set none.
        budget_ms: Milliseconds for which an event may be held back.
        batch: How events are grouped.
        plugins_dir: Folder of one-file plugins, relative to the file.
        extensions: Plugins that wrap hooks.
        org_from: Path in the event that names the organisation.
        hub: What concerns the browser; with `orgs`, what concerns the whole process.
        stream: Where the hub writes the events that it has enriched; nowhere when left out.
        ledger: What became of each batch: URL of a database as SQLAlchemy writes it,
            ``sqlite:///`` with a path, relative to this file, or ``postgresql+psycopg://``.
    """

    org: str | None = attrs.field(default=None, validator=pattern(SLUG))
    integrations: tuple[IntegrationSettings, ...] = ()
    orgs: dict[str, OrgSettings] = attrs.field(factory=dict)
    store: str | None = attrs.field(
        default=None,
        repr=False,
        validator=pattern(
            r"(redis|rediss|unix|redis\+cluster|rediss\+cluster)://.+|embedded:.*",
            "must be redis://, rediss://, unix://, redis+cluster:// or embedded:",
        ),
    )
    key: Secret | None = attrs.field(default=None, validator=_KEY)
    default_region: str | None = attrs.field(
        default=None, validator=pattern("[A-Z]{2}", "must be a country, such as GB")
    )
    budget_ms: float | None = attrs.field(default=None, validator=between(1, 600_000))
    batch: Batching = Batching()
    plugins_dir: str | None = None
    extensions: Names = Names()
    org_from: str | None = None
    hub: HubSettings = HubSettings()
    stream: StreamSettings | None = None
    ledger: str = attrs.field(
        default="sqlite:///partnerenrich.db",
        repr=False,
        validator=pattern(
            r"[a-z0-9]+(\+[a-z0-9_]+)?://.*", "must be the URL of a database, such as sqlite:///partnerenrich.db"
        ),
    )

    def organisations(self) -> dict[str, OrgSettings]:
        """Slug to organisation, however it was written."""
        written = {self.org: OrgSettings(integrations=self.integrations, hub=self.hub)} if self.org else self.orgs
        return {
            slug: org if org.default_region else attrs.evolve(org, default_region=self.default_region)
            for slug, org in written.items()
        }

    def providers(self) -> list[str]:
        """Keys of all partners that are in use."""
        used = (i for org in self.organisations().values() for i in org.integrations if i.enabled)
        return list(dict.fromkeys(integration.provider for integration in used))


@attrs.frozen(eq=False)
class BatchDelivery:
    """
    How one integration delivers, with every choice made.

    Attributes:
        settings: As written, with ``mode``, ``format``, ``compression`` and ``collect`` filled in,
            and ``key`` where it collects a snapshot.
        blueprint: From an event to a record.
        default_region: ISO 3166 country of phone numbers without a country code.
    """

    settings: DeliverSettings = attrs.field(repr=False)
    blueprint: Blueprint
    default_region: str | None = None


@attrs.frozen(eq=False)
class Integration:
    """
    One partner as one organisation uses it, ready to run.

    Attributes:
        org: Slug of the organisation.
        name: Unique in the organisation.
        partner: The partner's hooks.
        config: An instance of the partner's settings class.
        linking_keys: Which identifiers to try, in order.
        allowlist: Attributes that a browser may see.
        attributes: Attributes to attach and keep; None for all.
        consent: Purposes that all must be granted.
        ttl: How long answers are remembered.
        limits: What may be asked of the partner.
        version: Changes when an answer that was remembered no longer fits these settings.
        delivery: How it delivers batches; None when it does not.
    """

    org: str
    name: str
    partner: BoundPartner
    config: Any = attrs.field(repr=False)
    linking_keys: tuple[LinkingKey, ...]
    allowlist: frozenset[str]
    attributes: frozenset[str] | None
    consent: tuple[str, ...]
    ttl: TTL
    limits: Limits
    version: str
    delivery: BatchDelivery | None = None

    @property
    def provider(self) -> str:
        """Key of the partner."""
        return self.partner.key


def load_file(path: Path, environment: Mapping[str, str] = os.environ) -> Configuration:
    """
    Read a YAML file.

    Args:
        path: The file. Relative paths in it are meant from its folder.
        environment: What ``${NAME}`` stands for.

    Raises:
        ConfigError: The file cannot be read, or some of its fields are wrong; each problem names field and line.
    """
    text = _read(path)
    document = read_yaml(text)
    try:
        loaded = load_mapping(document.value, environment)
    except ConfigError as error:
        raise document.located(error) from None
    return _anchored(loaded, path.parent)


def load_mapping(raw: object, environment: Mapping[str, str] = os.environ) -> Configuration:
    """
    Check plain data and make a configuration of it.

    Raises:
        ConfigError: Some fields are wrong.
    """
    problems: list[Problem] = []
    filled = _fill(raw, environment, "", problems)
    unset = [problem.where for problem in problems]
    try:
        loaded = structure(Configuration, filled)
    except ConfigError as error:
        # what holds a variable that is not set is wrong for that alone
        problems += [each for each in error.problems if not any(place.startswith(each.where) for place in unset)]
    if not problems:
        problems += _contradictions(loaded)
    if problems:
        raise ConfigError(problems)
    return loaded


def bind(configuration: Configuration) -> tuple[dict[str, tuple[Integration, ...]], Plugins]:
    """
    Load the partners in use and check the settings of each integration.

    A partner that does not load disables its own integrations only.

    Returns:
        Slug of each organisation to its integrations, and the plugins.

    Raises:
        ConfigError: Settings of an integration are wrong.
        PluginError: An extension does not load.
    """
    folder = Path(configuration.plugins_dir) if configuration.plugins_dir else None
    loaded = plugin_loader.load(configuration.providers(), extensions=configuration.extensions, plugins_dir=folder)
    problems: list[Problem] = []
    bound: dict[str, tuple[Integration, ...]] = {}
    for slug, org in configuration.organisations().items():
        base = "integrations" if configuration.org else f"orgs.{slug}.integrations"
        integrations: list[Integration] = []
        for index, written in enumerate(org.integrations):
            if written.enabled and written.provider in loaded.partners:
                where, partner = join(base, index), loaded.partners[written.provider]
                if partner.enriches and any(other.partner is partner for other in integrations):
                    what = f"provider {partner.key!r} is used twice in one organisation"
                    problems.append(Problem(where, what))
                try:
                    integrations.append(_bind_one(slug, org.default_region, written, partner, where))
                except ConfigError as error:
                    problems += error.problems
        bound[slug] = tuple(integrations)
    if problems:
        raise ConfigError(problems)
    return bound, loaded


def located_in(path: Path, error: ConfigError) -> ConfigError:
    """The problems that `bind` found in a configuration, each with its line in the file that it was read from."""
    return read_yaml(_read(path)).located(error)


def decode_key(key: Secret) -> bytes:
    """
    The 32 bytes of a configured key.

    Raises:
        ConfigError: It is something else.
    """
    try:
        raw = base64.b64decode(key.reveal(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ConfigError([Problem("key", _KEY.expected)])
    return raw


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    # outside `except`: the error of the decoder holds the whole file
    raise ConfigError([Problem(str(path), f"cannot be read: {reason}")])


def _bind_one(
    org: str, region: str | None, written: IntegrationSettings, partner: BoundPartner, where: str
) -> Integration:
    facts = partner.facts
    linking_keys = tuple(written.linking_keys) or facts.linking_keys
    problems: list[Problem] = []
    try:
        config = structure(facts.config, written.settings, join(where, "settings"))
    except ConfigError as error:
        problems += error.problems
    try:
        delivery = _bind_delivery(written, partner, region, where)
    except ConfigError as error:
        problems += error.problems
    if not linking_keys and partner.resolves:
        problems.append(Problem(join(where, "linking_keys"), "is required: this partner has no default"))
    if problems:
        raise ConfigError(problems)
    ttl = structure(TTL, {**attrs.asdict(facts.ttl), **written.ttl}, join(where, "ttl"))
    limits = structure(Limits, {**attrs.asdict(facts.limits), **written.limits}, join(where, "limits"))
    identity = {
        "settings": public(config),
        "linking_keys": [attrs.astuple(key) for key in linking_keys],
        "attributes": written.attributes,
        "allowlist": written.browser_attribute_allowlist,
    }
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True, default=str).encode(), digest_size=6)
    return Integration(
        org=org,
        name=written.name,
        partner=partner,
        config=config,
        linking_keys=linking_keys,
        allowlist=frozenset(written.browser_attribute_allowlist),
        attributes=frozenset(written.attributes) if written.attributes is not None else None,
        consent=tuple(written.consent),
        ttl=ttl,
        limits=limits,
        version=digest.hexdigest(),
        delivery=delivery,
    )


def _bind_delivery(
    written: IntegrationSettings, partner: BoundPartner, region: str | None, where: str
) -> BatchDelivery | None:
    if written.deliver is None:
        if written.blueprint is not None:
            raise ConfigError([Problem(join(where, "blueprint"), "is for delivery; add deliver, too")])
        return None
    facts = partner.facts.delivery
    if not partner.supports("deliver_batch") or facts is None:
        raise ConfigError([Problem(join(where, "deliver"), "this partner takes no batches; remove it")])
    blueprint = _read_blueprint(written.blueprint, facts, join(where, "blueprint"))
    settings = _chosen(written.deliver, facts, join(where, "deliver"))
    if settings.collect == "snapshot":
        settings = attrs.evolve(settings, key=settings.key or "customer_id")
        if settings.key not in blueprint.columns:
            what = f"must be a column of the blueprint: {', '.join(blueprint.columns)}; or write collect: append"
            raise ConfigError([Problem(join(where, "deliver.key"), what)])
    if unknown := set(settings.columns.values()) - set(blueprint.columns):
        what = f"no column of the blueprint; {suggestion(min(unknown), list(blueprint.columns))}"
        raise ConfigError([Problem(join(where, "deliver.columns"), f"{min(unknown)!r} is {what}")])
    return BatchDelivery(settings, blueprint, region)


def _read_blueprint(file: str | None, facts: Delivery, where: str) -> Blueprint:
    if file is None:
        return Blueprint.from_yaml(facts.default_blueprint)
    try:
        return Blueprint.from_file(Path(file))
    except ConfigError as error:
        problems = error.problems
    raise ConfigError([Problem(where, str(problem)) for problem in problems])


def _chosen(written: DeliverSettings, facts: Delivery, where: str) -> DeliverSettings:
    """The settings with what the partner decides where they are silent."""
    mode = written.mode or next(iter(facts.modes), None)
    format_ = written.format or next((each for each in facts.formats if each in FORMATS), None)
    problems = []
    if facts.modes and mode not in facts.modes:
        problems.append(Problem(join(where, "mode"), f"must be one of {', '.join(facts.modes)}"))
    if format_ is None or format_ not in facts.formats:
        problems.append(Problem(join(where, "format"), f"the partner takes {', '.join(facts.formats)}"))
    elif written.compression and written.compression not in FORMATS[format_]:
        what = f"must be one of {', '.join(FORMATS[format_])} for {format_}"
        problems.append(Problem(join(where, "compression"), what))
    if problems or format_ is None:
        raise ConfigError(problems)
    return attrs.evolve(
        written,
        mode=mode,
        format=format_,
        compression=written.compression or FORMATS[format_][0],
        collect=written.collect or ("append" if mode in facts.appends else "snapshot"),
    )


def _anchored(configuration: Configuration, folder: Path) -> Configuration:
    """The same with its relative paths meant from a folder."""

    def path(written: str) -> str:
        return str(folder / Path(written).expanduser())

    def integration(written: IntegrationSettings) -> IntegrationSettings:
        deliver = written.deliver
        if deliver and "://" not in deliver.staging:
            deliver = attrs.evolve(deliver, staging=path(deliver.staging))
        return attrs.evolve(written, blueprint=written.blueprint and path(written.blueprint), deliver=deliver)

    def all_of(written: tuple[IntegrationSettings, ...]) -> tuple[IntegrationSettings, ...]:
        return tuple(map(integration, written))

    scheme, _, file = configuration.ledger.partition(":///")
    return attrs.evolve(
        configuration,
        integrations=all_of(configuration.integrations),
        orgs={
            slug: attrs.evolve(org, integrations=all_of(org.integrations)) for slug, org in configuration.orgs.items()
        },
        plugins_dir=configuration.plugins_dir and path(configuration.plugins_dir),
        ledger=f"{scheme}:///{path(file)}" if scheme.startswith("sqlite") and file else configuration.ledger,
    )


def _contradictions(loaded: Configuration) -> list[Problem]:
    problems: list[Problem] = []
    if bool(loaded.org) == bool(loaded.orgs):
        problems.append(Problem("org", "give either org (one organisation) or orgs (several)"))
    if loaded.orgs and loaded.integrations:
        problems.append(Problem("integrations", "belongs below an organisation when orgs is used"))
    problems += [
        Problem(f"orgs.{slug}", "a slug has lower-case letters, digits and hyphens only")
        for slug in loaded.orgs
        if not re.fullmatch(SLUG, slug)
    ]
    for slug, org in loaded.organisations().items():
        base = "integrations" if loaded.org else f"orgs.{slug}.integrations"
        enabled = [(index, each) for index, each in enumerate(org.integrations) if each.enabled]
        seen: set[str] = set()
        for index, integration in enabled:
            if integration.name in seen:
                what = f"name {integration.name!r} is used twice in one organisation"
                problems.append(Problem(join(base, index), what))
            seen.add(integration.name)
    return problems + _contradictions_of_hub(loaded) + _contradictions_of_stream(loaded.stream)


_OF_THE_PROCESS = frozenset({"limits", "proxies"})


def _contradictions_of_hub(loaded: Configuration) -> list[Problem]:
    """Fields of the hub that stand in the wrong place, or name two organisations."""
    if not loaded.orgs:
        return []
    problems = [
        Problem(f"hub.{name}", "belongs below an organisation, orgs.SLUG.hub, when orgs is used")
        for name in _set_in(loaded.hub) - _OF_THE_PROCESS
    ]
    taken: set[str] = set()
    for slug, org in loaded.orgs.items():
        base = f"orgs.{slug}.hub"
        problems += [
            Problem(f"{base}.{name}", "belongs to the top-level hub, for it is of the whole process")
            for name in _set_in(org.hub) & _OF_THE_PROCESS
        ]
        names = {*org.hub.hosts, f"key {org.hub.public_key}"} - {"key None"}
        if names & taken:
            problems.append(Problem(base, "has a host or a public_key of another organisation"))
        taken |= names
    return sorted(problems, key=str)


def _contradictions_of_stream(stream: StreamSettings | None) -> list[Problem]:
    """Fields that do not go with the kind of the stream."""
    if stream is None:
        return []
    is_kafka = stream.kind == "kafka"
    found = {
        "url": stream.url.reveal().startswith("kafka") != is_kafka and f"is no URL for the kind {stream.kind}",
        "output": is_kafka and ":" in stream.output and "a topic has letters, digits, ., _ and - only",
        "max_length": is_kafka and stream.max_length and "is for redis; a topic has its own retention",
        "options": not is_kafka and stream.options and "is for kafka; remove it",
    }
    return [Problem(f"stream.{name}", str(what)) for name, what in found.items() if what]


def _set_in(hub: HubSettings) -> set[str]:
    return {field.name for field in attrs.fields(HubSettings) if getattr(hub, field.name) != field.default}


_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def _fill(raw: object, environment: Mapping[str, str], where: str, problems: list[Problem]) -> object:
    if isinstance(raw, Mapping):
        return {key: _fill(value, environment, join(where, str(key)), problems) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_fill(value, environment, join(where, index), problems) for index, value in enumerate(raw)]
    if not isinstance(raw, str):
        return raw

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environment:
            problems.append(Problem(where, f"the environment variable {name} is not set"))
        return environment.get(name, "")

    return _VARIABLE.sub(value_of, raw)


def _structure_names(raw: Any, _: Any) -> Names:
    if isinstance(raw, str):
        raw = [name.strip() for name in raw.split(",") if name.strip()]
    if not isinstance(raw, (list, tuple)) or not all(isinstance(name, str) for name in raw):
        raise FieldError("must be a list of names, or names separated by commas")
    return Names(raw)


def _structure_linking_keys(raw: Any, _: Any) -> LinkingKeys:
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise FieldError("is text but no JSON array of {source, key, hash}") from None
    if not isinstance(raw, (list, tuple)):
        raise FieldError("must be a list of {source, key, hash}")
    return LinkingKeys(converter.structure(raw, tuple[LinkingKey, ...]))


def _structure_written(cls: type) -> Callable[[Any, Any], Any]:
    """The partner's defaults come below, so that it stays a mapping; what is wrong in it is told at once."""

    def hook(raw: Any, kind: Any) -> Any:
        converter.structure(raw, cls)
        return kind(raw)

    return hook


def _structure_linking_key(raw: Any, _: Any) -> LinkingKey:
    if not isinstance(raw, Mapping) or not raw.keys() <= {"source", "key", "hash"} or "source" not in raw:
        raise FieldError("must have source and key, may have hash, and nothing else")
    values = {"key": raw["source"], "hash": "none"} | {k: v for k, v in raw.items() if v is not None}
    if not all(isinstance(value, str) for value in values.values()):
        raise FieldError("source, key and hash must be text")
    if values["source"] not in SOURCES and not values["source"].startswith("$"):
        raise FieldError(f"source must be one of {', '.join(SOURCES)}, or a path such as $traits.loyalty_id")
    if values["hash"] not in recipes.HASHES:
        raise FieldError(f"hash must be one of {', '.join(recipes.HASHES)}")
    if not recipes.fits(values["hash"], values["source"]):
        raise FieldError(f"hash {values['hash']} can make nothing of {values['source']}")
    return LinkingKey(**values)


converter.register_structure_hook(Names, _structure_names)
converter.register_structure_hook(LinkingKeys, _structure_linking_keys)
converter.register_structure_hook(LinkingKey, _structure_linking_key)
converter.register_structure_hook(WrittenTTL, _structure_written(TTL))
converter.register_structure_hook(WrittenLimits, _structure_written(Limits))
converter.register_unstructure_hook(Names, list)

__all__ = [
    "BatchDelivery",
    "Batching",
    "Configuration",
    "DeliverSettings",
    "HubLimits",
    "HubSettings",
    "Integration",
    "IntegrationSettings",
    "OrgSettings",
    "PluginError",
    "StreamSettings",
    "bind",
    "decode_key",
    "load_file",
    "load_mapping",
    "located_in",
]
