"""What is trained on what, and for how long: the same forward MACs for every recipe."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bench.ranking_truth import (
    BENCHMARKS,
    CELL_NETWORKS_FILE,
    CHOICE_NETWORKS_FILE,
    FULL_CHOICE_NETWORKS_FILE,
    NETWORKS_FILE,
    Benchmark,
    networks_by_bin,
)
from nas.architecture import Architecture
from nas.costs import costs
from nas.recipe import Recipe
from nas.recipe_choices import DistillationKind, RandomPathKind, SamplerKind, TeacherKind
from nas.space import SearchSpace
from nas.subspace import SubSpace
from search_spaces.nas_bench_201 import NAS_BENCH_201
from search_spaces.nas_bench_macro import NAS_BENCH_MACRO
from supernet.data import DataSource, DataSplits, TrainingBatches, load_source, make_splits, resize_uint8
from supernet.data.augmentation import Augmentation
from supernet.elastic.batch_norm import Normaliser
from supernet.network import Supernet
from supernet.training import build_stack
from supernet.training.shrink import Phase

NUM_CLASSES = 10

HALF_WIDTH = replace(
    NAS_BENCH_MACRO,
    name="nas_bench_macro_half",
    resolution=16,
    stem_width=16,
    stage_widths=(32, 64, 128),
    head_width=640,
)
"""NAS-Bench-Macro with half the channels, at 16 × 16: about a fifteenth of the MACs. For this bench alone."""


HALF_WIDTH_GREY = replace(HALF_WIDTH, name="nas_bench_macro_half_grey", default_channels=1)
"""The same for images of one channel."""

HALF_WIDTH_CELLS = replace(
    NAS_BENCH_201, name="nas_bench_201_half", resolution=16, stage_widths=(8, 16, 32), cells_per_stage=3
)
"""NAS-Bench-201 with half the channels and three cells a stage, at 16 × 16: about a 25th of the MACs."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every recipe is treated alike."""

    name: str
    dataset: str = "cifar10"
    """The folder of its images."""
    space: SearchSpace
    networks_file: Path = NETWORKS_FILE
    """Of the networks by which recipes are judged."""
    budget_macs: float
    """Multiply-adds of all forward passes of a training, those without gradient included."""
    num_per_bin: int
    num_images: int | None = None
    """Of each file, its first; None: all."""
    alone_epochs: int | None = None
    """For which each network is trained alone; None: the table says how good they are alone."""

    def to_json(self) -> dict[str, Any]:
        """What two results must share to be compared."""
        told = {**asdict(self), "space": self.space.name}
        # Said by the space.
        del told["networks_file"]
        return told

    @property
    def resolution(self) -> int:
        """Of the images, in pixels: the space has one."""
        (resolution,) = self.space.resolutions_px()
        return resolution

    @property
    def benchmark(self) -> Benchmark:
        """Whose networks they are."""
        return next(b for b in BENCHMARKS.values() if self.networks_file in b.files)


_CHOICE = Protocol(
    name="choice",
    dataset="fashion_mnist",
    space=HALF_WIDTH_GREY,
    networks_file=CHOICE_NETWORKS_FILE,
    budget_macs=2e12,
    num_per_bin=3,
    num_images=20_000,
    alone_epochs=8,
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="reduced", space=HALF_WIDTH, budget_macs=1e13, num_per_bin=20),
        Protocol(name="full", space=NAS_BENCH_MACRO, budget_macs=1e15, num_per_bin=20),
        _CHOICE,
        replace(
            _CHOICE,
            name="choice_full",
            networks_file=FULL_CHOICE_NETWORKS_FILE,
            budget_macs=1e13,
            num_per_bin=10,
        ),
        Protocol(
            name="cells_reduced",
            space=HALF_WIDTH_CELLS,
            networks_file=CELL_NETWORKS_FILE,
            budget_macs=3e12,
            num_per_bin=20,
        ),
        Protocol(
            name="cells",
            space=NAS_BENCH_201,
            networks_file=CELL_NETWORKS_FILE,
            budget_macs=1e15,
            num_per_bin=20,
        ),
    )
}
"""1e13 are 15 epochs of `bignas` or 59 of `spos` in the reduced space. On other images and other
networks, a few recipes are chosen out of many by `choice`, and by `choice_full`, which is as long as
`reduced`, one of the few, which the others then judge. `cells` are NAS-Bench-201; 1e15 are about the 250
epochs of single networks that PA&DA's supernet is trained for there."""


