"""SingleNetworkSpace: one network as a space of its own, to be trained alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.architecture import Architecture
from nas.layers import LayerSpec
from nas.space import CostTerm, Decision, SearchSpace, Values


@dataclass(frozen=True)
class SingleNetworkSpace(SearchSpace):
    """Holds one network of another space and no other; its weights are made for that network alone.

    A training in it differs from one in the whole space in nothing but what is trained.
    """

    whole: SearchSpace
    network: Architecture
    """Of `whole`."""

    name: str = field(init=False)
    """Names the network too, so that a checkpoint of another is told apart."""
    default_classes: int = field(init=False)
    default_channels: int = field(init=False)

    def __post_init__(self) -> None:
        """Take over what the whole says; InvalidArchitectureError for a network of another space."""
        self.whole.lower(self.network)
        object.__setattr__(self, "name", f"{self.whole.name}/{self.network.key}")
        object.__setattr__(self, "default_classes", self.whole.default_classes)
        object.__setattr__(self, "default_channels", self.whole.default_channels)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """None is left."""
        return ()

    def resolutions_px(self) -> tuple[int, ...]:
        """The network's own."""
        return (self.whole.resolution_px(self.network),)

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """One, which depends on nothing."""
        return (CostTerm("", ()),)

    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """The network's layers as in the whole space."""
        del values
        return self.whole.lower(self.network, num_classes=num_classes, in_channels=in_channels)
