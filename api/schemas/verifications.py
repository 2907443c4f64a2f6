"""Verifications: networks chosen at the end, measured on test once and, where asked, trained on their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from api.schemas.common import AnswerModel, CreateRequest, JobResource, ResourceId, Seed, job_shape
from api.schemas.evaluation_batches import EXAMPLE_NETWORK
from api.schemas.evaluations import (
    Accuracy,
    Costs,
    CostsProvenance,
    Latency,
    Trial,
    describe_accuracy,
    describe_costs,
    describe_trial,
)
from nas.job import JobState
from nas.paired import paired_difference
from nas.store.resources import WithJob
from nas.store.searches import Finalist as StoredFinalist
from nas.store.tables import EvaluationRow, VerificationRow
from nas.store.verifications import Counts, NetworkWithResults, RunWithEvaluations
from nas.trial import Provenance, Split
from nas.verification import MAX_NETWORKS, MAX_RATES, RunState, Training

_LARGEST_NUMBER = 2**31 - 1

_FORMS = ({"search_id"}, {"search_id", "trial_numbers"}, {"supernet_id", "architectures"})

FOR_REPORTING = (
    "Figures on test are for reporting: each network is measured on test once, whoever asks, and whatever "
    "is chosen by them makes them flatter. Choose by accuracy_val."
)

TrialNumbers = Annotated[
    list[Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)]], Field(min_length=1, max_length=MAX_NETWORKS)
]
Rates = Annotated[list[Annotated[float, Field(ge=1e-8, le=100)]], Field(min_length=1, max_length=MAX_RATES)]


class FinalistsCreate(CreateRequest):
    """Which trials of a search are its finalists."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"display_name": "for the report"}, {"trial_numbers": [0]}]}
    )

    trial_numbers: TrialNumbers | None = Field(
        default=None, description="Null: those on the search's frontier."
    )


class VerificationCreate(CreateRequest):
    """Networks to verify: trials of a search, its frontier where none are named, or any by architecture."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"search_id": "se_aaaaaaaaaaaaaaaa", "trial_numbers": [0], "trainings": ["alone"]},
                {
                    "supernet_id": "sn_aaaaaaaaaaaaaaaa",
                    "architectures": [EXAMPLE_NETWORK],
                    "trainings": ["alone", "fine_tuned"],
                    "learning_rates": [0.05, 0.1],
                    "epochs": 3,
                },
            ]
        }
    )

    search_id: ResourceId | None = None
    trial_numbers: TrialNumbers | None = Field(
        default=None, description="Of the search; null: those on its frontier."
    )
    supernet_id: ResourceId | None = None
    architectures: list[dict[str, Any] | str] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_NETWORKS,
        description="As answers show them, or in the space's native notation.",
    )
    trainings: list[Literal["alone", "fine_tuned"]] = Field(
        default=["alone"],
        max_length=2,
        description="alone: from fresh weights. fine_tuned: from what the network inherits. None: it is "
        "measured on val and test, and not trained.",
    )
    learning_rates: Rates | None = Field(
        default=None,
        description="Every training is done at each, and the best on val is chosen. Null: 1/8, 1/4, 1/2 and "
        "1 of the recipe's base_learning_rate alone, 1/64, 1/32, 1/16 and 1/8 fine-tuned.",
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Of each training. Null: the supernet's own number alone, a fifth of it fine-tuned.",
    )
    seed: Seed = 0

    @model_validator(mode="after")
    def _has_one_form(self) -> VerificationCreate:
        named = set().union(*_FORMS)
        if {name for name in named if getattr(self, name) is not None} not in _FORMS:
            raise ValueError(
                "give search_id, with or without trial_numbers; or supernet_id and architectures"
            )
        return self

    @model_validator(mode="after")
    def _names_each_once(self) -> VerificationCreate:
        for name in ("trial_numbers", "trainings", "learning_rates"):
            given = getattr(self, name) or []
            if len(set(given)) < len(given):
                raise ValueError(f"{name} names one twice; leave it out the second time")
        return self

    def spec(self) -> dict[str, Any]:
        """What the job is to do, less the networks, which its `networks` are."""
        return {name: value for name, value in super().spec().items() if name != "architectures"}


class Verification(JobResource):
    """Chosen networks, and how far their measuring and training is."""

    supernet_id: str
    seed: int = Field(description="Of every training.")
    num_networks: int
    num_finished: int = Field(description="Of them: those measured on val and test as they are inherited.")
    num_runs: int = Field(description="Trainings: each network at each rate.")
    num_measured: int = Field(description="Of them: those that have ended with weights, measured on val.")
    num_failed: int = Field(description="Of them: those that came to nothing.")
    note: str = FOR_REPORTING


class Difference(AnswerModel):
    """How much more accurate the network's own weights are than those it inherits, on the same images."""

    value: float = Field(description="Accuracy of its own less that inherited, -1 to 1.")
    interval_95: tuple[float, float] = Field(
        description="Of matched proportions, for other images of the kind; another seed of the training is "
        "not in it."
    )
    num_gained: int = Field(description="Images that its own weights alone classify rightly.")
    num_lost: int = Field(description="Images that the inherited weights alone do.")
    num_images: int
    split: Split
    provenance: Literal[Provenance.MEASURED] = Provenance.MEASURED


