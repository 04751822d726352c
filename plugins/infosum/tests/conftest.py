from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from partnerenrich import Batch, Call, RateLimited, Receipt, Unavailable
from partnerenrich.models import StagedFile
from partnerenrich.settings import structure
from partnerenrich_infosum._api import Api
from partnerenrich_infosum._delivery import deliver
from partnerenrich_infosum._run import Run
from partnerenrich_infosum._sandbox import SETTINGS, new_app
from partnerenrich_infosum._sandbox.behaviour import Behaviour
from partnerenrich_infosum.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""
COLUMNS = ("customer_id", "email", "first_name", "last_name", "phone")
BASE_URL = "http://infosum.example.test"
OPEN = {"running", "submitted"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Killed(Exception):
    """The process ends here."""


class Ledger:
    """What was saved about a batch, and where the process is killed."""

    def __init__(self) -> None:
        self.progress: dict[str, Any] = {}
        self.saves = 0
        self.kill_before: int | None = None
        self.kill_after: int | None = None

    async def save(self, progress: Mapping[str, Any]) -> None:
        self.saves += 1
        if self.saves == self.kill_before:
            raise Killed
        self.progress = json.loads(json.dumps(progress))
        if self.saves == self.kill_after:
            raise Killed


class Line(httpx.AsyncBaseTransport):
    """The way to the sandbox, which can break before a request arrives or before its answer does."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)
        self.count = 0
        self.lost_requests: set[int] = set()
        self.lost_answers: set[int] = set()
        self.lose_answer_of = ""
        self.unlisted = ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "/_sandbox" in request.url.path:
            return await self._transport.handle_async_request(request)
        self.count += 1
        if self.unlisted and request.url.path.endswith(self.unlisted):
            return httpx.Response(200, json={"pagination": {"results": 0}})
        if self.count in self.lost_requests:
            raise httpx.ConnectError("the line is down")
        response = await self._transport.handle_async_request(request)
        is_named = self.lose_answer_of and request.method != "GET" and request.url.path.endswith(self.lose_answer_of)
        if self.count in self.lost_answers or is_named:
            self.lose_answer_of = ""
            raise httpx.ReadTimeout("the answer is lost")
        return response


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def people(count: int, first: int = 0) -> list[dict[str, str]]:
    """Records as the default blueprint makes them."""
    return [
        {
            "customer_id": f"customer-{number}",
            "email": hashed(f"person-{number}@example.test"),
            "first_name": "Pat",
            "last_name": f"Doe {number}",
            "phone": hashed(f"+4420794{number:05}"),
        }
        for number in range(first, first + count)
    ]


def as_csv(records: Iterable[Mapping[str, str]], columns: Iterable[str] = COLUMNS) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


class Bench:
    """One integration in front of the sandbox, a folder to stage in, and a clock for both."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.app = new_app(Behaviour(latency_s=10), self.clock)
        self.line = Line(self.app)
        self.folder = folder
        self.ledger = Ledger()
        self.requests: list[httpx.Request] = []
        self.http = httpx.AsyncClient(transport=self.line, event_hooks={"request": [self._remember]}, timeout=5)
        self.config = self.configured()
        self.records: list[dict[str, str]] = []
        self.batch_url = ""

    async def _remember(self, request: httpx.Request) -> None:
        self.requests.append(request)

    def configured(self, **others: Any) -> Config:
        return structure(Config, {**SETTINGS, "base_url": BASE_URL, **others}, "settings")

    async def connect(self, url: str | None = None, **options: str) -> None:
        """Tell the sandbox where the bucket is."""
        body = {"url": url or self.folder.as_uri(), "options": options}
        response = await self.http.put(f"{BASE_URL}/_sandbox/connector", json=body)
        assert response.status_code == 200, response.text

    async def behave(self, **changes: Any) -> dict[str, Any]:
        response = await self.http.post(f"{BASE_URL}/_sandbox", json=changes)
        assert response.status_code == 200, response.text
        return response.json()

    async def told(self) -> dict[str, Any]:
        return (await self.http.get(f"{BASE_URL}/_sandbox")).json()

    async def shown(self, dataset: str | None = None) -> dict[str, Any]:
        """What a dataset shows."""
        return (await self.told())["datasets"][dataset or self.config.dataset_id]

    def stage(
        self,
        *parts: bytes,
        batch_id: str = "20260101-batch-1",
        mode: str = "staged",
        suffix: str = "csv",
        records: Iterable[Mapping[str, str]] = (),
        columns: Iterable[str] = COLUMNS,
        rows: int | None = None,
    ) -> Batch:
        """Write parts as the shipper does, and seal them."""
        place = self.folder / "acme" / "infosum" / "batches" / batch_id
        place.mkdir(parents=True)
        files = []
        for number, content in enumerate(parts, 1):
            path = place / f"part-{number:05}.{suffix}"
            path.write_bytes(content)
            count = content.count(b"\n") - 1 if rows is None else rows
            files.append(StagedFile(path.as_uri(), count, len(content), hashlib.sha256(content).hexdigest()))
        (place / "manifest.json").write_text("{}")
        records = [dict(record) for record in records]
        return Batch(
            id=batch_id,
            org="acme",
            integration="infosum",
            mode=mode,
            files=tuple(files),
            columns=tuple(columns),
            open=lambda file: (place / file.url.rpartition("/")[2]).open("rb"),
            rows=lambda: records,
            progress=self.ledger.progress,
            save=self.ledger.save,
        )

    async def call(self, batch: Batch, seconds: float = 60) -> Receipt:
        """One call of the hook, with what was last saved."""
        fresh = Batch(
            batch.id,
            batch.org,
            batch.integration,
            batch.mode,
            batch.files,
            batch.columns,
            batch.open,
            batch.rows,
            self.ledger.progress,
            self.ledger.save,
        )
        call = Call("acme", "infosum", "infosum", time.monotonic() + seconds)
        return await deliver(Run.of(Api(self.config, self.http), fresh, call, self.clock))

    async def drive(self, batch: Batch, calls: int = 60, step: float = 7) -> Receipt:
        """Call until the receipt is final, as a shipper does, through kills and passing failures."""
        for _ in range(calls):
            try:
                receipt = await self.call(batch)
            except (Killed, httpx.TransportError, Unavailable, RateLimited):
                self.clock.now += step
                continue
            if receipt.state not in OPEN:
                return receipt
            self.clock.now += step
        raise AssertionError("the batch never ends")

    async def begun(self) -> dict[str, int]:
        """How often each stage was begun at InfoSum."""
        lists = {
            "import": ("imports/executions", "executions"),
            "recordset": ("recordset-creation/executions", "executions"),
            "normalization": ("normalizations/executions", "normalizations"),
            "prepare": ("prepares/executions", "prepares"),
        }
        headers = {"Authorization": SETTINGS["api_key"]}
        self.line.lost_requests = self.line.lost_answers = set()
        found = {}
        for stage, (path, field) in lists.items():
            response = await self.http.get(f"{BASE_URL}/api/v2/{path}", headers=headers)
            found[stage] = len(response.json()[field])
        return {**found, "publish": (await self.shown())["publications"]}

    def asked(self, method: str, ending: str) -> list[httpx.Request]:
        return [each for each in self.requests if each.method == method and each.url.path.endswith(ending)]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Bench]:
    made = Bench(folder)
    async with made.http:
        await made.connect()
        yield made


@pytest.fixture
async def bench(tmp_path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as made:
        yield made


@pytest.fixture
def make_bench(tmp_path) -> Callable[[], AbstractAsyncContextManager[Bench]]:
    """Makes one bench after the other, each with a folder of its own."""
    numbers = itertools.count()

    def make() -> AbstractAsyncContextManager[Bench]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return opened(folder)

    return make


@pytest.fixture
def csv_of():
    return as_csv


@pytest.fixture
def made_people():
    return people


@pytest.fixture
def killed() -> type[Exception]:
    return Killed


@pytest.fixture
def now() -> float:
    return NOW
