"""Images from which splits are drawn: stratified by class, and copies of one image on one side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from supernet.data.decoded import CanonicalOrder
from supernet.data.listing import GivenSplit


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Training images, each with its picture: copies of one image, with whatever label, are one picture."""

    positions: NDArray[np.int64]
    """(n,), in the canonical order of the source's images."""
    labels: NDArray[np.int64]
    """(n,)"""
    pictures: NDArray[np.int64]
    """(n,), equal where two images have the same pixels."""
    is_drawable: NDArray[np.bool_]
    """(n,); a picture that has several labels is never held out, for no answer to it would be right."""
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def of(cls, order: CanonicalOrder) -> Pool:
        """The images that the source gives for training."""
        where = order.bounds(GivenSplit.TRAIN)
        labels, pictures = order.labels[where], picture_numbers(order.digests[where])
        return cls(
            positions=np.arange(where.start, where.stop),
            labels=labels,
            pictures=pictures,
            is_drawable=~is_contradicted(pictures, labels),
            class_names=order.class_names,
        )

    def held_out(
        self, num_images: int, rng: np.random.Generator, *, num_later_splits: int
    ) -> tuple[Pool, NDArray[np.int64]]:
        """(what is left, the positions held out), both in their old order.

        Of each class at least one picture is held out, and one is left for each of the splits to come.
        Where a class has copies it may miss its share by less than one picture.
        """
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        shares = class_shares(counts, num_images)
        is_held_out = np.zeros(len(self), dtype=bool)
        for label, share in enumerate(shares.tolist()):
            own = np.flatnonzero((self.labels == label) & self.is_drawable)
            is_held_out[self._drawn(own, label, share, rng, num_later_splits)] = True
        return self._part(~is_held_out), self.positions[is_held_out]

    def _drawn(
        self,
        own: NDArray[np.int64],
        label: int,
        share: int,
        rng: np.random.Generator,
        num_later_splits: int,
    ) -> NDArray[np.int64]:
        """Those of the images `own` of a class that are held out."""
        pictures, sizes = np.unique(self.pictures[own], return_counts=True)
        most = len(pictures) - num_later_splits
        if most < 1:
            raise _too_few(self.class_names[label], len(pictures), 1 + num_later_splits)
        order = rng.permutation(len(pictures))
        chosen = order[_within(sizes[order], share)][:most]
        if not chosen.size:
            chosen = order[[sizes[order].argmin()]]
        return own[np.isin(self.pictures[own], pictures[chosen])]

    def _part(self, chosen: NDArray[np.bool_]) -> Pool:
        names = ("positions", "labels", "pictures", "is_drawable")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})


def picture_numbers(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n,) a number for each image of a canonically ordered split, in which copies lie side by side."""
    is_new = np.ones(len(digests), dtype=bool)
    is_new[1:] = (digests[1:] != digests[:-1]).any(axis=1)
    return np.cumsum(is_new) - 1


def is_contradicted(pictures: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether an image of the same picture has another label; `pictures` from `picture_numbers`."""
    if not len(pictures):
        return np.zeros(0, dtype=bool)
    num_pictures = int(pictures[-1]) + 1
    lowest = np.full(num_pictures, np.iinfo(np.int64).max)
    highest = np.full(num_pictures, -1)
    np.minimum.at(lowest, pictures, labels)
    np.maximum.at(highest, pictures, labels)
    contradicted: NDArray[np.bool_] = (lowest != highest)[pictures]
    return contradicted


def class_shares(class_counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` divided in proportion to `class_counts`, by largest remainder; ties to the lower class."""
    exact = class_counts * total / class_counts.sum()
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: total - shares.sum()]] += 1
    return shares


def check_classes(order: CanonicalOrder) -> None:
    """Refuse classes that cannot appear in every split."""
    names = order.class_names
    if len(names) < 2:
        raise DatasetError(
            f"the classes are {', '.join(names) or 'none'}, fewer than 2: there is nothing to tell apart; "
            "add a class"
        )
    num_drawn = sum(split not in order.counts for split in GivenSplit)
    for split in order.counts:
        least = 1 + num_drawn if split is GivenSplit.TRAIN else 1
        counts = np.bincount(order.labels[order.bounds(split)], minlength=len(names))
        scarcest = int(counts.argmin())
        if counts[scarcest] < least:
            raise DatasetError(
                f"class {names[scarcest]!r} has {counts[scarcest]} of the source's {split} images, fewer "
                f"than the {least} that let it appear in every split; add images or drop the class"
            )


def _within(sizes: NDArray[np.int64], share: int) -> NDArray[np.bool_]:
    """Which pictures are taken, one after another, each if it still fits into the share."""
    if (sizes == 1).all():
        return np.arange(len(sizes)) < share
    taken = np.zeros(len(sizes), dtype=bool)
    left = share
    for place, size in enumerate(sizes.tolist()):
        if size <= left:
            taken[place] = True
            left -= size
    return taken


def _too_few(class_name: str, num_pictures: int, least: int) -> DatasetError:
    return DatasetError(
        f"class {class_name!r} has {num_pictures} distinct images that carry no other label as well, fewer "
        f"than the {least} that let it appear in every split without its copies; add images or drop the class"
    )
