"""Probes: a few networks of a space, always the same in one run, that show how its training goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.costs import batch_costs, costs
from nas.pareto import pareto_front
from nas.space import SearchSpace

MAX_PROBES = 64
"""Most networks beside the ends of the space."""
DEFAULT_PROBES = 8

_NUM_SAMPLES = 512
_NUM_ROUNDS = 8
"""Of neighbours: where samples are rare, at the ends, they come nearer to the MACs that are wanted."""
_NUM_NEIGHBOURS = 24


class ProbeRole(StrEnum):
    """Why a network is among the probes."""

    LARGEST = "largest"
    SMALLEST = "smallest"
    DRAWN = "drawn"


@dataclass(frozen=True, kw_only=True)
class ProbeNetwork:
    """One network that is measured at the end of every epoch."""

    number: int
    """In its run: the largest is 0, the smallest 1, those drawn follow by rising MACs."""
    role: ProbeRole
    architecture: Architecture
    macs: int
    params: int
    size_bytes: int
    peak_activation_bytes: int


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What one probe got right at the end of an epoch."""

    number: int
    """The network's."""
    num_correct: int
    num_images: int
    """Of val: all of it for the ends of the space, a part that is drawn once for the others."""
    duration_s: float | None = field(default=None, compare=False)
    """Of the measurement, no part of what was found; None where it was not kept."""

    @property
    def accuracy(self) -> float:
        """Fraction of images classified rightly."""
        return self.num_correct / self.num_images


@dataclass(frozen=True, kw_only=True)
class EpochProbes:
    """All probes of a run at the end of an epoch."""

    epoch: int
    """From 0."""
    step: int
    networks: tuple[ProbeNetwork, ...]
    results: tuple[ProbeResult, ...]
    """One for each network, in the same order."""
    strategies: Mapping[str, Any]
    """What strategies that learn have come to, by their name in the run; JSON."""
    is_settled: bool
    """Whether for as long as `nas.plateau` looks back the run has been in its last phase: before, probes may
    stand still and rise again."""

    @property
    def front(self) -> tuple[int, ...]:
        """Numbers of the probes that no other beats in accuracy and MACs together, by rising MACs."""
        macs = [network.macs for network in self.networks]
        return tuple(front_of(macs, [result.accuracy for result in self.results]))


def choose_probes(
    space: SearchSpace, num_drawn: int, rng: np.random.Generator, *, num_classes: int, in_channels: int
) -> tuple[ProbeNetwork, ...]:
    """The ends of the space, and networks at even distances between them in MACs, fewer if it has no more."""

    def macs_of(networks: Sequence[Architecture]) -> NDArray[np.int64]:
        codes = space.encode(networks)
        found = batch_costs(space, codes, num_classes=num_classes, in_channels=in_channels, names=["macs"])
        return found["macs"]

    ends = [space.largest(), space.smallest()]
    most, least = macs_of(ends)
    pool = list(dict.fromkeys(space.sample(rng) for _ in range(_NUM_SAMPLES if num_drawn else 0)))
    drawn: list[Architecture] = []
    for wanted in np.linspace(least, most, num_drawn + 2)[1:-1]:
        free = [network for network in pool if network not in ends and network not in drawn]
        if not free:
            break
        best = _nearest(free, macs_of(free), wanted)
        for _ in range(_NUM_ROUNDS):
            near = [best, *(space.mutate(best, rng) for _ in range(_NUM_NEIGHBOURS))]
            near = [network for network in near if network not in ends and network not in drawn]
            best = _nearest(near, macs_of(near), wanted)
        drawn.append(best)
    return _described(space, [*ends, *drawn], num_classes=num_classes, in_channels=in_channels)


def front_of(macs: Sequence[int], accuracies: Sequence[float]) -> list[int]:
    """Positions of the networks that no other beats in accuracy and MACs together, by rising MACs."""
    figures = [[cost, -accuracy] for cost, accuracy in zip(macs, accuracies, strict=True)]
    return [int(position) for position in pareto_front(figures)]


def _nearest(networks: Sequence[Architecture], macs: NDArray[np.int64], wanted: float) -> Architecture:
    return networks[int(np.argmin(np.abs(macs - wanted)))]


def _described(
    space: SearchSpace, networks: Sequence[Architecture], *, num_classes: int, in_channels: int
) -> tuple[ProbeNetwork, ...]:
    roles = [ProbeRole.LARGEST, ProbeRole.SMALLEST, *[ProbeRole.DRAWN] * (len(networks) - 2)]
    figures = [
        costs(space, network, num_classes=num_classes, in_channels=in_channels) for network in networks
    ]
    described = list(zip(roles, networks, figures, strict=True))
    # Neighbours may have passed each other on their way.
    described[2:] = sorted(described[2:], key=lambda found: found[2]["macs"])
    return tuple(
        ProbeNetwork(number=number, role=role, architecture=network, **found)
        for number, (role, network, found) in enumerate(described)
    )
