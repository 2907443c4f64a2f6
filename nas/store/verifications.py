"""Verifications: chosen networks, what each inherits, and what it learns when trained on its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.costs import COST_NAMES
from nas.errors import NotFoundError
from nas.job import JobKind
from nas.store.evaluations import get_many
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, hold, list_resources
from nas.store.tables import (
    EvaluationRow,
    SupernetRow,
    VerificationRow,
    VerificationRunRow,
    VerifiedNetworkRow,
)
from nas.verification import PlannedRun, RunState


@dataclass(frozen=True, kw_only=True)
class ChosenNetwork:
    """A network as it is asked for: spelled canonically, with its exact costs."""

    architecture: Architecture
    costs: Mapping[str, int]
    trial_number: int | None = None
    """Of the search that it was chosen from."""


@dataclass(frozen=True, kw_only=True)
class RunWithEvaluations:
    """One training as read, and what was measured of its weights."""

    run: VerificationRunRow
    val: EvaluationRow | None
    test: EvaluationRow | None


@dataclass(frozen=True, kw_only=True)
class NetworkWithResults:
    """A network as read: what it inherits, and of each training the run that was chosen."""

    network: VerifiedNetworkRow
    val: EvaluationRow | None
    test: EvaluationRow | None
    chosen: tuple[RunWithEvaluations, ...]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a verification is."""

    num_networks: int
    num_finished: int
    """Networks whose inherited weights are measured on test."""
    num_runs: int
    num_measured: int
    num_failed: int


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    supernet_id: str,
    seed: int,
    networks: Sequence[ChosenNetwork],
    runs: Sequence[PlannedRun],
    spec: dict[str, Any],
) -> WithJob[VerificationRow]:
    """Networks to be measured to the end, and each to be trained by every one of the runs."""
    training = hold(session, SupernetRow, supernet_id, noun="supernet").job
    row = VerificationRow(
        id=new_id(Prefix.VERIFICATION),
        display_name=display_name,
        labels=labels,
        supernet_id=supernet_id,
        seed=seed,
    )
    found = create_resource(session, row, kind=JobKind.VERIFY, spec=spec, depends_on=training.id)
    rows = [_network_values(row.id, number, network) for number, network in enumerate(networks)]
    session.execute(insert(VerifiedNetworkRow), rows)
    planned = [(number, run) for number in range(len(networks)) for run in runs]
    if planned:
        values = [
            {
                "verification_id": row.id,
                "number": number,
                "network_number": network_number,
                "training": run.training.value,
                "learning_rate": run.learning_rate,
                "epochs": run.epochs,
            }
            for number, (network_number, run) in enumerate(planned)
        ]
        session.execute(insert(VerificationRunRow), values)
    return found


def get(session: Session, verification_id: str) -> WithJob[VerificationRow]:
    """The verification and its job."""
    return get_resource(session, VerificationRow, verification_id, noun="verification")


def list(
    session: Session, *, page_size: int, after: Cursor | None = None, supernet_id: str | None = None
) -> Sequence[WithJob[VerificationRow]]:
    """A page of verifications, newest first; of one supernet where given."""
    where = [] if supernet_id is None else [VerificationRow.supernet_id == supernet_id]
    return list_resources(session, VerificationRow, page_size=page_size, after=after, where=where)


def counts(session: Session, verification_ids: Collection[str]) -> dict[str, Counts]:
    """For each of the verifications, how far it is."""
    network, run = VerifiedNetworkRow, VerificationRunRow
    of_networks = (
        select(network.verification_id, func.count(), func.count(network.evaluation_test_id))
        .where(network.verification_id.in_(verification_ids))
        .group_by(network.verification_id)
    )
    of_runs = (
        select(
            run.verification_id,
            func.count(),
            func.count().filter(run.state == RunState.MEASURED),
            func.count().filter(run.state == RunState.FAILED),
        )
        .where(run.verification_id.in_(verification_ids))
        .group_by(run.verification_id)
    )
    runs = {row[0]: row[1:] for row in session.execute(of_runs)}
    found = {}
    for verification_id, num_networks, num_finished in session.execute(of_networks):
        num_runs, num_measured, num_failed = runs.get(verification_id, (0, 0, 0))
        found[verification_id] = Counts(
            num_networks=num_networks,
            num_finished=num_finished,
            num_runs=num_runs,
            num_measured=num_measured,
            num_failed=num_failed,
        )
    return found


def networks(
    session: Session, verification_id: str, *, page_size: int | None = None, after_number: int = -1
) -> Sequence[NetworkWithResults]:
    """Networks in the order they were chosen, each with what is known so far; all without a page size."""
    query = (
        select(VerifiedNetworkRow)
        .where(
            VerifiedNetworkRow.verification_id == verification_id, VerifiedNetworkRow.number > after_number
        )
        .order_by(VerifiedNetworkRow.number)
        .limit(page_size)
    )
    rows = session.scalars(query).all()
    numbers = [row.number for row in rows]
    run = VerificationRunRow
    wanted = run.verification_id == verification_id, run.network_number.in_(numbers), run.is_chosen
    chosen = session.scalars(select(run).where(*wanted).order_by(run.number)).all()
    known = _evaluations_of(session, [*rows, *chosen])
    return [
        NetworkWithResults(
            network=row,
            val=known.get(row.evaluation_val_id),
            test=known.get(row.evaluation_test_id),
            chosen=tuple(_with_evaluations(run, known) for run in chosen if run.network_number == row.number),
        )
        for row in rows
    ]


