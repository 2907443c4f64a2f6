"""/v1/supernets/{id}/frontier and /best: answers out of what was measured, whichever search did it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from api.best import best_evaluation
from api.deps import IfNoneMatch, Name, SessionDep
from api.etags import tagged_json
from api.fronts import figures_of_columns, front, probabilities
from api.problems import invalid_field
from api.schemas.evaluations import Evaluation, FrontierEvaluation, describe_evaluation
from api.schemas.supernets import Frontier
from api.strict import StrictRoute
from api.trained import trained_supernet
from nas.errors import InvalidRequestError
from nas.pareto import Objective
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
) -> dict[str, Any]:
    """The bounds that the query gives, numbers as numbers."""
    given = {
        "max_macs": max_macs,
        "max_params": max_params,
        "max_size_bytes": max_size_bytes,
        "max_peak_activation_bytes": max_peak_activation_bytes,
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
ObjectivesDep = Annotated[tuple[Objective, ...], Depends(get_objectives)]


@router.get("/{supernet_id}/frontier", response_model=Frontier, operation_id="get_supernet_frontier")
def get_supernet_frontier(
    supernet_id: Name,
    session: SessionDep,
    fields: BoundsDep,
    objectives: ObjectivesDep,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The whole frontier over every network measured with the final weights."""
    supernet = trained_supernet(session, supernet_id)
    bounds = supernet.parse_bounds(fields)
    limits = dict(bounds.limits)
    num_evaluations = evaluations.count(session, supernet.protocol, limits)
    has_chances = num_evaluations <= _MOST_WITH_PROBABILITIES
    read = evaluations.measured if has_chances else evaluations.candidates
    columns = read(session, supernet.protocol, limits)
    figures = figures_of_columns(columns)
    positions = front(figures, objectives)
    ids = columns.evaluation_id.tolist()
    chances: list[float | None] = [None] * len(positions)
    if has_chances:
        chances = [
            *probabilities(
                figures,
                objectives,
                positions,
                lambda needed: evaluations.bitmaps(session, [ids[position] for position in needed]),
                num_images=supernet.protocol.num_images,
            )
        ]
    rows = evaluations.get_many(session, [ids[position] for position in positions])
    frontier = Frontier(
        supernet_id=supernet_id,
        checkpoint=supernet.protocol.checkpoint,
        objectives=[objective.name for objective in objectives],
        constraints=bounds.to_fields(),
        num_evaluations=num_evaluations,
        items=[
            FrontierEvaluation(**dict(describe_evaluation(row)), frontier_probability=chance)
            for row, chance in zip(rows, chances, strict=True)
        ],
    )
    return tagged_json(frontier, if_none_match)


@router.get("/{supernet_id}/best", operation_id="get_supernet_best")
def get_supernet_best(supernet_id: Name, session: SessionDep, fields: BoundsDep) -> Evaluation:
    """The most accurate measured network within the bounds, now."""
    supernet = trained_supernet(session, supernet_id)
    return describe_evaluation(best_evaluation(session, supernet, supernet.parse_bounds(fields)))


def _number_or_text(text: str) -> float | str:
    # Python reads more as numbers than JSON does: 1_000, and the digits of every script.
    return float(text) if _NUMBER.fullmatch(text) else text
