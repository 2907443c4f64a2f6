"""Creating requests that were seen before: the first answer is given again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from nas.errors import ConflictError, InvalidRequestError
from nas.store.tables import IdempotencyKeyRow as KeyRow

KEPT = timedelta(hours=24)
ABANDONED = timedelta(minutes=2)
"""An answer that has not come by then never will: the process that owed it is gone."""


@dataclass(frozen=True)
class StoredResponse:
    """The first answer to a request."""

    status: int
    response: dict[str, Any]
    headers: dict[str, str]


def reserve(session: Session, *, owner: str, key: str, body_digest: str) -> StoredResponse | None:
    """None when the caller is the first and must answer; otherwise the first answer.

    InvalidRequestError when the key came with another body, ConflictError while the first request is
    still in flight. Commit before doing the work, so that others see the reservation.
    """
    _forget_old(session)
    reserved = session.scalar(
        insert(KeyRow)
        .values(owner=owner, key=key, body_digest=body_digest)
        .on_conflict_do_nothing(index_elements=["owner", "key"])
        .returning(KeyRow.key)
    )
    if reserved is not None:
        return None
    row = session.execute(select(KeyRow).where(KeyRow.owner == owner, KeyRow.key == key)).scalar_one()
    if row.body_digest != body_digest:
        raise InvalidRequestError(f"idempotency key {key!r} was used with another body; choose a new key")
    if row.status is None or row.response is None:
        raise ConflictError(f"the first request with idempotency key {key!r} is still in flight; try again")
    return StoredResponse(row.status, row.response, row.headers or {})


def complete(session: Session, *, owner: str, key: str, answer: StoredResponse) -> None:
    """Keep the answer; in the transaction that creates the resource, so that neither is without the other."""
    session.execute(
        update(KeyRow)
        .where(KeyRow.owner == owner, KeyRow.key == key)
        .values(status=answer.status, response=answer.response, headers=answer.headers)
    )


def abandon(session: Session, *, owner: str, key: str) -> None:
    """The request failed and made nothing: the key is free again."""
    session.execute(delete(KeyRow).where(KeyRow.owner == owner, KeyRow.key == key, KeyRow.status.is_(None)))


def _forget_old(session: Session) -> None:
    age = func.clock_timestamp() - KeyRow.created_at
    session.execute(delete(KeyRow).where(or_(age > KEPT, (age > ABANDONED) & KeyRow.status.is_(None))))
