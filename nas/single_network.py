"""SingleNetworkSpace: one network as a space of its own, to be trained alone."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        self.whole.lower(self.network)  # Raises for a network of another space.

    @property
    def name(self) -> str:  # type: ignore[override]
        """Names the network too, so that a checkpoint of another is told apart."""
        return f"{self.whole.name}/{self.network.key}"

    @property
    def default_classes(self) -> int:  # type: ignore[override]
        """As the whole."""
        return self.whole.default_classes

    @property
    def default_channels(self) -> int:  # type: ignore[override]
        """As the whole."""
        return self.whole.default_channels

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
