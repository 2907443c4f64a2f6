"""Train, calibration, search-val and test: who may see which image.

Every split is stratified by class and drawn from one seed, so that the same images and the same
plan always give the same splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decoded import SourceImages
from supernet.data.images import ImageSet, content_fingerprint

_STATISTICS_CHUNK_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How the splits are drawn."""

    test_fraction: float = 0.2
    """Of all images, where the source has no test split."""
    val_fraction: float = 0.1
    """Of the images that are not test."""
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
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, as stored."""
        return self.train.images.shape[2], self.train.images.shape[3]

    @property
    def counts(self) -> dict[str, int]:
        """Images in each split; those of calibration are also in train."""
        return {
            "train": len(self.train),
            "calibration": len(self.calibration),
            "val": len(self.val),
            "test": len(self.test),
        }


def make_splits(
    source: SourceImages, plan: SplitPlan | None = None, stop_check: StopCheck = never_stop
) -> DataSplits:
    """`source` split as `plan` says (by default, `SplitPlan()`)."""
    plan = plan or SplitPlan()
    _check_classes(source)
    rng = np.random.default_rng(plan.seed)
    rest, test = source.train, source.test
    if test is None:
        rest, test = _held_out(rest, round(plan.test_fraction * len(rest)), rng, num_later_splits=2)
    train, val = _held_out(rest, _num_val(plan, len(rest)), rng, num_later_splits=1)
    mean, std = channel_statistics(train, stop_check)
    sets = [source.train, source.test] if source.test else [source.train]
    return DataSplits(
        train=train,
        calibration=_calibration_indices(train, plan, rng),
        val=val,
        test=test,
        plan=plan,
        mean=mean,
        std=std,
        fingerprint=content_fingerprint(sets, stop_check),
    )


def channel_statistics(
    images: ImageSet, stop_check: StopCheck = never_stop
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each channel, pixels as 0 to 1, from exact counts of the 256 values."""
    counts = np.zeros((images.images.shape[1], 256), dtype=np.int64)
    # In pieces: bincount widens its argument eightfold.
    for start in range(0, len(images), _STATISTICS_CHUNK_IMAGES):
        stop_check()
        piece = images.images[start : start + _STATISTICS_CHUNK_IMAGES]
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


def _held_out(
    images: ImageSet, num_held_out: int, rng: np.random.Generator, *, num_later_splits: int
) -> tuple[ImageSet, ImageSet]:
    """(what is left, what is held out), both in their old order.

    Of each class at least one image is held out, and one is left for each of the splits to come.
    """
    counts = images.class_counts
    wanted = np.clip(_shares(counts, num_held_out), 1, counts - num_later_splits)
    chosen = _stratified_draw(images.labels, wanted, rng)
    mask = np.zeros(len(images), dtype=bool)
    mask[chosen] = True
    return images.take(np.flatnonzero(~mask)), images.take(np.flatnonzero(mask))


def _calibration_indices(train: ImageSet, plan: SplitPlan, rng: np.random.Generator) -> NDArray[np.int64]:
    total = min(plan.calibration_images, len(train))
    chosen = _stratified_draw(train.labels, _shares(train.class_counts, total), rng)
    # Mixed: statistics are a mean over batches, and a batch of one class describes no one.
    rng.shuffle(chosen)
    return chosen


def _shares(class_counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` divided in proportion to `class_counts`, by largest remainder; ties to the lower class."""
    exact = class_counts * total / class_counts.sum()
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: total - shares.sum()]] += 1
    return shares


def _stratified_draw(
    labels: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of `wanted[c]` random images of each class c, class after class."""
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(wanted)]
    return np.concatenate(drawn)


def _check_classes(source: SourceImages) -> None:
    names = source.train.class_names
    if len(names) < 2:
        raise DatasetError(f"classes {names} are fewer than 2: there is nothing to tell apart; add a class")
    _check_enough(source.train, least=3 if source.test is None else 2, split="train")
    if source.test is None:
        return
    _check_enough(source.test, least=1, split="test")
    own, other = source.train.images.shape[1:], source.test.images.shape[1:]
    if own != other or names != source.test.class_names:
        raise DatasetError(
            f"train holds {own} images of the classes {names}, test {other} images of "
            f"{source.test.class_names}; bring both to one size, channel count and list of classes"
        )


def _check_enough(images: ImageSet, *, least: int, split: str) -> None:
    counts = images.class_counts
    scarcest = int(counts.argmin())
    if counts[scarcest] < least:
        raise DatasetError(
            f"class {images.class_names[scarcest]!r} has {counts[scarcest]} images in the source's {split} "
            f"images, fewer than the {least} that let it appear in every split; add images or drop the class"
        )
