"""The best measured network within bounds; where there is none, the nearest beyond them."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.problems import ProblemError
from api.schemas.evaluations import describe_evaluation
from api.trained import TrainedSupernet
from nas.job import JobState
from nas.search.constraints import Bounds, field_of
from nas.store import evaluations
from nas.store.tables import EvaluationRow


def best_evaluation(session: Session, supernet: TrainedSupernet, bounds: Bounds) -> EvaluationRow:
    """The most accurate measured network within the bounds; ProblemError names the nearest where none is."""
    limits = dict(bounds.limits)
    best = evaluations.best(session, supernet.protocol, limits)
    if best is not None:
        return best
    nearest = evaluations.nearest(session, supernet.protocol, limits)
    if nearest is None:
        detail = f"no network of supernet {supernet.id} is measured yet; run a search first"
        raise ProblemError("supernet-not-ready", 409, detail, state=JobState.SUCCEEDED)
    raise _nothing_within(bounds, nearest)


def _nothing_within(bounds: Bounds, nearest: EvaluationRow) -> ProblemError:
    relax = {field_of(name): getattr(nearest, name) for name in bounds.names}
    needed = ", ".join(f"{name}={value}" for name, value in relax.items())
    return ProblemError(
        "no-network-within-bounds",
        404,
        f"no measured network keeps the bounds; the nearest needs {needed}; "
        "relax the bounds to that, or search with these constraints",
        nearest=describe_evaluation(nearest).model_dump(mode="json"),
        relax=relax,
    )
