"""Good networks of free widths: evolution of many at once, in islands that later meet.

A heuristic: what it finds keeps every limit but is not proved to be the best. `free_bound` says how far from
the best it can be.
"""

from __future__ import annotations

import time

import numpy as np

from nas.prefilter.deepmad.free_widths import GENES, FreeNetworks, FreeTask, Ints
from nas.prefilter.deepmad.score import Monotone

_POPULATION = 512
_OFFSPRING = 2048
_MOST_ALIKE = 64
"""Networks that stay whose first two stages are equally deep: between such depths lie wide valleys, and
which are best shows only late.
"""
_STEPS = np.array([1, 1, 1, 2, 2, 3, 4, 6, 10])
"""How far a width moves, in multiples of 8."""


def search_free(
    task: FreeTask,
    rng: np.random.Generator,
    *,
    generations: int,
    islands: int = 6,
    limit_s: float | None = None,
) -> FreeNetworks:
    """The best networks found that keep the task, best first; none where it finds none that does.

    Two thirds of the generations are spent on islands of their own, the rest on their best together.
    """
    end_s = None if limit_s is None else time.monotonic() + limit_s
    alone = generations * 2 // (3 * islands)
    each_s = None if limit_s is None else limit_s * 2 / (3 * islands)
    settled = []
    for _ in range(islands):
        until = None if each_s is None else time.monotonic() + each_s
        settled.append(_evolve(task, _seed(task, rng), rng, alone, until))
    best = np.concatenate([codes[: _POPULATION // islands] for codes in settled])
    return FreeNetworks(task, _evolve(task, best, rng, generations - alone * islands, end_s))


def _seed(task: FreeTask, rng: np.random.Generator) -> Ints:
    """The smallest network: it keeps any task that can be kept by the least costs."""
    smallest = [8]
    for _ in range(task.num_stages):
        smallest += [8, 8, task.kernels[0], 1]
    wide = np.array([smallest] * _POPULATION, dtype=np.int64)
    # Widths at random, narrow enough for any task of interest; what does not keep the task is dropped.
    for stage in range(task.num_stages):
        wide[1:, 1 + GENES * stage] = 8 * rng.integers(1, 24 * (stage + 1), size=_POPULATION - 1)
        wide[1:, 2 + GENES * stage] = 8 * rng.integers(1, 8, size=_POPULATION - 1)
    wide[1:, 0] = task.max_stem
    return wide


def _evolve(
    task: FreeTask,
    codes: Ints,
    rng: np.random.Generator,
    generations: int,
    end_s: float | None,
) -> Ints:
    population = _survivors(task, _repaired(task, codes))
    for _ in range(generations):
        if end_s is not None and time.monotonic() > end_s:
            break
        # The better half has most of the children.
        parents = (len(population) * rng.random(_OFFSPRING) ** 1.5).astype(np.int64)
        children = _repaired(task, _mutated(task, population[parents], population, rng))
        population = _survivors(task, np.concatenate([population, children]))
    return population


def _survivors(task: FreeTask, codes: Ints) -> Ints:
    codes = np.unique(codes, axis=0)
    networks = FreeNetworks(task, codes)
    kept = np.flatnonzero(_keeps(task, networks))
    best = kept[np.argsort(-networks.objective[kept], kind="stable")]
    survivors: Ints = codes[best[_rank_among_equals(codes[best][:, [GENES, 2 * GENES]]) < _MOST_ALIKE]]
    return survivors[:_POPULATION]


def _rank_among_equals(depths: Ints) -> Ints:
    """For each row how many rows before it are the same."""
    _, group = np.unique(depths, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    ranks = np.empty(len(group), dtype=np.int64)
    ranks[order] = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    return ranks


def _keeps(task: FreeTask, networks: FreeNetworks) -> np.ndarray:
    kept = networks.excess <= 1.0
    gene = {Monotone.OUT: 0, Monotone.INNER: 1}.get(task.monotone)
    if gene is not None:
        widths = networks.codes[:, 1 + gene :: GENES]
        kept &= (np.diff(widths, axis=1) >= 0).all(axis=1)
    return kept


def _mutated(task: FreeTask, parents: Ints, others: Ints, rng: np.random.Generator) -> Ints:
    children = parents.copy()
    count = len(children)
    for _ in range(int(rng.integers(1, 5))):
        column = rng.integers(children.shape[1], size=count)
        gene = np.where(column == 0, 0, (column - 1) % GENES)
        sign = rng.choice([-1, 1], size=count)
        width = 8 * sign * rng.choice(_STEPS, size=count)
        depth = sign * rng.choice([1, 1, 2, 3], size=count)
        rows = np.arange(count)
        old = children[rows, column]
        kernel = rng.choice(task.kernels, size=count)
        children[rows, column] = np.where(gene == 2, kernel, old + np.where(gene == 3, depth, width))
        # Depth moved from one stage to another keeps most costs: a step that single changes cannot make.
        moved = rng.random(count) < 0.25
        giver, taker = rng.integers(task.num_stages, size=(2, count))
        children[rows[moved], GENES * (1 + giver[moved])] -= 1
        children[rows[moved], GENES * (1 + taker[moved])] += 1
    crossed = rng.random(count) < 0.15
    mates = others[rng.integers(len(others), size=count)]
    cut = 1 + GENES * rng.integers(1, task.num_stages, size=count)
    behind = np.arange(children.shape[1]) >= cut[:, None]
    crossed_children: Ints = np.where(crossed[:, None] & behind, mates, children)
    return crossed_children


def _repaired(task: FreeTask, codes: Ints) -> Ints:
    """Every number back into its range, in order: a stage's width depends on what it reads."""
    codes[:, 0] = np.clip(codes[:, 0], 8, task.max_stem)
    width = codes[:, 0]
    for stage in range(task.num_stages):
        start = 1 + GENES * stage
        codes[:, start] = np.clip(codes[:, start], 8, np.minimum(task.max_growth * width, task.max_width))
        width = codes[:, start]
        narrowest = -(-width // (8 * task.max_narrowing)) * 8
        codes[:, start + 1] = np.clip(codes[:, start + 1], narrowest, width)
        codes[:, start + 3] = np.clip(codes[:, start + 3], 1, task.max_depths[stage])
    return codes
