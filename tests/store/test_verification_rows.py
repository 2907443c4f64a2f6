"""Verifications as rows: what is due, what is chosen, and what a deletion takes along."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from nas.errors import NotFoundError
from nas.job import JobKind
from nas.search.rounds import Origin
from nas.store import evaluations, searches, verifications
from nas.store.deletion import VERIFICATION, delete_resource
from nas.store.exclusive import exclusively
from nas.store.tables import EvaluationRow, VerificationRunRow, VerifiedNetworkRow
from nas.store.verifications import ChosenNetwork, Counts
from nas.trial import Split
from nas.verification import PlannedRun, RunState, Training

RUNS = [PlannedRun(training=Training.ALONE, learning_rate=rate, epochs=3) for rate in (0.1, 0.2)]


@pytest.fixture
def add(evaluation, costs, supernet_id):
    """A verification of the networks of these widths."""

    def make(session, *widths, runs=RUNS):
        networks = [
            ChosenNetwork(architecture=evaluation(width).architecture, costs=costs) for width in widths
        ]
        return verifications.create(
            session,
            display_name="verified",
            labels={},
            supernet_id=supernet_id,
            seed=1,
            networks=networks,
            runs=runs,
            spec={},
        ).row.id

    return make


@pytest.fixture
def record(evaluation, costs, supernet_id):
    """An evaluation's id."""

    def make(session, width, *, num_correct=50, split=Split.VAL, checkpoint="c0"):
        measured = replace(evaluation(width, num_correct=num_correct, checkpoint=checkpoint), split=split)
        return evaluations.record(session, supernet_id, measured, costs)[0]

    return make


def test_every_network_is_given_every_run(database, add):
    with database.begin() as session:
        verification_id = add(session, 4, 2)
    with database.session() as session:
        runs = [found.run for found in verifications.runs(session, verification_id)]
        assert [(run.number, run.network_number, run.learning_rate) for run in runs] == [
            (0, 0, 0.1),
            (1, 0, 0.2),
            (2, 1, 0.1),
            (3, 1, 0.2),
        ]
        assert {run.state for run in runs} == {RunState.DUE}
        networks = verifications.networks(session, verification_id)
        assert [found.network.architecture["width"] for found in networks] == [4, 2]
        assert verifications.get(session, verification_id).job.kind is JobKind.VERIFY
        page = verifications.runs(session, verification_id, page_size=2, after_number=0)
        assert [found.run.number for found in page] == [1, 2]
        with pytest.raises(NotFoundError, match="no verification 've_none'"):
            verifications.get(session, "ve_none")


def test_what_came_of_runs_is_read_with_its_network(database, add, record):
    with database.begin() as session:
        verification_id = add(session, 4)
        verifications.record_inherited(
            session,
            verification_id,
            0,
            evaluation_val_id=record(session, 4),
            evaluation_test_id=record(session, 4, split=Split.TEST),
        )
        verifications.fail_run(session, verification_id, 0, "it diverged")
        own = record(session, 4, checkpoint="own")
        verifications.record_run(
            session, verification_id, 1, evaluation_val_id=own, weights_uri="file:///b/w", rate_factor=0.25
        )
        on_test = record(session, 4, split=Split.TEST, checkpoint="own")
        verifications.record_choice(session, verification_id, 1, evaluation_test_id=on_test)
    with database.session() as session:
        (found,) = verifications.networks(session, verification_id)
        assert (found.val.checkpoint, found.test.split) == ("c0", "test")
        (chosen,) = found.chosen
        assert (chosen.run.number, chosen.val.id, chosen.test.id) == (1, own, on_test)
        assert chosen.run.rate_factor == 0.25
        assert verifications.counts(session, [verification_id]) == {
            verification_id: Counts(num_networks=1, num_finished=1, num_runs=2, num_measured=1, num_failed=1)
        }


def test_weights_of_rates_that_were_not_chosen_are_forgotten(database, add, record):
    with database.begin() as session:
        verification_id = add(session, 4)
        for number in (0, 1):
            own = record(session, 4, checkpoint=f"own{number}")
            verifications.record_run(
                session, verification_id, number, evaluation_val_id=own, weights_uri=f"file:///{number}/w"
            )
        test = record(session, 4, split=Split.TEST, checkpoint="own1")
        verifications.record_choice(session, verification_id, 1, evaluation_test_id=test)
        assert verifications.forget_weights(session, verification_id) == ["file:///0/w"]
    with database.session() as session:
        assert verifications.published_uris(session, verification_id) == {"file:///1/w"}


def test_a_rate_that_is_not_chosen_has_no_figure_on_test(database, add, record):
    with database.begin() as session:
        verification_id, test = add(session, 4), record(session, 4, split=Split.TEST)
    with pytest.raises(IntegrityError, match="ck_verification_runs_test"), database.begin() as session:
        session.get_one(VerificationRunRow, (verification_id, 0)).evaluation_test_id = test


def test_a_deleted_verification_takes_its_rows_and_leaves_the_evaluations(database, queue, add, record):
    with database.begin() as session:
        verification_id, kept = add(session, 4), add(session, 2)
        verifications.record_inherited(
            session,
            verification_id,
            0,
            evaluation_val_id=record(session, 4),
            evaluation_test_id=record(session, 4, split=Split.TEST),
        )
        job_id = verifications.get(session, verification_id).job.id
    queue.request_cancel(job_id)
    with database.begin() as session:
        delete_resource(session, VERIFICATION, verification_id)
    with database.session() as session:
        counted = [
            session.scalar(select(func.count()).select_from(model))
            for model in (VerifiedNetworkRow, VerificationRunRow, EvaluationRow)
        ]
        assert counted == [1, 2, 2]
        assert [found.row.id for found in verifications.list(session, page_size=9)] == [kept]


def test_finalists_are_trials_with_a_figure_on_test_of_the_same_weights(database, supernet_id, record):
    with database.begin() as session:
        search = searches.create(
            session,
            display_name="",
            labels={},
            supernet_id=supernet_id,
            constraints={},
            objectives=["accuracy", "macs"],
            num_trials=3,
            proposer="random",
            seed=0,
            spec={},
        ).row.id
        for number, width in enumerate((1, 2, 3)):
            searches.record_trial(
                session,
                search,
                number=number,
                evaluation_id=record(session, width),
                round=0,
                is_reused=False,
                origin=Origin.PROPOSED,
            )
        record(session, 1, split=Split.TEST, checkpoint="other")
        expected = record(session, 3, split=Split.TEST)
    with database.session() as session:
        assert [(found.trial.number, found.test.id) for found in searches.finalists(session, search)] == [
            (2, expected)
        ]
        assert [*searches.numbered(session, search, [1, 7])] == [1]


class StillWaitingError(Exception):
    pass


def test_a_lock_is_held_by_one_at_a_time_and_let_go_whatever_happens(database):
    def give_up() -> None:
        raise StillWaitingError

    def never() -> None:
        raise AssertionError

    with exclusively(database, "a", never):
        with pytest.raises(StillWaitingError), exclusively(database, "a", give_up):
            raise AssertionError
        with exclusively(database, "b", never):
            pass
    with pytest.raises(ZeroDivisionError), exclusively(database, "a", never):
        raise ZeroDivisionError
    with exclusively(database, "a", never):
        pass
