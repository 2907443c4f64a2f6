"""Bodies of JSON lines: latency tables, and what probes wrote."""

from __future__ import annotations

from email.message import Message
from typing import Any, Final

from fastapi import Request

from api.problems import ProblemError

MEDIA_TYPES: Final = ("application/jsonl", "application/x-ndjson", "application/octet-stream")
MAX_BYTES: Final = 16 << 20
"""Some 60,000 blocks: more than the networks of any space here are made of."""

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {MEDIA_TYPES[0]: {"schema": {"type": "string"}}},
}
"""What OpenAPI says of such a body."""


async def read_lines(request: Request) -> str:
    """The whole body as text; ProblemError where it is too large, no UTF-8, or said to be something else."""
    _check_media_type(request.headers.get("content-type"))
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            detail = f"the body is larger than {MAX_BYTES} bytes; send fewer lines"
            # What has not been read would be taken for the next request.
            raise ProblemError("body-too-large", 413, detail, headers={"Connection": "close"})
        chunks.append(chunk)
    try:
        text = b"".join(chunks).decode()
    except UnicodeDecodeError as error:
        detail = f"the body is no UTF-8: {error.reason} at byte {error.start}; send JSON lines"
        raise ProblemError("invalid-lines", 422, detail) from None
    if "\0" in text:
        raise ProblemError("invalid-lines", 422, "the body holds NUL, which JSON has not; send JSON lines")
    return text


def _check_media_type(content_type: str | None) -> None:
    message = Message()
    message["content-type"] = content_type or MEDIA_TYPES[0]
    if message.get_content_type() not in MEDIA_TYPES:
        detail = (
            f"Content-Type {content_type} is none of {', '.join(MEDIA_TYPES)}; send JSON lines as the body"
        )
        raise ProblemError("unsupported-media-type", 415, detail)
