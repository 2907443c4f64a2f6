"""An evaluation is recorded once, however many find it at the same moment; answers read only candidates."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
from alembic import command
from sqlalchemy import text

from nas.costs import COST_NAMES
from nas.errors import InvalidRequestError, NotFoundError
from nas.pareto import pareto_front
from nas.search.constraints import Bounds
from nas.store import evaluations
from nas.store.database import alembic_config
from nas.store.evaluations import EvaluationProtocol
from nas.trial import Split

LIMITS = [
    {},
    {"macs": 3},
    {"macs": 2.9, "params": 2},
    {"params": 1, "size_bytes": 1e300},
    {"macs": 0},
    {"macs": 1e-300, "params": 3},
    {"peak_activation_bytes": 0.5, "params": 0, "macs": 2},
]
"""Of costs from 1 to 5: wide, narrow, and with nothing within."""


@pytest.fixture
def protocol(supernet_id):
    """As the fixture `evaluation` measures."""
    return EvaluationProtocol(
        supernet_id=supernet_id,
        checkpoint="c0",
        split=Split.VAL,
        num_images=100,
        calibration="train[:256]/64",
    )


@pytest.fixture
def measured(database, supernet_id, evaluation):
    """150 evaluations full of ties, in the order of their ids: (id, num_correct, costs...), shape (n, 6)."""
    figures = np.random.default_rng(0).integers(1, 6, size=(150, 5))
    rows = []
    with database.begin() as session:
        for width, (num_correct, *four) in enumerate(figures.tolist()):
            costs = dict(zip(COST_NAMES, four, strict=True))
            found = evaluation(width, num_correct=num_correct)
            rows.append([evaluations.record(session, supernet_id, found, costs)[0], num_correct, *four])
        # Of another protocol, and better than all: it must show up nowhere.
        other = evaluation(0, num_correct=100, checkpoint="c1")
        evaluations.record(session, supernet_id, other, dict.fromkeys(COST_NAMES, 0))
    return np.array(rows)


def kept(rows, limits):
    """The rows within the limits, found by reading all."""
    columns = [2 + COST_NAMES.index(name) for name in limits]
    return rows[(rows[:, columns] <= [*limits.values()]).all(axis=1)]


def best_first(rows):
    return rows[np.lexsort((rows[:, 0], rows[:, 2], -rows[:, 1]))]


def front(rows, objectives):
    return rows[pareto_front(np.column_stack([-rows[:, 1], rows[:, objectives]])), 0].tolist()


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


def test_known_is_what_was_measured_in_exactly_this_way(database, protocol, evaluation, costs):
    keys = [evaluation(width).architecture.key for width in (8, 16)]
    with database.begin() as session:
        for measured in (evaluation(8), evaluation(16), evaluation(8, checkpoint="c1")):
            evaluations.record(session, protocol.supernet_id, measured, costs)
    others = replace(protocol, num_images=50)
    with database.session() as session:
        known = evaluations.known(session, protocol)
        assert list(known) == keys
        assert not evaluations.known(session, others)
        assert evaluations.find(session, protocol, keys[1]).id == known[keys[1]].id
        assert evaluations.find(session, others, keys[1]) is None


def test_the_best_is_what_reading_every_row_finds(database, measured, protocol):
    with database.session() as session:
        for limits in LIMITS:
            found = evaluations.best(session, protocol, limits)
            expected = best_first(kept(measured, limits))[:1, 0].tolist()
            assert ([] if found is None else [found.id]) == expected, limits


def test_the_nearest_is_what_reading_every_row_finds(database, measured, protocol):
    costs = {name: measured[:, 2 + COST_NAMES.index(name)] for name in COST_NAMES}
    with database.session() as session:
        for limits in LIMITS:
            if len(kept(measured, limits)) == 0:
                ratios = Bounds(tuple(limits.items())).worst_ratio(costs)
                found = evaluations.nearest(session, protocol, limits)
                assert found.id == best_first(measured[ratios == ratios.min()])[0, 0], limits


@pytest.mark.parametrize("objectives", [[2], [3], [2, 5], [3, 4, 5], [2, 3, 4, 5]], ids=str)
def test_the_candidates_hold_the_frontier_of_any_objectives(database, measured, protocol, objectives):
    every = measured[np.lexsort((measured[:, 0], measured[:, 2]))]
    with database.session() as session:
        for limits in LIMITS:
            columns = evaluations.candidates(session, protocol, limits)
            figures = [getattr(columns, name) for name in ("evaluation_id", "num_correct", *COST_NAMES)]
            within = kept(every, limits)
            assert front(np.column_stack(figures), objectives) == front(within, objectives), limits
            assert evaluations.count(session, protocol, limits) == len(within), limits


def test_few_are_candidates_and_none_is_superseded_by_another(database, measured, protocol):
    with database.session() as session:
        ids = evaluations.candidates(session, protocol, {}).evaluation_id.tolist()
    ordered = best_first(measured)
    is_superseded = [(ordered[:n, 2:] <= row[2:]).all(axis=1).any() for n, row in enumerate(ordered)]
    assert sorted(ids) == sorted(ordered[~np.array(is_superseded), 0].tolist())
    assert 0 < len(ids) < 75


def test_candidates_recorded_at_once_lose_no_answer(database, supernet_id, evaluation, protocol):
    """Each improves on those before it, so everyone marks what the others have just recorded."""
    at_once = Barrier(6)

    def record(thread):
        at_once.wait()
        for step in range(10):
            better = 6 * step + thread
            costs = dict.fromkeys(COST_NAMES, 100 - better)
            with database.begin() as session:
                evaluations.record(session, supernet_id, evaluation(better, num_correct=better), costs)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(record, range(6)))
    with database.session() as session:
        assert evaluations.best(session, protocol, {}).num_correct == 59
        assert evaluations.nearest(session, protocol, {"macs": 3}).num_correct == 59
        assert evaluations.count(session, protocol, {}) == 60


def test_what_an_earlier_schema_holds_is_marked_as_recording_would_have(database, measured, protocol):
    with database.session() as session:
        recorded = evaluations.candidates(session, protocol, {}).evaluation_id.tolist()
    with database.engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0003-1")
        command.upgrade(config, "head")
    with database.session() as session:
        assert evaluations.candidates(session, protocol, {}).evaluation_id.tolist() == recorded


def test_an_unknown_cost_cannot_be_limited(database, protocol):
    with database.session() as session, pytest.raises(InvalidRequestError, match="there are macs"):
        evaluations.best(session, protocol, {"flops": 1})


def test_an_unknown_evaluation_is_not_found(database):
    with database.session() as session:
        with pytest.raises(NotFoundError):
            evaluations.get(session, 404)
        with pytest.raises(NotFoundError, match="404"):
            evaluations.get_many(session, [404])