RateFactor = Annotated[
    float,
    Field(
        description="On learning_rate in the end, of a training that was measured: 1, or less where it "
        "diverged, went back to its last good state and halved the rate."
    ),
]


class TrainedNetwork(AnswerModel):
    """What a network learned on its own, at the rate that was best on val."""

    training: Training
    run_number: int
    learning_rate: float
    rate_factor: RateFactor
    epochs: int
    accuracy_val: Accuracy | None = Field(
        description="Of the best of several rates by this very figure, which therefore flatters a little."
    )
    accuracy_test: Accuracy | None
    difference_val: Difference | None
    difference_test: Difference | None


class VerifiedNetwork(AnswerModel):
    """One network of a verification. Accuracies are of the weights that it inherits."""

    verification_id: str
    number: int
    trial_number: int | None = Field(description="Of the search that it was chosen from.")
    architecture: dict[str, Any]
    architecture_key: str = Field(description="The same for equal architectures.")
    costs: Costs
    costs_provenance: CostsProvenance = Provenance.COUNTED
    accuracy_val: Accuracy | None = Field(description="On all of val; null until it is measured.")
    accuracy_test: Accuracy | None = Field(description="On all of test, once.")
    trained: list[TrainedNetwork] = Field(description="One for each training, once its rate is chosen.")
    links: dict[str, str]


class VerificationRun(AnswerModel):
    """One training of one network at one rate."""

    verification_id: str
    number: int
    network_number: int
    training: Training
    learning_rate: float
    rate_factor: RateFactor
    epochs: int
    state: RunState
    error: str | None
    accuracy_val: Accuracy | None
    is_chosen: bool = Field(description="Best on val among the rates of its network and training.")
    accuracy_test: Accuracy | None = Field(description="Null unless it is chosen.")


class Finalist(Trial):
    """A trial measured on test as well."""

    accuracy_test: Accuracy


class Finalists(AnswerModel):
    """A search's trials that are measured on test, whatever asked for it; cheapest in MACs first."""

    search_id: str
    supernet_id: str
    state: JobState = Field(description="Of the search.")
    note: str = FOR_REPORTING
    items: list[Finalist]


def describe_verification(found: WithJob[VerificationRow], counts: Counts) -> Verification:
    """The verification as answers show it."""
    row = found.row
    shape: dict[str, Any] = job_shape(found, "verifications", more=("networks", "runs"))
    shape["links"]["supernet"] = f"/v1/supernets/{row.supernet_id}"
    return Verification(
        **shape,
        supernet_id=row.supernet_id,
        seed=row.seed,
        num_networks=counts.num_networks,
        num_finished=counts.num_finished,
        num_runs=counts.num_runs,
        num_measured=counts.num_measured,
        num_failed=counts.num_failed,
    )


def describe_network(verification: VerificationRow, found: NetworkWithResults) -> VerifiedNetwork:
    """A network as answers show it."""
    row = found.network
    return VerifiedNetwork(
        verification_id=row.verification_id,
        number=row.number,
        trial_number=row.trial_number,
        architecture=row.architecture,
        architecture_key=row.architecture_key,
        costs=describe_costs(row),
        accuracy_val=_accuracy(found.val),
        accuracy_test=_accuracy(found.test),
        trained=[_trained(run, found) for run in found.chosen],
        links={
            "verification": f"/v1/verifications/{row.verification_id}",
            "supernet": f"/v1/supernets/{verification.supernet_id}",
        },
    )


def describe_run(found: RunWithEvaluations) -> VerificationRun:
    """A training as answers show it."""
    row = found.run
    return VerificationRun(
        verification_id=row.verification_id,
        number=row.number,
        network_number=row.network_number,
        training=Training(row.training),
        learning_rate=row.learning_rate,
        rate_factor=row.rate_factor,
        epochs=row.epochs,
        state=RunState(row.state),
        error=row.error,
        accuracy_val=_accuracy(found.val),
        is_chosen=row.is_chosen,
        accuracy_test=_accuracy(found.test),
    )


def describe_finalist(found: StoredFinalist, proposer: str, latency: Latency | None = None) -> Finalist:
    """A finalist as answers show it, of a search with this proposer."""
    trial = describe_trial(found, proposer, latency=latency)
    return Finalist(**dict(trial), accuracy_test=describe_accuracy(found.test))


def _trained(found: RunWithEvaluations, inherited: NetworkWithResults) -> TrainedNetwork:
    row = found.run
    return TrainedNetwork(
        training=Training(row.training),
        run_number=row.number,
        learning_rate=row.learning_rate,
        rate_factor=row.rate_factor,
        epochs=row.epochs,
        accuracy_val=_accuracy(found.val),
        accuracy_test=_accuracy(found.test),
        difference_val=_difference(found.val, inherited.val),
        difference_test=_difference(found.test, inherited.test),
    )


def _accuracy(row: EvaluationRow | None) -> Accuracy | None:
    return None if row is None else describe_accuracy(row)


def _difference(own: EvaluationRow | None, inherited: EvaluationRow | None) -> Difference | None:
    if own is None or inherited is None:
        return None
    found = paired_difference(own.correct_bitmap, inherited.correct_bitmap, num_images=own.num_images)
    return Difference(
        value=found.value,
        interval_95=found.interval_95,
        num_gained=found.num_gained,
        num_lost=found.num_lost,
        num_images=found.num_images,
        split=Split(own.split),
    )
