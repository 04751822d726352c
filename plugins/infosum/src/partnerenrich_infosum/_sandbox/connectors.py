"""Where an importer copies from: a folder of this machine, or a real bucket."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore.store import ObjectStore


class CannotRead(Exception):
    """The bucket or the folder cannot be read."""


class Connector(Protocol):
    """A place with files."""

    def files(self) -> Iterator[str]:
        """Paths below the prefix. Raises `CannotRead`."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file."""

    def described(self) -> dict[str, Any]:
        """What the API tells of it; no credential."""


def connector(url: str, options: Mapping[str, Any]) -> Connector:
    """
    The connector to a place.

    Args:
        url: ``file:///folder``, a path, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.
        options: Handed to obstore, such as ``endpoint``, ``access_key_id`` and ``secret_access_key``.

    Raises:
        ValueError: There is no connector for it.
    """
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        return Folder(Path(unquote(parts.path)))
    if parts.scheme in {"s3", "gs"}:
        return Bucket(parts.scheme, parts.netloc, unquote(parts.path).strip("/"), dict(options))
    raise ValueError("connectors are for folders (file://), S3 (s3://) and Google Cloud Storage (gs://)")


@attrs.frozen
class Folder:
    """A folder plays the root directory of an SFTP server."""

    path: Path

    def files(self) -> Iterator[str]:
        """See `Connector`."""
        if not self.path.is_dir():
            raise CannotRead
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                yield path.relative_to(self.path).as_posix()

    def chunks(self, path: str) -> Iterator[bytes]:
        """See `Connector`."""
        with (self.path / path).open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

    def described(self) -> dict[str, Any]:
        """See `Connector`."""
        where = {"host": "127.0.0.1", "port": 22, "username": "sandbox", "root_directory": str(self.path)}
        return {"connector_type": "SFTP", "sftp_connector": where}


@attrs.frozen
class Bucket:
    """A bucket of S3, of what speaks its protocol, or of Google Cloud Storage."""

    scheme: str
    bucket: str
    prefix: str
    options: Any = attrs.field(repr=False)

    def files(self) -> Iterator[str]:
        """See `Connector`."""
        import obstore  # noqa: PLC0415  wanted for a bucket alone
        from obstore.exceptions import BaseError  # noqa: PLC0415

        try:
            for found in obstore.list(self._store()):
                yield from sorted(meta["path"] for meta in found)
        except BaseError:
            raise CannotRead from None

    def chunks(self, path: str) -> Iterator[bytes]:
        """See `Connector`."""
        import obstore  # noqa: PLC0415  see above

        for chunk in obstore.get(self._store(), path).stream(min_chunk_size=1 << 20):
            yield bytes(chunk)

    def described(self) -> dict[str, Any]:
        """See `Connector`."""
        if self.scheme == "gs":
            return {
                "connector_type": "GCS_SECRET_AUTH",
                "gcs_connector": {"bucket": self.bucket, "prefix": self.prefix},
            }
        where = {"bucket": self.bucket, "prefix": self.prefix, "access_keys": {}}
        return {"connector_type": "S3_ACCESS_KEYS", "s3_connector": where}

    def _store(self) -> ObjectStore:
        from obstore.store import GCSStore, S3Store  # noqa: PLC0415  see above

        url, options = f"{self.scheme}://{self.bucket}/{self.prefix}", self.options
        if self.scheme == "gs":
            return GCSStore.from_url(url, config=options)
        is_plain = str(options.get("endpoint", "")).startswith("http://")
        return S3Store.from_url(url, config=options, client_options={"allow_http": True} if is_plain else None)


def passes(path: str, patterns: list[str] | None) -> bool:
    """Whether a filter lets a path through; no filter lets all."""
    return patterns is None or any(fnmatchcase(path, pattern) for pattern in patterns)
