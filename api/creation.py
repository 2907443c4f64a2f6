"""Creating requests: one transaction, 201 with a Location, and at most once for an idempotency key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from fastapi import Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.problems import ProblemError
from nas.errors import ConflictError, InvalidRequestError
from nas.store import idempotency
from nas.store.database import Database
from nas.store.idempotency import StoredResponse

_OWNER = "local"
"""Whose keys they are; there is one owner as long as there are no API keys."""


class Created(Protocol):
    """A new resource as its answer shows it."""

    @property
    def links(self) -> dict[str, str]:
        """Where it is, among others."""
        ...

    def model_dump_json(self) -> str:
        """The answer's body."""
        ...


Make = Callable[[Session], Created]


@dataclass(frozen=True)
class Creation:
    """A creating request, run by calling it with the body and what makes the resource."""

    database: Database
    path: str
    key: str | None

    def __call__(self, body: BaseModel, make: Make) -> Response:
        """The answer: the new resource, or the first answer where the key was seen with this body."""
        if self.key is None:
            return _as_response(self._make(make))
        first = self._reserve(self.key, _digest(self.path, body))
        if first is not None:
            return _as_response(first, is_replayed=True)
        with self._released_on_error(self.key):
            return _as_response(self._make(make))

    def _reserve(self, key: str, digest: str) -> StoredResponse | None:
        try:
            with self.database.begin() as session:
                return idempotency.reserve(session, owner=_OWNER, key=key, body_digest=digest)
        except InvalidRequestError as error:
            raise ProblemError("idempotency-conflict", 422, str(error)) from error
        except ConflictError as error:
            headers = {"Retry-After": "1"}
            raise ProblemError("idempotency-in-flight", 409, str(error), headers=headers) from error

    def _make(self, make: Make) -> StoredResponse:
        with self.database.begin() as session:
            resource = make(session)
            headers = {"Location": resource.links["self"]}
            # As text: the database keeps the members of JSON in an order of its own.
            answer = StoredResponse(201, {"body": resource.model_dump_json()}, headers)
            # In the transaction that creates, so that neither is without the other.
            if self.key is not None:
                idempotency.complete(session, owner=_OWNER, key=self.key, answer=answer)
        return answer

    @contextmanager
    def _released_on_error(self, key: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with self.database.begin() as session:
                idempotency.abandon(session, owner=_OWNER, key=key)
            raise


def _as_response(answer: StoredResponse, *, is_replayed: bool = False) -> Response:
    replayed = {"Idempotent-Replayed": "true"} if is_replayed else {}
    headers = {**answer.headers, **replayed}
    return Response(answer.response["body"], answer.status, headers=headers, media_type="application/json")


def _digest(path: str, body: BaseModel) -> str:
    """The same for two spellings of one request: order of names and defaults left out do not count."""
    canonical = json.dumps([path, body.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
