# Made by `python -m nas.client.derive` from nas/client/asynchronous/uploads.py: change that one.
"""Files sent to the service: read while they are sent, and sent again when the connection breaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from nas.client.concurrency import beside
from nas.client.errors import ClientError
from nas.client.transport import Transport

_PATH = "/v1/uploads"
_CHUNK_BYTES = 1 << 20

OnProgress = Callable[[int, int | None], None]
"""Told how many bytes are sent, and how many there are; None where the file does not tell its size."""


class Uploads:
    """Files that data sets and weights are made of."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        source: str | Path | IO[bytes],
        *,
        display_name: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Send a file, named by its path or open for reading; the upload, whose `id` data sets may name.

        What cannot be read a second time, such as a pipe, is not sent again when the connection breaks.
        """
        with ExitStack() as stack:
            file = stack.enter_context(Path(source).open("rb")) if isinstance(source, str | Path) else source
            if display_name is None:
                display_name = Path(str(getattr(file, "name", ""))).name
            content = FileContent(file, on_progress)
            params = {"display_name": display_name[-200:]}
            answer: dict[str, Any] = self._transport.create_from_bytes(
                _PATH, content, num_bytes=content.num_bytes, params=params
            )
            return answer

    def get(self, upload_id: str) -> dict[str, Any]:
        """One upload; ResourceNotFoundError when there is none."""
        return dict(self._transport.get(f"{_PATH}/{quote(upload_id, safe='')}"))

    def list(self) -> Iterator[dict[str, Any]]:
        """Every upload, newest first, read page by page."""
        return self._transport.pages(_PATH)

    def delete(self, upload_id: str) -> None:
        """Delete it; StateConflictError while something is made of it."""
        self._transport.delete(f"{_PATH}/{quote(upload_id, safe='')}")


class FileContent:
    """A file's bytes from where it stands to its end, as often as they are asked for."""

    def __init__(self, file: IO[bytes], on_progress: OnProgress | None) -> None:
        self._file = file
        self._on_progress = on_progress
        self._begin = file.tell() if file.seekable() else None
        self._is_read = False
        self.num_bytes = self._size()
        """None where only reading to the end would tell."""

    def __iter__(self) -> Iterator[bytes]:
        if self._is_read:
            if self._begin is None:
                raise ClientError("the connection broke, and what was sent cannot be read again; start anew")
            self._file.seek(self._begin)
        self._is_read = True
        num_sent = 0
        while chunk := beside(self._file.read, _CHUNK_BYTES):
            yield chunk
            num_sent += len(chunk)
            if self._on_progress is not None:
                self._on_progress(num_sent, self.num_bytes)

    def _size(self) -> int | None:
        if self._begin is None:
            return None
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(self._begin)
        return end - self._begin
