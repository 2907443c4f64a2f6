"""Costs made of random parts, for small spaces that can be listed and for the real ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nas.search.cost_model import CostParts, Part, PartKind, SpaceCosts
from search_spaces import SPACES

TINY = replace(SPACES["nas_bench_macro"], name="tiny", stage_widths=(64, 128), stage_layers=(3, 3))
"""729 assignments, all of which the tests look at, whatever networks they spell."""


@dataclass(frozen=True)
class PartedCosts:
    """Costs by name, each what its parts say."""

    space: object
    made_of: dict[str, CostParts]

    @property
    def names(self):
        return tuple(self.made_of)

    def parts(self, name):
        return self.made_of[name]

    def batch(self, codes, names):
        return {name: cost_of(self.made_of[name], np.asarray(codes)) for name in names}


def cost_of(cost, codes):
    """Look-ups, one network a row."""
    looked_up = [
        np.broadcast_to(part.costs[tuple(codes[:, column] for column in part.columns)], len(codes))
        for part in cost.parts
    ]
    return np.sum(looked_up, axis=0) if cost.kind is PartKind.SUM else np.max(looked_up, axis=0)


def random_cost(space, kind, rng, *, is_whole=True):
    """Of one part a decision, and some parts of neighbours or of any decisions."""
    sizes = [len(decision.options) for decision in space.decisions]
    scopes = [[column] for column in range(len(sizes))]
    if rng.random() < 0.5:
        scopes += [rng.choice(len(sizes), size=rng.integers(1, 4), replace=False) for _ in range(4)]
    else:
        # Few decisions meet, so that many part networks compete.
        scopes += [[column + 1, column] for column in range(0, len(sizes) - 1, rng.integers(1, 4))]
    parts = []
    for scope in scopes:
        shape = [sizes[column] for column in scope]
        costs = rng.integers(0, 50, shape) if is_whole else rng.random(shape)
        parts.append(Part(tuple(int(column) for column in scope), costs))
    return CostParts(kind, tuple(parts))


def latency_of(space, rng, *, noise=0.3):
    """A made-up device's milliseconds: work and weights, and for each part and each of its shapes a quirk."""
    counted = SpaceCosts(space=space)
    parts = []
    for macs, params in zip(counted.parts("macs").parts, counted.parts("params").parts, strict=True):
        work = 0.05 + macs.costs * 5e-9 + params.costs * 1e-6
        quirk = np.exp(noise * rng.standard_normal(work.shape))
        parts.append(Part(macs.columns, np.where(macs.costs > 0, work * quirk, 0.0)))
    return CostParts(PartKind.SUM, tuple(parts))


def all_codes(space):
    """Every assignment."""
    sizes = [len(decision.options) for decision in space.decisions]
    return np.indices(sizes).reshape(len(sizes), -1).T
