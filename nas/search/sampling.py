"""Networks under bounds: at random, and spread evenly over the range of a cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.search.cost_model import Codes
from nas.search.region import FeasibleRegion
from nas.space import SearchSpace

_BATCH_ROWS = 256
_REJECTION_BATCHES = 16
_WALK_STEPS = 64
_MAX_ENUMERATED = 20_000
"""Spaces with no more assignments are listed whole where chance finds nothing new."""
_POOL_ROWS = 4096
_MAX_TILT = 8.0
"""At this tilt an option is e^8 times as likely at one end of its list as at the other."""
_MUTATION_PROBABILITY = 0.1

_LEAST_COST = 1e-9
"""In any unit, milliseconds among them: a network that costs nothing has a logarithm too."""

Score = Callable[[Codes], NDArray[np.float64]]


def sample_feasible(
    region: FeasibleRegion,
    count: int,
    rng: np.random.Generator,
    *,
    exclude: Collection[Architecture] = frozenset(),
) -> list[Architecture]:
    """Up to `count` distinct networks that keep the bounds and are not excluded.

    Uniform draws first; where bounds leave those no chance, a random walk inside the bounds from the
    smallest network; at last, in a small space, all there are. So fewer than `count` means that a
    small space has no more (`is_enumerable`), and that a large one gave no more within the tries.
    """
    found: dict[Architecture, None] = {}
    for source in (_by_rejection, _by_walk, _by_enumeration):
        for architecture in source(region, rng):
            if len(found) >= count:
                return [*found]
            if architecture not in exclude:
                found[architecture] = None
    return [*found][:count]


def is_enumerable(space: SearchSpace) -> bool:
    """Whether the space is small enough that `sample_feasible` misses no network of it."""
    return prod(len(d.options) for d in space.decisions) <= _MAX_ENUMERATED


def stratified_seeds(
    region: FeasibleRegion, count: int, rng: np.random.Generator, *, cost: str = "macs"
) -> list[Architecture]:
    """Up to `count` networks spread evenly over the feasible range of the logarithm of a cost, ascending.

    The dearest feasible one found is always among them, and from two on the cheapest. Uniform draws
    would crowd around the middle of the range.
    """
    log_cost = partial(_log_cost, region, cost)
    pool = _spread_pool(region, count, rng, log_cost)
    if count < 1 or not pool:
        return []
    costs = log_cost(region.space.encode(pool))
    targets = np.linspace(costs.min(), costs.max(), count) if count > 1 else [costs.max()]
    chosen: dict[int, None] = {}
    # The ends first: in a small pool the targets between must not use them up.
    for target in sorted(targets, key=lambda t: -abs(t - np.mean(targets))):
        nearest = np.abs(costs - target)
        nearest[[*chosen]] = np.inf
        if np.isfinite(nearest).any():
            chosen[int(nearest.argmin())] = None
    return [pool[i] for i in sorted(chosen, key=lambda i: costs[i])]


def _spread_pool(
    region: FeasibleRegion, count: int, rng: np.random.Generator, log_cost: Score
) -> list[Architecture]:
    """Distinct feasible networks from one end of the range to the other."""
    tilts = rng.uniform(-_MAX_TILT, _MAX_TILT, (_POOL_ROWS, 1))
    codes = _draw(region.space, rng, tilts)
    codes = codes[region.holds(codes)]
    if len(codes) > 8 * count:
        # Enough to choose from around every target, few enough to spell one by one.
        by_cost = codes[np.argsort(log_cost(codes), kind="stable")]
        codes = by_cost[np.linspace(0, len(codes) - 1, 8 * count).astype(int)]
    pool = dict.fromkeys(region.members(codes))
    if len(pool) < 2 * count:
        pool.update(dict.fromkeys(sample_feasible(region, 2 * count, rng, exclude=pool)))
    pool.update(dict.fromkeys(_ends(region, [*pool], log_cost)))
    return [*pool]


def _ends(region: FeasibleRegion, pool: list[Architecture], log_cost: Score) -> Iterator[Architecture]:
    """The cheapest and the dearest feasible networks within reach of the pool, one decision at a time."""
    space = region.space
    known = [*pool, *region.members(space.encode([space.smallest(), space.largest()]))]
    if not known:
        return
    codes = space.encode(known)
    costs = log_cost(codes)
    for sign in (1.0, -1.0):
        end = descend(space, codes[(sign * costs).argmin()], partial(_inside, region, sign, log_cost))
        yield from region.members(end[None, :])


def _inside(region: FeasibleRegion, sign: float, log_cost: Score, codes: Codes) -> NDArray[np.float64]:
    return np.where(region.holds(codes), sign * log_cost(codes), np.inf)


def _log_cost(region: FeasibleRegion, cost: str, codes: Codes) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(region.costs.batch(codes, [cost])[cost], _LEAST_COST)))


# Sources of feasible networks


def _by_rejection(region: FeasibleRegion, rng: np.random.Generator) -> Iterator[Architecture]:
    for _ in range(_REJECTION_BATCHES):
        # No tilt: options are drawn uniformly.
        yield from region.members(_draw(region.space, rng, np.zeros((_BATCH_ROWS, 1))))


def _by_walk(region: FeasibleRegion, rng: np.random.Generator) -> Iterator[Architecture]:
    space = region.space
    position = descend(space, space.encode([space.smallest()])[0], region.worst_ratio, enough=1.0)
    if not region.holds(position[None, :])[0]:
        return
    yield from region.members(position[None, :])
    for _ in range(_WALK_STEPS):
        mutants = _mutants(space, position, rng)
        mutants = mutants[region.holds(mutants)]
        if len(mutants):
            position = mutants[rng.integers(len(mutants))]
            yield from region.members(mutants)


def _by_enumeration(region: FeasibleRegion, rng: np.random.Generator) -> Iterator[Architecture]:
    if is_enumerable(region.space):
        sizes = _num_options(region.space)
        codes = np.indices(tuple(sizes), dtype=np.int64).reshape(len(sizes), -1).T
        yield from region.members(rng.permutation(codes))


# Codes


def _num_options(space: SearchSpace) -> NDArray[np.int64]:
    return np.array([len(d.options) for d in space.decisions], dtype=np.int64)


def _draw(space: SearchSpace, rng: np.random.Generator, tilts: NDArray[np.float64]) -> Codes:
    """One row for each tilt (n, 1): above 0 favours the dear end of every decision's options, 0 neither."""
    sizes = _num_options(space)
    uniform = rng.random((len(tilts), len(sizes)))
    tilts = np.where(np.abs(tilts) < 1e-6, 1e-6, tilts)
    # Inverse distribution function of the exponential cut to [0, 1].
    position = np.log1p(uniform * np.expm1(tilts)) / tilts
    return np.minimum((position * sizes).astype(np.int64), sizes - 1)


