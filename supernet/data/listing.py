"""What every kind of source yields: its images one by one, not decoded, each with its label and its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class GivenSplit(StrEnum):
    """A split that a source may itself have; what it does not have is drawn from train."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One image of a source, not decoded yet."""

    split: GivenSplit
    label: int
    """Index into the listing's class names."""
    where: str
    """Names the image in messages, such as 'row 17 of train.parquet'; stable, relative to the source."""
    content: bytes | NDArray[np.uint8] | None
    """An encoded file, or pixels (h, w) or (h, w, c); None where the source names an image without bytes."""


class ImageListing(Protocol):
    """All images of a source.

    Opening one reads class names and labels and refuses what is wrong with them; the images themselves
    are read as they are asked for, so that a source may be larger than memory.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        ...

    @property
    def splits(self) -> tuple[GivenSplit, ...]:
        """Those that the source itself has; always with TRAIN."""
        ...

    def images(self) -> Iterator[SourceImage]:
        """Every image, lazily; may be called again, and then gives the same images in the same order."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledArrays:
    """Images of one split that are pixels already."""

    images: NDArray[np.uint8]
    """(n, h, w) or (n, h, w, c)."""
    labels: NDArray[np.int64]
    """(n,), each an index into the class names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayListing:
    """An `ImageListing` of pixels that are in memory, or mapped into it."""

    class_names: tuple[str, ...]
    arrays: Mapping[GivenSplit, LabelledArrays]
    drawn_from_train: frozenset[GivenSplit] = frozenset()
    """Splits that were drawn out of train; their images are listed as what they were before."""

    @property
    def splits(self) -> tuple[GivenSplit, ...]:
        """Those with arrays, before any was drawn."""
        return tuple(split for split in self.arrays if split not in self.drawn_from_train)

    def images(self) -> Iterator[SourceImage]:
        """Split after split, in the order of the arrays."""
        for split, held in self.arrays.items():
            given = GivenSplit.TRAIN if split in self.drawn_from_train else split
            for index, label in enumerate(held.labels.tolist()):
                where = f"{split} image {index}"
                yield SourceImage(split=given, label=label, where=where, content=held.images[index])
