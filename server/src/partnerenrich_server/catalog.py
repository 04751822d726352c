"""All plugins of this environment, whether or not a configuration names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from partnerenrich import PluginError
from partnerenrich.plugins import BoundPartner, find, load

if TYPE_CHECKING:
    from pathlib import Path


NO_SANDBOX = "no partner with a sandbox is installed; partnerenrich plugins tells what is"


@attrs.frozen
class Catalog:
    """
    What is installed.

    Attributes:
        partners: Key to partner.
        extensions: Key to where the extension comes from.
        failures: Key to why the plugin does not load.
    """

    partners: Mapping[str, BoundPartner]
    extensions: Mapping[str, str]
    failures: Mapping[str, PluginError]

    @property
    def with_sandbox(self) -> list[BoundPartner]:
        """The partners that have a sandbox."""
        return [partner for partner in self.partners.values() if partner.supports("sandbox")]


def installed(plugins_dir: Path | None = None) -> Catalog:
    """
    Load everything that can be loaded.

    Args:
        plugins_dir: Folder of one-file plugins.

    Raises:
        PluginError: `plugins_dir` is not a folder.
    """
    sources = find(plugins_dir)
    loaded = load(sorted(sources), plugins_dir=plugins_dir)
    extensions = {key: sources[key][0].origin for key in loaded.failures if _is_extension(key, plugins_dir)}
    failures = {key: error for key, error in loaded.failures.items() if key not in extensions}
    return Catalog(loaded.partners, extensions, failures)


def _is_extension(key: str, plugins_dir: Path | None) -> bool:
    try:
        load([], extensions=[key], plugins_dir=plugins_dir)
    except PluginError:
        return False
    return True
