"""Errors as RFC 9457 problems: one shape for all of them, with a stable `type` to branch on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException as StarletteHTTPException

from nas.errors import (
    ArtifactError,
    ConflictError,
    InvalidArchitectureError,
    InvalidRequestError,
    NasError,
    NotFoundError,
    UnknownNameError,
)
from nas.store.database import DatabaseError
from nas.store.deletion import ResourceInUseError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_MAX_VALUE_CHARACTERS = 200
_MAX_DETAIL_CHARACTERS = 1500
"""Room for a list of what is allowed, not for whatever was sent."""

NAS_PROBLEMS: Sequence[tuple[type[NasError], str, int]] = (
    (NotFoundError, "not-found", 404),
    (InvalidArchitectureError, "unknown-architecture", 422),
    (InvalidRequestError, "invalid-request", 422),
    (UnknownNameError, "unknown-name", 422),
    (ConflictError, "conflict", 409),
    (ArtifactError, "artifact-unavailable", 503),
    (DatabaseError, "database-unavailable", 503),
)

_MESSAGES = {
    "extra_forbidden": "unknown field; correct its name or leave it out",
    "missing": "required, but not given",
}
"""Where pydantic's own words name no remedy."""


class ProblemError(HTTPException):
    """A problem raised where it is found; `members` are further fields of its body."""

    def __init__(
        self, slug: str, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(status, detail, headers=dict(headers or {}))
        self.slug = slug
        self.members = members


def field_error(field: str, message: str, **more: Any) -> dict[str, Any]:
    """One entry of a problem's `errors`; `more` may hold the value and what is allowed."""
    return {"field": field, **more, "message": _cut(message, _MAX_DETAIL_CHARACTERS)}


def invalid_field(field: str, value: Any, message: str, *, slug: str = "invalid-request") -> ProblemError:
    """A 422 about one field, found after the shape was checked."""
    return ProblemError(slug, 422, message, errors=[field_error(field, message, value=_shown(value))])


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(NasError, _on_nas_error)
    for unavailable in (OperationalError, PoolTimeoutError):
        app.add_exception_handler(unavailable, _on_database_error)
    app.add_exception_handler(DataError, _on_unstorable_value)
    app.add_exception_handler(Exception, _on_defect)


def problem_response(
    slug: str, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """The answer that tells of the problem."""
    body = {
        "type": f"/problems/{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": _cut(detail, _MAX_DETAIL_CHARACTERS),
        **members,
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ProblemError):
        return problem_response(
            error.slug, error.status_code, error.detail, headers=error.headers, **error.members
        )
    assert isinstance(error, StarletteHTTPException)
    slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"no resource at {request.url.path}; the paths are listed in /openapi.json"
    if error.status_code == 405:
        detail = f"{request.method} is not possible at {request.url.path}; see the Allow header"
    return problem_response(slug, error.status_code, detail, headers=error.headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    # A malformed id names nothing: to its sender that is the same as an id that does not exist.
    if any(entry["loc"][0] == "path" for entry in found):
        return problem_response("not-found", 404, f"no resource at {request.url.path}")
    errors = [_as_field_error(entry, error.body) for entry in found]
    more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
    detail = f"{errors[0]['field']}: {errors[0]['message']}{more}"
    return problem_response("invalid-request", 422, detail, errors=errors)


async def _on_nas_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ResourceInUseError):
        used_by = [asdict(user) for user in error.used_by]
        return problem_response(
            "resource-in-use", 409, str(error), used_by=used_by, num_users=error.num_users
        )
    for kind, slug, status in NAS_PROBLEMS:
        if isinstance(error, kind):
            return problem_response(slug, status, str(error))
    return await _on_defect(request, error)


async def _on_database_error(request: Request, error: Exception) -> JSONResponse:
    logger.warning("the database does not answer", extra={"path": request.url.path, "error": str(error)})
    detail = "the database does not answer just now; try again"
    return problem_response("database-unavailable", 503, detail, headers={"Retry-After": "5"})


async def _on_unstorable_value(request: Request, error: Exception) -> JSONResponse:
    # A net below the schemas, which are to refuse such values with their names.
    logger.warning("a value got past the schemas", extra={"path": request.url.path, "error": str(error)})
    return problem_response("invalid-request", 422, "the request holds a value that cannot be stored")


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    # The server logs the traceback; whoever asked learns nothing about our insides.
    del request, error
    detail = "a defect of this service; its log has the details"
    # The server drops the connection after a defect, and must not surprise the next request on it.
    return problem_response("internal-error", 500, detail, headers={"Connection": "close"})


def _as_field_error(entry: Mapping[str, Any], body: Any) -> dict[str, Any]:
    source, *path = entry["loc"]
    is_missing = entry["type"] == "missing"
    if source == "body":
        path = _path_in(body, path, ends_missing=is_missing)
    message = _MESSAGES.get(entry["type"]) or _with_remedy(str(entry["msg"]))
    # The input of a missing field is all that surrounds it.
    more = {} if is_missing else {"value": _shown(entry.get("input"))}
    if "expected" in entry.get("ctx", {}):
        more["allowed"] = str(entry["ctx"]["expected"])
    return field_error(".".join(map(str, path)) or str(source), message, **more)


def _with_remedy(message: str) -> str:
    """Our own validators name a remedy; pydantic says what is wrong or allowed, and no more."""
    own = message.removeprefix("Value error, ")
    return own if own != message else f"{message}; correct it"


def _path_in(body: Any, path: Sequence[str | int], *, ends_missing: bool) -> list[str | int]:
    """The path as the sender wrote it: pydantic puts in which of several models it tried."""
    shown, value = [], body
    for depth, part in enumerate(path, start=1):
        is_member = isinstance(value, Mapping) and part in value
        is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_member or is_item:
            value = value[part]
        elif not (ends_missing and depth == len(path)):
            continue
        shown.append(part)
    return shown


def _shown(value: Any) -> Any:
    """The value as the sender wrote it, or its beginning where it is long."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        # A number from a query may be none that JSON knows.
        return _cut(str(value), _MAX_VALUE_CHARACTERS)
    return value if len(text) <= _MAX_VALUE_CHARACTERS else _cut(text, _MAX_VALUE_CHARACTERS)


def _cut(text: str, num_characters: int) -> str:
    return text if len(text) <= num_characters else f"{text[:num_characters]}…"
