"""A trained supernet: what a request says of its networks, read with its space and its costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from api.latency import DeviceLatency, latency_by, latency_on
from api.problems import ProblemError, invalid_field
from nas.architecture import Architecture
from nas.costs import costs
from nas.devices.device import LATENCY
from nas.errors import InvalidArchitectureError, InvalidRequestError
from nas.job import JobState
from nas.search.constraints import Bounds, field_of
from nas.search.cost_model import CostModel, LoweredCosts, SpaceCosts
from nas.store import datasets, supernets
from nas.store.evaluations import EvaluationProtocol
from nas.store.latency import source_of
from nas.store.tables import SearchRow
from nas.trial import Split
from search_spaces import SPACES


@dataclass(frozen=True, kw_only=True)
class TrainedSupernet:
    """A supernet with its final weights: what its networks cost, and how they are measured."""

    costs: SpaceCosts
    protocol: EvaluationProtocol
    """On all of val: what drives searches and makes frontiers."""
    device: DeviceLatency | None = None
    """The device that was asked about, whose `latency_ms` is then one of the costs."""

    @property
    def id(self) -> str:
        """Its name in the service."""
        return self.protocol.supernet_id

    @property
    def cost_model(self) -> CostModel:
        """Every cost that can be bounded or lowered."""
        return self.costs if self.device is None else self.device.costs

    def on_device(self, session: Session, name: str | None) -> TrainedSupernet:
        """With the latencies of the device of this name; ProblemError where nothing predicts them."""
        return self if name is None else replace(self, device=latency_on(session, self.costs, name))

    def parse_bounds(self, fields: Mapping[str, Any], *, prefix: str = "") -> Bounds:
        """The bounds of a request; ProblemError names the field below `prefix`."""
        given: dict[str, float] = {}
        for name, value in fields.items():
            if name == field_of(LATENCY) and self.device is None:
                message = f"{name} is of a device; name one as `device`, or leave it out"
                raise invalid_field(f"{prefix}{name}", value, message)
            try:
                model = self.cost_model if name == field_of(LATENCY) else self._lowered
                given |= Bounds.parse({name: value}, model).to_fields()
            except InvalidRequestError as error:
                raise invalid_field(f"{prefix}{name}", value, str(error)) from error
        return Bounds.parse(given, self.cost_model)

    def costs_of(self, network: Architecture) -> dict[str, int]:
        """What the network costs, by name."""
        return costs(
            self.costs.space,
            network,
            num_classes=self.costs.num_classes,
            in_channels=self.costs.in_channels,
        )

    @property
    def _lowered(self) -> LoweredCosts:
        return LoweredCosts(self.costs)

    def parse_architecture(
        self, description: dict[str, Any] | str, *, field: str = "architecture"
    ) -> Architecture:
        """The network that a request's field describes, spelled canonically, as workers measure it."""
        space = self.costs.space
        try:
            return space.canonical(space.parse(description))
        except InvalidArchitectureError as error:
            message = str(error)
            raise invalid_field(field, description, message, slug="unknown-architecture") from error


def latency_of_search(session: Session, row: SearchRow) -> DeviceLatency | None:
    """What predicted for the search from its start; None where it is of no device."""
    source = source_of(row)
    if source is None:
        return None
    return latency_by(session, trained_supernet(session, row.supernet_id).costs, source)


def trained_supernet(session: Session, supernet_id: str) -> TrainedSupernet:
    """The supernet, or ProblemError `supernet-not-ready` while it has no final weights."""
    found = supernets.get(session, supernet_id)
    row, job = found.row, found.job
    if job.state is not JobState.SUCCEEDED or row.checkpoint is None or row.calibration is None:
        remedy = "train another" if job.state.is_terminal else "wait for its training to succeed"
        detail = f"supernet {supernet_id} is {job.state}; {remedy}"
        raise ProblemError("supernet-not-ready", 409, detail, state=job.state)
    dataset = datasets.get(session, row.dataset_id).row
    # Nothing is trained before its images are imported.
    assert dataset.num_val is not None
    return TrainedSupernet(
        costs=SpaceCosts(
            space=SPACES[row.search_space],
            num_classes=dataset.num_classes,
            in_channels=dataset.in_channels,
        ),
        protocol=EvaluationProtocol(
            supernet_id=row.id,
            checkpoint=row.checkpoint,
            split=Split.VAL,
            num_images=dataset.num_val,
            calibration=row.calibration,
        ),
    )
