"""Searches: what is asked of a supernet, and what was found."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.schemas.common import AnswerModel, CreateRequest, JobResource, ResourceId, Seed, job_shape
from api.schemas.constraints import Constraints
from api.schemas.devices import DeviceName
from api.schemas.evaluations import Costs, CostsProvenance, FrontierTrial, Latency
from api.schemas.search_rounds import SearchRound, describe_round
from api.schemas.search_spaces import SpaceAnswer
from nas.job import JobState
from nas.prefilter.certificate import Verdict
from nas.prefilter.names import PrefilterName
from nas.search.rounds import StopReason
from nas.search.settings import ProposerName, parse_objectives
from nas.store.resources import WithJob
from nas.store.tables import SearchRoundRow, SearchRow
from nas.trial import Provenance

ObjectiveName = Literal["accuracy", "macs", "params", "size_bytes", "peak_activation_bytes", "latency_ms"]


class SearchCreate(CreateRequest):
    """A search to run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "display_name": "half the cost",
                    "supernet_id": "sn_aaaaaaaaaaaaaaaa",
                    "constraints": {"max_macs": "50%"},
                    "num_trials": 60,
                },
                {
                    "supernet_id": "sn_aaaaaaaaaaaaaaaa",
                    "device": "host",
                    "constraints": {"max_latency_ms": "60%"},
                    "objectives": ["accuracy", "latency_ms"],
                    "num_trials": 60,
                },
                {"display_name": "sixty more", "extends": "se_aaaaaaaaaaaaaaaa", "num_trials": 60},
            ]
        }
    )

    supernet_id: ResourceId | None = Field(default=None, description="Needed unless `extends` is given.")
    extends: ResourceId | None = Field(
        default=None,
        description="A search that has ended, to go on from. Its trials that keep the constraints are this "
        "search's first, marked `is_reused`, and are learned from in place of seeds; `num_trials` counts "
        "those that come on top. `supernet_id`, `device`, `constraints` and `objectives` are its own unless "
        "given.",
    )
    device: DeviceName | None = Field(
        default=None,
        description="Whose latency may be bounded and lowered: as it is predicted at the start, to the end.",
    )
    constraints: Constraints = Constraints()
    objectives: list[ObjectiveName] = Field(
        default=["accuracy", "macs"],
        max_length=8,
        description="Accuracy, which is raised, and costs, which are lowered.",
    )
    num_trials: int = Field(
        ge=1, le=1_000_000, description="Distinct networks to measure; known ones are not measured again."
    )
    proposer: Literal["model", "nsga2", "tpe", "gp", "coarse_to_fine", "random"] = Field(
        default="model",
        description="model: what a Gaussian process and boosted trees expect to gain most. nsga2, tpe, gp: "
        "Optuna's. coarse_to_fine: BigNAS's. random: the baseline.",
    )
    seed: Seed = 0
    flat_rounds: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="End before `num_trials` once so many rounds of ten networks together have raised the "
        "hypervolume by no 0.1 %; `stop_reason` is then `flat`. Left out, all trials are spent.",
    )
    prefilter: Literal["none", "deepmad"] = Field(
        default="none",
        description="`deepmad`: some of the seeds are the best networks by its objective at rising budgets, "
        "and where that objective goes with the accuracies measured of this supernet, the search leaves out "
        "networks that fall short of the best of like cost. `prefilter_report` tells.",
    )

    @field_validator("objectives")
    @classmethod
    def _are_objectives(cls, names: list[ObjectiveName]) -> list[ObjectiveName]:
        parse_objectives(names)
        return names

    @model_validator(mode="after")
    def _names_a_supernet(self) -> SearchCreate:
        if self.supernet_id is None and self.extends is None:
            raise ValueError("give supernet_id, or extends with a search to go on from")
        return self

    def completed(self, earlier: SearchRow) -> SearchCreate:
        """The request with what it leaves out taken from the search that it extends."""
        own: dict[str, Any] = {}
        if self.supernet_id is None:
            own["supernet_id"] = earlier.supernet_id
        if "constraints" not in self.model_fields_set:
            own["constraints"] = Constraints(**earlier.constraints)
        if "objectives" not in self.model_fields_set:
            own["objectives"] = earlier.objectives
        if "device" not in self.model_fields_set:
            own["device"] = earlier.device_id
        return self.model_copy(update=own)


class RankCorrelation(AnswerModel):
    """Spearman's rank correlation of the pre-filter's objective with measured accuracy."""

    value: float
    interval_95: tuple[float, float] = Field(description="Of the bootstrap.")


class PrefilterReport(AnswerModel):
    """What a pre-filter did to a search, and why."""

    is_cut: bool = Field(
        description="Whether the search left networks out from its second round on: where both correlations "
        "are above zero by their whole intervals."
    )
    reason: str
    num_networks: int = Field(
        description="Measured with this supernet before the search or in its first round; the correlations "
        "are over these."
    )
    spearman: RankCorrelation | None = Field(description="Null where too few networks are measured.")
    spearman_given_macs: RankCorrelation | None = Field(
        description="With MACs held (partial): what the objective says beyond what the cost does."
    )
    num_seeds: int = Field(description="Networks of the first round that the pre-filter chose.")
    log_size_before: float | None = Field(
        description="Natural logarithm of the number of networks that keep the constraints, estimated by "
        "random ones; null where nothing was cut, or none of these keeps them."
    )
    log_size_after: float | None = Field(description="The same of those that are not left out.")


