"""Search spaces as answers show them."""

from __future__ import annotations

from pydantic import Field

from api.schemas.common import AnswerModel
from api.schemas.evaluations import CostsProvenance
from nas.costs import COST_NAMES, costs
from nas.search.cost_model import SpaceCosts
from nas.space import Condition, Decision, SearchSpace
from nas.trial import Provenance

_LARGEST_EXACT = 2**53
"""Beyond it, a reader that keeps numbers as doubles loses digits."""


class ActiveIf(AnswerModel):
    """The decision counts only where `parent` is at least `minimum`."""

    parent: str
    minimum: int


class DecisionAnswer(AnswerModel):
    """One choice of the space, its options from the cheapest to the dearest."""

    name: str
    options: list[int | float | str]
    active_if: ActiveIf | None


class CostRange(AnswerModel):
    """A cost of the smallest and of the largest network."""

    smallest: int
    largest: int


class SpaceAnswer(AnswerModel):
    """A set of networks."""

    name: str
    num_decisions: int
    num_networks: int = Field(description="Distinct networks.")
    num_networks_text: str | None = Field(description="The same in full, where a double would lose digits.")
    resolutions_px: list[int]
    num_classes: int = Field(description="That the costs are counted for.")
    in_channels: int
    costs: dict[str, CostRange] = Field(description=f"Of one image: {', '.join(COST_NAMES)}.")
    costs_provenance: CostsProvenance = Provenance.COUNTED
    links: dict[str, str]


class SpaceWithDecisions(SpaceAnswer):
    """A set of networks, decision by decision."""

    decisions: list[DecisionAnswer]


def describe_space(
    name: str, space: SearchSpace, *, num_classes: int | None, in_channels: int | None
) -> SpaceWithDecisions:
    """The space with its costs for these classes and channels; None takes the space's own."""
    num_classes = space.default_classes if num_classes is None else num_classes
    in_channels = space.default_channels if in_channels is None else in_channels
    ends = [
        costs(space, network, num_classes=num_classes, in_channels=in_channels)
        for network in (space.smallest(), space.largest())
    ]
    size = space.size()
    return SpaceWithDecisions(
        name=name,
        num_decisions=len(space.decisions),
        num_networks=size,
        num_networks_text=str(size) if size > _LARGEST_EXACT else None,
        resolutions_px=[*space.resolutions_px()],
        num_classes=num_classes,
        in_channels=in_channels,
        costs={cost: CostRange(smallest=ends[0][cost], largest=ends[1][cost]) for cost in COST_NAMES},
        decisions=[_decision(decision) for decision in space.decisions],
        links={"self": f"/v1/search-spaces/{name}"},
    )


def describe_space_alone(costs_of: SpaceCosts) -> SpaceAnswer:
    """The space of a cost model as it is counted there, without its decisions."""
    space = costs_of.space
    whole = describe_space(
        space.name, space, num_classes=costs_of.num_classes, in_channels=costs_of.in_channels
    )
    return SpaceAnswer(**whole.model_dump(exclude={"decisions"}))


def _decision(decision: Decision) -> DecisionAnswer:
    return DecisionAnswer(
        name=decision.name, options=[*decision.options], active_if=_condition(decision.active_if)
    )


def _condition(condition: Condition | None) -> ActiveIf | None:
    if condition is None:
        return None
    return ActiveIf(parent=condition.parent, minimum=condition.minimum)
