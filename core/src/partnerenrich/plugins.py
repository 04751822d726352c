"""Find plugins, load the ones that are wanted, contain the broken ones, bind each partner's hooks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from partnerenrich import hookspecs
from partnerenrich.errors import NotSupported, PluginError
from partnerenrich.models import Partner, Receipt, Resolution

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import httpx

    from partnerenrich.errors import PartnerError
    from partnerenrich.models import Batch, Call, Link, Sandbox, Visitor

ENTRY_POINT_GROUP = hookspecs.PROJECT
KEY_PATTERN = re.compile(r"[a-z][a-z0-9_]*")

ASYNC_HOOKS = ("check", "resolve_id", "resolve_ids", "fetch_attributes", "personalize", "deliver_batch")
SYNC_HOOKS = ("partner", "sandbox")
ENRICHING_HOOKS = ("resolve_id", "resolve_ids", "fetch_attributes", "personalize")


@attrs.frozen
class PluginSource:
    """
    A plugin that could be loaded.

    Attributes:
        key: The partner's key in settings and caches.
        origin: Where it comes from: a distribution and its version, or a file.
        load: Imports it.
    """

    key: str
    origin: str
    load: Callable[[], object] = attrs.field(repr=False)


@attrs.frozen(eq=False)
class BoundPartner:
    """
    One partner behind typed methods: the only code that calls hooks.

    Attributes:
        key: The partner's key.
        origin: Where the plugin comes from.
        facts: What the partner says of itself.
    """

    key: str
    origin: str
    facts: Partner
    _hooks: Mapping[str, pluggy.HookCaller] = attrs.field(repr=False)

    def supports(self, hook: str) -> bool:
        """Whether the partner implements this hook."""
        return hook in self._hooks

    @cached_property
    def resolves(self) -> bool:
        """Whether the partner can be asked whom it knows, one by one or in bulk."""
        return self.supports("resolve_id") or self.supports("resolve_ids")

    @property
    def enriches(self) -> bool:
        """Whether it knows anything of visitors. A partner that only takes batches does not."""
        return any(map(self.supports, ENRICHING_HOOKS))

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that the partner implements, without `partner` itself."""
        return tuple(name for name in (*ASYNC_HOOKS, "sandbox") if name in self._hooks)

    async def check(self, config: Any, http: httpx.AsyncClient, call: Call) -> None:
        """See `partnerenrich.hookspecs.check`."""
        await self._call("check", config=config, http=http, call=call)

    async def resolve_id(
        self, config: Any, http: httpx.AsyncClient, link: Link, visitor: Visitor, call: Call
    ) -> Resolution:
        """See `partnerenrich.hookspecs.resolve_id`."""
        resolution = await self._call("resolve_id", config=config, http=http, link=link, visitor=visitor, call=call)
        if not isinstance(resolution, Resolution):
            raise self._wrong_type("resolve_id", "a Resolution", resolution)
        return resolution

    async def resolve_ids(
        self, config: Any, http: httpx.AsyncClient, links: Sequence[Link], call: Call
    ) -> Sequence[Resolution | PartnerError]:
        """See `partnerenrich.hookspecs.resolve_ids`."""
        resolutions: Sequence[Resolution | PartnerError] = await self._call(
            "resolve_ids", config=config, http=http, links=links, call=call
        )
        if len(resolutions) != len(links):
            raise PluginError(f"{self.key}: resolve_ids returned {len(resolutions)} answers for {len(links)} links")
        return resolutions

    async def fetch_attributes(
        self, config: Any, http: httpx.AsyncClient, partner_id: str, call: Call
    ) -> Mapping[str, Any]:
        """See `partnerenrich.hookspecs.fetch_attributes`."""
        attributes = await self._call("fetch_attributes", config=config, http=http, partner_id=partner_id, call=call)
        if not isinstance(attributes, Mapping):
            raise self._wrong_type("fetch_attributes", "a mapping", attributes)
        return attributes

    async def personalize(
        self, config: Any, http: httpx.AsyncClient, partner_id: str, context: Mapping[str, Any], call: Call
    ) -> Mapping[str, Any]:
        """See `partnerenrich.hookspecs.personalize`."""
        attributes = await self._call(
            "personalize", config=config, http=http, partner_id=partner_id, context=context, call=call
        )
        if not isinstance(attributes, Mapping):
            raise self._wrong_type("personalize", "a mapping", attributes)
        return attributes

    async def deliver_batch(self, config: Any, http: httpx.AsyncClient, batch: Batch, call: Call) -> Receipt:
        """See `partnerenrich.hookspecs.deliver_batch`."""
        receipt = await self._call("deliver_batch", config=config, http=http, batch=batch, call=call)
        if not isinstance(receipt, Receipt):
            raise self._wrong_type("deliver_batch", "a Receipt", receipt)
        return receipt

    def sandbox(self) -> Sandbox:
        """See `partnerenrich.hookspecs.sandbox`."""
        sandbox: Sandbox = self._call("sandbox")
        return sandbox

    def _wrong_type(self, hook: str, wanted: str, value: object) -> PluginError:
        return PluginError(f"{self.key}: {hook} must return {wanted}, not {type(value).__name__}")

    def _call(self, hook: str, **arguments: Any) -> Any:
        if hook not in self._hooks:
            raise NotSupported(f"{self.key} has no {hook} hook")
        return self._hooks[hook](**arguments)


