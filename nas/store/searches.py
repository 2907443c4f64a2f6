"""Searches and their trials. A trial points at an evaluation, which other searches may share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, aliased

from nas.errors import ConflictError, InvalidRequestError
from nas.job import JobKind
from nas.prefilter.names import PrefilterName
from nas.search.predictor import Prediction
from nas.search.rounds import ForecastReport, Origin, StopReason
from nas.store import latency
from nas.store.ids import Prefix, new_id
from nas.store.latency import LatencySource
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, hold, list_resources
from nas.store.tables import EvaluationRow, SearchRoundRow, SearchRow, SupernetRow, TrialRow
from nas.trial import Split


@dataclass(frozen=True)
class TrialWithEvaluation:
    """A trial as read: its number in the search, and what was measured."""

    trial: TrialRow
    evaluation: EvaluationRow


@dataclass(frozen=True)
class Finalist(TrialWithEvaluation):
    """A trial whose network is measured on test as well, whoever asked for that."""

    test: EvaluationRow


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    supernet_id: str,
    constraints: dict[str, Any],
    objectives: Sequence[str],
    num_trials: int,
    proposer: str,
    seed: int,
    spec: dict[str, Any],
    prefilter: str = PrefilterName.NONE,
    extends: str | None = None,
    flat_rounds: int | None = None,
    latency_source: LatencySource | None = None,
) -> WithJob[SearchRow]:
    """A search to be run; its job waits for the supernet's training."""
    training = hold(session, SupernetRow, supernet_id, noun="supernet").job
    if extends is not None:
        check_extensible(session, extends, supernet_id)
    latency.hold(session, latency_source)
    row = SearchRow(
        id=new_id(Prefix.SEARCH),
        display_name=display_name,
        labels=labels,
        supernet_id=supernet_id,
        constraints=constraints,
        objectives=[*objectives],
        num_trials=num_trials,
        proposer=proposer,
        seed=seed,
        prefilter=prefilter,
        extends=extends,
        flat_rounds=flat_rounds,
        **latency.columns_of(latency_source),
    )
    return create_resource(session, row, kind=JobKind.SEARCH, spec=spec, depends_on=training.id)


def get(session: Session, search_id: str) -> WithJob[SearchRow]:
    """The search and its job."""
    return get_resource(session, SearchRow, search_id, noun="search")


def list(
    session: Session, *, page_size: int, after: Cursor | None = None, supernet_id: str | None = None
) -> Sequence[WithJob[SearchRow]]:
    """A page of searches, newest first; of one supernet where given."""
    where = [] if supernet_id is None else [SearchRow.supernet_id == supernet_id]
    return list_resources(session, SearchRow, page_size=page_size, after=after, where=where)


def freeze_known(session: Session, search_id: str, evaluation_ids: Sequence[int]) -> Sequence[int]:
    """The evaluations the search knows from its start: those given, or what an earlier attempt froze."""
    row = _locked(session, search_id)
    if row.known_evaluation_ids is None:
        row.known_evaluation_ids = [*evaluation_ids]
        session.flush()
    return row.known_evaluation_ids


def keep_prefilter_seeds(
    session: Session, search_id: str, seeds: Sequence[dict[str, Any]]
) -> Sequence[dict[str, Any]]:
    """The networks that the pre-filter chose: those given, or what an earlier attempt kept."""
    row = _locked(session, search_id)
    if row.prefilter_seeds is None:
        row.prefilter_seeds = [*seeds]
        session.flush()
    return row.prefilter_seeds


def keep_prefilter_report(session: Session, search_id: str, report: dict[str, Any]) -> dict[str, Any]:
    """What the pre-filter came to: the report given, or what an earlier attempt kept."""
    row = _locked(session, search_id)
    if row.prefilter_report is None:
        row.prefilter_report = report
        session.flush()
    return row.prefilter_report


def record_trial(
    session: Session,
    search_id: str,
    *,
    number: int,
    evaluation_id: int,
    round: int,
    is_reused: bool,
    origin: Origin,
    prediction: Prediction | None = None,
    predicted_from: int | None = None,
) -> None:
    """The search's trial `number`; one already recorded stands, so a repeated round changes nothing.

    `predicted_from` says how many networks a prediction was learned from.
    """
    statement = insert(TrialRow).values(
        search_id=search_id,
        number=number,
        evaluation_id=evaluation_id,
        round=round,
        is_reused=is_reused,
        origin=origin,
        **_prediction(prediction, predicted_from),
    )
    session.execute(statement.on_conflict_do_nothing(index_elements=["search_id", "number"]))


def record_round(
    session: Session,
    search_id: str,
    *,
    number: int,
    num_trials: int,
    num_measured: int,
    hypervolume: float,
    reference: Sequence[float],
    forecasts: ForecastReport | None,
) -> None:
    """Where the search stood after the round; one already recorded stands."""
    judged = forecasts or ForecastReport(num_selected=0, coverage=None, num_ranked=0, within_bin_tau=None)
    statement = insert(SearchRoundRow).values(
        search_id=search_id,
        number=number,
        num_trials=num_trials,
        num_measured=num_measured,
        hypervolume=hypervolume,
        reference=[*reference],
        num_forecasts=judged.num_selected,
        coverage=judged.coverage,
        num_ranked=judged.num_ranked,
        within_bin_tau=judged.within_bin_tau,
    )
    session.execute(statement.on_conflict_do_nothing(index_elements=["search_id", "number"]))


