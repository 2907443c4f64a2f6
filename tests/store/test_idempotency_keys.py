"""A creating request sent twice gets the first answer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from nas.errors import ConflictError, InvalidRequestError
from nas.store import idempotency
from nas.store.idempotency import StoredResponse
from nas.store.tables import IdempotencyKeyRow

ANSWER = StoredResponse(201, {"id": "sn_x"}, {"Location": "/v1/supernets/sn_x"})


def reserve(database, *, key="k", body_digest="d", owner="ada"):
    with database.begin() as session:
        return idempotency.reserve(session, owner=owner, key=key, body_digest=body_digest)


def complete(database):
    with database.begin() as session:
        idempotency.complete(session, owner="ada", key="k", answer=ANSWER)


def age(database, by):
    with database.begin() as session:
        session.execute(update(IdempotencyKeyRow).values(created_at=IdempotencyKeyRow.created_at - by))


def test_the_first_answer_is_given_again(database):
    assert reserve(database) is None
    complete(database)
    assert reserve(database) == ANSWER


def test_keys_of_different_owners_do_not_meet(database):
    assert reserve(database) is None
    assert reserve(database, owner="grace") is None


def test_another_body_under_the_same_key_is_refused(database):
    reserve(database)
    with pytest.raises(InvalidRequestError, match="another body"):
        reserve(database, body_digest="other")


def test_a_request_in_flight_is_a_conflict(database):
    reserve(database)
    with pytest.raises(ConflictError, match="in flight"):
        reserve(database)


def test_a_failed_request_frees_its_key(database):
    reserve(database)
    with database.begin() as session:
        idempotency.abandon(session, owner="ada", key="k")
    assert reserve(database) is None


def test_an_answer_is_kept_a_day(database):
    reserve(database)
    complete(database)
    age(database, timedelta(hours=23))
    assert reserve(database) == ANSWER
    age(database, timedelta(hours=2))
    assert reserve(database) is None


def test_a_request_whose_process_died_does_not_block_its_key(database):
    reserve(database)
    age(database, idempotency.ABANDONED + timedelta(seconds=1))
    assert reserve(database) is None
