"""Searches: what is asked of a supernet, and what was found."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from api.schemas.common import AnswerModel, CreateRequest, JobResource, ResourceId, Seed, job_shape
from api.schemas.constraints import Constraints
from api.schemas.evaluations import Trial
from nas.job import JobState
from nas.search.settings import ProposerName, parse_objectives
from nas.store.resources import WithJob
from nas.store.tables import SearchRow

ObjectiveName = Literal["accuracy", "macs", "params", "size_bytes", "peak_activation_bytes"]


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
                }
            ]
        }
    )

    supernet_id: ResourceId
    constraints: Constraints = Constraints()
    objectives: list[ObjectiveName] = Field(
        default=["accuracy", "macs"],
        max_length=8,
        description="Accuracy, which is raised, and costs, which are lowered.",
    )
    num_trials: int = Field(ge=1, le=1_000_000, description="Distinct networks to measure.")
    proposer: Literal["nsga2", "tpe", "random"] = "nsga2"
    seed: Seed = 0

    @field_validator("objectives")
    @classmethod
    def _are_objectives(cls, names: list[ObjectiveName]) -> list[ObjectiveName]:
        parse_objectives(names)
        return names


class Search(JobResource):
    """A question put to a supernet, and how far the answer is."""

    supernet_id: str
    constraints: dict[str, float] = Field(description="Percentages resolved.")
    objectives: list[str]
    num_trials: int
    proposer: ProposerName


class SearchFrontier(AnswerModel):
    """The search's trials that no other of its trials beats in every objective, by rising cost."""

    search_id: str
    supernet_id: str
    state: JobState = Field(description="While it is not final, trials may still come.")
    objectives: list[str]
    num_trials: int = Field(description="Trials so far.")
    items: list[Trial]


def describe_search(found: WithJob[SearchRow]) -> Search:
    """The search as answers show it."""
    row = found.row
    shape: dict[str, Any] = job_shape(found, "searches", more=("trials", "pareto"))
    shape["links"]["supernet"] = f"/v1/supernets/{row.supernet_id}"
    return Search(
        **shape,
        supernet_id=row.supernet_id,
        constraints=row.constraints,
        objectives=row.objectives,
        num_trials=row.num_trials,
        proposer=ProposerName(row.proposer),
    )