def set_stop_reason(session: Session, search_id: str, reason: StopReason) -> None:
    """Why the search ended."""
    session.get_one(SearchRow, search_id).stop_reason = reason


def rounds(
    session: Session, search_id: str, *, page_size: int | None = None, after_number: int = -1
) -> Sequence[SearchRoundRow]:
    """Rounds in their order; all of them without a page size."""
    query = select(SearchRoundRow).where(
        SearchRoundRow.search_id == search_id, SearchRoundRow.number > after_number
    )
    return session.scalars(query.order_by(SearchRoundRow.number).limit(page_size)).all()


def get_round(session: Session, search_id: str, number: int) -> SearchRoundRow | None:
    """The search's round of this number; None before it is recorded."""
    return session.get(SearchRoundRow, (search_id, number))


def latest_rounds(session: Session, search_ids: Collection[str]) -> Mapping[str, SearchRoundRow]:
    """Of each search the last round recorded; one without any is missing."""
    query = (
        select(SearchRoundRow)
        .where(SearchRoundRow.search_id.in_(search_ids))
        .ext(distinct_on(SearchRoundRow.search_id))
        .order_by(SearchRoundRow.search_id, SearchRoundRow.number.desc())
    )
    return {row.search_id: row for row in session.scalars(query)}


def trials(
    session: Session, search_id: str, *, page_size: int | None = None, after_number: int = -1
) -> Sequence[TrialWithEvaluation]:
    """Trials in their order, each with its evaluation; all of them without a page size."""
    query = (
        select(TrialRow, EvaluationRow)
        .join(EvaluationRow, EvaluationRow.id == TrialRow.evaluation_id)
        .where(TrialRow.search_id == search_id, TrialRow.number > after_number)
        .order_by(TrialRow.number)
        .limit(page_size)
    )
    return [TrialWithEvaluation(trial, evaluation) for trial, evaluation in session.execute(query)]


def numbered(session: Session, search_id: str, numbers: Collection[int]) -> dict[int, TrialWithEvaluation]:
    """Those of the trials that there are, by number."""
    query = (
        select(TrialRow, EvaluationRow)
        .join(EvaluationRow, EvaluationRow.id == TrialRow.evaluation_id)
        .where(TrialRow.search_id == search_id, TrialRow.number.in_(numbers))
    )
    found = session.execute(query)
    return {trial.number: TrialWithEvaluation(trial, evaluation) for trial, evaluation in found}


def finalists(session: Session, search_id: str) -> Sequence[Finalist]:
    """Trials whose networks are measured on test, cheapest in MACs first."""
    test = aliased(EvaluationRow)
    is_of_same_weights = and_(
        test.supernet_id == EvaluationRow.supernet_id,
        test.checkpoint == EvaluationRow.checkpoint,
        test.architecture_key == EvaluationRow.architecture_key,
        test.split == Split.TEST,
    )
    query = (
        select(TrialRow, EvaluationRow, test)
        .join(EvaluationRow, EvaluationRow.id == TrialRow.evaluation_id)
        .join(test, is_of_same_weights)
        .where(TrialRow.search_id == search_id)
        .order_by(EvaluationRow.macs, TrialRow.number, test.id)
    )
    first: dict[int, Finalist] = {}
    for trial, evaluation, on_test in session.execute(query):
        # One that rounds otherwise on another processor may have been published with figures of its own.
        first.setdefault(trial.number, Finalist(trial, evaluation, on_test))
    return [*first.values()]


def _locked(session: Session, search_id: str) -> SearchRow:
    query = select(SearchRow).where(SearchRow.id == search_id).with_for_update()
    return session.execute(query).scalar_one()


def check_extensible(session: Session, search_id: str, supernet_id: str) -> None:
    """Hold a search that may be extended; InvalidRequestError or ConflictError for one that may not."""
    earlier = hold(session, SearchRow, search_id, noun="search")
    if earlier.row.supernet_id != supernet_id:
        raise InvalidRequestError(
            f"search {earlier.row.id} is of supernet {earlier.row.supernet_id}, not {supernet_id}; "
            "a search can only extend one of the same supernet"
        )
    # A cancelled or failed search has trials worth building on, so any end will do.
    if not earlier.job.state.is_terminal:
        raise ConflictError(f"search {earlier.row.id} is {earlier.job.state}; wait for its end to extend it")


def _prediction(prediction: Prediction | None, predicted_from: int | None) -> dict[str, Any]:
    if prediction is None:
        return {}
    has_interval = prediction.has_interval
    return {
        "predicted_accuracy": prediction.accuracy,
        "predicted_low": prediction.low if has_interval else None,
        "predicted_high": prediction.high if has_interval else None,
        "predicted_from": predicted_from,
    }
