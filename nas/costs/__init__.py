"""What a network costs: macs, params, size_bytes, peak_activation_bytes; see `nas.costs.count`."""

from nas.architecture import Architecture
from nas.costs.batch import batch_costs
from nas.costs.count import COST_NAMES, lowering_costs
from nas.space import SearchSpace


def costs(
    space: SearchSpace,
    architecture: Architecture,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> dict[str, int]:
    """The costs of one network by name, read off its lowering; None takes the space's default."""
    return lowering_costs(space.lower(architecture, num_classes=num_classes, in_channels=in_channels))


__all__ = ["COST_NAMES", "batch_costs", "costs"]
