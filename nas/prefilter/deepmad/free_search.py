"""Good networks of free widths: uphill with fractions, a dive to whole numbers, and then two at a time.

1. For every choice of kernels the relaxation is climbed from random starts.
2. From the best of these, depths and inner widths are made whole one after the other, each to the multiples
   around it, and what is still free climbs again: a beam of the best is kept. The other widths become whole
   all at once, in every way around where they are.
3. Of the whole networks the best are polished: any one or two of their numbers change at once, to the best of
   all networks that keep the task, until none is better.

A heuristic: what it finds keeps every limit but is not proved to be the best. `free_bound` says how far from
the best it can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import ceil, floor

import numpy as np

from nas.prefilter.deepmad.free_relaxed import Relaxation, Relaxed
from nas.prefilter.deepmad.free_widths import GENES, Floats, FreeNetworks, FreeTask, Ints
from nas.prefilter.deepmad.score import Monotone

_NUM_KEPT = 512
"""Networks handed on, the best of all that were looked at."""
_NUM_POLISHED = 8
_WIDTH_STEPS = (1, 2, 3, 5, 8)
"""How far a width moves at once when polished, in multiples of 8."""
_DEPTH_STEPS = (1, 2)
_BEYOND = 1e9
"""Above every objective."""
_LEAST_GAIN = 1e-9
"""Relative: what is no more is rounding."""


def search_free(task: FreeTask, rng: np.random.Generator, *, starts: int = 2, beam: int = 16) -> FreeNetworks:
    """The best networks found that keep the task, best first; none where it finds none that does.

    `starts` are climbs for every choice of kernels, `beam` how many are kept on the way to whole numbers.
    """
    relaxations = {
        kernels: Relaxation(task, kernels) for kernels in product(task.kernels, repeat=task.num_stages)
    }
    climbed = [
        relaxation.climb(_start(task, rng), {}) for relaxation in relaxations.values() for _ in range(starts)
    ]
    dives = _best_dives([_Dive(relaxed) for relaxed in climbed if relaxed], beam)
    for place in _order(task):
        deeper = _best_dives([d for dive in dives for d in _deeper(dive, place, relaxations)], beam)
        # Where no whole value keeps every limit, the number is rounded at the end.
        dives = deeper or dives
    whole = [_best(task, _ruled(task, _rounded(dive)))[:1] for dive in dives]
    codes = _best(task, np.concatenate([*whole, _smallest(task)]))
    found = [codes]
    for code in codes[:_NUM_POLISHED]:
        # The neighbours on the way are networks too.
        found += _polished(task, code)
    best = _best(task, np.concatenate(found))
    return FreeNetworks(task, best[FreeNetworks(task, best).excess <= 1.0][:_NUM_KEPT])


# Uphill, and down to whole numbers


@dataclass(frozen=True)
class _Dive:
    """A relaxed network, and which of its numbers are whole for good."""

    relaxed: Relaxed
    held: Mapping[int, float] = field(default_factory=dict)


def _start(task: FreeTask, rng: np.random.Generator) -> Floats:
    """A random network, narrow and shallow first; it need not keep the task."""
    outs = np.sort(np.exp(rng.uniform(np.log(16), np.log(task.max_width / 2), task.num_stages)))
    inners = outs / rng.uniform(2, task.max_narrowing, task.num_stages)
    least, most = np.array(task.min_depths), np.array(task.max_depths)
    depths = least + rng.random(task.num_stages) * (most - least) / 2
    return np.concatenate([[task.max_stem], np.stack([outs, inners], axis=1).ravel(), depths])


def _order(task: FreeTask) -> list[int]:
    """Places of a relaxed network's depths and then inner widths: their whole values lie furthest apart."""
    stages = range(task.num_stages)
    return [*(1 + 2 * task.num_stages + stage for stage in stages), *(2 + 2 * stage for stage in stages)]


def _deeper(dive: _Dive, place: int, relaxations: Mapping[tuple[int, ...], Relaxation]) -> Iterator[_Dive]:
    """The dive with one more number whole: that below, and that above."""
    numbers = dive.relaxed.numbers
    step = 1.0 if place >= 1 + 2 * len(dive.relaxed.kernels) else 8.0
    for whole in dict.fromkeys((floor(numbers[place] / step), ceil(numbers[place] / step))):
        held = {**dive.held, place: step * max(1, whole)}
        relaxed = relaxations[dive.relaxed.kernels].climb(numbers, held)
        if relaxed:
            yield _Dive(relaxed, held)


