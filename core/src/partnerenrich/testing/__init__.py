"""
For plugin authors: a conformance suite, and faults for imitations of partners.

`PluginContract` needs the extra ``partnerenrich[testing]``;
`partnerenrich.testing.faults` needs nothing but the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partnerenrich.testing.contract import PluginContract

__all__ = ["PluginContract"]


def __getattr__(name: str) -> Any:
    """Import the suite, and so pytest, only when it is asked for."""
    if name == "PluginContract":
        from partnerenrich.testing.contract import PluginContract  # noqa: PLC0415 - see above

        return PluginContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
