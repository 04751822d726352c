"""
One contender of the benchmark `deliver`: ``python -m benchmarks._delivery NAME CSV OUT THREADS``.

The bare queries are what one would write by hand: an e-mail is trimmed and made lower case, a phone that starts with
``+`` or ``00`` is freed of separators, any other phone goes to the library; then both are hashed, and everything is
written as Parquet. They check nothing, count nothing and seal nothing.
"""

from __future__ import annotations

import asyncio
import csv
import functools
import hashlib
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import phonenumbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_COLUMNS = ("customer_id", "email", "first_name", "last_name", "phone")
_PARTNER = """
import attrs
from partnerenrich import Delivery, Partner, Receipt, hookimpl

BLUEPRINT = '''
global:
  mappings:
    - {source: user_id, target: customer_id}
    - {source: $traits.email, target: email, transform: sha256}
    - {source: $traits.first_name, target: first_name}
    - {source: $traits.last_name, target: last_name}
    - {source: $traits.phone, target: phone, transform: sha256}
'''


@attrs.frozen(kw_only=True)
class Settings:
    pass


@hookimpl
def partner():
    return Partner(title="Room", config=Settings, delivery=Delivery(formats=("parquet",), default_blueprint=BLUEPRINT))


@hookimpl
async def deliver_batch(batch):
    return Receipt(state="published")
"""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@functools.lru_cache(100_000)
def _parsed(phone: str) -> str | None:
    try:
        number = phonenumbers.parse(phone, "GB")
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _e164(phone: str) -> str | None:
    digits = re.sub(r"[ ().-]", "", re.sub("^00", "+", phone.strip()))
    return digits if re.fullmatch(r"\+[0-9]{8,15}", digits) else _parsed(phone)


def by_hand(row: Mapping[str, str]) -> dict[str, Any]:
    """What becomes of one record."""
    e164 = _e164(row["phone"])
    return {**row, "email": _sha256(row["email"].strip().lower()), "phone": e164 and _sha256(e164)}


def sample(rows: Iterable[Mapping[str, Any]]) -> str:
    """A digest over rows in any order."""
    total = sum(int.from_bytes(hashlib.blake2b(repr([row[c] for c in _COLUMNS]).encode()).digest()) for row in rows)
    return f"{total % (1 << 128):x}"


def _ours(file: Path, out: Path, threads: int, collect: str = "append") -> Path:
    from partnerenrich.configuration import bind, load_mapping
    from partnerenrich_server.delivery import query
    from partnerenrich_server.delivery.records import Records
    from partnerenrich_server.delivery.stage import Stage
    from partnerenrich_server.delivery.tables import opened, rows

    query.THREADS = threads  # type: ignore[misc]  # a benchmark gives all contenders the same
    (out / "partners").mkdir(parents=True)
    (out / "partners" / "room.py").write_text(_PARTNER)
    deliver = {"staging": str(out / "staging"), "collect": collect}
    raw = {
        "org": "acme",
        "default_region": "GB",
        "plugins_dir": str(out / "partners"),
        "integrations": [{"provider": "room", "deliver": deliver}],
    }
    (integration,) = bind(load_mapping(raw))[0]["acme"]
    delivery = integration.delivery
    assert delivery is not None
    stage = Stage.open(integration, delivery.settings, local=out / "scratch")
    records = Records.of(integration)
    asyncio.run(
        stage.seal(
            lambda connection, rejects: rows(
                connection, [opened(connection, str(file), file)], delivery, records, {}, rejects
            )[0],
            [str(file)],
        )
    )
    return out / "staging" / "acme" / "room" / "batches"


def _ours_snapshot(file: Path, out: Path, threads: int) -> Path:
    return _ours(file, out, threads, "snapshot")


