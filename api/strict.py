"""What a request may be, checked before anything reads it: query names, media type, size, plain JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from math import isinf
from typing import Any, NoReturn, get_args, get_origin

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.problems import ProblemError, invalid_field

MAX_BODY_BYTES = 1 << 20
_MAX_DEPTH = 32
"""Far more than any request needs, and far less than what a recursion over it could not bear."""
_TOO_DEEP = f"it is nested too deeply; {_MAX_DEPTH} levels are allowed"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses query parameters it does not know, and bodies that are not plain JSON."""

    max_body_bytes: int = MAX_BODY_BYTES

    def get_route_handler(self) -> Handler:
        """The handler behind the checks."""
        handler = super().get_route_handler()
        known = _query_params(self.dependant)

        async def checked(request: Request) -> Response:
            _check_query(request, known)
            return await handler(StrictRequest(request, self.max_body_bytes))

        return checked


class LongBodyRoute(StrictRoute):
    """A strict route for bodies that are long of their nature: a thousand networks, readably spelled."""

    max_body_bytes = 4 * MAX_BODY_BYTES


class StrictRequest(Request):
    """A request whose body is limited, and whose JSON holds nothing the database or a reader cannot hold."""

    def __init__(self, request: Request, max_body_bytes: int) -> None:
        super().__init__(request.scope, request.receive)
        self._max_body_bytes = max_body_bytes

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
            raise _invalid_json(_TOO_DEEP) from None
        except ValueError as error:
            raise _invalid_json(str(error)) from None

    async def _read_limited(self) -> bytes:
        chunks, size = [], 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > self._max_body_bytes:
                detail = f"the body is larger than {self._max_body_bytes} bytes; make it smaller"
                # What has not been read would be taken for the next request.
                raise ProblemError("body-too-large", 413, detail, headers={"Connection": "close"})
            chunks.append(chunk)
        return b"".join(chunks)


def _query_params(dependant: Dependant) -> dict[str, bool]:
    """By name whether the parameter may be repeated."""
    own = {field.alias: _is_list(field.field_info.annotation) for field in dependant.query_params}
    for dependency in dependant.dependencies:
        own |= _query_params(dependency)
    return own


def _is_list(annotation: Any) -> bool:
    """Whether it is a list, or one among what it may be."""
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _check_query(request: Request, known: Mapping[str, bool]) -> None:
    for name in request.query_params:
        values = request.query_params.getlist(name)
        if name not in known:
            listed = ", ".join(sorted(known)) or "none here"
            raise invalid_field(
                name, values[0], f"unknown query parameter; known: {listed}; correct its name or leave it out"
            )
        if len(values) > 1 and not known[name]:
            raise invalid_field(name, values, "given more than once; give it once")


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
    _check_depth(value, _MAX_DEPTH)
    # Only an escape can spell what the bytes themselves cannot.
    if "\\u" in text:
        _check_storable(value)
    return value


def _check_depth(value: Any, levels_left: int) -> None:
    if not isinstance(value, list | dict):
        return
    if levels_left == 0:
        raise ValueError(_TOO_DEEP)
    for item in value if isinstance(value, list) else value.values():
        _check_depth(item, levels_left - 1)


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
