"""Candidates worth a look: every network of a small space, or in a large one bred for predicted fronts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas.architecture import Architecture
from nas.pareto import Floats, Indices, pareto_front
from nas.search.cost_model import Codes
from nas.search.region import FeasibleRegion
from nas.search.sampling import is_enumerable, sample_feasible
from nas.space import SearchSpace

Predict = Callable[[Codes], Floats]
"""Losses (n, m), all minimised, of networks encoded in their canonical spelling."""

_POPULATION = 200
_MAX_KEPT = 1000
"""Bred candidates handed on: those of the best predicted fronts."""
_CROSSOVER_PROBABILITY = 0.9


@dataclass(frozen=True)
class Candidates:
    """Distinct feasible networks, encoded as well."""

    networks: tuple[Architecture, ...]
    codes: Codes


def every_feasible(region: FeasibleRegion) -> Candidates | None:
    """All there are, or None where the space is too large to be listed."""
    if not is_enumerable(region.space):
        return None
    sizes = tuple(len(decision.options) for decision in region.space.decisions)
    assignments = np.indices(sizes, dtype=np.int64).reshape(len(sizes), -1).T
    return _candidates(region.space, dict.fromkeys(region.members(assignments)))


def breed(
    region: FeasibleRegion,
    parents: Sequence[Architecture],
    predict: Predict,
    rng: np.random.Generator,
    *,
    num_evaluations: int,
) -> Candidates:
    """Feasible networks of the best predicted fronts, after about so many predictions.

    The better half of parents and children by front and crowding, uniform crossover, a mutation in a
    decision or so. Source: Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II",
    IEEE TEVC 6 (2002). Deviations: parents are drawn evenly from the population, which holds the better
    half already; infeasible children are dropped; all networks bred are remembered, not the last alone, and
    in one and two objectives they all compete to be parents.
    """
    pool = _Pool(region)
    pool.add(parents, predict)
    pool.add(sample_feasible(region, _POPULATION, rng, exclude=pool.networks.keys()), predict)
    num_left = num_evaluations - len(pool.networks)
    rivals = np.arange(len(pool.networks))
    while num_left > 0 and len(pool.networks) > 1:
        survivors = rivals[_best(pool.losses[rivals], _POPULATION)]
        # Children that repeat others or leave the bounds count too: a space may have no more to give.
        num_left -= _POPULATION
        num_before = len(pool.networks)
        pool.add(region.members(_children(region.space, pool.codes[survivors], rng)), predict)
        children = np.arange(num_before, len(pool.networks))
        # In three objectives and more nearly all of a pool is on its front, and finding that takes long.
        is_plane = pool.losses.shape[1] <= 2
        rivals = np.arange(len(pool.networks)) if is_plane else np.concatenate([survivors, children])
    best = _best(pool.losses, _MAX_KEPT)
    networks = [*pool.networks]
    return Candidates(tuple(networks[i] for i in best), pool.codes[best])


@dataclass
class _Pool:
    """Every network met, with what is predicted for it."""

    region: FeasibleRegion
    networks: dict[Architecture, None] = field(default_factory=dict)
    codes: Codes = field(init=False)
    losses: Floats = field(init=False)

    def add(self, networks: Iterable[Architecture], predict: Predict) -> None:
        """Those of the networks that are new."""
        fresh = dict.fromkeys(network for network in networks if network not in self.networks)
        codes = self.region.space.encode(fresh)
        if fresh:
            losses = predict(codes)
            is_first = not self.networks
            self.codes = codes if is_first else np.concatenate([self.codes, codes])
            self.losses = losses if is_first else np.concatenate([self.losses, losses])
            self.networks.update(fresh)


def _candidates(space: SearchSpace, networks: Iterable[Architecture]) -> Candidates:
    found = tuple(networks)
    return Candidates(found, space.encode(found))


def _children(space: SearchSpace, population: Codes, rng: np.random.Generator) -> Codes:
    """As many as a population: of two parents each decision from either, then drawn anew now and then."""
    first, second = (population[rng.integers(len(population), size=_POPULATION)] for _ in range(2))
    is_crossed = rng.random((_POPULATION, 1)) < _CROSSOVER_PROBABILITY
    takes_second = is_crossed & (rng.random(first.shape) < 0.5)
    children = np.where(takes_second, second, first)
    sizes = np.array([len(decision.options) for decision in space.decisions])
    is_redrawn = rng.random(first.shape) < 1 / first.shape[1]
    return np.where(is_redrawn, (rng.random(first.shape) * sizes).astype(np.int64), children)


def _best(losses: Floats, count: int) -> Indices:
    """Indices of the `count` rows (n, m) of the best fronts; of the last front those that crowd least."""
    left = np.arange(len(losses))
    chosen: list[Indices] = []
    num_missing = min(count, len(losses))
    while num_missing > 0:
        front = pareto_front(losses[left])
        kept = front
        if len(front) > num_missing:
            kept = front[np.argsort(-_crowding(losses[left[front]]), kind="stable")[:num_missing]]
        chosen.append(left[kept])
        num_missing -= len(kept)
        left = np.delete(left, front)
    return np.concatenate(chosen) if chosen else left[:0]


def _crowding(losses: Floats) -> Floats:
    """For each row of a front the gaps between its neighbours, summed over objectives; infinite at ends."""
    total = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        gaps = np.full(len(losses), np.inf)
        gaps[1:-1] = (column[order[2:]] - column[order[:-2]]) / (span or 1.0)
        total[order] += gaps
    return total
