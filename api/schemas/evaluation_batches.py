"""Networks chosen outside: what is to be measured, and what came of each."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from api.schemas.common import AnswerModel, CreateRequest, JobResource, job_shape
from api.schemas.constraints import Constraints
from api.schemas.devices import DeviceName
from api.schemas.evaluations import (
    Accuracy,
    Costs,
    CostsProvenance,
    Latency,
    describe_accuracy,
    describe_costs,
)
from nas.costs import COST_NAMES
from nas.devices.device import LATENCY
from nas.search.constraints import field_of
from nas.store.evaluation_batches import ItemCounts, ItemWithEvaluation
from nas.store.resources import WithJob
from nas.store.tables import EvaluationBatchRow, EvaluationItemRow
from nas.trial import Provenance

MAX_ARCHITECTURES = 1000
"""Of one batch; who has more sends several."""

_STAGES = {1: 8, 2: 16, 3: 32, 4: 64}
EXAMPLE_NETWORK = {
    name: choice
    for stage, width in _STAGES.items()
    for name, choice in {
        f"stage{stage}.width": width,
        f"stage{stage}.depth": 1,
        f"stage{stage}.block1.kernel": 3,
        f"stage{stage}.block1.expansion": 2,
    }.items()
}
"""The smallest network of `micro_8`."""


class EvaluationBatchCreate(CreateRequest):
    """Networks to measure."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "display_name": "first generation",
                    "architectures": [EXAMPLE_NETWORK],
                    "constraints": {"max_macs": "60%"},
                },
            ]
        }
    )

    architectures: list[dict[str, Any] | str] = Field(
        min_length=1,
        max_length=MAX_ARCHITECTURES,
        description="As answers show them, or in the space's native notation. One network given twice, in "
        "whatever spelling, is measured once and answered twice.",
    )
    constraints: Constraints = Field(
        default=Constraints(),
        description="A network that breaks one is `infeasible`: its costs are told, and it is not measured.",
    )

    device: DeviceName | None = Field(
        default=None, description="Whose latency is predicted for each, and may be bounded."
    )

    def spec(self) -> dict[str, Any]:
        """What the job is to do, less the networks, of which there may be a thousand."""
        return {name: value for name, value in super().spec().items() if name != "architectures"}


class EvaluationBatch(JobResource):
    """Networks chosen outside, and how far their measuring is. They are its `networks`, not in `spec`."""

    supernet_id: str
    device: str | None = Field(description="Whose latency is predicted; null where none was named.")
    predicted_by: str | None = Field(description="What predicts it: measurements, or a latency table.")
    constraints: dict[str, float] = Field(description="Percentages resolved.")
    num_architectures: int = Field(description="As they were given, those that are one network included.")
    num_measured: int = Field(description="Of them: those with an accuracy, new or taken over.")
    num_infeasible: int = Field(description="Of them: those that break a constraint.")


class ItemState(StrEnum):
    """What came of a network that was given."""

    MEASURED = "measured"
    INFEASIBLE = "infeasible"
    """It breaks a constraint and will not be measured."""
    UNMEASURED = "unmeasured"
    """Not yet; for good where the batch's job has ended otherwise than well."""


class EvaluationItem(AnswerModel):
    """One network of a batch, at the place where it was given."""

    batch_id: str
    number: int = Field(description="Its place among the `architectures` of the request, from 0.")
    state: ItemState
    architecture: dict[str, Any] = Field(description="In the canonical spelling, the one that is measured.")
    architecture_key: str = Field(description="The same for equal architectures.")
    costs: Costs
    costs_provenance: CostsProvenance = Provenance.COUNTED
    latency_ms: Latency | None = Field(description="On the batch's device; null where it has none.")
    breaks: list[str] = Field(description="The constraints that it breaks, such as `max_macs`.")
    accuracy_val: Accuracy | None = Field(description="Null unless the network is measured.")
    is_reused: bool = Field(description="Measured before; the measurement was taken over.")
    links: dict[str, str]


def describe_batch(found: WithJob[EvaluationBatchRow], counts: ItemCounts) -> EvaluationBatch:
    """The batch as answers show it."""
    row = found.row
    shape: dict[str, Any] = job_shape(found, "evaluation-batches", more=("networks",))
    shape["links"]["supernet"] = f"/v1/supernets/{row.supernet_id}"
    return EvaluationBatch(
        **shape,
        supernet_id=row.supernet_id,
        device=row.device_id,
        predicted_by=row.measurements_id or row.latency_table_id,
        constraints=row.constraints,
        num_architectures=row.num_architectures,
        num_measured=counts.num_measured,
        num_infeasible=counts.num_infeasible,
    )


def describe_item(
    batch: EvaluationBatchRow, described: Callable[[float], Latency] | None, found: ItemWithEvaluation
) -> EvaluationItem:
    """An item of the batch as answers show it; `described` says how a latency is, where there is a device."""
    item, evaluation = found.item, found.evaluation
    return EvaluationItem(
        batch_id=batch.id,
        number=item.number,
        state=_state(item),
        architecture=item.architecture,
        architecture_key=item.architecture_key,
        costs=describe_costs(item),
        latency_ms=None if described is None or item.latency_ms is None else described(item.latency_ms),
        breaks=_broken(batch, item),
        accuracy_val=None if evaluation is None else describe_accuracy(evaluation),
        is_reused=item.is_reused,
        links={
            "batch": f"/v1/evaluation-batches/{batch.id}",
            "supernet": f"/v1/supernets/{batch.supernet_id}",
        },
    )


def _state(item: EvaluationItemRow) -> ItemState:
    if item.is_infeasible:
        return ItemState.INFEASIBLE
    return ItemState.UNMEASURED if item.evaluation_id is None else ItemState.MEASURED


def _broken(batch: EvaluationBatchRow, item: EvaluationItemRow) -> list[str]:
    limits = {name: batch.constraints.get(field_of(name)) for name in (*COST_NAMES, LATENCY)}
    return [
        field_of(name) for name, limit in limits.items() if limit is not None and getattr(item, name) > limit
    ]
