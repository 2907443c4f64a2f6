"""Probes: what a training shows of itself while it goes on."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.schemas.common import AnswerModel
from api.schemas.evaluations import Accuracy, Costs, CostsProvenance
from nas.costs import COST_NAMES
from nas.probes import ProbeResult, ProbeRole, front_of
from nas.store.probes import ProbeCurves
from nas.store.resources import WithJob
from nas.store.tables import ProbeNetworkRow, SupernetRow
from nas.trial import Provenance, Split, wilson_interval


class ProbeNetwork(AnswerModel):
    """One of the networks that the training measures after every epoch; they stay the same."""

    number: int
    role: ProbeRole = Field(description="An end of the space, or drawn by the seed, evenly spaced in MACs.")
    architecture: dict[str, Any]
    architecture_key: str
    costs: Costs
    costs_provenance: CostsProvenance = Provenance.COUNTED


class ProbeAccuracy(AnswerModel):
    """One of them after an epoch. No evaluation: the weights went on changing."""

    number: int
    accuracy_val: Accuracy


class ProbedEpoch(AnswerModel):
    """All of them after one epoch, each with batch-norm statistics of its own."""

    epoch: int
    items: list[ProbeAccuracy]
    front: list[int] = Field(
        description="Numbers of those that no other beats in accuracy and MACs together, by rising MACs."
    )


class Probes(AnswerModel):
    """The probes of a supernet, whole."""

    supernet_id: str
    networks: list[ProbeNetwork]
    epochs: list[ProbedEpoch]
    flat_at_epoch: int | None = Field(
        description="The epoch after which no probe rose any more, and the event `probes_flat` said so; null "
        "before."
    )


def describe_probes(found: WithJob[SupernetRow], curves: ProbeCurves) -> Probes:
    """Every epoch so far."""
    macs = [network.macs for network in curves.networks]
    return Probes(
        supernet_id=found.row.id,
        networks=[_network(row) for row in curves.networks],
        epochs=[
            ProbedEpoch(
                epoch=epoch,
                items=[_accuracy(result) for result in results],
                front=front_of(macs, [result.accuracy for result in results]),
            )
            for epoch, results in curves.results.items()
        ],
        flat_at_epoch=found.row.probes_flat_at_epoch,
    )


def _network(row: ProbeNetworkRow) -> ProbeNetwork:
    return ProbeNetwork(
        number=row.number,
        role=ProbeRole(row.role),
        architecture=row.architecture,
        architecture_key=row.architecture_key,
        costs=Costs(**{name: getattr(row, name) for name in COST_NAMES}),
    )


def _accuracy(result: ProbeResult) -> ProbeAccuracy:
    accuracy = Accuracy(
        value=result.accuracy,
        num_correct=result.num_correct,
        num_images=result.num_images,
        interval_95=wilson_interval(result.num_correct, result.num_images),
        split=Split.VAL,
    )
    return ProbeAccuracy(number=result.number, accuracy_val=accuracy)
