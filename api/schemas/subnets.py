"""Subnets: which network to take out of a supernet, and the bundle that comes of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from api.schemas.common import AnswerModel, CreateRequest, JobResource, ResourceId, job_shape
from api.schemas.constraints import Constraints
from api.schemas.devices import DeviceName
from api.schemas.evaluations import Accuracy, Costs, CostsProvenance, describe_accuracy, describe_costs
from nas.store.resources import WithJob
from nas.store.tables import EvaluationRow, SubnetRow
from nas.trial import Provenance
from nas.verification import Training

_FORMS = (
    ("supernet_id", "architecture"),
    ("supernet_id", "constraints"),
    ("search_id", "trial_number"),
    ("verification_id", "network_number", "training"),
)


class SubnetCreate(CreateRequest):
    """A network to take out: by its architecture, as the best within constraints, or as a search's trial.

    It has the weights that it inherits, unless a verification has trained it and its own are asked for.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"supernet_id": "sn_aaaaaaaaaaaaaaaa", "constraints": {"max_macs": "50%"}},
                {"search_id": "se_aaaaaaaaaaaaaaaa", "trial_number": 0},
                {"verification_id": "ve_aaaaaaaaaaaaaaaa", "network_number": 0, "training": "fine_tuned"},
            ]
        }
    )

    supernet_id: ResourceId | None = None
    architecture: dict[str, Any] | str | None = Field(
        default=None, description="As answers show it, or in the space's native notation."
    )
    constraints: Constraints | None = Field(
        default=None, description="The most accurate measured network within them."
    )
    device: DeviceName | None = Field(
        default=None, description="Whose latency `constraints.max_latency_ms` is of."
    )
    search_id: ResourceId | None = None
    trial_number: int | None = Field(default=None, ge=0, le=2**31 - 1)
    verification_id: ResourceId | None = None
    network_number: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Of the verification's networks."
    )
    training: Literal["alone", "fine_tuned"] | None = Field(
        default=None, description="Whose weights are wanted, at the rate that was best on val."
    )

    @model_validator(mode="after")
    def _has_one_form(self) -> SubnetCreate:
        named = set().union(*_FORMS)
        given = {name for name in named if getattr(self, name) is not None}
        if given not in map(set, _FORMS):
            forms = "; or ".join(" and ".join(form) for form in _FORMS)
            raise ValueError(f"give exactly one of these sets: {forms}")
        if self.device is not None and self.constraints is None:
            raise ValueError("device is that of a constraint; give constraints, or leave it out")
        return self


class OwnTraining(AnswerModel):
    """The training that gave a network weights of its own."""

    verification_id: str | None = Field(description="Null once the verification is deleted.")
    training: Training
    learning_rate: float
    epochs: int
    seed: int


class Subnet(JobResource):
    """A network taken out of a supernet. Its figures and files appear together, once checked."""

    supernet_id: str
    architecture: dict[str, Any]
    architecture_key: str
    costs: Costs
    costs_provenance: CostsProvenance = Provenance.COUNTED
    accuracy_val: Accuracy | None
    accuracy_test: Accuracy | None
    own_training: OwnTraining | None = Field(description="Null: it has the weights that it inherits.")
    published_at: datetime | None


def describe_subnet(found: WithJob[SubnetRow], measured: dict[int, EvaluationRow]) -> Subnet:
    """The subnet as answers show it; `measured` holds its evaluations by id."""
    row = found.row
    shape: dict[str, Any] = job_shape(found, "subnets", more=("artifacts",))
    shape["links"]["supernet"] = f"/v1/supernets/{row.supernet_id}"
    return Subnet(
        **shape,
        supernet_id=row.supernet_id,
        architecture=row.architecture,
        architecture_key=row.architecture_key,
        costs=describe_costs(row),
        accuracy_val=_accuracy(row.evaluation_val_id, measured),
        accuracy_test=_accuracy(row.evaluation_test_id, measured),
        own_training=_own_training(row),
        published_at=row.published_at,
    )


def _own_training(row: SubnetRow) -> OwnTraining | None:
    if row.own_training is None:
        return None
    return OwnTraining(verification_id=row.verification_id, **row.own_training)


def _accuracy(evaluation_id: int | None, measured: dict[int, EvaluationRow]) -> Accuracy | None:
    return None if evaluation_id is None else describe_accuracy(measured[evaluation_id])
