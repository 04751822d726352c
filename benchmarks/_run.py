"""What the benchmarks share in running: configurations, batches, several at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from partnerenrich.configuration import Configuration, load_mapping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

T = TypeVar("T")

PARTNERS = Path(__file__).parent / "partners"
"""Folder of the one-file partners."""
LONG_TTL = {"resolved": 86_400, "attributes": 86_400}
"""Keeps refreshes out of a run."""


def configuration(provider: str, **integration: Any) -> Configuration:
    """
    One organisation with one integration of a partner from `PARTNERS`.

    Args:
        provider: The partner.
        integration: Fields of the integration.
    """
    return load_mapping(
        {
            "org": "acme",
            "budget_ms": 30_000,
            "plugins_dir": str(PARTNERS),
            "integrations": [{"provider": provider, "ttl": LONG_TTL, **integration}],
        }
    )


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut into batches."""
    return [items[start : start + size] for start in range(0, len(items), size)]


async def with_workers(count: int, items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Work on all items in their order, so many at once."""
    shared = iter(items)

    async def worker() -> None:
        for item in shared:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(worker())
