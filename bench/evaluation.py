"""Measuring subnets, recalibration included, against the plain reference.

Timed on both sides, for every network: batch-norm statistics on the 512 calibration images, then the
1,000 validation images, from images in memory to the best classes. Ours is `SubnetEvaluator` as a
search uses it, from uint8 pixels: normalising them is inside, resizing them to another resolution
happens once in the warm-up and is kept, as in a search. The reference takes normalised images and
resizes them for each network, as the public code's data loader does. Activations kept between networks
are thrown away before every run, so each run pays for its own. Same architectures, images and
numbers of images in both; weights are random, which costs the same as trained ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from bench.paired import Paired, time_paired
from bench.reference import ReferenceSupernet, statistics_by_copy
from nas.architecture import Architecture
from nas.space import SearchSpace
from search_spaces import SPACES
from supernet.data import (
    ArrayListing,
    DataSplits,
    GivenSplit,
    ImageSet,
    LabelledArrays,
    ResizedSplits,
    SplitPlan,
    Storage,
    load_listing,
    make_splits,
)
from supernet.device import take_device
from supernet.evaluate import SEARCH_KEPT_BYTES, SubnetEvaluator
from supernet.network import Supernet
from supernet.training import tune_malloc

NUM_CALIBRATION, NUM_VALIDATION, REFERENCE_BATCH_SIZE = 512, 1000, 250
SEARCHED = {"micro": (4, 4), "ofa_mobilenetv3_32": (1, 3)}
"""The parents in a search's batch and the children of each, by space."""
CLASSES = tuple("abcdefghij")


def main(arguments: Sequence[str]) -> None:
    """One thread; random networks, and a batch as a search proposes it."""
    parser = argparse.ArgumentParser(prog="bench evaluation")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--space", choices=SEARCHED, action="append", help="only these; by default all")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1 or auto; on CUDA the clock is timed"
    )
    options = parser.parse_args(arguments)
    tune_malloc()
    torch.set_num_threads(1)
    device = take_device(options.device)
    for name in options.space or SEARCHED:
        space, (parents, children) = SPACES[name], SEARCHED[name]
        rng = np.random.default_rng(0)
        random = [space.sample(rng) for _ in range(4)]
        searched = _mutants(space, rng, parents=parents, children=children)
        for networks, how in ((random, "random"), (searched, "as in a search")):
            paired = _compare(space, networks, options.pairs, device)
            print(paired.line(f"{len(networks)} networks of {name}, {how}, 1 thread, {device}"), flush=True)


def _mutants(
    space: SearchSpace, rng: np.random.Generator, *, parents: int, children: int
) -> list[Architecture]:
    """Random networks and neighbours of each, in no order: what a round around a frontier looks like."""
    first = [space.sample(rng) for _ in range(parents)]
    networks = first + [space.mutate(parent, rng) for parent in first for _ in range(children)]
    return [networks[i] for i in rng.permutation(len(networks))]


def _compare(
    space: SearchSpace, networks: Sequence[Architecture], pairs: int, device: torch.device
) -> Paired:
    data = ResizedSplits(_splits(space.resolutions_px()[-1]), device=device)
    ours = Supernet(space, num_classes=len(CLASSES)).to(device).eval()
    plain = ReferenceSupernet(space, num_classes=len(CLASSES)).to(device)
    calibration = data.splits.train.take(data.splits.calibration)
    images = [_plain_images(data, part) for part in (calibration, data.splits.val)]

    def measure_ours() -> None:
        evaluator = SubnetEvaluator(ours, data, checkpoint="bench", max_kept_bytes=SEARCH_KEPT_BYTES)
        for network in networks:
            evaluator.evaluate(network)

    def measure_reference() -> None:
        for network in networks:
            layers = space.lower(network, num_classes=len(CLASSES))
            own = statistics_by_copy(plain, layers, images[0].split(REFERENCE_BATCH_SIZE))
            with torch.no_grad():
                for batch in images[1].split(REFERENCE_BATCH_SIZE):
                    own(batch, layers).argmax(dim=1)

    return time_paired(measure_ours, measure_reference, pairs=pairs, device=device)


def _splits(side: int) -> DataSplits:
    rng = np.random.default_rng(0)

    def images(count: int) -> LabelledArrays:
        pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        return LabelledArrays(images=pixels, labels=np.arange(count) % len(CLASSES))

    arrays = {GivenSplit.TRAIN: images(2 * NUM_VALIDATION), GivenSplit.TEST: images(len(CLASSES))}
    source = load_listing(ArrayListing(class_names=CLASSES, arrays=arrays), Storage())
    return make_splits(source, SplitPlan(val_fraction=0.5, calibration_images=NUM_CALIBRATION))


def _plain_images(data: ResizedSplits, part: ImageSet) -> torch.Tensor:
    return data.normalise(torch.from_numpy(part.images)).contiguous()
