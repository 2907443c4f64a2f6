"""Measured networks: accuracy with its interval, and costs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.common import AnswerModel
from nas.costs import COST_NAMES
from nas.search.rounds import Origin
from nas.store.searches import TrialWithEvaluation
from nas.store.tables import EvaluationItemRow, EvaluationRow, SubnetRow, TrialRow, VerifiedNetworkRow
from nas.trial import Provenance, Split, wilson_interval


class Costs(AnswerModel):
    """What a network costs for one image, by the conventions of `nas.costs`."""

    macs: int = Field(description="Multiply-accumulates of convolutions and linear layers.")
    params: int = Field(description="Trainable numbers.")
    size_bytes: int = Field(description="Of the weights file, fp32.")
    peak_activation_bytes: int = Field(description="Most that is live at once, fp32.")


class Accuracy(AnswerModel):
    """A measured accuracy."""

    value: float = Field(description="Fraction classified rightly, 0 to 1.")
    num_correct: int
    num_images: int
    interval_95: tuple[float, float] = Field(description="Wilson score interval.")
    split: Split
    provenance: Literal[Provenance.MEASURED] = Provenance.MEASURED
    measured: Literal[True] = Field(default=True, description="As `provenance` says.")


class MeasuredLatency(AnswerModel):
    """What a network was measured to take, with weights of no meaning: they make no difference to it."""

    value: float = Field(description="Milliseconds of a whole batch, median.")
    again: float | None = Field(description="The same in the probe's second pass; null without one.")
    provenance: Literal[Provenance.MEASURED] = Provenance.MEASURED
    measured: Literal[True] = Field(default=True, description="As `provenance` says.")
    measured_by: str = Field(description="The measurements that it is of, the newest that have this network.")
    speed: float | None = Field(
        description="How fast the device was then, as a multiple of its speed when the measurements were "
        "made that the prediction is from, by a network that both sittings have run; where it is far from 1, "
        "the two figures differ by it too. Null where the prediction is from a table, or a probe of before."
    )


class Latency(AnswerModel):
    """A predicted latency; beside it what was measured, for networks that a probe has run."""

    value: float = Field(description="Milliseconds of a whole batch, median.")
    device: str
    provenance: Literal[Provenance.PREDICTED] = Provenance.PREDICTED
    measured: Literal[False] = Field(default=False, description="As `provenance` says.")
    predicted_by: str = Field(description="The measurements that the model is of, or the latency table.")
    mape: float | None = Field(
        description="The model's mean error, as a fraction, on networks that it was not fitted to; null for "
        "a table that was never held against any."
    )
    measurement: MeasuredLatency | None = Field(
        default=None, description="Bounds and objectives go by the prediction also where this is known."
    )


CostsProvenance = Annotated[Literal[Provenance.COUNTED], Field(description="Counted layer by layer: exact.")]


class Evaluation(AnswerModel):
    """One network measured with a supernet's weights."""

    architecture: dict[str, Any]
    architecture_key: str = Field(description="The same for equal architectures.")
    costs: Costs
    costs_provenance: CostsProvenance = Provenance.COUNTED
    latency_ms: Latency | None = Field(
        default=None, description="On the device that was named; null where none was."
    )
    accuracy_val: Accuracy
    checkpoint: str = Field(description="SHA-256 of the supernet's weights.")
    created_at: datetime
    links: dict[str, str]


class BestEvaluation(Evaluation):
    """The most accurate network, and others of which the images do not say that they are worse."""

    rivals: list[Evaluation] = Field(
        description="Up to `max_rivals` others within the bounds whose interval reaches into this one's, "
        "cheapest first by the first bound, else by MACs."
    )


class Prediction(AnswerModel):
    """What an accuracy was expected to be, before it was measured."""

    value: float = Field(description="Fraction classified rightly.")
    interval_90: tuple[float, float] | None = Field(
        description="It was to hold the measurement nine times in ten; null where too few networks had been "
        "measured to say."
    )
    split: Split
    provenance: Literal[Provenance.PREDICTED] = Provenance.PREDICTED
    measured: Literal[False] = Field(default=False, description="As `provenance` says.")
    by: str = Field(description="The proposer that predicted it.")
    num_learned_from: int = Field(
        description="Trials of the search before this one's round. What was measured of the supernet before "
        "the search, from which `model` learns too, is not counted."
    )


class Trial(Evaluation):
    """A network that a search chose."""

    search_id: str
    number: int
    round: int
    is_reused: bool = Field(description="Measured before; the measurement was taken over.")
    origin: Origin | None = Field(
        description="Why it was tried: taken over from the search that this one extends, one of the first, "
        "spread over the range of the first cost sought, proposed by the proposer for its merits or explored "
        "by it at random, a neighbour of the frontier where it repeated itself, or drawn at random. Null in "
        "searches of releases that did not keep it."
    )
    predicted_accuracy_val: Prediction | None = Field(
        description="What the search expected before it knew `accuracy_val`; null where it expected nothing."
    )


_Probability = Annotated[
    float,
    Field(
        description="How surely the network is on this frontier, accuracies being measured on few images: "
        "the share of 400 resamples of them in which no network that costs no more is as accurate."
    ),
]


class FrontierTrial(Trial):
    """A trial on its search's frontier."""

    frontier_probability: _Probability


class FrontierEvaluation(Evaluation):
    """A network on its supernet's frontier."""

    frontier_probability: Annotated[
        _Probability | None, Field(description="As in a search's frontier; null among very many evaluations.")
    ]


def describe_costs(row: EvaluationRow | EvaluationItemRow | SubnetRow | VerifiedNetworkRow) -> Costs:
    """The costs kept with the row."""
    return Costs(**{name: getattr(row, name) for name in COST_NAMES})


def describe_accuracy(row: EvaluationRow) -> Accuracy:
    """The measured accuracy with its interval."""
    return Accuracy(
        value=row.num_correct / row.num_images,
        num_correct=row.num_correct,
        num_images=row.num_images,
        interval_95=wilson_interval(row.num_correct, row.num_images),
        split=Split(row.split),
    )


def describe_evaluation(row: EvaluationRow, latency: Latency | None = None) -> Evaluation:
    """An evaluation on val as answers show it."""
    return Evaluation(**_evaluation(row), latency_ms=latency)


def describe_trial(found: TrialWithEvaluation, proposer: str, latency: Latency | None = None) -> Trial:
    """A trial as answers show it, of a search with this proposer."""
    return Trial(
        **_evaluation(found.evaluation),
        latency_ms=latency,
        search_id=found.trial.search_id,
        number=found.trial.number,
        round=found.trial.round,
        is_reused=found.trial.is_reused,
        origin=None if found.trial.origin is None else Origin(found.trial.origin),
        predicted_accuracy_val=_prediction(found.trial, proposer),
    )


def _prediction(row: TrialRow, proposer: str) -> Prediction | None:
    if row.predicted_accuracy is None or row.predicted_from is None:
        return None
    has_interval = row.predicted_low is not None and row.predicted_high is not None
    return Prediction(
        value=row.predicted_accuracy,
        interval_90=(row.predicted_low, row.predicted_high) if has_interval else None,
        split=Split.VAL,
        by=proposer,
        num_learned_from=row.predicted_from,
    )


def _evaluation(row: EvaluationRow) -> dict[str, Any]:
    return {
        "architecture": row.architecture,
        "architecture_key": row.architecture_key,
        "costs": describe_costs(row),
        "accuracy_val": describe_accuracy(row),
        "checkpoint": row.checkpoint,
        "created_at": row.created_at,
        "links": {"supernet": f"/v1/supernets/{row.supernet_id}"},
    }