@attrs.frozen(eq=False)
class Plugins:
    """
    The plugins that were asked for.

    Attributes:
        partners: Key to partner, for each one that loaded.
        failures: Key to reason, for each one that did not.
    """

    partners: Mapping[str, BoundPartner]
    failures: Mapping[str, PluginError]

    def partner(self, key: str) -> BoundPartner:
        """
        The loaded partner of this key.

        Raises:
            PluginError: It failed to load, or was never asked for.
        """
        if key in self.failures:
            raise self.failures[key]
        try:
            return self.partners[key]
        except KeyError:
            raise PluginError(f"plugin {key!r} is not loaded") from None


def find(plugins_dir: Path | None = None) -> dict[str, list[PluginSource]]:
    """
    All plugins that could be loaded, by key. Imports none of them.

    Args:
        plugins_dir: A folder of one-file plugins; each file's stem is a key.

    Returns:
        Key to its sources. More than one source under a key is a clash, which
        `load` refuses.

    Raises:
        PluginError: `plugins_dir` is not a folder.
    """
    found: dict[str, list[PluginSource]] = {}
    for source in [*_entry_points(), *_files(plugins_dir)]:
        found.setdefault(source.key, []).append(source)
    return found


def load(partners: Iterable[str], *, extensions: Iterable[str] = (), plugins_dir: Path | None = None) -> Plugins:
    """
    Load the named partners and extensions.

    A partner that fails to import or breaks the contract ends in
    `Plugins.failures` and stops nothing else. An extension that fails is an
    error, since it may be there to deny.

    Args:
        partners: Keys of partners.
        extensions: Keys of plugins that only wrap hooks.
        plugins_dir: See `find`.

    Returns:
        The partners, bound, and why others failed.

    Raises:
        PluginError: An extension cannot be loaded.
    """
    available = find(plugins_dir)
    manager = _new_manager()
    for key in dict.fromkeys(extensions):
        plugin = _import(key, available)
        _check_contract(key, plugin, is_partner=False)
        manager.register(plugin, name=f"extension {key}")
    loaded: dict[str, object] = {}
    failures: dict[str, PluginError] = {}
    for key in dict.fromkeys(partners):
        try:
            plugin = _import(key, available)
            _check_contract(key, plugin, is_partner=True)
            manager.register(plugin, name=key)
            loaded[key] = plugin
        except PluginError as error:
            failures[key] = error
        except ValueError:
            failures[key] = PluginError(f"plugin {key!r} is the same object as another plugin; make one instance each")
    bound: dict[str, BoundPartner] = {}
    for key, plugin in loaded.items():
        try:
            bound[key] = _bind(manager, key, available[key][0].origin, plugin, loaded.values())
        except PluginError as error:
            failures[key] = error
    return Plugins(bound, failures)


