"""Costs that are sums of random parts times a random factor, of spaces that can be looked at whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nas.devices.latency_costs import ResidualFactor
from nas.devices.residual import Interactions, ResidualInputs, chosen_options
from nas.devices.tree_ensemble import TreeEnsemble
from nas.prefilter.listing import canonical_codes
from nas.search.branches import OptionLayout
from nas.search.cost_model import CostParts, PartKind, ScaledParts
from search_spaces import SPACES
from tests.prefilter.parted_costs import all_codes, cost_of, random_cost

_MICRO = SPACES["micro"]
ONE_STAGE = replace(
    _MICRO,
    name="one_stage",
    resolutions=(24, 28, 32),
    stages=(replace(_MICRO.stages[0], kernels=(3, 5), expansions=(2, 3, 4)),),
)
"""1,548 networks of a resolution, a width, a depth and blocks that are there or not."""
_NUM_TREES = 12
_NUM_SUMS = 3


@dataclass(frozen=True)
class ScaledCosts:
    """Costs by name, each what its parts say, times its factor where it has one."""

    space: object
    made_of: dict[str, CostParts | ScaledParts]

    @property
    def names(self):
        return tuple(self.made_of)

    def parts(self, name):
        return self.made_of[name]

    def batch(self, codes, names):
        return {name: self._cost(self.made_of[name], np.asarray(codes)) for name in names}

    def _cost(self, cost, codes):
        if isinstance(cost, CostParts):
            return cost_of(cost, codes)
        total = cost_of(CostParts(PartKind.SUM, cost.parts), codes)
        factor = cost.log_factor
        return total * np.exp(factor.residual.log_factor(inputs_of(factor, self.space, codes)))


def spelled(space):
    """Every assignment of the options that count, the others at their first; of TINY equal networks too."""
    return canonical_codes(space) if space is ONE_STAGE else all_codes(space)


def counting(space, codes):
    """Which options each network chooses, where they count, shape (n, options)."""
    layout = OptionLayout.of(space)
    chosen = np.zeros((len(codes), len(layout.owners)), dtype=bool)
    for column, parent in enumerate(layout.parents):
        counts = np.ones(len(codes), dtype=bool)
        if parent is not None:
            counts = np.array(layout.counts_at[column])[codes[:, parent]]
        rows = np.flatnonzero(counts)
        chosen[rows, layout.starts[column] + codes[rows, column]] = True
    return chosen


def inputs_of(factor, space, codes):
    """What the factor's residual knows of the networks."""
    sums = np.zeros((len(codes), factor.num_sums))
    for column, figure in zip(factor.columns, factor.figures, strict=True):
        sums[:, column] = cost_of(figure, codes)
    return ResidualInputs(sums, chosen_options(space, codes))


def random_scaled(space, kind, rng, *, spread=0.2):
    """A sum of random parts times interactions or trees, whose logarithm differs by about `spread`."""
    parts = random_cost(space, PartKind.SUM, rng, is_whole=False).parts
    make = {"interactions": random_interactions, "trees": random_trees}[kind]
    return ScaledParts(parts, make(space, rng, spread))


def random_interactions(space, rng, spread):
    """Weights of every pair of options."""
    num = sum(len(decision.options) for decision in space.decisions)
    weights = spread / len(space.decisions) * rng.standard_normal((num, num))
    return ResidualFactor(Interactions(0.1, weights + weights.T), (), 0, ())


def random_trees(space, rng, spread):
    """Trees of depth 3, some of whose branches end early, that ask about choices and two of three sums."""
    figures = [random_cost(space, PartKind.SUM, rng) for _ in range(2)]
    columns = (0, 2)
    num_options = sum(len(decision.options) for decision in space.decisions)
    middle = {c: float(np.mean([p.costs.mean() for p in f.parts]) * len(f.parts))
              for c, f in zip(columns, figures, strict=True)}  # fmt: skip
    nodes = []
    roots = [_grow(nodes, rng, middle, num_options, spread, depth=3) for _ in range(_NUM_TREES)]
    feature, threshold, left, right, value = (np.array(column) for column in zip(*nodes, strict=True))
    trees = TreeEnsemble(
        offset=-0.05, roots=np.array(roots), feature=feature, threshold=threshold.astype(np.float64),
        left=left, right=right, value=value.astype(np.float64), depth=3,
    )  # fmt: skip
    return ResidualFactor(trees, columns, _NUM_SUMS, tuple(figures))


def _grow(nodes, rng, middle, num_options, spread, *, depth):
    """The position of a new node, its children behind it."""
    at = len(nodes)
    nodes.append(None)
    if depth == 0 or (depth < 3 and rng.random() < 0.15):
        nodes[at] = (-1, -2.0, at, at, spread / np.sqrt(_NUM_TREES) * rng.standard_normal())
        return at
    if rng.random() < 0.4:
        column = int(rng.choice([*middle]))
        # Now and then a threshold that some networks are exactly on.
        threshold = round(middle[column] * rng.uniform(0.7, 1.3)) + rng.choice([0.0, 0.5])
    else:
        column, threshold = _NUM_SUMS + int(rng.integers(num_options)), 0.5
    left = _grow(nodes, rng, middle, num_options, spread, depth=depth - 1)
    right = _grow(nodes, rng, middle, num_options, spread, depth=depth - 1)
    nodes[at] = (column, threshold, left, right, 0.0)
    return at
