"""A trained supernet and what was measured of it: frontiers, the best within bounds, the nearest beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from api.problems import ProblemError, invalid_field
from api.schemas.evaluations import describe_evaluation
from nas.architecture import Architecture
from nas.costs import COST_NAMES
from nas.errors import InvalidArchitectureError, InvalidRequestError
from nas.job import JobState
from nas.pareto import Objective, best_under, normalise, pareto_front
from nas.search.constraints import Bounds, field_of
from nas.search.cost_model import SpaceCosts
from nas.search.settings import ACCURACY
from nas.space import SearchSpace
from nas.store import datasets, evaluations, supernets
from nas.store.evaluations import EvaluationColumns
from nas.store.tables import EvaluationRow
from nas.trial import Split
from search_spaces import SPACES

_LARGEST_BOUND = 2**63 - 1

Figures = Mapping[str, NDArray[Any]]
"""By name one number a network."""


@dataclass(frozen=True, kw_only=True)
class TrainedSupernet:
    """What reading its measurements needs: whose weights, of which space, on how many images."""

    id: str
    checkpoint: str
    calibration: str | None
    num_val: int | None
    costs: SpaceCosts

    @property
    def space(self) -> SearchSpace:
        """The space it covers."""
        return self.costs.space

    def parse_bounds(self, fields: Mapping[str, Any], *, prefix: str = "") -> Bounds:
        """The bounds of a request; ProblemError names the field below `prefix`."""
        given: dict[str, float] = {}
        for name, value in fields.items():
            try:
                given |= Bounds.parse({name: value}, self.costs).to_fields()
            except InvalidRequestError as error:
                raise invalid_field(f"{prefix}{name}", value, str(error)) from error
        return Bounds.parse(given, self.costs)

    def parse_architecture(self, description: dict[str, Any] | str) -> Architecture:
        """The network a request describes, spelled canonically, as workers measure it."""
        try:
            return self.space.canonical(self.space.parse(description))
        except InvalidArchitectureError as error:
            message = str(error)
            raise invalid_field("architecture", description, message, slug="unknown-architecture") from error

    def measured(self, session: Session, bounds: Bounds | None = None) -> EvaluationColumns:
        """The evaluations on val of the final weights, all on the same images, within the bounds."""
        limits = {} if bounds is None else bounds.to_fields()
        return evaluations.frontier_rows(
            session,
            self.id,
            self.checkpoint,
            split=Split.VAL,
            # Costs are whole numbers: one is within the bound exactly when it is within its floor.
            bounds={name: int(min(limit, _LARGEST_BOUND)) for name, limit in limits.items()},
            num_images=self.num_val,
            calibration=self.calibration,
        )


def trained_supernet(session: Session, supernet_id: str) -> TrainedSupernet:
    """The supernet, or ProblemError `supernet-not-ready` while it has no final weights."""
    found = supernets.get(session, supernet_id)
    row, job = found.row, found.job
    if job.state is not JobState.SUCCEEDED or row.checkpoint is None:
        remedy = "train another" if job.state.is_terminal else "wait for its training to succeed"
        detail = f"supernet {supernet_id} is {job.state}; {remedy}"
        raise ProblemError("supernet-not-ready", 409, detail, state=job.state)
    dataset = datasets.get(session, row.dataset_id).row
    return TrainedSupernet(
        id=row.id,
        checkpoint=row.checkpoint,
        calibration=row.calibration,
        num_val=dataset.num_val,
        costs=SpaceCosts(
            space=SPACES[row.search_space],
            num_classes=dataset.num_classes,
            in_channels=dataset.in_channels,
        ),
    )


def figures_of(columns: EvaluationColumns) -> Figures:
    """Accuracy and costs by name."""
    return {ACCURACY.name: columns.accuracy, **{name: getattr(columns, name) for name in COST_NAMES}}


def front(figures: Figures, objectives: Sequence[Objective]) -> list[int]:
    """Positions of the networks on the frontier, by the first cost among the objectives."""
    costs_first = sorted(objectives, key=lambda objective: objective == ACCURACY)
    values = np.column_stack([figures[objective.name] for objective in costs_first])
    return [int(position) for position in pareto_front(normalise(values, costs_first))]


def best_evaluation(session: Session, supernet: TrainedSupernet, bounds: Bounds) -> EvaluationRow:
    """The most accurate measured network within the bounds; ProblemError names the nearest where none is."""
    columns = supernet.measured(session, bounds)
    # The rows within the bounds are here already; MACs as the first cost decide between equals.
    best = best_under(columns.accuracy, columns.macs[:, None], [np.inf])
    if best is None:
        raise _nothing_within(session, supernet, bounds)
    return evaluations.get(session, int(columns.evaluation_id[best]))


def _nothing_within(session: Session, supernet: TrainedSupernet, bounds: Bounds) -> ProblemError:
    columns = supernet.measured(session)
    if not len(columns):
        detail = f"no network of supernet {supernet.id} is measured yet; run a search first"
        return ProblemError("supernet-not-ready", 409, detail, state=JobState.SUCCEEDED)
    ratios = bounds.worst_ratio(figures_of(columns))
    row = evaluations.get(session, int(columns.evaluation_id[int(ratios.argmin())]))
    relax = {field_of(name): getattr(row, name) for name in bounds.names}
    needed = ", ".join(f"{name}={value}" for name, value in relax.items())
    return ProblemError(
        "no-network-within-bounds",
        404,
        f"none of the {len(columns)} measured networks keeps the bounds; the nearest needs {needed}; "
        "relax the bounds to that, or search with these constraints",
        nearest=describe_evaluation(row).model_dump(mode="json"),
        relax=relax,
    )
