"""Object storage, whatever its kind: S3, Azure Blob, Google Cloud Storage or a folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

import attrs

from partnerenrich import ConfigError, PartnerEnrichError
from partnerenrich.errors import Problem
from partnerenrich_server.failures import Failure

try:
    import obstore
    from obstore import exceptions, store
except ImportError:
    raise Failure("object storage needs more: pip install 'partnerenrich-server[deliver]'") from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from partnerenrich.secret import Secret

_CHUNK: Final = 1 << 20
_REFUSED: Final = re.compile(r"\b(401|403)\b|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch")
_RETRY: Final[Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}


class StorageError(PartnerEnrichError):
    """The object storage refuses, cannot be reached, or holds something else than was written."""


class NotThere(StorageError):
    """There is no such bucket, container or object."""


@attrs.frozen
class Entry:
    """
    One object.

    Attributes:
        path: Below the root.
        size: Bytes.
        modified: Unix time in seconds.
    """

    path: str
    size: int
    modified: float


@attrs.frozen(eq=False)
class Storage:
    """
    A folder in object storage. All methods block.

    Attributes:
        url: Of the folder.
    """

    url: str
    _open: Callable[[], Any] = attrs.field(repr=False)
    _folder: Path | None = None

    @classmethod
    def open(cls, place: str, options: Mapping[str, Secret], *, make: bool = True) -> Storage:
        """
        Open a folder; nothing is read yet.

        Args:
            place: A path, or a URL with the scheme s3, az, gs or file.
            options: For the storage, as obstore names them.
            make: Whether a local folder is made when it is not there, as soon as it is used. While it cannot be made,
                the storage fails.

        Raises:
            ConfigError: Place or options are wrong.
        """
        parts = urlsplit(place)
        folder = place if "://" not in place else unquote(parts.path) if parts.scheme == "file" else None
        try:
            if folder is not None:
                path = Path(folder).expanduser().absolute()
                made = functools.cache(lambda: _made(path))
                return cls(path.as_uri(), made if make else _always(store.LocalStore(path)), path)
            plain: Any = {name: option.reveal() for name, option in options.items()}
            client: Any = {"allow_http": plain.get("endpoint", "").startswith("http://")}
            opened = store.from_url(place, config=plain, client_options=client, retry_config=_RETRY)
            return cls(place.rstrip("/"), _always(opened))
        except (exceptions.BaseError, OSError, ValueError, TypeError):
            pass  # what they say may hold an option
        raise ConfigError([Problem("deliver.staging", "cannot be opened: check the URL, and the names in options")])

    @property
    def _store(self) -> Any:
        return self._open()

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects below a folder, in no order."""
        with _refusals():
            for page in obstore.list(self._store, prefix):
                for meta in page:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def read(self, path: str) -> bytes | None:
        """The content of one object; None when it is not there."""
        with _refusals():
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

    def create(self, path: str, content: bytes) -> bool:
        """Write one object, unless it is there already; tell whether it was written."""
        with _refusals():
            try:
                obstore.put(self._store, path, content, mode="create")
            except exceptions.AlreadyExistsError:
                return False
            return True

    def upload(self, path: str, file: Path) -> None:
        """Move a file here, as one object."""
        with _refusals():
            if self._folder:
                place = self._folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file, place)
            else:
                obstore.put(self._store, path, file)
                file.unlink()

    def download(self, path: str, file: Path) -> None:
        """Read one object into a file."""
        with _refusals(), file.open("wb") as out:
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=_CHUNK):
                out.write(chunk)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are gone already do not matter."""
        for path in paths:
            with _refusals(), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._store, path)

    def reader(self, path: str, sha256: str) -> io.BufferedReader:
        """Read one object as a file whose end raises `StorageError` when the content has another digest."""
        with _refusals():
            chunks = iter(obstore.get(self._store, path).stream(min_chunk_size=_CHUNK))
        return io.BufferedReader(_Checked(chunks, sha256), _CHUNK)

    def url_of(self, path: str) -> str:
        """Where one object lies."""
        return f"{self.url}/{quote(path)}" if self.url.startswith("file:") else f"{self.url}/{path}"

    def path_of(self, url: str) -> str:
        """
        What `url_of` made a URL of.

        Raises:
            StorageError: It lies elsewhere.
        """
        if not url.startswith(f"{self.url}/"):
            raise StorageError("the file is not in the staging folder of this configuration")
        path = url.removeprefix(f"{self.url}/")
        return unquote(path) if self.url.startswith("file:") else path


def _always(opened: Any) -> Callable[[], Any]:
    return lambda: opened


def _made(folder: Path) -> Any:
    """A folder, made if it is not there. Raises `StorageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the staging folder {folder} cannot be made: {error.strerror}") from None
    return store.LocalStore(folder)


class _Checked(io.RawIOBase):
    def __init__(self, chunks: Iterator[Any], sha256: str) -> None:
        self._chunks = chunks
        self._expected = sha256
        self._hash = hashlib.sha256()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            with _refusals():
                chunk = next(self._chunks, None)
            if chunk is None:
                if self._hash.hexdigest() != self._expected:
                    raise StorageError("a staged file is not what was sealed: it was changed, or not read to its end")
                return 0
            self._rest = memoryview(chunk)
            self._hash.update(self._rest)
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Tell what went wrong without the words of the storage, for they may hold credentials."""
    refused = StorageError("the object storage refuses the credentials, or what they may do there")
    told: StorageError | None = None
    try:
        yield
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError):
        told = refused
    except FileNotFoundError:
        told = NotThere("the object storage has no such bucket, container or object")
    except exceptions.BaseError as error:
        failed = StorageError("the object storage cannot be reached, or fails")
        told = refused if _REFUSED.search(str(error)) else failed
    except OSError as error:
        told = StorageError(f"the staging folder fails: {error.strerror}")
    if told:
        raise told