class CountingSupernet(Supernet):
    """Counts the multiply-adds of its forward passes; the count is kept with the weights."""

    def __init__(self, space: SearchSpace, *, kernel_transform: bool, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(
            space, num_classes=NUM_CLASSES, kernel_transform=kernel_transform, generator=generator
        )
        self.register_buffer("spent_macs", torch.zeros((), dtype=torch.int64))
        self._macs: dict[tuple[object, ...], int] = {}
        # Networks of one step may run side by side.
        self._counting = Lock()

    def run(
        self, images: Tensor, architecture: Architecture, normalise: Normaliser, *, dropout: float = 0.0
    ) -> Tensor:
        """As every supernet, and counted."""
        with self._counting:
            self.spent_macs += len(images) * self._macs_of(architecture)
        return super().run(images, architecture, normalise, dropout=dropout)

    def _macs_of(self, architecture: Architecture) -> int:
        key = architecture.choices
        if key not in self._macs:
            self._macs[key] = costs(self.space, architecture)["macs"]
        return self._macs[key]


def judged_networks(protocol: Protocol) -> tuple[str, ...]:
    """The names of the networks by which recipes are judged, bin by bin."""
    by_bin = networks_by_bin(protocol.num_per_bin, protocol.networks_file)
    return tuple(name for names in by_bin for name in names)


def batches_for(protocol: Protocol, splits: DataSplits, recipe: Recipe, seed: int) -> TrainingBatches:
    """The training images, cropped and mirrored."""
    padding = int(recipe.crop_fraction * protocol.resolution)
    return TrainingBatches(
        splits,
        recipe.batch_size,
        seed,
        Augmentation(crop_padding=padding, horizontal_flip=True),
        held_out_fraction=recipe.held_out_fraction,
    )


def splits_for(protocol: Protocol, data: Path, scratch: Path) -> DataSplits:
    """The images at the space's size; their order and splits are those of the original size."""
    side = protocol.resolution
    files = {split: data / protocol.dataset / f"{split}.parquet" for split in ("train", "test")}
    if protocol.num_images is not None:
        files = {split: _beginning(path, protocol.num_images, scratch) for split, path in files.items()}
    source = {"kind": "parquet"} | {split: str(path.resolve()) for split, path in files.items()}
    decoded = load_source(DataSource.from_json(source))
    pixels = resize_uint8(torch.from_numpy(decoded.pixels), side).numpy()
    return make_splits(replace(decoded, pixels=pixels))


def _beginning(path: Path, count: int, scratch: Path) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / f"{path.parent.name}-{count}-{path.name}"
    if not target.exists():
        # Several trainings may begin at once.
        part = target.with_suffix(f".{os.getpid()}")
        pq.write_table(pq.read_table(path).slice(0, count), part)
        part.replace(target)
    return target


def epochs_within(recipe: Recipe, protocol: Protocol, *, num_images: int) -> tuple[int, float]:
    """(whole epochs nearest to the budget, one at least; the forward MACs that they are expected to take).

    Random networks are taken to cost what uniform ones do: what a sampler really drew is counted in the
    run. The shape of a schedule does not depend on its length, so that one length tells the cost of all.
    """
    steps_per_epoch = num_images // recipe.batch_size
    long = replace(recipe, epochs=100)
    stack = build_stack(long, protocol.space, steps_per_epoch=steps_per_epoch, seed=0, num_images=num_images)
    # The middle of each of so many equal parts of the run.
    steps = ((np.arange(1000) + 0.5) / 1000 * stack.num_steps).astype(int)
    phases = [stack.shrink.phase(int(step)) for step in steps]
    distinct = {id(phase): phase for phase in phases}
    macs = {key: _macs_of_step(recipe, phase) for key, phase in distinct.items()}
    macs_per_image = float(np.mean([macs[id(phase)] for phase in phases]))
    per_epoch = macs_per_image * recipe.batch_size * steps_per_epoch
    epochs = max(1, round(protocol.budget_macs / per_epoch))
    return epochs, epochs * per_epoch


def _macs_of_step(recipe: Recipe, phase: Phase) -> float:
    """For one image."""
    space = phase.space.space
    largest, smallest = (costs(space, end)["macs"] for end in (phase.space.largest(), phase.space.smallest()))
    if phase.epsilon == 0:
        return largest
    measured = 0
    if recipe.random_paths is RandomPathKind.ATTENTIVE and recipe.num_candidates > 1:
        measured = recipe.num_candidates
    total = phase.num_random * (1 + measured) * _mean_macs(phase.space)
    if recipe.sampler is SamplerKind.SANDWICH:
        total += largest + smallest
    if recipe.teacher is TeacherKind.FROZEN and recipe.distillation is not DistillationKind.NONE:
        total += costs(space, space.largest())["macs"]
    return total


def _mean_macs(part: SubSpace) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([costs(part.space, part.sample(rng))["macs"] for _ in range(500)]))