def _duckdb(file: Path, out: Path, threads: int) -> Path:
    import duckdb
    from duckdb.func import SPECIAL

    out.mkdir()
    settings = {"threads": str(threads), "memory_limit": "400MB", "temp_directory": str(out)}
    with duckdb.connect(config={**settings, "preserve_insertion_order": "false"}) as connection:
        connection.create_function("parsed", _parsed, ["VARCHAR"], "VARCHAR", null_handling=SPECIAL)
        connection.execute(
            f"""
            COPY (
                SELECT customer_id, sha256(lower(trim(email))) AS email, first_name, last_name,
                    sha256(CASE WHEN regexp_full_match(p, '[+][0-9]{{8,15}}') THEN p ELSE parsed(phone) END) AS phone
                FROM (
                    SELECT *, regexp_replace(regexp_replace(trim(phone), '^00', '+'), '[ ().-]', '', 'g') AS p
                    FROM read_csv('{file}', all_varchar = true, header = true)
                )
            ) TO '{out}/parts' (FORMAT parquet, COMPRESSION snappy, PER_THREAD_OUTPUT true)
            """
        )
    return out / "parts"


def _polars(file: Path, out: Path, _: int) -> Path:
    import polars as pl
    import polars_hash  # noqa: F401 - adds the functions of `chash`

    def parsed(phones: pl.Series) -> pl.Series:
        left = phones.is_not_null().arg_true()
        return phones.scatter(left, [_parsed(phone) for phone in phones.gather(left)])

    def sha256(text: Any) -> Any:
        return text.chash.sha2_256()

    p = pl.col("p")
    quick = p.str.contains(r"^\+[0-9]{8,15}$")
    others = pl.when(~quick).then("phone").map_batches(parsed, return_dtype=pl.String)
    (out / "parts").mkdir(parents=True)
    (
        pl.scan_csv(file, infer_schema=False)
        .with_columns(p=pl.col("phone").str.strip_chars().str.replace("^00", "+").str.replace_all("[ ().-]", ""))
        .select(
            "customer_id",
            sha256(pl.col("email").str.strip_chars().str.to_lowercase()),
            "first_name",
            "last_name",
            phone=sha256(pl.when(quick).then(p).otherwise(others)),
        )
        .sink_parquet(out / "parts" / "all.parquet", compression="snappy")
    )
    return out / "parts"


def _python_loop(file: Path, out: Path, _: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (out / "parts").mkdir(parents=True)
    schema = pa.schema([(column, pa.string()) for column in _COLUMNS])
    with file.open(newline="") as lines, pq.ParquetWriter(out / "parts" / "all.parquet", schema) as writer:
        batch = []
        for row in csv.DictReader(lines):
            batch.append(by_hand(row))
            if len(batch) == 50_000:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
    return out / "parts"


CONTENDERS: dict[str, Callable[[Path, Path, int], Path]] = {
    "ours": _ours,
    "polars": _polars,
    "duckdb": _duckdb,
    "python_loop": _python_loop,
}
"""All that take part in a round."""


def _main(name: str, file: str, out: str, threads: str) -> None:
    os.environ["POLARS_MAX_THREADS"] = threads
    work = _ours_snapshot if name == "ours_snapshot" else CONTENDERS[name]
    started, cpu_started = time.perf_counter(), time.process_time()
    written = work(Path(file), Path(out), int(threads))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    records, digest = _read(written)
    told = {
        "records": records,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "megabytes": megabytes,
        "sample": digest,
    }
    json.dump(told, sys.stdout)


def _read(folder: Path) -> tuple[int, str]:
    """How many records were written, and of few of them what they are."""
    import pyarrow.parquet as pq

    files = [pq.ParquetFile(path) for path in folder.rglob("*.parquet")]
    records = sum(file.metadata.num_rows for file in files)
    few = (row for file in files for row in file.read(list(_COLUMNS)).to_pylist()) if records <= 200_000 else ()
    return records, sample(few)


if __name__ == "__main__":
    _main(*sys.argv[1:])
