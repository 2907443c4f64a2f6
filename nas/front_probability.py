"""How surely a network is on the frontier, given that accuracies were measured on few images.

Two networks measured on the same images err on much the same ones, so that their difference is known better
than either accuracy. Images are therefore resampled for all networks at once (a paired bootstrap: Efron and
Tibshirani, 1993), and each resample asks which networks are on the front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.pareto import Floats, Indices

NUM_RESAMPLES = 400
"""Gives a probability of one half to within 0.05, 95 % of the time."""
NUM_RIVALS = 64
"""Networks that are no dearer with which each one is compared, the most accurate first."""
_SEED = 0
_NETWORKS_AT_ONCE = 256


def front_probabilities(
    num_correct_n: Indices,
    costs_nm: Floats,
    members: Indices,
    bitmaps_of: Callable[[Indices], Sequence[bytes]],
    *,
    num_images: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Floats:
    """For each of `members` the share of resamples in which no other network dominates it.

    `costs_nm` (n, m) are minimised. `bitmaps_of` gives one bit an image, as `Evaluation.correct_bitmap`, of
    the networks at the positions it is asked for. Of networks equal in all, the one with the lowest index
    stands for all, as in `pareto_front`. The same figures give the same probabilities.
    """
    rivals = [_rivals_of(int(member), num_correct_n, costs_nm) for member in members]
    needed = np.unique(np.concatenate([*rivals, members])).astype(np.int64)
    correct_nk = _unpacked(bitmaps_of(needed), num_images)
    hits_rn = _resampled_hits(correct_nk, num_images, num_resamples)
    place = {int(network): column for column, network in enumerate(needed)}
    return np.array(
        [
            _share_undominated(int(member), others, hits_rn, costs_nm, place)
            for member, others in zip(members, rivals, strict=True)
        ],
        dtype=np.float64,
    )


def _rivals_of(member: int, num_correct_n: Indices, costs_nm: Floats) -> Indices:
    is_rival = (costs_nm <= costs_nm[member]).all(axis=1)
    is_rival[member] = False
    rivals = np.flatnonzero(is_rival)
    return rivals[np.argsort(-num_correct_n[rivals], kind="stable")][:NUM_RIVALS]


def _unpacked(bitmaps: Sequence[bytes], num_images: int) -> NDArray[np.uint8]:
    packed = np.frombuffer(b"".join(bitmaps), dtype=np.uint8).reshape(len(bitmaps), -1)
    return np.unpackbits(packed, axis=1, count=num_images)


def _resampled_hits(correct_nk: NDArray[np.uint8], num_images: int, num_resamples: int) -> NDArray[np.int64]:
    """(r, n): how many images of each resample each network gets right."""
    rng = np.random.default_rng(_SEED)
    # Whole numbers up to the number of images, which single precision holds exactly.
    counts_rk = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
    counts_rk = counts_rk.astype(np.float32)
    blocks = [
        counts_rk @ correct_nk[start : start + _NETWORKS_AT_ONCE].T.astype(np.float32)
        for start in range(0, len(correct_nk), _NETWORKS_AT_ONCE)
    ]
    return np.concatenate(blocks, axis=1).astype(np.int64)


def _share_undominated(
    member: int, rivals: Indices, hits_rn: NDArray[np.int64], costs_nm: Floats, place: dict[int, int]
) -> float:
    own_r1 = hits_rn[:, [place[member]]]
    theirs_rj = hits_rn[:, [place[int(rival)] for rival in rivals]]
    is_cheaper_j = (costs_nm[rivals] < costs_nm[member]).any(axis=1)
    wins_ties_j = is_cheaper_j | (rivals < member)
    dominates_rj = (theirs_rj > own_r1) | ((theirs_rj == own_r1) & wins_ties_j)
    return float(1 - dominates_rj.any(axis=1).mean())
