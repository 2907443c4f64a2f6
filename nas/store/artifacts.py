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
from typing import IO, Any
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from nas.errors import ArtifactError

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
    """One file to download: what a listing shows, and where its bytes are."""

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
        path = self._path(key)
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            size_bytes, sha256 = self._write(temporary, source)
            self._fs.mv(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                self._fs.rm_file(temporary)
            raise
        if self._is_local:
            _sync_folder(Path(path).parent)
        return StoredArtifact(str(self._fs.unstrip_protocol(path)), size_bytes, sha256)

    def open(self, uri: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` on, `length` of them or all, in chunks; ArtifactError if missing."""
        path = self._path_of(uri)
        try:
            file = self._fs.open(path, "rb")
        except FileNotFoundError as error:
            raise ArtifactError(f"the bytes of {uri} are missing from the artefact store") from error
        return _chunks(file, offset, length)

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

    @property
    def _is_local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

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

    def _write(self, path: str, source: Path | bytes) -> tuple[int, str]:
        digest = hashlib.sha256()
        size_bytes = 0
        with self._fs.open(path, "wb") as file:
            for chunk in _source_chunks(source):
                digest.update(chunk)
                size_bytes += file.write(chunk)
            if self._is_local:
                # Else a power cut after the rename could leave the name with no bytes behind it.
                file.flush()
                os.fsync(file.fileno())
        return size_bytes, digest.hexdigest()


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
