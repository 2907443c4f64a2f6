"""Constraints that no network of a space can keep are refused before any work."""

from __future__ import annotations

from api.problems import ProblemError, field_error
from api.trained import TrainedSupernet
from nas.search.constraints import Bounds, field_of
from nas.search.feasible import Feasibility, Verdict, check_feasible
from nas.search.region import FeasibleRegion

_LIMIT_S = 1.0
"""What a proof may cost the handler's thread; where it is not found by then, the worker goes on without."""


def feasibility_of(supernet: TrainedSupernet, bounds: Bounds) -> Feasibility:
    """Whether a network keeps the bounds, as far as that is found in time."""
    return check_feasible(FeasibleRegion(supernet.costs, bounds), limit_s=_LIMIT_S)


def refuse_infeasible(supernet: TrainedSupernet, bounds: Bounds) -> None:
    """ProblemError where it is proved that no network keeps the bounds; an open question passes."""
    answer = feasibility_of(supernet, bounds)
    if answer.verdict is not Verdict.INFEASIBLE:
        return
    floors = relax_alone(answer)
    values = bounds.to_fields()
    errors = [
        field_error(f"constraints.{field}", f"no network costs less than {floor}", value=values[field])
        for field, floor in floors.items()
    ]
    raise ProblemError("infeasible-constraints", 422, answer.reason, errors=errors, relax_alone=floors)


def relax_alone(answer: Feasibility) -> dict[str, int]:
    """By the field of each bound that no network keeps: the least that any network costs."""
    return {field_of(violation.cost): int(violation.floor) for violation in answer.violations}
