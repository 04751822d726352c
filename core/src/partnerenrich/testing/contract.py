"""What every plugin must keep to, as tests to inherit."""

from __future__ import annotations

import asyncio
import json
import typing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import attrs
import pytest
from msgspec import structs

from partnerenrich import plugins, recipes
from partnerenrich.bulk import size_of
from partnerenrich.configuration import SOURCES
from partnerenrich.errors import (
    AuthError,
    BadResponse,
    ConfigError,
    PartnerError,
    PluginError,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from partnerenrich.models import Resolution, Sandbox
from partnerenrich.secret import Secret
from partnerenrich.settings import public, structure
from partnerenrich.testing.bench import (
    GRACE,
    HURRIED,
    OPERATIONS,
    RETRY_AFTER,
    Bench,
    NoPartnerId,
    Observed,
    open_bench,
)
from partnerenrich.testing.faults import MODES
from partnerenrich.testing.handlers import HandlerApp
from partnerenrich.testing.leaks import SHORTEST, Canaries, errors_text, planted

if typing.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from partnerenrich.models import Link, LinkingKey
    from partnerenrich.plugins import BoundPartner

CREDENTIAL_WORDS = frozenset({"key", "secret", "token", "password", "passphrase", "credential", "credentials"})
"""A setting whose name ends in one of these holds a credential, unless `PluginContract.not_secret` names it."""

SAMPLE: Mapping[str, Sequence[Mapping[str, str]]] = {
    "known": [
        {
            "canonical_id": "c4a760a8-dbcf-4e14-9f39-645a8e933d74",
            "anonymous_id": "c4a760a8-dbcf-4e14-9f39-645a8e933d74",
            "user_id": "customer-20931",
            "email": "pat@example.test",
            "phone": "+442079460123",
        }
    ],
    "unknown": [
        {
            "canonical_id": "5d0c6a4e-6a43-4b1c-8f4c-7f5e0c6b1a11",
            "anonymous_id": "5d0c6a4e-6a43-4b1c-8f4c-7f5e0c6b1a11",
            "user_id": "customer-77777",
            "email": "nobody@example.test",
            "phone": "+442079460999",
        }
    ],
}
"""Visitors for a plugin that is driven by handlers and names none."""

E = TypeVar("E", bound=PartnerError)

MOST_LINKS = 5_000
"""Most links in the check of a full call."""
VERY_PATIENT = 30.0
"""Seconds for a full call."""

_NO_IDENTIFIER = "this is no identifier"

_SLOW_MODES = {"timeout", "slow_drip"}

each_operation = pytest.mark.parametrize("operation", OPERATIONS)


class PluginContract:
    """
    The conformance suite. Inherit it in a plugin's own tests::

        class TestLoyalty(PluginContract):
            provider = "loyalty"

    It drives the plugin through its own ``sandbox()``, on a socket of this
    machine, through the same client and governor as in production. A plugin
    without a sandbox is driven by two functions that stand for the partner,
    ``found`` and ``unknown``, for visitors that it knows and does not know::

        class TestLoyalty(PluginContract):
            plugin = Path("partners/loyalty.py")
            settings = {"base_url": "https://loyalty.example.test", "api_key": "a-key-for-tests"}

            def found(self, request):
                return httpx.Response(200, json={"id": "member-1"})

            def unknown(self, request):
                return httpx.Response(404)

    A check of a hook that the plugin does not have is skipped.

    Attributes:
        provider: The plugin's key. Not needed when `plugin` is a path.
        plugin: A module, an object, or the path of a one-file plugin; by default the
            installed plugin of that key.
        settings: Good settings; by default, and in addition, those of the sandbox.
        sample: Visitors, as in `partnerenrich.Sandbox`; by default those of the sandbox.
        linking_keys: By default the partner's own.
        not_secret: Settings that hold no credential although their names say so.
    """

    provider: ClassVar[str] = ""
    plugin: ClassVar[object] = None
    settings: ClassVar[Mapping[str, Any]] = {}
    sample: ClassVar[Mapping[str, Sequence[Mapping[str, str]]] | None] = None
    linking_keys: ClassVar[Sequence[LinkingKey]] = ()
    not_secret: ClassVar[frozenset[str]] = frozenset()

    def found(self, request: httpx.Request) -> httpx.Response:
        """Answer as the partner does for a visitor that it knows."""
        raise NotImplementedError

    def unknown(self, request: httpx.Request) -> httpx.Response:
        """Answer as the partner does for a visitor that it does not know."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def partner(cls) -> BoundPartner:
        """The plugin, loaded."""
        try:
            return _load(cls.provider, cls.plugin)
        except PluginError:
            pytest.skip("the plugin does not load: see test_plugin_loads")

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, partner: BoundPartner) -> Iterator[Bench]:
        """The plugin in front of its imitation."""
        if cls.found is PluginContract.found:
            if not partner.supports("sandbox"):
                pytest.fail(f"give {partner.key} a sandbox() hook, or {cls.__name__} the methods found and unknown")
            sandbox = partner.sandbox()
        else:
            author = cls()
            sandbox = Sandbox(app=HandlerApp(author.found, author.unknown), settings={}, sample=SAMPLE)
        linking_keys = cls.linking_keys or partner.facts.linking_keys
        settings, sample = {**sandbox.settings, **cls.settings}, cls.sample or sandbox.sample
        with open_bench(partner, app=sandbox.app, settings=settings, sample=sample, linking_keys=linking_keys) as bench:
            try:
                bench.config()
            except ConfigError:
                pytest.skip("the settings are not accepted: see test_good_settings_are_accepted")
            yield bench

    # What the plugin says of itself

    def test_plugin_loads(self) -> None:
        """It is found, imports, has known hooks with known arguments, and says what it is."""
        try:
            partner = _load(self.provider, self.plugin)
        except PluginError as error:
            pytest.fail(str(error))
        assert partner.facts.title.strip(), "partner() gives no title"
        for key in partner.facts.linking_keys:
            assert key.hash in recipes.HASHES, f"linking key {key.key}: hash must be one of {', '.join(recipes.HASHES)}"
            assert key.source in SOURCES or key.source.startswith("$"), f"linking key {key.key}: unknown source"

    def test_good_settings_are_accepted(self, partner: BoundPartner) -> None:
        """The settings class takes what the sandbox, or the author, calls good."""
        settings = self.settings
        if type(self).found is PluginContract.found and partner.supports("sandbox"):
            settings = {**partner.sandbox().settings, "base_url": "http://127.0.0.1:9", **settings}
        try:
            structure(partner.facts.config, settings, "settings")
        except ConfigError as error:
            pytest.fail(str(error))

    def test_missing_setting_is_named(self, bench: Bench) -> None:
        """Each required setting that is left out is a problem of its own, under its name."""
        required = [f.name for f in attrs.fields(bench.partner.facts.config) if f.init and f.default is attrs.NOTHING]
        for name in required:
            settings = {key: value for key, value in bench.settings.items() if key != name}
            with pytest.raises(ConfigError) as raised:
                structure(bench.partner.facts.config, settings, "settings")
            assert [problem.where for problem in raised.value.problems] == [f"settings.{name}"]

    def test_unknown_setting_is_refused(self, bench: Bench) -> None:
        """A misspelt setting is no silence."""
        with pytest.raises(ConfigError) as raised:
            bench.config(no_such_setting="x")
        assert [problem.where for problem in raised.value.problems] == ["settings.no_such_setting"]

    def test_credentials_are_secret(self, partner: BoundPartner) -> None:
        """A setting whose name ends like that of a credential has the type `Secret`, or `Secret | None`."""
        hints = typing.get_type_hints(partner.facts.config)
        shown = [
            field.name
            for field in attrs.fields(partner.facts.config)
            if field.name.rpartition("_")[2] in CREDENTIAL_WORDS
            and field.name not in self.not_secret
            and Secret not in {hints[field.name], *typing.get_args(hints[field.name])}
        ]
        assert not shown, f"{', '.join(shown)} must be of type Secret, or be named in not_secret"

    def test_planted_values_can_be_told_from_chance(self, bench: Bench) -> None:
        """Secrets and identifiers are long enough to be searched for, or the checks for leaks would be blind."""
        values = planted("settings", bench.config()) | planted("known", list(bench.sample.get("known", ()))[:1])
        short = values.too_short()
        assert not short, f"give {', '.join(short)} at least {SHORTEST} characters"

    def test_reprs_show_nothing(self, bench: Bench) -> None:
        """Neither the settings nor an answer show a value when they are printed or turned into plain data."""
        config = bench.config()
        shown = [repr(config), str(config), json.dumps(public(config), default=str)]
        if bench.partner.resolves:
            shown.append(repr(bench.observe("resolve_id").result))
        assert_hidden(bench.canaries, {"repr": "\n".join(shown)})

    # Good answers

    def test_known_visitors_are_found(self, bench: Bench) -> None:
        """The first three known visitors of the sample have a partner id."""
        require_resolution(bench)
        visitors = bench.visitors("known")
        assert visitors, "the sample has no known visitor"
        for index, visitor in enumerate(visitors[:3]):
            assert visitor.links, f"known[{index}] has none of the identifiers that the linking keys name"
            observed = bench.observe("resolve_id", index=index)
            assert answer(observed).reason == "found", f"known[{index}] is {answer(observed).reason}"
            assert_json(answer(observed).attributes or {})

    def test_unknown_visitors_are_absent(self, bench: Bench) -> None:
        """That a visitor is not known is an answer, and no error."""
        require_resolution(bench)
        visitors = bench.visitors("unknown")
        assert visitors, "the sample has no unknown visitor"
        for index in range(len(visitors[:3])):
            reason = answer(bench.observe("resolve_id", of="unknown", index=index)).reason
            assert reason in {"absent", "invalid"}, f"unknown[{index}] is {reason}"

    def test_opted_out_visitors_are_told(self, bench: Bench) -> None:
        """Who opted out is not just absent: the search ends, and nothing of the visitor is kept."""
        require_resolution(bench)
        for index, observed in opted_out(bench):
            reason = answer(observed).reason
            assert reason == "opted_out", f"opted_out[{index}] is {reason}"

    def test_opted_out_answers_hold_nothing(self, bench: Bench) -> None:
        """No profile and no older id of somebody who does not want to be known is handed over."""
        require_resolution(bench)
        for index, observed in opted_out(bench):
            resolution = answer(observed)
            if resolution.reason == "opted_out":
                assert resolution.attributes is None, f"opted_out[{index}] comes with attributes"
                assert resolution.previous_id is None, f"opted_out[{index}] comes with a previous_id"

    def test_opted_out_visitors_show_nowhere(self, bench: Bench) -> None:
        """Neither the log at DEBUG nor what is printed names somebody who opted out."""
        require_resolution(bench)
        for index, observed in opted_out(bench):
            values = planted("opted_out", bench.sample["opted_out"][index])
            for link in bench.visitors("opted_out")[index].links:
                values |= planted("sent", {link.key: link.value})
            assert_hidden(values, {"a good answer": observed.said, "repr": repr(observed.result)})

    # Many links in one call

    def test_bulk_answers_each_link(self, bench: Bench) -> None:
        """One answer for each link, a `Resolution` or a `PartnerError`; also for a link that comes twice."""
        links = bulk_links(bench)
        answers: Sequence[object] = bulk_answers(bench, [*links, links[0]])
        odd = {type(one).__name__ for one in answers if not isinstance(one, Resolution | PartnerError)}
        assert not odd, f"an answer must be a Resolution or a PartnerError, not {', '.join(odd)}"

    def test_bulk_keeps_the_order(self, bench: Bench) -> None:
        """An answer stands where its link stands: it is the one that the link gets alone."""
        links = bulk_links(bench)
        answers = bulk_answers(bench, links, blame="test_bulk_answers_each_link")
        for link, said in zip(links, answers):
            (alone,) = bulk_answers(bench, [link], blame="test_bulk_answers_each_link")
            assert _meaning(said) == _meaning(alone), "the answers are not in the order of the links"

    def test_bulk_and_single_agree(self, bench: Bench) -> None:
        """A visitor has the same id whichever hook is asked."""
        require(bench, "resolve_id")
        for index, visitor in enumerate(bench.visitors("known")[:3]):
            answers = bulk_answers(bench, visitor.links, blame="test_bulk_answers_each_link")
            single = bench.observe("resolve_id", index=index).result
            ids = {one.partner_id for one in answers if isinstance(one, Resolution)}
            assert single is None or single.partner_id in ids, f"known[{index}] has another id in bulk"

    def test_bulk_bad_link_fails_alone(self, bench: Bench) -> None:
        """A link that cannot be an identifier takes no other link down, and no error shows what it was."""
        links = bulk_links(bench)
        expected = bulk_answers(bench, links, blame="test_bulk_answers_each_link")
        bad = structs.replace(links[0], value=_NO_IDENTIFIER)
        answers = bulk_answers(bench, [links[0], bad, *links[1:]])
        missing = Counter(map(_meaning, expected)) - Counter(map(_meaning, answers))
        assert not missing, "a bad link changes what is said of others"
        texts = "\n".join(errors_text(one) for one in answers if isinstance(one, PartnerError))
        assert_hidden(bench.canaries | planted("the bad link", _NO_IDENTIFIER), {"an error among the answers": texts})

    def test_bulk_takes_a_full_call(self, bench: Bench) -> None:
        """As many links as `Limits.bulk` and `Limits.bulk_bytes` allow, in fewer requests than links."""
        require(bench, "resolve_ids")
        limits = bench.partner.facts.limits
        links = bench.new_links(min(limits.bulk, MOST_LINKS))
        while sum(map(size_of, links)) > limits.bulk_bytes:
            links.pop()
        if len(links) < 2:
            pytest.skip("no linking key by which many visitors can be made up, or room for one link alone")
        observed = bench.observe("resolve_ids", of="unknown", links=links, timeout=VERY_PATIENT)
        assert len(answer(observed)) == len(links)
        assert len(observed.requests) < len(links), f"{len(observed.requests)} requests for {len(links)} links"

    def test_attributes_are_json(self, bench: Bench) -> None:
        """A profile is a mapping from names to JSON values."""
        require(bench, "fetch_attributes")
        assert_json(answer(observe(bench, "fetch_attributes")))

    def test_check_accepts_good_settings(self, bench: Bench) -> None:
        """``check`` returns when all is well."""
        require(bench, "check")
        assert answer(bench.observe("check")) is None

    def test_check_refuses_a_wrong_credential(self, bench: Bench) -> None:
        """``check`` raises `AuthError` for a key that the partner never issued."""
        require(bench, "check")
        if not bench.has_sandbox:
            pytest.skip("handlers look at no credential")
        wrong = {name: secret.reveal().translate(_OTHERS) for name, secret in _secrets(bench.config()).items()}
        if not wrong:
            pytest.skip("the settings have no Secret")
        expect(bench.observe("check", config=bench.config(**wrong)), AuthError)

    def test_batch_is_taken(self, bench: Bench) -> None:
        """The first call of a batch begins it; what is saved can be written as JSON and shows nothing."""
        require(bench, "deliver_batch")
        assert bench.partner.facts.delivery is not None, "partner() names no Delivery"
        assert bench.records, "the blueprint of Delivery makes nothing of the known visitors of the sample"
        observed = bench.observe("deliver_batch")
        receipt = answer(observed)
        assert receipt.state not in {"failed", "rejected", "uncertain"}, f"{receipt.state}: {receipt.message}"
        assert_hidden(
            bench.canaries, {"receipt": repr(receipt), "progress": json.dumps(observed.progress, allow_nan=False)}
        )

    @each_operation
    def test_lent_client_makes_all_requests(self, bench: Bench, operation: str) -> None:
        """A client of the plugin's own has no deadline, no cap, no pool and no guard."""
        observed = observe(bench, operation)
        assert observed.foreign_requests == 0, f"{operation} does not use the client that it is given"

    # A partner that refuses

    @each_operation
    @pytest.mark.parametrize("fault", ["unauthorized", "forbidden"])
    def test_refused_credential(self, bench: Bench, operation: str, fault: str) -> None:
        """401 and 403 are `AuthError`: not absent, and not tried again."""
        expect(observe(bench, operation, fault=fault), AuthError)

    @each_operation
    def test_rate_limit(self, bench: Bench, operation: str) -> None:
        """429 is `RateLimited`."""
        expect(observe(bench, operation, fault="rate_limited"), RateLimited)

    @each_operation
    def test_retry_after(self, bench: Bench, operation: str) -> None:
        """The seconds of ``Retry-After`` are handed on."""
        error = expect(observe(bench, operation, fault="rate_limited_retry_after"), RateLimited)
        assert error.retry_after == RETRY_AFTER, f"Retry-After was {RETRY_AFTER}, retry_after is {error.retry_after}"

    # A partner that fails

    @each_operation
    @pytest.mark.parametrize("fault", ["server_error", "unavailable"])
    def test_partner_is_down(self, bench: Bench, operation: str, fault: str) -> None:
        """500 and 503 are `Unavailable`."""
        expect(observe(bench, operation, fault=fault), Unavailable)

    @each_operation
    @pytest.mark.parametrize("fault", ["timeout", "slow_drip"])
    def test_deadline(self, bench: Bench, operation: str, fault: str) -> None:
        """A partner that hangs, or sends a byte now and then, costs no more than the timeout."""
        observed = observe(bench, operation, fault=fault, timeout=HURRIED)
        assert observed.seconds < HURRIED + GRACE, f"took {observed.seconds:.1f} s with a timeout of {HURRIED} s"
        expect(observed, Unavailable)
        assert_over(observed)

    @each_operation
    @pytest.mark.parametrize("fault", ["truncated", "drop"])
    def test_cut_connection(self, bench: Bench, operation: str, fault: str) -> None:
        """Half an answer is none."""
        expect(observe(bench, operation, fault=fault), Unavailable, BadResponse)

    # A partner that answers nonsense

    @each_operation
    @pytest.mark.parametrize("fault", ["bad_json", "wrong_shape", "wrong_content_type"])
    def test_nonsense(self, bench: Bench, operation: str, fault: str) -> None:
        """Broken JSON, JSON of another shape and a web page are `BadResponse`."""
        expect(observe(bench, operation, fault=fault), BadResponse)

    @each_operation
    def test_endless_answer(self, bench: Bench, operation: str) -> None:
        """A body over the cap is `BadResponse`."""
        expect(observe(bench, operation, fault="oversized"), BadResponse)

    @each_operation
    def test_redirect(self, bench: Bench, operation: str) -> None:
        """A redirect is an error, and is not followed: the credential would go along."""
        observed = observe(bench, operation, fault="redirect")
        assert not observed.followed_redirect, f"{operation} follows redirects"
        expect(observed, BadResponse, RequestRefused, Unavailable)

    # A caller that gives up

    @each_operation
    def test_cancellation(self, bench: Bench, operation: str) -> None:
        """A call that is cancelled ends at once, in `asyncio.CancelledError`, and leaves nothing behind."""
        observed = observe(bench, operation, fault="timeout", cancel=True)
        assert observed.seconds < GRACE, f"ended {observed.seconds:.1f} s after it was cancelled"
        assert isinstance(observed.error, asyncio.CancelledError), f"CancelledError expected, {_told(observed)}"
        assert_over(observed)

    # Nothing shows

    @each_operation
    def test_errors_show_nothing(self, bench: Bench, operation: str) -> None:
        """No error holds a secret or a value of the visitor, though the partner's own answers repeat them."""
        said = {fault: errors_of(observe(bench, operation, fault=fault)) for fault in MODES if fault not in _SLOW_MODES}
        assert_hidden(bench.canaries, {fault: "\n".join(map(errors_text, errors)) for fault, errors in said.items()})

    @each_operation
    def test_logs_show_nothing(self, bench: Bench, operation: str) -> None:
        """Nor does the log at DEBUG, or what is printed, when all goes well or when something fails."""
        said = {fault: observe(bench, operation, fault=fault).said for fault in MODES if fault not in _SLOW_MODES}
        assert_hidden(bench.canaries, {"a good answer": observe(bench, operation).said, **said})


def require_resolution(bench: Bench) -> None:
    """Skip the check of a plugin that cannot be asked whom it knows."""
    __tracebackhide__ = True
    if not bench.partner.resolves:
        pytest.skip(f"{bench.partner.key} has neither a resolve_id nor a resolve_ids hook")


def require(bench: Bench, operation: str) -> None:
    """Skip the check of a hook that the plugin does not have."""
    __tracebackhide__ = True
    if not bench.partner.supports(operation):
        pytest.skip(f"{bench.partner.key} has no {operation} hook")


def observe(bench: Bench, operation: str, **options: Any) -> Observed:
    """Let the plugin do one thing, or skip the check when it cannot."""
    __tracebackhide__ = True
    require(bench, operation)
    try:
        return bench.observe(operation, **options)
    except NoPartnerId:
        pytest.skip("the first known visitor has no partner id: see test_known_visitors_are_found")


def opted_out(bench: Bench) -> Iterator[tuple[int, Observed]]:
    """What the plugin does for the first three visitors who opted out. Skips the check when the sample has none."""
    __tracebackhide__ = True
    visitors = bench.visitors("opted_out")
    if not visitors:
        pytest.skip("the sample has no visitor who opted out")
    for index in range(len(visitors[:3])):
        yield index, bench.observe("resolve_id", of="opted_out", index=index)


def bulk_links(bench: Bench) -> list[Link]:
    """One link of each visitor of the sample, as far as they differ; a known one first."""
    __tracebackhide__ = True
    require(bench, "resolve_ids")
    kinds = ("known", "unknown", "opted_out") if bench.has_sandbox else ("known",)
    links = [visitor.links[0] for kind in kinds for visitor in bench.visitors(kind) if visitor.links]
    if not links:
        pytest.skip("the sample has no visitor with a link")
    return list(dict.fromkeys(links))


def bulk_answers(
    bench: Bench, links: Sequence[Link], *, blame: str | None = None
) -> Sequence[Resolution | PartnerError]:
    """What is said of these links. Where nothing is, the check fails, or is skipped for another one that fails then."""
    __tracebackhide__ = True
    require(bench, "resolve_ids")
    observed = bench.observe("resolve_ids", links=links)
    if blame is not None and observed.error is not None:
        pytest.skip(f"no answers: see {blame}")
    answers: Sequence[Resolution | PartnerError] = answer(observed)
    return answers


def answer(observed: Observed) -> Any:
    """What the hook returned; fails when it raised."""
    __tracebackhide__ = True
    if observed.error is not None:
        pytest.fail(f"an answer was expected, {_told(observed)}")
    return observed.result


def errors_of(observed: Observed) -> list[BaseException]:
    """What was raised, and errors that stand in the place of an answer."""
    answers = observed.result if isinstance(observed.result, Sequence) else ()
    return [error for error in (observed.error, *answers) if isinstance(error, BaseException)]


def expect(observed: Observed, *kinds: type[E]) -> E:
    """The error, which must be of one of these kinds."""
    __tracebackhide__ = True
    names = " or ".join(kind.__name__ for kind in kinds)
    assert isinstance(observed.error, kinds), f"{names} expected, {_told(observed)}"
    return observed.error


def assert_over(observed: Observed) -> None:
    """Nothing is left pending, neither in the event loop nor on the socket."""
    __tracebackhide__ = True
    assert observed.strays == 0, f"{observed.strays} tasks are still pending"
    assert observed.unanswered == 0, f"{observed.unanswered} requests are still open"


def assert_json(attributes: Mapping[Any, Any]) -> None:
    """A profile can be written as JSON (RFC 8259)."""
    __tracebackhide__ = True
    odd = [type(name).__name__ for name in attributes if not isinstance(name, str)]
    assert not odd, f"names of attributes must be text, not {', '.join(odd)}"
    for name, value in attributes.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            pytest.fail(f"attribute {name} is no JSON value: {error}")


def assert_hidden(canaries: Canaries, texts: Mapping[str, str]) -> None:
    """None of the planted values stands in any of these texts."""
    __tracebackhide__ = True
    shown = {place: labels for place, text in texts.items() if (labels := canaries.seen_in(text))}
    assert not shown, "; ".join(f"{place} shows {', '.join(labels)}" for place, labels in shown.items())


def _load(provider: str, plugin: object) -> BoundPartner:
    if isinstance(plugin, Path):
        return plugins.load([plugin.stem], plugins_dir=plugin.parent).partner(plugin.stem)
    if not provider:
        raise PluginError("set provider to the plugin's key")
    if plugin is not None:
        return plugins.bind(provider, plugin)
    return plugins.load([provider]).partner(provider)


def _meaning(said: object) -> tuple[object, ...]:
    """What makes two answers the same: times may differ."""
    return (said.reason, said.partner_id) if isinstance(said, Resolution) else (type(said),)


def _told(observed: Observed) -> str:
    if observed.error is None:
        return f"{type(observed.result).__name__} returned"
    return f"{type(observed.error).__name__} raised: {observed.error}"


def _secrets(config: Any) -> dict[str, Secret]:
    values = {field.name: getattr(config, field.name) for field in attrs.fields(type(config))}
    return {name: value for name, value in values.items() if isinstance(value, Secret)}


def _rotation(alphabet: str) -> dict[int, int]:
    return str.maketrans(alphabet, alphabet[1:] + alphabet[:1])


_OTHERS = _rotation("0123456789") | _rotation("abcdef") | _rotation("ghijklmnopqrstuvwxyz") | _rotation("ABCDEF")
_OTHERS |= _rotation("GHIJKLMNOPQRSTUVWXYZ")
"""Another credential of the same look: hexadecimal and base64 stay what they are."""