def bind(key: str, plugin: object) -> BoundPartner:
    """
    Check and bind a partner that is at hand as a module or an object, without extensions: for tests.

    Raises:
        PluginError: It breaks the contract.
    """
    _check_contract(key, plugin, is_partner=True)
    manager = _new_manager()
    manager.register(plugin, name=key)
    return _bind(manager, key, "a Python object", plugin, [plugin])


def _entry_points() -> Iterable[PluginSource]:
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        distribution = entry_point.dist
        origin = f"{distribution.name} {distribution.version}" if distribution else entry_point.value
        yield PluginSource(entry_point.name, origin, entry_point.load)


def _files(folder: Path | None) -> Iterable[PluginSource]:
    if folder is None:
        return
    if not folder.is_dir():
        raise PluginError(f"plugins_dir {str(folder)!r} is not a folder")
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith("_"):
            yield PluginSource(path.stem, str(path), partial(_import_file, path))


def _import_file(path: Path) -> object:
    name = f"partnerenrich_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(key: str, available: Mapping[str, Sequence[PluginSource]]) -> object:
    if not KEY_PATTERN.fullmatch(key):
        raise PluginError(f"plugin key {key!r} must match {KEY_PATTERN.pattern}")
    sources = available.get(key, ())
    if not sources:
        known = ", ".join(sorted(available)) or "none"
        raise PluginError(f"no plugin {key!r} is installed (installed: {known}); pip install its package")
    if len(sources) > 1:
        origins = " and ".join(source.origin for source in sources)
        raise PluginError(f"plugin {key!r} is offered by {origins}; remove all but one")
    try:
        return sources[0].load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {key!r} ({sources[0].origin}) does not import: {_described(error)}") from error


def _check_contract(key: str, plugin: object, *, is_partner: bool) -> None:
    """Register in a manager that is thrown away, so that a broken plugin leaves no trace in the real one."""
    trial = _new_manager()
    try:
        hash(plugin)  # pluggy puts plugins into sets
        trial.register(plugin, name=key)
        trial.check_pending()
    except (pluggy.PluginValidationError, TypeError, ValueError) as error:
        raise PluginError(f"plugin {key!r} breaks the contract: {_described(error)}") from error
    implementations = {
        caller.name: implementation
        for caller in trial.get_hookcallers(plugin) or ()
        for implementation in caller.get_hookimpls()
    }
    wraps = {name for name, implementation in implementations.items() if implementation.wrapper}
    if not implementations:
        raise PluginError(f"plugin {key!r} implements no hook; mark its functions with partnerenrich.hookimpl")
    if is_partner:
        if wraps:
            raise PluginError(f"partner {key!r} wraps {min(wraps)}: only an extension may; list it under extensions")
        if "partner" not in implementations:
            raise PluginError(
                f"plugin {key!r} has no partner() hook, so it is no partner; an extension goes under extensions"
            )
        for name, implementation in implementations.items():
            if inspect.iscoroutinefunction(implementation.function) != (name in ASYNC_HOOKS):
                wanted = "async def" if name in ASYNC_HOOKS else "def"
                raise PluginError(f"plugin {key!r}: {name} must be a plain {wanted!r} function")
    elif missing := implementations.keys() - wraps:
        raise PluginError(f"extension {key!r}: {min(missing)} must be a wrapper, @hookimpl(wrapper=True)")


def _bind(
    manager: pluggy.PluginManager, key: str, origin: str, plugin: object, partners: Iterable[object]
) -> BoundPartner:
    others = [other for other in partners if other is not plugin]
    callers = manager.get_hookcallers(plugin) or ()
    hooks = {caller.name: manager.subset_hook_caller(caller.name, others) for caller in callers}
    try:
        facts = hooks["partner"]()
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {key!r}: partner() failed: {_described(error)}") from error
    if not isinstance(facts, Partner) or not attrs.has(facts.config):
        raise PluginError(f"plugin {key!r}: partner() must return a Partner whose config is an attrs class")
    return BoundPartner(key, origin, facts, hooks)


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
