"""Rounds of a search: how far it had got after each, and how well it had predicted until then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from api.schemas.common import AnswerModel
from nas.store.tables import SearchRoundRow


class PredictorQuality(AnswerModel):
    """What became of predictions, among the networks that the proposer itself chose."""

    num_forecasts: int = Field(description="Networks predicted with an interval, then measured.")
    coverage_90: float | None = Field(
        description="Share of those whose 90 % interval held the measurement: 0.9 if the intervals are "
        "right. Null of fewer than ten."
    )
    num_ranked: int = Field(description="Of those, the networks that `within_bin_tau` compares.")
    within_bin_tau: float | None = Field(
        description="Kendall's tau of predicted with measured accuracy, the mean over three bins of networks "
        "of like cost: over all costs at once, cost alone ranks well. Null of fewer than ten."
    )


class SearchRound(AnswerModel):
    """Networks measured together, and where the search stood after them."""

    number: int
    num_trials: int = Field(description="Up to and with this round.")
    num_measured: int = Field(description="Of those, the ones that nothing had measured before the search.")
    hypervolume: float = Field(
        description="What the frontier dominates below `reference`, in the objectives' units; it only grows."
    )
    reference: dict[str, float] = Field(
        description="By objective the worst measured in round 0; the same in every round."
    )
    predictor: PredictorQuality | None = Field(
        description="Null while nothing was predicted with an interval, as by proposers that do not predict."
    )
    created_at: datetime


def describe_round(row: SearchRoundRow, objectives: Sequence[str]) -> SearchRound:
    """The round as answers show it."""
    return SearchRound(
        number=row.number,
        num_trials=row.num_trials,
        num_measured=row.num_measured,
        hypervolume=row.hypervolume,
        reference=dict(zip(objectives, row.reference, strict=True)),
        predictor=_quality(row),
        created_at=row.created_at,
    )


def _quality(row: SearchRoundRow) -> PredictorQuality | None:
    if row.num_forecasts == 0:
        return None
    return PredictorQuality(
        num_forecasts=row.num_forecasts,
        coverage_90=row.coverage,
        num_ranked=row.num_ranked,
        within_bin_tau=row.within_bin_tau,
    )
