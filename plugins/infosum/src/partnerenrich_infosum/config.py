"""The settings of one InfoSum integration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Any, ClassVar

import attrs

from partnerenrich import FieldError, Secret, between, one_of, pattern

_is_v1_key = re.compile(r"[^/\s]+/[^/\s]+").fullmatch


def _id(of: str, default: Any = attrs.NOTHING) -> Any:
    """An id of InfoSum is opaque; it only has to fit into the path of a URL."""
    rule = pattern(r"(?!\.+$)[^\s/?#%]{1,200}", f"must be the id of {of}, as InfoSum shows it")
    return attrs.field(default=default, validator=rule)


def _a_day(_: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None:
        with suppress(ValueError):
            date.fromisoformat(value)
            return
        raise FieldError('must be a day such as "2027-01-31"', attribute.name)


@attrs.frozen(kw_only=True)
class Config:
    """
    Which dataset to publish to, through which importer, with which credential.

    Attributes:
        api_key: A V2 API key. The whole value of the header ``Authorization``.
        dataset_id: The dataset to publish to.
        importer_id: The importer that copies staged files into the Cloud Vault.
        region: Where the Bunker is: ``eu``, ``uk``, ``us`` or ``au``. Checked before every batch.
        base_url: Replaces ``https://api.infosum.com``.
        automation_id: An automation of InfoSum that does all stages in one execution. Staged mode only.
        recordset_config_id: How files are read; by default as the dataset was last published, else as they are written.
        normalization_config_id: What columns become; by default as the dataset was last published.
        prepare_config_id: What of it is published; by default as the dataset was last published, else everything.
        target_folder: Folder in the Cloud Vault below which each batch has a folder of its own.
        narrow_importer: Set the importer's ``data_filter`` to the files of the batch before each import, so that
            batches before it are not copied again. Always done for an automation.
        stage_deadline: Seconds that one stage may take.
        api_key_expires: Last day of the key, such as ``2027-01-31``. InfoSum shows it once; with it, the log warns.
    """

    REGIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "eu": ("AWS_EU_CENTRAL_1", "IBM_EU_CENTRAL_1"),
        "uk": ("AWS_EU_WEST_2",),
        "us": ("AWS_US_EAST_1",),
        "au": ("AWS_AP_SOUTHEAST_2",),
    }
    """What the API calls a region. Frankfurt (the second one is deprecated), London, N. Virginia, Sydney."""

    api_key: Secret = attrs.field(
        validator=pattern(r"[\x21-\x7e]+", "must be the API key alone: no spaces, without the word Bearer")
    )
    dataset_id: str = _id("a dataset")
    importer_id: str = _id("an importer")
    region: str = attrs.field(validator=one_of(*REGIONS))
    base_url: str = attrs.field(
        default="https://api.infosum.com",
        validator=pattern(
            r"(?!.*/api(/v[12])?/?$)https?://[^\s/?#@]+(/[^\s?#]*)?",
            "must be an http or https URL without credentials, query, fragment or a final /api/v2",
        ),
    )
    automation_id: str | None = _id("an automation config", None)
    recordset_config_id: str | None = _id("a recordset config", None)
    normalization_config_id: str | None = _id("a normalization config", None)
    prepare_config_id: str | None = _id("a dataset prepare config", None)
    target_folder: str = attrs.field(
        default="partnerenrich",
        validator=pattern(
            r"(?!Recordsets(/|$))(?!.*(^|/)\.+(/|$))[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*",
            "must be a folder such as partnerenrich or crm/daily: letters, digits, _ - . and /, and not Recordsets",
        ),
    )
    narrow_importer: bool = False
    stage_deadline: float = attrs.field(default=7200, validator=between(60, 604_800))
    api_key_expires: str | None = attrs.field(default=None, validator=_a_day)

    @property
    def root(self) -> str:
        """The URL below which all paths lie."""
        return f"{self.base_url.rstrip('/')}/api/v2"

    @property
    def looks_like_v1(self) -> bool:
        """Whether the key has the form of a V1 pair, ``<public>/<private>``. The form of V2 keys is not published."""
        return _is_v1_key(self.api_key.reveal()) is not None