def runs(
    session: Session, verification_id: str, *, page_size: int | None = None, after_number: int = -1
) -> Sequence[RunWithEvaluations]:
    """Every training, in order: all of one network after those of the one before."""
    run = VerificationRunRow
    query = (
        select(run)
        .where(run.verification_id == verification_id, run.number > after_number)
        .order_by(run.number)
        .limit(page_size)
    )
    rows = session.scalars(query).all()
    known = _evaluations_of(session, rows)
    return [_with_evaluations(row, known) for row in rows]


def one_run(session: Session, verification_id: str, number: int) -> RunWithEvaluations:
    """One training; NotFoundError where there is none of that number."""
    row = session.get(VerificationRunRow, (verification_id, number))
    if row is None:
        raise NotFoundError(f"verification {verification_id!r} has no training {number}")
    return _with_evaluations(row, _evaluations_of(session, [row]))


def one_network(session: Session, verification_id: str, number: int) -> NetworkWithResults:
    """One network; NotFoundError where there is none of that number."""
    found = networks(session, verification_id, page_size=1, after_number=number - 1)
    if not found or found[0].network.number != number:
        raise NotFoundError(
            f"verification {verification_id!r} has no network {number}; see "
            f"/v1/verifications/{verification_id}/networks"
        )
    return found[0]


def record_inherited(
    session: Session, verification_id: str, number: int, *, evaluation_val_id: int, evaluation_test_id: int
) -> None:
    """What the network does with the weights that it inherits."""
    row = session.get_one(VerifiedNetworkRow, (verification_id, number))
    row.evaluation_val_id = evaluation_val_id
    row.evaluation_test_id = evaluation_test_id
    session.flush()


def record_run(
    session: Session,
    verification_id: str,
    number: int,
    *,
    evaluation_val_id: int,
    weights_uri: str,
    rate_factor: float = 1.0,
) -> None:
    """The training has ended, at a factor on its rate, and its weights are measured on val."""
    row = session.get_one(VerificationRunRow, (verification_id, number))
    row.state = RunState.MEASURED
    row.evaluation_val_id = evaluation_val_id
    row.weights_uri = weights_uri
    row.rate_factor = rate_factor
    session.flush()


def fail_run(session: Session, verification_id: str, number: int, error: str) -> None:
    """The training has come to nothing."""
    row = session.get_one(VerificationRunRow, (verification_id, number))
    row.state = RunState.FAILED
    row.error = error
    session.flush()


def record_choice(session: Session, verification_id: str, number: int, *, evaluation_test_id: int) -> None:
    """Its rate was the best on val, so that its weights were measured on test."""
    row = session.get_one(VerificationRunRow, (verification_id, number))
    row.is_chosen = True
    row.evaluation_test_id = evaluation_test_id
    session.flush()


def forget_weights(session: Session, verification_id: str) -> Sequence[str]:
    """Point no longer to weights of rates that were not chosen; where they lie."""
    run = VerificationRunRow
    unwanted = run.verification_id == verification_id, ~run.is_chosen, run.weights_uri.is_not(None)
    uris = session.scalars(select(run.weights_uri).where(*unwanted)).all()
    session.execute(update(run).where(*unwanted).values(weights_uri=None), execution_options=_UNSYNCHRONISED)
    return [uri for uri in uris if uri is not None]


def published_uris(session: Session, verification_id: str) -> set[str]:
    """Where the weights lie that rows point to."""
    run = VerificationRunRow
    query = select(run.weights_uri).where(
        run.verification_id == verification_id, run.weights_uri.is_not(None)
    )
    return {uri for uri in session.scalars(query) if uri is not None}


def _network_values(verification_id: str, number: int, network: ChosenNetwork) -> dict[str, Any]:
    return {
        "verification_id": verification_id,
        "number": number,
        "trial_number": network.trial_number,
        "architecture_key": network.architecture.key,
        "architecture": network.architecture.to_json(),
        **{name: int(network.costs[name]) for name in COST_NAMES},
    }


def _with_evaluations(
    run: VerificationRunRow, known: Mapping[int | None, EvaluationRow]
) -> RunWithEvaluations:
    return RunWithEvaluations(
        run=run, val=known.get(run.evaluation_val_id), test=known.get(run.evaluation_test_id)
    )


def _evaluations_of(
    session: Session, rows: Sequence[VerifiedNetworkRow | VerificationRunRow]
) -> dict[int | None, EvaluationRow]:
    ids = sorted(
        {i for row in rows for i in (row.evaluation_val_id, row.evaluation_test_id) if i is not None}
    )
    return dict(zip(ids, get_many(session, ids), strict=True))


_UNSYNCHRONISED = {"synchronize_session": False}
"""Nothing that was changed so is read again from the session's own memory."""
