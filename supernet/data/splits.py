"""Train, calibration, search-val and test: who may see which image.

Splits that the source itself has are used as they are. What it does not have is drawn from its training
images, stratified by class and from one seed, so that the same images and the same plan always give
the same splits. Copies of one image never come to lie on both sides of a draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decoded import CanonicalOrder, DecodedImages
from supernet.data.images import ImageSet
from supernet.data.listing import GivenSplit
from supernet.data.pool import Pool, check_classes, class_shares

_STATISTICS_CHUNK_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How the splits are drawn."""

    test_fraction: float = 0.2
    """Of the source's training images, where it has no test split."""
    val_fraction: float = 0.1
    """Of the training images that are not test, where the source has no validation split."""
    val_images_wanted: int = 1000
    """Where `val_fraction` gives fewer, val grows to this many, but never past twice `val_fraction`.

    The search compares networks on val; on 144 images an accuracy of 95 % is known to 7 points only.
    """
    calibration_images: int = 2000
    """Of the training images, or all of them where there are fewer."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("test_fraction", "val_fraction"):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0 < value <= 0.5:
                raise DatasetError(f"{name} {value} is not in (0, 0.5]; choose a fraction between")
        for name, least in (("val_images_wanted", 0), ("calibration_images", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise DatasetError(f"{name} {value} is not a whole number of {least} or more; choose one")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SplitPlan:
        """The plan that `to_json` wrote, or that a request spells."""
        allowed = [field.name for field in fields(cls)]
        unknown = sorted(set(value) - set(allowed))
        if unknown:
            raise DatasetError(
                f"split plan fields {', '.join(unknown)} are not among {', '.join(allowed)}; leave them out"
            )
        return cls(**value)

    def to_json(self) -> dict[str, float | int]:
        """Every field, as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSplits:
    """A data set ready for training: disjoint splits and the statistics of the training images."""

    train: ImageSet
    calibration: NDArray[np.int64]
    """Indices into `train`, in the order in which the images are used."""
    val: ImageSet
    test: ImageSet
    plan: SplitPlan
    mean: tuple[float, ...]
    """Of each channel over `train`, pixels as 0 to 1."""
    std: tuple[float, ...]
    """Of each channel over `train`, pixels as 0 to 1; 1 for a constant channel, so that it becomes 0."""
    fingerprint: str
    """SHA-256 of the source's content, before splitting; with `plan` it names every split."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    @property
    def num_classes(self) -> int:
        return self.train.num_classes

    @property
    def num_channels(self) -> int:
        return int(self.train.pixels.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, as stored."""
        return self.train.pixels.shape[2], self.train.pixels.shape[3]

    @property
    def counts(self) -> dict[str, int]:
        """Images in each split; those of calibration are also in train."""
        return {
            "train": len(self.train),
            "calibration": len(self.calibration),
            "val": len(self.val),
            "test": len(self.test),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """Which images are in which split, and what that makes of the training images.

    Positions are those in the canonical order of the source's images, calibration's those in train.
    """

    train: NDArray[np.int64]
    calibration: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def make_splits(
    source: DecodedImages, plan: SplitPlan | None = None, stop_check: StopCheck = never_stop
) -> DataSplits:
    """`source` split as `plan` says (by default, `SplitPlan()`)."""
    plan = plan or SplitPlan()
    return assemble_splits(source, plan, draw_splits(source, plan, stop_check))


def assemble_splits(source: DecodedImages, plan: SplitPlan, draw: Draw) -> DataSplits:
    """The splits of `source` that were drawn before."""
    whole = source.all()
    return DataSplits(
        train=whole.take(draw.train),
        calibration=draw.calibration,
        val=whole.take(draw.val),
        test=whole.take(draw.test),
        plan=plan,
        mean=draw.mean,
        std=draw.std,
        fingerprint=source.fingerprint,
    )


def draw_splits(source: DecodedImages, plan: SplitPlan, stop_check: StopCheck = never_stop) -> Draw:
    """Draw what the source does not give, and measure the training images."""
    order = source.order
    check_classes(order)
    rng = np.random.default_rng(plan.seed)
    given = {split: _positions(order, split) for split in GivenSplit}
    rest, test, val = Pool.of(order), given[GivenSplit.TEST], given[GivenSplit.VAL]
    is_val_given = GivenSplit.VAL in order.counts
    if GivenSplit.TEST not in order.counts:
        num_test = round(plan.test_fraction * len(rest))
        rest, test = rest.held_out(num_test, rng, num_later_splits=1 if is_val_given else 2)
    if not is_val_given:
        rest, val = rest.held_out(_num_val(plan, len(rest)), rng, num_later_splits=1)
    train = source.all().take(rest.positions)
    mean, std = channel_statistics(train, stop_check)
    calibration = _calibration_indices(train, plan, rng)
    return Draw(train=rest.positions, calibration=calibration, val=val, test=test, mean=mean, std=std)


def _positions(order: CanonicalOrder, split: GivenSplit) -> NDArray[np.int64]:
    where = order.bounds(split)
    return np.arange(where.start, where.stop)


def channel_statistics(
    images: ImageSet, stop_check: StopCheck = never_stop
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each channel, pixels as 0 to 1, from exact counts of the 256 values."""
    counts = np.zeros((images.pixels.shape[1], 256), dtype=np.int64)
    # Counts do not depend on the order, and a file is read fastest in its own.
    in_file_order = images.take(np.argsort(images.rows))
    # In pieces: bincount widens its argument eightfold.
    for piece in in_file_order.pieces(_STATISTICS_CHUNK_IMAGES):
        stop_check()
        for channel, count in enumerate(counts):
            count += np.bincount(piece[:, channel].ravel(), minlength=256)
    weight = counts / counts.sum(axis=1, keepdims=True)
    value = np.arange(256) / 255
    mean = weight @ value
    std = np.sqrt((weight * (value - mean[:, None]) ** 2).sum(axis=1))
    constant = (counts > 0).sum(axis=1) == 1
    return tuple(mean.tolist()), tuple(np.where(constant, 1.0, std).tolist())


def _num_val(plan: SplitPlan, num_images: int) -> int:
    wanted = max(plan.val_fraction * num_images, plan.val_images_wanted)
    return round(min(wanted, 2 * plan.val_fraction * num_images, num_images / 2))


def _calibration_indices(train: ImageSet, plan: SplitPlan, rng: np.random.Generator) -> NDArray[np.int64]:
    total = min(plan.calibration_images, len(train))
    chosen = _stratified_draw(train.labels, class_shares(train.class_counts, total), rng)
    # Mixed: statistics are a mean over batches, and a batch of one class describes no one.
    rng.shuffle(chosen)
    return chosen


def _stratified_draw(
    labels: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of `wanted[c]` random images of each class c, class after class."""
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(wanted)]
    return np.concatenate(drawn)
