"""Local upload: the files of a batch, put one by one."""

from __future__ import annotations

import io
import json

import attrs
import httpx
import pytest

from partnerenrich import BadResponse, Unavailable
from partnerenrich.models import StagedFile


async def test_files_are_put_and_published(bench, csv_of, made_people):
    """Without the importer; wherever the files are staged."""
    parts = (csv_of(made_people(30)), csv_of(made_people(12, 30)))
    batch = bench.stage(*parts, mode="local_upload")
    files = tuple(attrs.evolve(file, url=f"az://container/b/{file.url.rpartition('/')[2]}") for file in batch.files)

    receipt = await bench.drive(attrs.evolve(batch, files=files))

    assert (receipt.state, receipt.accepted) == ("published", 42)
    assert bench.asked("POST", "/execute")[0].url.path.endswith("recordset-creation/execute")
    created = [json.loads(request.content) for request in bench.asked("POST", "imports/uploads")]
    assert [upload["target_filepath"] for upload in created] == [
        "partnerenrich/20260101-batch-1/part-00001.csv",
        "partnerenrich/20260101-batch-1/part-00002.csv",
    ]
    assert [upload["contents_sha256_checksum"] for upload in created] == [file.sha256 for file in batch.files]


async def test_the_key_stays_away_from_the_upload_address(bench, csv_of, made_people):
    """It gets the headers that were named, and the size; the address is never saved."""
    batch = bench.stage(csv_of(made_people(3)), mode="local_upload")
    await bench.call(batch)

    (put,) = [request for request in bench.requests if "_uploads" in request.url.path]
    assert "Authorization" not in put.headers
    assert put.headers["x-amz-meta-upload"].startswith("LFU.")
    assert put.headers["Content-Length"] == str(batch.files[0].bytes)
    assert "Transfer-Encoding" not in put.headers
    assert "_uploads" not in json.dumps(bench.ledger.progress)


async def test_a_file_that_changed_is_refused(bench, csv_of, made_people):
    """The digest that was announced is that of the manifest."""
    batch = bench.stage(csv_of(made_people(3)), mode="local_upload")
    changed = attrs.evolve(batch, open=lambda file: io.BytesIO(b"x" * file.bytes))

    receipt = await bench.call(changed)

    assert receipt.state == "failed"
    assert receipt.message == "InfoSum's storage refuses a file of the batch (400)"
    assert bench.ledger.progress == {}


@pytest.mark.parametrize("status", [200, 403])
async def test_an_answer_that_comes_before_the_whole_file_was_read(bench, csv_of, made_people, status):
    """Whoever sends stops asking for more, and the file is closed all the same."""
    content = csv_of(made_people(3))
    batch = bench.stage(content, mode="local_upload")
    files, abandoned = [], []
    answered = bench.line.handle_async_request

    def opened(file: StagedFile) -> io.BytesIO:
        files.append(io.BytesIO(content))
        return files[-1]

    async def early(request: httpx.Request) -> httpx.Response:
        if request.method != "PUT":
            return await answered(request)
        abandoned.append(aiter(request.stream))
        await anext(abandoned[-1])
        return httpx.Response(status)

    bench.line.handle_async_request = early
    await bench.call(attrs.evolve(batch, open=opened))

    assert [file.closed for file in files] == [True]


async def test_a_file_that_cannot_be_opened(bench, csv_of, made_people):
    """It is our storage that does not answer: that passes, and says nothing of InfoSum."""
    batch = bench.stage(csv_of(made_people(3)), mode="local_upload")

    def away(file: StagedFile) -> io.BytesIO:
        raise OSError(f"{file.url} is away")

    with pytest.raises(Unavailable, match=r"^a file of the batch cannot be opened \(OSError\)$"):
        await bench.call(attrs.evolve(batch, open=away))
    assert (await bench.drive(batch)).accepted == 3


@pytest.mark.parametrize("tells", [True, False], ids=["client that tells", "client with errors of its own"])
async def test_a_file_whose_storage_goes_away_while_it_is_read(bench, csv_of, made_people, monkeypatch, tells):
    """The same, whatever the HTTP client makes of it."""
    content = csv_of(made_people(3))
    batch = bench.stage(content, mode="local_upload")
    answered = bench.line.handle_async_request

    async def of_its_own(request: httpx.Request) -> httpx.Response:
        try:
            return await answered(request)
        except Unavailable:
            raise httpx.NetworkError("the connection broke") from None

    if not tells:
        monkeypatch.setattr(bench.line, "handle_async_request", of_its_own)

    class Away(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError("s3://bucket/key is away")
            return super().read(min(size or 0, 10))

    with pytest.raises(Unavailable, match=r"^a file of the batch cannot be read \(OSError\)$"):
        await bench.call(attrs.evolve(batch, open=lambda _: Away(content)))
    assert (await bench.drive(batch)).accepted == 3


async def test_a_call_that_is_short_of_time_goes_on_later(bench, csv_of, made_people):
    """After at least one file."""
    await bench.behave(latency_s=0)
    batch = bench.stage(csv_of(made_people(3)), csv_of(made_people(3, 3)), mode="local_upload")

    receipt = await bench.call(batch, seconds=5)

    assert receipt.state == "running"
    assert len(bench.asked("POST", "imports/uploads")) == 1
    assert (await bench.drive(batch)).accepted == 6


@pytest.mark.parametrize(
    "url", ["https://elsewhere.example.test/put", "ftp://x", "not a url", "http://", "http://a:b:c/"]
)
async def test_an_upload_address_that_is_none(bench, csv_of, made_people, url):
    """Another scheme than that of the API, or no URL."""
    batch = bench.stage(csv_of(made_people(3)), mode="local_upload")
    answered = bench.line.handle_async_request

    async def odd(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.url.path.endswith("/uploads"):
            return httpx.Response(200, json={"local_file_upload_id": "LFU.1", "upload_url": url, "headers": {}})
        return await answered(request)

    bench.line.handle_async_request = odd

    with pytest.raises(BadResponse, match="names an upload address"):
        await bench.call(batch)


async def test_a_file_name_with_odd_letters(bench, csv_of, made_people):
    """Names are quoted in URLs, and are what they are in the vault."""
    batch = bench.stage(csv_of(made_people(3)), mode="local_upload")
    file = attrs.evolve(batch.files[0], url=batch.files[0].url.replace("part-00001", "part%2D1"))
    assert isinstance(file, StagedFile)

    await bench.call(attrs.evolve(batch, files=(file,), open=lambda _: batch.open(batch.files[0])))

    assert json.loads(bench.asked("POST", "imports/uploads")[0].content)["target_filepath"].endswith("/part-1.csv")
