"""Answers with a strong ETag: whoever holds the same bytes already gets 304."""

from __future__ import annotations

import hashlib

from fastapi import Response
from pydantic import BaseModel


def etag_of(sha256: str) -> str:
    """The ETag of bytes with this digest."""
    return f'"{sha256}"'


def is_held(etag: str, if_none_match: str | None) -> bool:
    """Whether the client's If-None-Match names the ETag; weak ones count, as RFC 9110 has it here."""
    if if_none_match is None:
        return False
    held = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in held or held == ["*"]


def tagged_json(answer: BaseModel, if_none_match: str | None) -> Response:
    """The answer as JSON, or 304 without a body."""
    body = answer.model_dump_json().encode()
    headers = {"ETag": etag_of(hashlib.sha256(body).hexdigest()), "Cache-Control": "no-cache"}
    if is_held(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
