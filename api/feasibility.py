"""Constraints that no network of a space can keep are refused before any work, with what would help."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.problems import ProblemError, field_error
from api.schemas.evaluations import Costs
from api.schemas.searches import Remedy, UnmeasuredNetwork
from api.services import Services
from api.trained import TrainedSupernet
from nas.architecture import Architecture
from nas.prefilter.certificate import Certificate, Verdict
from nas.prefilter.relief import Relief
from nas.search.constraints import Bounds, field_of
from nas.search.cost_model import SpaceCosts
from nas.search.region import FeasibleRegion
from nas.store import supernets
from search_spaces import SPACES

_MAX_WARMED = 8


def warm_certificates(services: Services) -> None:
    """Have the tables of the spaces made whose supernets were trained last; returns at once."""
    with services.database.session() as session:
        found = supernets.trained_spaces(session, limit=_MAX_WARMED)
    for trained in found:
        # A supernet of an older release may be of a space that is no more; the service starts all the same.
        if (space := SPACES.get(trained.search_space)) is not None:
            services.certificates.warm(
                SpaceCosts(space=space, num_classes=trained.num_classes, in_channels=trained.in_channels)
            )


def certificate_of(services: Services, supernet: TrainedSupernet, bounds: Bounds) -> Certificate:
    """Whether a network keeps the bounds, as far as that is found in time."""
    # Without what it has looked up already: that is made in the process, and too long to be sent there.
    costs = supernet.costs if supernet.device is None else replace(supernet.device.costs)
    return services.certificates.certify(FeasibleRegion(costs, bounds))


def refuse_infeasible(services: Services, supernet: TrainedSupernet, bounds: Bounds) -> None:
    """ProblemError where it is proved that no network keeps the bounds; an open question passes."""
    answer = certificate_of(services, supernet, bounds)
    if answer.verdict is Verdict.INFEASIBLE:
        members = remedy_of(supernet, answer).model_dump(mode="json")
        errors = _field_errors(bounds, answer.relief)
        raise ProblemError("infeasible-constraints", 422, answer.reason, errors=errors, **members)


def remedy_of(supernet: TrainedSupernet, answer: Certificate) -> Remedy:
    """What would help, by the fields of the request; nothing where nothing is amiss."""
    relief = answer.relief
    if relief is None:
        return Remedy()
    return Remedy(
        nearest=_describe(supernet, relief.nearest),
        relax={field_of(name): bound for name, bound in relief.relax.items()},
        relax_alone={field_of(name): bound for name, bound in relief.relax_alone.items()},
        is_least=relief.is_least,
    )


def witness_of(supernet: TrainedSupernet, answer: Certificate) -> UnmeasuredNetwork | None:
    """The network that shows that the bounds can be kept; None unless they are proved feasible."""
    return None if answer.architecture is None else _describe(supernet, answer.architecture)


def _describe(supernet: TrainedSupernet, network: Architecture) -> UnmeasuredNetwork:
    return UnmeasuredNetwork(
        architecture=network.to_json(),
        architecture_key=network.key,
        costs=Costs(**supernet.costs_of(network)),
        latency_ms=None if supernet.device is None else supernet.device.of_networks([network])[0],
    )


def _field_errors(bounds: Bounds, relief: Relief | None) -> list[dict[str, Any]]:
    """An entry for every bound in the way: that the nearest network exceeds, or that could give way alone."""
    errors = []
    for name, limit in bounds.limits:
        alone = None if relief is None else relief.relax_alone.get(name)
        if relief is not None and alone is not None:
            least = "the least" if relief.is_least else "the least found"
            message = (
                f"{least} that networks cost that keep the other bounds is {alone:.15g}; raise it to that"
            )
        elif relief is None:
            message = "no network keeps it with the other bounds; relax them"
        elif relief.relax[name] > limit:
            message = f"the nearest network costs {relief.relax[name]:.15g}; relax the bounds together"
        else:
            continue
        errors.append(field_error(f"constraints.{field_of(name)}", message, value=limit))
    return errors