class Search(JobResource):
    """A question put to a supernet, and how far the answer is."""

    supernet_id: str
    extends: str | None = Field(description="The search whose trials it goes on from.")
    device: str | None = Field(description="Whose latency is predicted for it; null where none was named.")
    predicted_by: str | None = Field(
        description="What predicts it, to the end: measurements, or a latency table."
    )
    constraints: dict[str, float] = Field(description="Percentages resolved.")
    objectives: list[str]
    num_trials: int = Field(description="To measure, beside those taken over from the search it extends.")
    proposer: ProposerName
    flat_rounds: int | None = Field(
        description="Rounds without gain after which it ends before its trials do."
    )
    stop_reason: StopReason | None = Field(
        description="Why it ended: its trials are spent, every network within the constraints is measured, "
        "no other one was found (there may be some), or its rounds were flat. Null until it has succeeded."
    )
    latest_round: SearchRound | None = Field(
        description="How far it has got; all rounds are at `links.rounds`."
    )
    prefilter: PrefilterName
    prefilter_report: PrefilterReport | None = Field(
        description="What the pre-filter came to; null before the first round is measured, or without one."
    )


class UnmeasuredNetwork(AnswerModel):
    """A network of the space, measured or not."""

    architecture: dict[str, Any]
    architecture_key: str = Field(description="The same for equal architectures.")
    costs: Costs
    costs_provenance: CostsProvenance = Provenance.COUNTED
    latency_ms: Latency | None = Field(
        default=None, description="On the device that was named; null where none was."
    )


class Remedy(AnswerModel):
    """What would help where no network is known to keep the constraints."""

    nearest: UnmeasuredNetwork | None = Field(
        default=None,
        description="The network that minimises the largest ratio of cost to bound; of an undecided question "
        "the nearest that came up. Null where the constraints can be kept, or none was found in time.",
    )
    relax: dict[str, int | float] | None = Field(
        default=None, description="Its costs: taken together as bounds, they are kept."
    )
    relax_alone: dict[str, int | float | None] | None = Field(
        default=None,
        description="For each bound the least value that is kept beside the others as they are; null where "
        "there is none. A bound is left out where that was not found in time.",
    )
    is_least: bool | None = Field(
        default=None,
        description="Whether it is proved that no network is nearer and no lower value would do. Else they "
        "are the nearest and the least that were found in time.",
    )


class DurationSource(StrEnum):
    """What tells how long a network takes to be measured."""

    EVALUATIONS = "evaluations"
    PROBES = "probes"


class SearchValidation(Remedy):
    """What is known of a search before it is made."""

    supernet_id: str
    device: str | None = Field(description="Whose latency is predicted; null where none was named.")
    constraints: dict[str, float] = Field(description="Percentages resolved.")
    objectives: list[str]
    num_trials: int
    verdict: Verdict = Field(
        description="`undecided` where neither was found within a second, the tables of a space not counted: "
        "they are made once a process, in seconds, when it starts, when a supernet of the space is to be "
        "trained, or when it is first asked."
    )
    reason: str
    witness: UnmeasuredNetwork | None = Field(
        description="A network that keeps every constraint, any one: the proof that they can be kept. Null "
        "unless `feasible`."
    )
    search_space: SpaceAnswer = Field(description="Counted for the data set's classes and channels.")
    num_evaluations: int = Field(description="Networks of the supernet measured already: they cost nothing.")
    seconds_per_network: float | None = Field(
        description="One worker took for each of those, on average; before anything is measured, the "
        "training's own for the largest and the smallest network, between its epochs. Null where neither is "
        "known."
    )
    seconds_from: DurationSource | None = Field(description="Where that is from.")
    estimated_seconds: float | None = Field(
        description="For all trials, were all of them to be measured by one worker."
    )


class SearchFrontier(AnswerModel):
    """The search's trials that no other of its trials beats in every objective, by rising cost."""

    search_id: str
    supernet_id: str
    state: JobState = Field(description="While it is not final, trials may still come.")
    objectives: list[str]
    num_trials: int = Field(description="Trials so far.")
    round: SearchRound | None = Field(description="The last that these trials are of, with its hypervolume.")
    items: list[FrontierTrial]


def describe_search(found: WithJob[SearchRow], latest_round: SearchRoundRow | None) -> Search:
    """The search as answers show it."""
    row = found.row
    shape: dict[str, Any] = job_shape(
        found, "searches", more=("trials", "rounds", "pareto", "optuna-journal")
    )
    shape["links"]["supernet"] = f"/v1/supernets/{row.supernet_id}"
    if row.extends is not None:
        shape["links"]["extends"] = f"/v1/searches/{row.extends}"
    if row.device_id is not None:
        shape["links"]["device"] = f"/v1/devices/{row.device_id}"
    return Search(
        **shape,
        supernet_id=row.supernet_id,
        extends=row.extends,
        device=row.device_id,
        predicted_by=row.measurements_id or row.latency_table_id,
        constraints=row.constraints,
        objectives=row.objectives,
        num_trials=row.num_trials,
        proposer=ProposerName(row.proposer),
        flat_rounds=row.flat_rounds,
        stop_reason=None if row.stop_reason is None else StopReason(row.stop_reason),
        latest_round=None if latest_round is None else describe_round(latest_round, row.objectives),
        prefilter=PrefilterName(row.prefilter),
        prefilter_report=_describe_report(row),
    )


def _describe_report(row: SearchRow) -> PrefilterReport | None:
    if row.prefilter_report is None:
        return None
    return PrefilterReport.model_validate(
        {**row.prefilter_report, "num_seeds": len(row.prefilter_seeds or ())}
    )