def _best_dives(dives: list[_Dive], count: int) -> list[_Dive]:
    """The best of them, of those that are about the same one."""
    distinct: dict[tuple[object, ...], _Dive] = {}
    for dive in sorted(dives, key=lambda dive: -dive.relaxed.objective):
        about = tuple(np.round(dive.relaxed.numbers, 1).tolist())
        distinct.setdefault((dive.relaxed.kernels, about), dive)
    return [*distinct.values()][:count]


def _rounded(dive: _Dive) -> Ints:
    """The networks around a dive whose depths and inner widths are whole: the other widths down or up."""
    num_stages = len(dive.relaxed.kernels)
    free = [0, *range(1, 1 + 2 * num_stages, 2)]
    down = 8 * np.floor(dive.relaxed.numbers[free] / 8).astype(np.int64)
    # One further down: where a limit is tight, a width gives way to the others.
    shifts = np.array([*product((-8, 0, 8), repeat=len(free))])
    codes = np.empty((len(shifts), 1 + GENES * num_stages), dtype=np.int64)
    codes[:, [0, *range(1, codes.shape[1], GENES)]] = down + shifts
    codes[:, 2::GENES] = 8 * np.maximum(1, np.round(dive.relaxed.numbers[2 : 1 + 2 * num_stages : 2] / 8))
    codes[:, 3::GENES] = dive.relaxed.kernels
    codes[:, 4::GENES] = np.round(dive.relaxed.numbers[1 + 2 * num_stages :])
    return codes


def _smallest(task: FreeTask) -> Ints:
    """It keeps any task that can be kept by the least costs."""
    return np.array([[8, *[8, 8, task.kernels[0], 1] * task.num_stages]])


# Two numbers at a time


def _polished(task: FreeTask, code: Ints) -> Iterator[Ints]:
    """The networks around ever better ones, until none of these is better than the one in their midst."""
    best = float(_merit(task, code[None])[0])
    while True:
        around = _ruled(task, _neighbours(task, code))
        yield around
        merit = _merit(task, around)
        if merit.max(initial=-np.inf) <= best + _LEAST_GAIN * abs(best):
            return
        best, code = float(merit.max()), around[merit.argmax()]


def _neighbours(task: FreeTask, code: Ints) -> Ints:
    """All networks that differ in one or two numbers."""
    changes = [(place, change) for place in range(len(code)) for change in _changes(task, code, place)]
    moves = np.zeros((len(changes), len(code)), dtype=np.int64)
    places = np.array([place for place, _ in changes])
    moves[np.arange(len(changes)), places] = [change for _, change in changes]
    first, second = np.triu_indices(len(changes), 1)
    differ = places[first] != places[second]
    around: Ints = code + np.concatenate([moves, moves[first[differ]] + moves[second[differ]]])
    return around


def _changes(task: FreeTask, code: Ints, place: int) -> list[int]:
    gene = (place - 1) % GENES if place else 0
    if gene == 2:
        return [kernel - int(code[place]) for kernel in task.kernels if kernel != code[place]]
    steps = _DEPTH_STEPS if gene == 3 else [8 * step for step in _WIDTH_STEPS]
    return [sign * step for step in steps for sign in (1, -1)]


def _best(task: FreeTask, codes: Ints) -> Ints:
    """Each once, best first."""
    distinct: Ints = np.unique(codes, axis=0)
    return distinct[np.argsort(-_merit(task, distinct), kind="stable")]


def _merit(task: FreeTask, codes: Ints) -> Floats:
    """The objective; of networks beyond a limit below all others, the further beyond the lower."""
    networks = FreeNetworks(task, codes)
    return np.where(networks.excess > 1.0, -_BEYOND * networks.excess, networks.objective)


def _ruled(task: FreeTask, codes: Ints) -> Ints:
    """Those that keep the task's rules, whether or not its limits."""
    reads, outs, inners = codes[:, :-GENES:GENES], codes[:, 1::GENES], codes[:, 2::GENES]
    # The stem's width stands where an output width would.
    reads = np.concatenate([codes[:, :1], outs[:, :-1]], axis=1)
    depths = codes[:, 4::GENES]
    kept = (codes[:, 0] >= 8) & (codes[:, 0] <= task.max_stem) & (outs <= task.max_width).all(axis=1)
    kept &= ((outs <= task.max_growth * reads) & (inners <= outs) & (inners >= 8)).all(axis=1)
    kept &= (outs <= task.max_narrowing * inners).all(axis=1)
    kept &= ((depths >= task.min_depths) & (depths <= task.max_depths)).all(axis=1)
    widths = {Monotone.OUT: outs, Monotone.INNER: inners}.get(task.monotone)
    if widths is not None:
        kept &= (np.diff(widths, axis=1) >= 0).all(axis=1)
    ruled: Ints = codes[kept]
    return ruled
