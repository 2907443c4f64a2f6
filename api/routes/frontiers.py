"""/v1/supernets/{id}/frontier and /best: answers out of what was measured, whichever search did it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Response
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from api.best import best_evaluation, described_on, rivals_of
from api.deps import DeviceQuery, IfNoneMatch, Name, ServicesDep, SessionDep
from api.etags import tagged_json
from api.fronts import Figures, figures_of_columns, front, probabilities
from api.problems import invalid_field
from api.schemas.evaluations import BestEvaluation, FrontierEvaluation
from api.schemas.supernets import Frontier
from api.services import Services
from api.strict import StrictRoute
from api.trained import TrainedSupernet, trained_supernet
from nas.devices.device import LATENCY
from nas.errors import InvalidRequestError
from nas.pareto import Objective
from nas.search.constraints import Bounds
from nas.search.settings import ACCURACY, parse_objectives
from nas.store import evaluations

router = APIRouter(prefix="/supernets", tags=["supernets"], route_class=StrictRoute)

_MOST_WITH_PROBABILITIES = 10_000
"""Evaluations that are all read to say how sure a frontier is; above, the frontier alone is."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")

_Bound = Annotated[
    str | None, Query(max_length=40, description="A number, or '60%' of the largest network's.")
]


def get_bounds(
    max_macs: _Bound = None,
    max_params: _Bound = None,
    max_size_bytes: _Bound = None,
    max_peak_activation_bytes: _Bound = None,
    max_latency_ms: _Bound = None,
) -> dict[str, Any]:
    """The bounds that the query gives, numbers as numbers."""
    given = {
        "max_macs": max_macs,
        "max_params": max_params,
        "max_size_bytes": max_size_bytes,
        "max_peak_activation_bytes": max_peak_activation_bytes,
        "max_latency_ms": max_latency_ms,
    }
    return {name: _number_or_text(text) for name, text in given.items() if text is not None}


def get_objectives(
    objectives: Annotated[
        list[str], Query(max_length=8, description="Costs to lower, beside accuracy; repeat it for several.")
    ] = ["macs"],  # noqa: B006 - FastAPI copies the default
) -> tuple[Objective, ...]:
    """Accuracy, and the costs that the query names."""
    is_named = ACCURACY.name in objectives
    try:
        parsed = parse_objectives(objectives if is_named else [ACCURACY.name, *objectives])
    except InvalidRequestError as error:
        raise invalid_field("objectives", objectives, str(error)) from error
    return tuple(sorted(parsed, key=lambda objective: objective != ACCURACY))


BoundsDep = Annotated[dict[str, Any], Depends(get_bounds)]
RivalsQuery = Annotated[
    int, Query(ge=0, le=100, description="Most networks to tell of that may be as good as the best.")
]
ObjectivesDep = Annotated[tuple[Objective, ...], Depends(get_objectives)]


@dataclass(frozen=True)
class _Measured:
    """The networks that a frontier is made of."""

    ids: NDArray[np.int64]
    figures: Figures
    count: int
    """Those within the bounds; more than `ids`, where those that no answer needs are left out."""

    @property
    def has_chances(self) -> bool:
        """Whether all are there that say how sure the frontier is, and they are not too many."""
        return self.count == len(self.ids) <= _MOST_WITH_PROBABILITIES


@router.get("/{supernet_id}/frontier", response_model=Frontier, operation_id="get_supernet_frontier")
def get_supernet_frontier(
    supernet_id: Name,
    services: ServicesDep,
    session: SessionDep,
    fields: BoundsDep,
    objectives: ObjectivesDep,
    device: DeviceQuery = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The whole frontier over every network measured with the final weights."""
    supernet = trained_supernet(session, supernet_id).on_device(session, device)
    _check_objectives(supernet, objectives)
    bounds = supernet.parse_bounds(fields)
    measured = _measured(session, services, supernet, bounds, objectives)
    positions = front(measured.figures, objectives)
    chances: list[float | None] = [None] * len(positions)
    if measured.has_chances:
        chances = [
            *probabilities(
                measured.figures,
                objectives,
                positions,
                lambda needed: evaluations.bitmaps(session, measured.ids[[*needed]].tolist()),
                num_images=supernet.protocol.num_images,
            )
        ]
    rows = evaluations.get_many(session, measured.ids[positions].tolist())
    frontier = Frontier(
        supernet_id=supernet_id,
        checkpoint=supernet.protocol.checkpoint,
        device=device,
        objectives=[objective.name for objective in objectives],
        constraints=bounds.to_fields(),
        num_evaluations=measured.count,
        items=[
            FrontierEvaluation(**dict(evaluation), frontier_probability=chance)
            for evaluation, chance in zip(described_on(session, supernet, rows), chances, strict=True)
        ],
    )
    return tagged_json(frontier, if_none_match)


@router.get("/{supernet_id}/best", operation_id="get_supernet_best")
def get_supernet_best(
    supernet_id: Name,
    services: ServicesDep,
    session: SessionDep,
    fields: BoundsDep,
    device: DeviceQuery = None,
    max_rivals: RivalsQuery = 0,
) -> BestEvaluation:
    """The most accurate measured network within the bounds, now.

    Accuracies are measured on few images, so others may be as good: `max_rivals` asks for the cheapest."""
    supernet = trained_supernet(session, supernet_id).on_device(session, device)
    bounds = supernet.parse_bounds(fields)
    best = best_evaluation(session, services.known, supernet, bounds)
    others = rivals_of(session, services.known, supernet, bounds, best, max_rivals)
    first, *rivals = described_on(session, supernet, [best, *others])
    return BestEvaluation(**dict(first), rivals=rivals)


def _measured(
    session: Session,
    services: Services,
    supernet: TrainedSupernet,
    bounds: Bounds,
    objectives: Sequence[Objective],
) -> _Measured:
    asked = {*bounds.names, *(objective.name for objective in objectives)}
    if supernet.device is not None and LATENCY in asked:
        known = services.known.of(session, supernet, supernet.device)
        kept = np.flatnonzero(known.keep(bounds))
        return _Measured(known.evaluation_id[kept], known.figures(kept), len(kept))
    limits = dict(bounds.limits)
    count = evaluations.count(session, supernet.protocol, limits)
    read = evaluations.measured if count <= _MOST_WITH_PROBABILITIES else evaluations.candidates
    columns = read(session, supernet.protocol, limits)
    return _Measured(columns.evaluation_id, figures_of_columns(columns), count)


def _check_objectives(supernet: TrainedSupernet, objectives: Sequence[Objective]) -> None:
    names = [objective.name for objective in objectives]
    if LATENCY in names and supernet.device is None:
        message = "latency_ms is of a device; name one as `device`, or leave the objective out"
        raise invalid_field("objectives", names, message)


def _number_or_text(text: str) -> float | str:
    # Python reads more as numbers than JSON does: 1_000, and the digits of every script.
    return float(text) if _NUMBER.fullmatch(text) else text
