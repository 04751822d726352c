"""How the imitation behaves, and what it is made of."""

from __future__ import annotations

from typing import Any

import attrs

from partnerenrich import FieldError, between, one_of

STAGES = ("import", "upload", "recordset", "normalization", "prepare", "publish")


def _stages_only(_: Any, attribute: attrs.Attribute[Any], value: dict[str, float]) -> None:
    if not set(value) <= set(STAGES) or not all(0 <= seconds <= 86_400 for seconds in value.values()):
        raise FieldError(f"must be seconds, at most a day, of any of {', '.join(STAGES)}", attribute.name)


@attrs.frozen(kw_only=True)
class Behaviour:
    """
    How the imitation behaves; ``POST /_sandbox`` changes single fields.

    Attributes:
        latency: Seconds of single stages.
        latency_s: Seconds of all other stages.
        stuck: A stage that begins and never ends.
        spelling: ``2022`` spells two states as an older revision of the API did.
        connector_refused: The bucket cannot be read: an import fails with ``ICC_PERMISSION_DENIED``.
        uncopied_files: Files of each import that are not copied.
        empty_import: What becomes of an import whose filter matches nothing: ``completed`` or ``failed``.
        flat_import: Whether copied files lose the folders that they were in.
        most_row_errors: Share of rows with a value that cannot be used, above which a normalization fails.
        region_check: When regions are compared: at the request (``execute``), or while it runs (``prepare``).
        throttled: How many of the next calls get 429.
        outage: Status of every answer, 500 or 503; 0 for none.
        lost_answers: How many of the next requests that begin something are granted, and answered by 503.
    """

    latency: dict[str, float] = attrs.field(factory=dict, validator=_stages_only)
    latency_s: float = attrs.field(default=0.5, validator=between(0, 86_400))
    stuck: str | None = attrs.field(default=None, validator=one_of(*STAGES))
    spelling: str = attrs.field(default="today", validator=one_of("today", "2022"))
    connector_refused: bool = False
    uncopied_files: int = attrs.field(default=0, validator=between(0, 1e6))
    empty_import: str = attrs.field(default="completed", validator=one_of("completed", "failed"))
    flat_import: bool = False
    most_row_errors: float = attrs.field(default=0.5, validator=between(0, 1))
    region_check: str = attrs.field(default="execute", validator=one_of("execute", "prepare"))
    throttled: int = attrs.field(default=0, validator=between(0, 1e6))
    outage: int = attrs.field(default=0, validator=between(0, 599))
    lost_answers: int = attrs.field(default=0, validator=between(0, 1e6))

    def lasts(self, stage: str) -> float:
        """Seconds of a stage."""
        return self.latency.get(stage, self.latency_s)
