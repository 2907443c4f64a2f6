"""Evaluations as columns: each comes once, in whatever order transactions end, and with its codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.costs import COST_NAMES
from nas.store import evaluations
from nas.store.evaluation_columns import packed_code, read
from nas.store.evaluations import EvaluationProtocol
from nas.trial import Split
from search_spaces import SPACES

SPACE = SPACES["micro"]
NETWORKS = sorted({SPACE.sample(np.random.default_rng(s)) for s in range(8)}, key=lambda n: n.key)


@pytest.fixture
def protocol(supernet_id):
    return EvaluationProtocol(
        supernet_id=supernet_id,
        checkpoint="c0",
        split=Split.VAL,
        num_images=100,
        calibration="train[:256]/64",
    )


@pytest.fixture
def record(supernet_id, evaluation):
    def record(session, number, *, has_code=True, checkpoint="c0"):
        network = NETWORKS[number]
        measured = replace(evaluation(num_correct=number, checkpoint=checkpoint), architecture=network)
        costs = {name: 10 * number + i for i, name in enumerate(COST_NAMES)}
        code = packed_code(SPACE, network) if has_code else None
        return evaluations.record(session, supernet_id, measured, costs, code=code)[0]

    return record


def test_columns_are_what_was_recorded_with_codes_or_without(database, protocol, record):
    with database.begin() as session:
        ids = [record(session, number, has_code=number % 2 == 0) for number in range(6)]
        record(session, 6, checkpoint="c1")
    with database.session() as session:
        found = read(session, protocol, SPACE)
    by_id = np.argsort(found.columns.evaluation_id)
    assert found.columns.evaluation_id[by_id].tolist() == ids
    assert found.columns.num_correct[by_id].tolist() == [*range(6)]
    for i, name in enumerate(COST_NAMES):
        assert getattr(found.columns, name)[by_id].tolist() == [10 * number + i for number in range(6)]
    assert np.array_equal(found.codes[by_id], SPACE.encode(NETWORKS[:6]))


def test_what_ends_late_is_not_missed(database, protocol, record):
    """The first to be recorded is the last to be committed: by its id alone it would be passed over."""
    with database.session() as slow:
        late = record(slow, 0)
        with database.begin() as quick:
            early = record(quick, 1)
        assert late < early
        with database.session() as session:
            first = read(session, protocol, SPACE)
        slow.commit()
    with database.session() as session:
        then = read(session, protocol, SPACE, since=first.read_until)
    assert first.columns.evaluation_id.tolist() == [early]
    assert late in then.columns.evaluation_id
    again = set(first.columns.evaluation_id[first.recorded_in >= first.read_until].tolist())
    assert set(then.columns.evaluation_id.tolist()) - again == {late}


def test_nothing_new_is_nothing_read(database, protocol, record):
    with database.session() as session:
        empty = read(session, protocol, SPACE)
    assert len(empty.columns) == 0 and empty.codes.shape == (0, len(SPACE.decisions))
    with database.begin() as session:
        record(session, 0)
    with database.session() as session:
        found = read(session, protocol, SPACE, since=empty.read_until)
        assert len(read(session, protocol, SPACE, since=found.read_until).columns) == 0
