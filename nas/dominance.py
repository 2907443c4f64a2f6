"""Which rows of objectives others are no worse than, found for 64 others at a time, as the bits of a word.

A row matches another where it is no worse in every objective, all of them minimised. Sort the others by one
objective: those no worse in it than a row are then the first so many, and a table holds for every such
number which others they are, a bit each. The words of all objectives, joined by `and`, have a bit left
for every other that matches the row.

Rows come as columns (m, n): an objective's values lie side by side in memory.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
IsMatched = NDArray[np.bool_]

_SAMPLE_ROWS = (256, 4096)
"""Rows of the sample whose front strikes first, and of the one whose front strikes what is left."""
_BLOCK_ROWS = (64, 4096)
"""Rows compared with one another at once: few at first, as these strike most; and at most."""
_WORDS_AT_ONCE = 2**17
"""Words looked up at once: 1 MiB, which stays in the processor's cache."""


def undominated_by_samples(columns: Floats) -> Indices:
    """Indices left once the fronts of samples have struck out the rows they dominate.

    No row of the front is lost, nor one that equals it, whichever rows are drawn. Of the others few stay,
    but where most rows are on the front.
    """
    # Equal rows have equal sums, so a row that matches one of greater sum dominates it. A row whose sum is
    # NaN, or rounded to the same, may stay without need.
    with np.errstate(all="ignore"):
        left = np.vstack([columns, columns.sum(axis=0)])
    alive = np.arange(columns.shape[1])
    for num_sampled in _SAMPLE_ROWS:
        step = len(alive) // num_sampled
        if step < 8:
            break
        sample = left[:, ::step]
        front = sample.take(_front(sample[:-1]), axis=1)
        # Where most of a sample is on its front it strikes little, and takes longest.
        if 2 * front.shape[1] < sample.shape[1]:
            stays = np.flatnonzero(~_is_matched(left, front, is_last_strict=True))
            alive, left = alive[stays], left.take(stays, axis=1)
    return alive


def is_matched_by_earlier(columns: Floats) -> IsMatched:
    """Which rows some earlier row matches. Block by block: what is left of one strikes all that follow."""
    is_matched = np.ones(columns.shape[1], dtype=bool)
    alive, left = np.arange(columns.shape[1]), columns
    num_rows, most_rows = _BLOCK_ROWS
    while len(alive):
        numbered = np.vstack([left[:, :num_rows], np.arange(len(alive[:num_rows]))])
        unmatched = np.flatnonzero(~_is_matched(numbered, numbered, is_last_strict=True))
        is_matched[alive[unmatched]] = False
        following = left[:, num_rows:]
        stays = np.flatnonzero(~_is_matched(following, left.take(unmatched, axis=1)))
        alive, left = alive[num_rows:][stays], following.take(stays, axis=1)
        num_rows = min(2 * num_rows, most_rows)
    return is_matched


def _front(columns: Floats) -> Indices:
    order = np.lexsort(columns[::-1])
    return np.asarray(order[~is_matched_by_earlier(columns.take(order, axis=1))])


def _is_matched(columns: Floats, others: Floats, *, is_last_strict: bool = False) -> IsMatched:
    """Which rows (m, n) some other (m, k) matches and, if the last column is strict, is better than in it."""
    num_rows, num_others = columns.shape[1], others.shape[1]
    is_matched = np.zeros(num_rows, dtype=bool)
    if num_others == 0:
        return is_matched
    orders = np.argsort(others, axis=1)
    sorted_others = np.take_along_axis(others, orders, axis=1)
    tables = [_firsts(order) for order in orders]
    # On the left of equals stand those better, and up to the right of them those no worse.
    sides: list[Literal["left", "right"]] = ["right"] * len(columns)
    sides[-1] = "left" if is_last_strict else "right"
    step = max(1, _WORDS_AT_ONCE // tables[0].shape[1])
    for start in range(0, num_rows, step):
        some = columns[:, start : start + step]
        words = [
            table.take(np.searchsorted(ranked, values, side), axis=0)
            for table, ranked, values, side in zip(tables, sorted_others, some, sides, strict=True)
        ]
        for more in words[1:]:
            words[0] &= more
        is_matched[start : start + step] = np.bitwise_or.reduce(words[0], axis=1) != 0
    return is_matched


def _firsts(order: Indices) -> NDArray[np.uint64]:
    """Words (k + 1, k / 64): in row i are set the bits of the first i others in the order."""
    count = len(order)
    table = np.zeros((count + 1, -(-count // 64)), dtype=np.uint64)
    table[np.arange(1, count + 1), order // 64] = np.left_shift(np.uint64(1), (order % 64).astype(np.uint64))
    return np.asarray(np.bitwise_or.accumulate(table, axis=0))
