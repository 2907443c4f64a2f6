"""Bytes of an upload, written to the artefact store as they come: never whole in memory, whole or gone."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from typing import Final

from anyio import CancelScope
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.problems import ProblemError, invalid_field
from nas.store.artifacts import ArtifactStore, ArtifactWriter, StoredArtifact

MEDIA_TYPES: Final = (
    "application/octet-stream",
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/gzip",
    "application/x-gzip",
    "application/vnd.apache.parquet",
)
"""What an upload may call itself. What it is, is found in the bytes when they are used."""

_BATCH_BYTES = 1 << 20
"""Written at once: each write takes a thread for a moment."""

_SHA_256 = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What the headers say of the bytes to come."""

    num_bytes: int | None
    """None for a chunked body."""
    sha256: str | None
    """Of Content-Digest, where it was given."""


def read_announcement(request: Request, *, max_bytes: int) -> Announcement:
    """What the headers promise; ProblemError, before a byte is read, where it cannot be accepted."""
    _check_media_type(request.headers.get("content-type"))
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        detail = f"Content-Encoding {encoding!r} is not undone; send the file as it is, without the header"
        raise ProblemError("unsupported-media-type", 415, detail)
    length = request.headers.get("content-length")
    num_bytes = None if length is None else int(length)
    if num_bytes is not None:
        _check_size(num_bytes, max_bytes)
    return Announcement(num_bytes=num_bytes, sha256=_promised_sha256(request.headers.get("content-digest")))


async def receive(
    request: Request, store: ArtifactStore, key: str, *, announced: Announcement, max_bytes: int
) -> StoredArtifact:
    """The body, stored under `key`; ProblemError where it is cut, too large or changed."""
    writer = await run_in_threadpool(store.writer, key)
    try:
        await _write(request, writer, max_bytes)
        stored = await run_in_threadpool(writer.finish)
    except ClientDisconnect:
        # Nobody hears it; but an upload that was cut is no defect of ours.
        raise ProblemError("upload-cut", 400, "the connection ended before the body did") from None
    finally:
        # Also when the server stops meanwhile.
        with CancelScope(shield=True):
            await run_in_threadpool(writer.discard)
    _check_arrived(stored, announced)
    return stored


async def _write(request: Request, writer: ArtifactWriter, max_bytes: int) -> None:
    async for batch in _batches(request.stream()):
        _check_size(writer.size_bytes + len(batch), max_bytes)
        await run_in_threadpool(writer.write, batch)


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    batch = bytearray()
    async for chunk in chunks:
        batch += chunk
        if len(batch) >= _BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)


def _check_media_type(content_type: str | None) -> None:
    message = Message()
    message["content-type"] = content_type or MEDIA_TYPES[0]
    if message.get_content_type() not in MEDIA_TYPES:
        detail = (
            f"Content-Type {content_type} is none of {', '.join(MEDIA_TYPES)}; send the file's own bytes as "
            f"the body, not a form, under {MEDIA_TYPES[0]}"
        )
        raise ProblemError("unsupported-media-type", 415, detail)


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        detail = (
            f"the upload is larger than {max_bytes} bytes; send less, put the file on the workers' machine "
            "and name its path, or raise NAS_MAX_UPLOAD_BYTES"
        )
        # What has not been read would be taken for the next request.
        raise ProblemError("body-too-large", 413, detail, headers={"Connection": "close"})


def _promised_sha256(content_digest: str | None) -> str | None:
    """As hexadecimal digits; other digests than SHA-256 are passed over, as RFC 9530 has it."""
    for member in (content_digest or "").split(","):
        if not member.strip().startswith("sha-256="):
            continue
        match = _SHA_256.fullmatch(member.strip())
        if match is None:
            message = "not sha-256=:BASE64: with the 32 bytes of the digest; correct it or leave it out"
            raise invalid_field("content-digest", content_digest, message)
        return binascii.hexlify(b64decode(match[1])).decode()
    return None


def _check_arrived(stored: StoredArtifact, announced: Announcement) -> None:
    if stored.size_bytes == 0:
        raise ProblemError("empty-upload", 422, "the body is empty; send the file's bytes as the body")
    if announced.sha256 is not None and announced.sha256 != stored.sha256:
        detail = (
            f"{stored.size_bytes} bytes came with SHA-256 {stored.sha256}, and Content-Digest promised "
            f"{announced.sha256}; send them again"
        )
        raise ProblemError("digest-mismatch", 422, detail)
