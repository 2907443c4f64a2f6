"""An evaluation is recorded once, however many find it at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import text

from nas.errors import InvalidRequestError, NotFoundError
from nas.store import evaluations
from nas.trial import Split


def test_an_evaluation_is_read_back_as_it_was_recorded(database, supernet_id, evaluation, costs):
    measured = evaluation(8)
    with database.begin() as session:
        evaluation_id, is_new = evaluations.record(session, supernet_id, measured, costs)
    assert is_new
    with database.session() as session:
        row = evaluations.get(session, evaluation_id)
    assert evaluations.as_evaluation(row, measured.architecture) == measured
    assert {name: getattr(row, name) for name in costs} == costs
    assert row.architecture == {"width": 8}


def test_the_same_evaluation_recorded_again_is_the_first_one(database, supernet_id, evaluation, costs):
    with database.begin() as session:
        first, _ = evaluations.record(session, supernet_id, evaluation(num_correct=90), costs)
        assert evaluations.record(session, supernet_id, evaluation(num_correct=10), costs) == (first, False)
        assert evaluations.get(session, first).num_correct == 90


def test_concurrent_recorders_of_one_evaluation_make_one_row(database, supernet_id, evaluation, costs):
    at_once = Barrier(6)

    def record(_):
        at_once.wait()
        with database.begin() as session:
            return evaluations.record(session, supernet_id, evaluation(), costs)

    with ThreadPoolExecutor(6) as threads:
        recorded = list(threads.map(record, range(6)))
    assert len({evaluation_id for evaluation_id, _ in recorded}) == 1
    assert [is_new for _, is_new in recorded].count(True) == 1


def test_an_unknown_cost_is_an_error_and_nothing_is_recorded(database, supernet_id, evaluation, costs):
    del costs["params"]
    with pytest.raises(KeyError, match="params"), database.begin() as session:
        evaluations.record(session, supernet_id, evaluation(), costs)
    with database.session() as session:
        assert session.scalar(text("SELECT count(*) FROM evaluations")) == 0


def test_known_is_what_was_measured_in_exactly_this_way(database, supernet_id, evaluation, costs):
    with database.begin() as session:
        for measured in (evaluation(8), evaluation(16), evaluation(8, checkpoint="c1")):
            evaluations.record(session, supernet_id, measured, costs)
    way = {"split": Split.VAL, "num_images": 100, "calibration": "train[:256]/64"}
    with database.session() as session:
        known = evaluations.known(session, supernet_id, checkpoint="c0", **way)
        assert set(known) == {evaluation(8).architecture.key, evaluation(16).architecture.key}
        assert not evaluations.known(session, supernet_id, checkpoint="c0", **way | {"num_images": 50})


def test_frontier_columns_hold_what_is_within_the_bounds(database, supernet_id, evaluation, costs):
    with database.begin() as session:
        for width in (32, 8, 16):
            evaluations.record(session, supernet_id, evaluation(width), costs | {"macs": width * 100})
        evaluations.record(session, supernet_id, evaluation(8, checkpoint="c1"), costs)
    with database.session() as session:
        every = evaluations.frontier_rows(session, supernet_id, "c0")
        bounded = evaluations.frontier_rows(session, supernet_id, "c0", bounds={"max_macs": 1600})
        none = evaluations.frontier_rows(session, supernet_id, "c0", num_images=5)
        rows = evaluations.get_many(session, every.evaluation_id.tolist()[::-1])
    assert every.macs.tolist() == [800, 1600, 3200]
    assert every.accuracy.tolist() == [0.9, 0.9, 0.9]
    assert bounded.macs.tolist() == [800, 1600]
    assert len(none) == 0
    assert [row.macs for row in rows] == [3200, 1600, 800]


def test_an_unknown_bound_is_refused_with_those_that_exist(database, supernet_id):
    with database.session() as session, pytest.raises(InvalidRequestError, match="max_macs"):
        evaluations.frontier_rows(session, supernet_id, "c0", bounds={"max_flops": 1})


def test_an_unknown_evaluation_is_not_found(database):
    with database.session() as session:
        with pytest.raises(NotFoundError):
            evaluations.get(session, 404)
        with pytest.raises(NotFoundError, match="404"):
            evaluations.get_many(session, [404])
