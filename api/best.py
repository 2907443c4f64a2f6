"""The best measured network within bounds; where there is none, the nearest beyond them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.known import KnownNetworks
from api.problems import ProblemError
from api.schemas.evaluations import Evaluation, describe_evaluation
from api.trained import TrainedSupernet
from nas.devices.device import LATENCY
from nas.job import JobState
from nas.prefilter.answers import ROUNDING
from nas.search.constraints import Bounds, field_of
from nas.store import evaluations
from nas.store.tables import EvaluationRow
from nas.trial import least_rival


def best_evaluation(
    session: Session, known: KnownNetworks, supernet: TrainedSupernet, bounds: Bounds
) -> EvaluationRow:
    """The most accurate measured network within the bounds; ProblemError names the nearest where none is."""
    if supernet.device is not None and LATENCY in bounds.names:
        found = known.of(session, supernet, supernet.device)
        best, nearest = _row(session, found.best(bounds)), None
        if best is None:
            nearest = _row(session, found.nearest(bounds))
    else:
        limits = dict(bounds.limits)
        best, nearest = evaluations.best(session, supernet.protocol, limits), None
        if best is None:
            nearest = evaluations.nearest(session, supernet.protocol, limits)
    if best is not None:
        return best
    if nearest is None:
        detail = f"no network of supernet {supernet.id} is measured yet; run a search first"
        raise ProblemError("supernet-not-ready", 409, detail, state=JobState.SUCCEEDED)
    raise _nothing_within(session, supernet, bounds, nearest)


def rivals_of(
    session: Session,
    known: KnownNetworks,
    supernet: TrainedSupernet,
    bounds: Bounds,
    best: EvaluationRow,
    count: int,
) -> Sequence[EvaluationRow]:
    """Networks within the bounds of which their images do not say that they are worse, cheapest first."""
    if count == 0:
        return []
    asked = {
        "least_correct": least_rival(best.num_correct, best.num_images),
        "but": best.id,
        "count": count,
    }
    if supernet.device is not None and LATENCY in bounds.names:
        found = known.of(session, supernet, supernet.device).rivals(bounds, **asked)
        return evaluations.get_many(session, found)
    return evaluations.rivals(session, supernet.protocol, dict(bounds.limits), **asked)


def described_on(
    session: Session, supernet: TrainedSupernet, rows: Sequence[EvaluationRow]
) -> list[Evaluation]:
    """As answers show them, with their latencies where a device was named."""
    if supernet.device is None:
        return [describe_evaluation(row) for row in rows]
    return [*map(describe_evaluation, rows, supernet.device.of_rows(rows, session))]


def _row(session: Session, evaluation_id: int | None) -> EvaluationRow | None:
    return None if evaluation_id is None else evaluations.get(session, evaluation_id)


def _nothing_within(
    session: Session, supernet: TrainedSupernet, bounds: Bounds, nearest: EvaluationRow
) -> ProblemError:
    (shown,) = described_on(session, supernet, [nearest])
    costs: dict[str, float] = shown.costs.model_dump()
    if shown.latency_ms is not None:
        # Sums of fractions may come out higher when the bound is put to the proof.
        costs[LATENCY] = shown.latency_ms.value * (1 + 2 * ROUNDING)
    relax = {field_of(name): costs[name] for name in bounds.names}
    needed = ", ".join(f"{name}={value:.15g}" for name, value in relax.items())
    return ProblemError(
        "no-network-within-bounds",
        404,
        f"no measured network keeps the bounds; the nearest needs {needed}; "
        "relax the bounds to that, or search with these constraints",
        nearest=shown.model_dump(mode="json"),
        relax=relax,
    )
