"""The bytes of weights and bundles: a folder, or any object store that fsspec speaks."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from nas.errors import ArtifactError
from nas.ports import StopCheck, never_stop

_CHUNK_BYTES = 1 << 20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class StoredArtifact:
    """Where the bytes are, how many, and which."""

    uri: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file that a resource offers: what a listing shows, and where its bytes are."""

    name: str
    size_bytes: int
    sha256: str
    media_type: str
    uri: str


class ArtifactStore:
    """Files under one root, each whole or absent."""

    def __init__(self, url: str) -> None:
        # fsspec takes a file URL's path as it stands, and URLs are percent-encoded.
        self._fs, root = fsspec.url_to_fs(unquote(url) if url.startswith("file:") else url)
        self._root = str(root).rstrip("/")

    def put(self, key: str, source: Path | bytes) -> StoredArtifact:
        """Store a file or bytes under `key`, such as `sub_…/model.onnx`; what was there is replaced."""
        with self.writer(key) as writer:
            for chunk in _source_chunks(source):
                writer.write(chunk)
            return writer.finish()

    def writer(self, key: str) -> ArtifactWriter:
        """Takes what is to be stored under `key` chunk by chunk, for bytes that come from outside."""
        path = self._path(key)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return ArtifactWriter(self._fs, path)

    def open(self, uri: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` on, `length` of them or all, in chunks; ArtifactError if missing."""
        return _chunks(self.open_file(uri), offset, length)

    def open_checked(self, uri: str, sha256: str, *, remedy: str) -> Iterator[bytes]:
        """All bytes, in chunks; after the last, ArtifactError with `remedy` unless `sha256` is theirs."""
        digest = hashlib.sha256()
        for chunk in self.open(uri):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != sha256:
            raise ArtifactError(f"the bytes of {uri} are not those that were stored; {remedy}")

    def fetch(
        self, uri: str, target: Path, sha256: str, *, remedy: str, stop_check: StopCheck = never_stop
    ) -> None:
        """Copy the bytes to a file, checked as by `open_checked`; `stop_check` is called for each chunk."""
        with target.open("wb") as file:
            for chunk in self.open_checked(uri, sha256, remedy=remedy):
                stop_check()
                file.write(chunk)

    def open_file(self, uri: str) -> IO[bytes]:
        """The bytes as a file that can seek, for who needs a part of them; ArtifactError if missing."""
        try:
            file: IO[bytes] = self._fs.open(self._path_of(uri), "rb")
        except FileNotFoundError as error:
            raise _missing(uri) from error
        return file

    def size_bytes(self, uri: str) -> int:
        """How many bytes there are; ArtifactError if they are missing."""
        try:
            return int(self._fs.size(self._path_of(uri)))
        except FileNotFoundError as error:
            raise _missing(uri) from error

    def exists(self, uri: str) -> bool:
        """Whether the bytes are there."""
        return bool(self._fs.isfile(self._path_of(uri)))

    def delete(self, uri: str) -> None:
        """Remove the bytes; nothing happens if they are gone already."""
        path = self._path_of(uri)
        with suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def key_of(self, uri: str) -> str:
        """The key under which the bytes were stored; ArtifactError where they lie in another store."""
        return self._path_of(uri).removeprefix(f"{self._root}/")

    def folders(self, key: str) -> list[str]:
        """The keys of the folders directly below `key`, sorted; none where there is nothing."""
        try:
            entries = self._fs.ls(self._path(key), detail=True)
        except FileNotFoundError:
            return []
        paths = [str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory"]
        return sorted(f"{key}/{path.rpartition('/')[2]}" for path in paths)

    def delete_folder(self, key: str) -> None:
        """Remove the folder and everything in it; nothing happens if it is gone already."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._path(key), recursive=True)

    def _path(self, key: str) -> str:
        if not all(_PART.fullmatch(part) for part in key.split("/")):
            raise ArtifactError(
                f"artefact key {key!r} is not allowed; use letters, digits, '.', '_' and '-' between "
                "slashes, no part beginning with a dot"
            )
        return f"{self._root}/{key}"

    def _path_of(self, uri: str) -> str:
        path = str(self._fs._strip_protocol(uri))
        if not path.startswith(f"{self._root}/"):
            raise ArtifactError(f"{uri} does not lie in this artefact store")
        # Checked again as a key: a URI from a database row must not climb out either.
        return self._path(path.removeprefix(f"{self._root}/"))


class ArtifactWriter:
    """Bytes on their way into the store: they appear under their name with `finish`, whole, or never."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path
        self._is_local = isinstance(fs, LocalFileSystem)
        self._temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        self._digest = hashlib.sha256()
        self._is_over = False
        self.size_bytes = 0
        """Written so far."""
        self._file = fs.open(self._temporary, "wb")

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, chunk: bytes) -> None:
        """Add a chunk."""
        self._digest.update(chunk)
        self.size_bytes += self._file.write(chunk)

    def finish(self) -> StoredArtifact:
        """The bytes under their name; what was there before is replaced."""
        with self._file:
            if self._is_local:
                # Else a power cut after the rename could leave the name with no bytes behind it.
                self._file.flush()
                os.fsync(self._file.fileno())
        self._fs.mv(self._temporary, self._path)
        self._is_over = True
        if self._is_local:
            _sync_folder(Path(self._path).parent)
        return StoredArtifact(
            str(self._fs.unstrip_protocol(self._path)), self.size_bytes, self._digest.hexdigest()
        )

    def discard(self) -> None:
        """Leave nothing of what was written; nothing happens once it is finished."""
        if self._is_over:
            return
        self._is_over = True
        with suppress(OSError):
            self._file.close()
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._temporary)


def _missing(uri: str) -> ArtifactError:
    return ArtifactError(f"the bytes of {uri} are missing from the artefact store")


def _source_chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        yield from _chunks(file, 0, None)


def _chunks(file: IO[bytes] | Any, offset: int, length: int | None) -> Iterator[bytes]:
    with file:
        file.seek(offset)
        remaining = length
        while remaining is None or remaining > 0:
            chunk = file.read(_CHUNK_BYTES if remaining is None else min(_CHUNK_BYTES, remaining))
            if not chunk:
                return
            if remaining is not None:
                remaining -= len(chunk)
            yield chunk


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
