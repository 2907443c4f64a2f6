"""What a request may be, checked before anything reads it: query names, media type, size, plain JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from math import isinf
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.problems import ProblemError, field_error

MAX_BODY_BYTES = 1 << 20

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses query parameters it does not know, and bodies that are not plain JSON."""

    def get_route_handler(self) -> Handler:
        """The handler behind the checks."""
        handler = super().get_route_handler()
        known = _query_names(self.dependant)

        async def checked(request: Request) -> Response:
            _check_query(request, known)
            return await handler(StrictRequest(request.scope, request.receive))

        return checked


class StrictRequest(Request):
    """A request whose body is limited, and whose JSON holds nothing the database or a reader cannot hold."""

    async def body(self) -> bytes:
        """The whole body; ProblemError when it is no JSON by its media type, or too large."""
        if not hasattr(self, "_body"):
            _check_media_type(self.headers.get("content-type"))
            self._body = await self._read_limited()
        return self._body

    async def json(self) -> Any:
        """The body parsed; ProblemError for NaN, infinities, NUL, lone surrogates, repeated names."""
        body = await self.body()
        try:
            return _parse(body.decode())
        except RecursionError:
            raise _invalid_json("it is nested too deeply") from None
        except ValueError as error:
            raise _invalid_json(str(error)) from None

    async def _read_limited(self) -> bytes:
        chunks, size = [], 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                detail = f"the body is larger than {MAX_BODY_BYTES} bytes; make it smaller"
                # What has not been read would be taken for the next request.
                raise ProblemError("body-too-large", 413, detail, headers={"Connection": "close"})
            chunks.append(chunk)
        return b"".join(chunks)


def _query_names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(_query_names, dependant.dependencies))


def _check_query(request: Request, known: set[str]) -> None:
    for name in request.query_params:
        if name in known:
            continue
        listed = ", ".join(sorted(known)) or "none here"
        message = f"unknown query parameter; known: {listed}; correct its name or leave it out"
        errors = [field_error(name, message, value=request.query_params[name])]
        raise ProblemError("invalid-request", 422, f"{name}: {message}", errors=errors)


def _check_media_type(content_type: str | None) -> None:
    message = Message()
    message["content-type"] = content_type or "application/octet-stream"
    is_json = message.get_content_subtype() == "json" or message.get_content_subtype().endswith("+json")
    if message.get_content_maintype() != "application" or not is_json:
        detail = f"Content-Type {content_type or 'missing'} is not application/json; send JSON and say so"
        raise ProblemError("unsupported-media-type", 415, detail)


def _parse(text: str) -> Any:
    value = json.loads(
        text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_distinct
    )
    # Only an escape can spell what the bytes themselves cannot.
    if "\\u" in text:
        _check_storable(value)
    return value


def _check_storable(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("a text holds NUL or half of a surrogate pair, which cannot be stored")
    elif isinstance(value, list):
        for item in value:
            _check_storable(item)
    elif isinstance(value, dict):
        _check_storable([*value, *value.values()])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the name {name[:40]!r} is given twice")
        members[name] = value
    return members


def _invalid_json(reason: str) -> ProblemError:
    return ProblemError("invalid-json", 422, f"the body cannot be read as JSON: {reason}; correct it")
