"""Bytes of an artefact: whole, from where a cut download ended, or not at all when they are held already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.etags import etag_of, is_held
from api.problems import ProblemError
from nas.store.artifacts import Artifact, ArtifactStore

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


DOWNLOAD_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": {"application/octet-stream": {}}},
    206: {"description": "The bytes of the Range asked for."},
    304: {"description": "The client holds these bytes already."},
    416: {"description": "The Range lies outside the file."},
}
"""What OpenAPI says of a download."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes `first` to `last`, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def download(request: Request, artifact: Artifact, store: ArtifactStore) -> Response:
    """The answer to GET or HEAD, by Range, If-Range and If-None-Match."""
    etag = etag_of(artifact.sha256)
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # A name tells nothing of the bytes: whoever keeps them is to ask whether they are still these.
        "Cache-Control": "private, no-cache",
    }
    if is_held(etag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{artifact.name}"'
    wanted = _wanted_range(request, artifact)
    sent = wanted or ByteRange(0, artifact.size_bytes - 1)
    headers["Content-Length"] = str(sent.length)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {wanted.first}-{wanted.last}/{artifact.size_bytes}"
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    chunks = store.open(artifact.uri, sent.first, sent.length)
    return StreamingResponse(chunks, status, headers=headers, media_type=artifact.media_type)


def _wanted_range(request: Request, artifact: Artifact) -> ByteRange | None:
    asked = request.headers.get("range")
    # If-Range: the rest is of use only to who holds the beginning of these very bytes.
    condition = request.headers.get("if-range")
    if asked is None or (condition is not None and condition != etag_of(artifact.sha256)):
        return None
    return parse_range(asked, artifact.size_bytes)


def parse_range(header: str, size_bytes: int) -> ByteRange | None:
    """The range asked for, cut to the size; None where the header is to be ignored; ProblemError for 416."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        begin, end = max(0, size_bytes - int(last)), size_bytes - 1
    else:
        begin, end = int(first), min(int(last), size_bytes - 1) if last else size_bytes - 1
        if last and int(last) < begin:
            return None
    if begin > end:
        detail = f"range {header!r} lies outside the {size_bytes} bytes; ask for one that begins before"
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise ProblemError("range-not-satisfiable", 416, detail, headers=headers)
    return ByteRange(begin, end)