def _mutants(space: SearchSpace, code: NDArray[np.int64], rng: np.random.Generator) -> Codes:
    """Neighbours: each decision drawn anew with some probability, one at least."""
    redrawn = rng.random((_BATCH_ROWS, len(code))) < _MUTATION_PROBABILITY
    redrawn[np.arange(_BATCH_ROWS), rng.integers(len(code), size=_BATCH_ROWS)] = True
    return np.where(redrawn, _draw(space, rng, np.zeros((_BATCH_ROWS, 1))), code)


def descend(
    space: SearchSpace, code: NDArray[np.int64], score: Score, *, enough: float = -np.inf
) -> NDArray[np.int64]:
    """Change the one decision that lowers the score most, until none does or the score is low enough."""
    best = float(score(code[None, :])[0])
    while best > enough:
        neighbours = _neighbours(space, code)
        scores = score(neighbours)
        if scores.min() >= best:
            break
        best, code = float(scores.min()), neighbours[scores.argmin()]
    return code


def _neighbours(space: SearchSpace, code: NDArray[np.int64]) -> Codes:
    """Every row that differs in one decision."""
    rows = []
    for column, size in enumerate(_num_options(space)):
        others = np.delete(np.arange(size), code[column])
        changed = np.repeat(code[None, :], len(others), axis=0)
        changed[:, column] = others
        rows.append(changed)
    return np.concatenate(rows)
