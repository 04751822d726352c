"""Local upload: the files of a batch go to InfoSum one by one, without a bucket."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs
import httpx

from partnerenrich import BadResponse, Unavailable
from partnerenrich.http import raise_for_status
from partnerenrich.models import StagedFile
from partnerenrich_infosum._api import Document, Refused, inside, needed, text
from partnerenrich_infosum._run import COMPLETED, Mark, Run, Seen, last_code, status_of
from partnerenrich_infosum._stages import quoted
from partnerenrich_infosum._startup import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import BinaryIO

CHUNK = 1 << 20
"""Bytes that are read at once."""


@attrs.frozen
class Upload:
    """Puts one file into the vault. Put there twice it is still one file: its path is the batch's."""

    plan: Plan
    file: StagedFile

    @property
    def name(self) -> str:
        """One stage for each file."""
        return f"upload of {self._filename}"

    async def before(self, run: Run) -> Mark:
        """Names the path in the vault."""
        return {"path": f"{run.api.config.target_folder}/{run.name}/{self._filename}"}

    async def start(self, run: Run, mark: Mark) -> str:
        """``POST /imports/uploads``, then the file itself to the address that it names."""
        wish = "take an upload"
        asked = {
            "cloud_vault_id": self.plan.vault,
            "target_filepath": mark["path"],
            "contents_sha256_checksum": self.file.sha256,
        }
        answer = await run.api.post(wish, "imports", "uploads", json=asked)
        identifier = needed(wish, answer, "local_file_upload_id")
        await self._put(run, needed(wish, answer, "upload_url"), _headers(answer))
        return identifier

    async def _put(self, run: Run, url: str, headers: dict[str, str]) -> None:
        """Send the file. The address is a credential of its own, and the key stays away from it."""
        headers["Content-Length"] = str(self.file.bytes)
        address = _address(run, url)
        content = _Content(await _opened(run, self.file))
        try:
            response = await run.api.http.put(address, content=content, headers=headers)
        except Exception:
            if content.problem is not None:
                raise content.problem from None
            raise
        finally:
            await content.close()
        if 400 <= response.status_code < 500 and response.status_code not in {408, 429}:
            status = response.status_code
            raise Refused(f"InfoSum's storage refuses a file of the batch ({status})", status)
        raise_for_status(response)

    async def find(self, run: Run, mark: Mark) -> str | None:
        """An upload to the path that is complete; any other cannot be gone on with."""
        path = mark["path"]
        listed = run.api.pages(
            "list uploads", "imports", "uploads", of="local_file_uploads", filter=f"target_filepath eq {quoted(path)}"
        )
        async for upload in listed:
            is_ours = text(upload, "target_filepath") == path and text(upload, "cloud_vault_id") == self.plan.vault
            if is_ours and status_of(upload) == COMPLETED:
                return text(upload, "id")
        return None

    async def poll(self, run: Run, mark: Mark) -> Seen:
        """``GET /imports/uploads/{id}``."""
        answer = await run.api.get("tell of the upload", "imports", "uploads", mark["id"])
        details = inside(answer, "local_file_upload_details") or {}
        return Seen(status_of(inside(details, "local_file_upload") or {}), last_code(details))

    @property
    def _filename(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.file.url).path)).name


def _address(run: Run, text: str) -> httpx.URL:
    with suppress(httpx.InvalidURL):
        url = httpx.URL(text)
        if url.host and url.scheme == httpx.URL(run.api.config.base_url).scheme:
            return url
    raise BadResponse("InfoSum names an upload address that is no URL, or of another scheme than base_url")


def _headers(answer: Document) -> dict[str, str]:
    headers = inside(answer, "headers") or {}
    return {name: value for name, value in headers.items() if isinstance(value, str)}


async def _opened(run: Run, file: StagedFile) -> BinaryIO:
    try:
        return await asyncio.to_thread(run.batch.open, file)
    except Exception as error:  # noqa: BLE001 - a storage may raise anything; it is no answer of InfoSum
        raise Unavailable(f"a file of the batch cannot be opened ({type(error).__name__})") from None


class _Content:
    """
    The bytes of a file, for an HTTP client to send.

    Attributes:
        problem: Why there are no more. A client may take what it meets here for a broken connection.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.problem: Unavailable | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await asyncio.to_thread(self._source.read, CHUNK):
                yield chunk
        except Exception as error:  # noqa: BLE001 - a storage may raise anything
            self.problem = Unavailable(f"a file of the batch cannot be read ({type(error).__name__})")
            raise self.problem from None

    async def close(self) -> None:
        await asyncio.to_thread(self._source.close)
