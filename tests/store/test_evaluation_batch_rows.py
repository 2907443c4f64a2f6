"""Batches of networks given from outside: their items, and the evaluations these come to point at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from nas.errors import NotFoundError
from nas.job import JobKind
from nas.store import evaluation_batches, evaluations
from nas.store.deletion import EVALUATION_BATCH, delete_resource
from nas.store.evaluation_batches import GivenNetwork, ItemCounts
from nas.store.evaluations import EvaluationProtocol
from nas.store.tables import EvaluationItemRow, EvaluationRow
from nas.trial import Split


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
def add(evaluation, costs, protocol):
    """A batch of the networks of these widths."""

    def make(session, *widths, infeasible=()):
        networks = [
            GivenNetwork(
                architecture=evaluation(width).architecture, costs=costs, is_infeasible=width in infeasible
            )
            for width in widths
        ]
        return evaluation_batches.create(
            session,
            display_name="given",
            labels={},
            protocol=protocol,
            constraints={"max_macs": 1.0},
            networks=networks,
            spec={},
        ).row.id

    return make


def shown(session, batch_id):
    found = evaluation_batches.items(session, batch_id)
    return [
        (
            item.item.architecture["width"],
            None if item.evaluation is None else item.evaluation.num_correct,
            item.item.is_reused,
        )
        for item in found
    ]


def test_items_keep_the_order_in_which_they_were_given(database, add):
    with database.begin() as session:
        batch_id = add(session, 3, 1, 2, 1, infeasible={2})
    with database.session() as session:
        assert shown(session, batch_id) == [
            (3, None, False),
            (1, None, False),
            (2, None, False),
            (1, None, False),
        ]
        later = evaluation_batches.items(session, batch_id, page_size=2, after_number=1)
        assert [found.item.number for found in later] == [2, 3]
        # Each network once, those that are infeasible never.
        assert evaluation_batches.due(session, batch_id) == [{"width": 3}, {"width": 1}]
        assert evaluation_batches.counts(session, [batch_id]) == {
            batch_id: ItemCounts(num_measured=0, num_infeasible=1)
        }
        assert evaluation_batches.get(session, batch_id).job.kind is JobKind.EVALUATE
        with pytest.raises(NotFoundError, match="evaluation batch 'eb_none'"):
            evaluation_batches.get(session, "eb_none")


def test_a_measured_network_answers_all_its_items_of_its_batch_alone(
    database, add, supernet_id, evaluation, costs
):
    with database.begin() as session:
        batch_id, other = add(session, 3, 1, 3), add(session, 3)
        key = evaluation(3).architecture.key
        evaluation_id, _ = evaluations.record(session, supernet_id, evaluation(3, num_correct=7), costs)
        evaluation_batches.link(session, batch_id, key, evaluation_id, is_reused=False)
        # What stands is not written over.
        evaluation_batches.link(session, batch_id, key, evaluation_id, is_reused=True)
    with database.session() as session:
        assert shown(session, batch_id) == [(3, 7, False), (1, None, False), (3, 7, False)]
        assert shown(session, other) == [(3, None, False)]
        assert evaluation_batches.due(session, batch_id) == [{"width": 1}]
        counts = evaluation_batches.counts(session, [batch_id, other])
    assert (counts[batch_id].num_measured, counts[other].num_measured) == (2, 0)


@pytest.mark.parametrize(
    "measured", [{"checkpoint": "c1"}, {"split": Split.TEST}, {"num_images": 99}, {"calibration": "all"}]
)
def test_only_what_is_measured_in_exactly_this_way_is_taken_over(
    database, add, protocol, supernet_id, evaluation, costs, measured
):
    with database.begin() as session:
        evaluations.record(session, supernet_id, evaluation(1, num_correct=5), costs)
        evaluations.record(session, supernet_id, replace(evaluation(2, num_correct=5), **measured), costs)
        # At its making, and again when asked.
        batch_id = add(session, 1, 2, 3, 4, infeasible={4})
        assert shown(session, batch_id) == [(1, 5, True), *((n, None, False) for n in (2, 3, 4))]
        for width in (3, 4):
            evaluations.record(session, supernet_id, evaluation(width, num_correct=6), costs)
        evaluation_batches.take_over(session, batch_id, protocol)
        assert shown(session, batch_id) == [(1, 5, True), (2, None, False), (3, 6, True), (4, None, False)]


def test_an_infeasible_item_can_have_no_evaluation(database, add, supernet_id, evaluation, costs):
    with database.begin() as session:
        batch_id = add(session, 1, infeasible={1})
        evaluation_id, _ = evaluations.record(session, supernet_id, evaluation(1), costs)
    with pytest.raises(IntegrityError, match="ck_evaluation_items_infeasible"), database.begin() as session:
        item = session.get_one(EvaluationItemRow, (batch_id, 0))
        item.evaluation_id = evaluation_id


def test_a_deleted_batch_takes_its_items_and_leaves_the_evaluations(
    database, queue, add, supernet_id, evaluation, costs
):
    with database.begin() as session:
        evaluations.record(session, supernet_id, evaluation(1), costs)
        batch_id, kept = add(session, 1, 2), add(session, 1)
        job_id = evaluation_batches.get(session, batch_id).job.id
    queue.request_cancel(job_id)
    with database.begin() as session:
        delete_resource(session, EVALUATION_BATCH, batch_id)
    with database.session() as session:
        num_items, num_evaluations = (
            session.scalar(select(func.count()).select_from(model))
            for model in (EvaluationItemRow, EvaluationRow)
        )
        assert [found.row.id for found in evaluation_batches.list(session, page_size=9)] == [kept]
    assert (num_items, num_evaluations) == (1, 1)


def test_everything_measured_is_read_newest_first_and_in_pages(
    database, protocol, supernet_id, evaluation, costs
):
    with database.begin() as session:
        for width in range(1, 6):
            evaluations.record(session, supernet_id, evaluation(width), costs)
        evaluations.record(session, supernet_id, evaluation(1, checkpoint="c1"), costs)
    with database.session() as session:
        first = evaluations.recorded(session, protocol, page_size=3)
        second = evaluations.recorded(session, protocol, page_size=3, before_id=first[-1].id)
    assert [row.architecture["width"] for row in [*first, *second]] == [5, 4, 3, 2, 1]
