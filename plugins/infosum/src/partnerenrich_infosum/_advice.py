"""What to do about the usual failures, in the words of docs/infosum.md."""

from __future__ import annotations

from typing import Final

KEY: Final = (
    "confirm that api_key is a V2 API key and not a V1 key, that it has not expired, "
    "and that it has access to the dataset (dataset_id) and the importer (importer_id)"
)
V1: Final = "api_key has the form of a V1 key pair, and only V2 API keys are supported"
REGION: Final = "the setting region must match the residency region of your Bunker exactly"
COLUMNS: Final = (
    "the normalization config must expect the column names that are sent; "
    "change it, or the blueprint, and see the run history in the InfoSum UI"
)
MATCHING: Final = (
    "confirm that both sides lower-case and trim before hashing: another salt or casing matches nobody, "
    "even with the same values"
)
REACH: Final = (
    "the connector's bucket and prefix must cover deliver.staging, and neither its filenames "
    "nor the importer's data_filter may leave the files out"
)
