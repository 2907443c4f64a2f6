"""Labelled images of one size, as the rows of an array that several sets may share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images with one label each, all of one size; shapes: n images, c channels, h high, w wide.

    The pixels may be a memory map of more images than fit into memory: `pieces` goes through a set
    without holding it, `images` holds it.
    """

    pixels: NDArray[np.uint8]
    """(N, c, h, w), C-contiguous, as decoded: 0 to 255; those of the set and of others."""
    rows: NDArray[np.int64]
    """(n,), where in `pixels` each image of the set lies."""
    labels: NDArray[np.int64]
    """(n,), each an index into `class_names`."""
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_arrays(self.pixels, self.rows, self.labels)
        _check_labels(self.labels, self.class_names)

    @classmethod
    def whole(
        cls, images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: tuple[str, ...]
    ) -> ImageSet:
        """All of `images`, in their order."""
        return cls(pixels=images, rows=np.arange(len(images)), labels=labels, class_names=class_names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> NDArray[np.uint8]:
        """(n, c, h, w): a copy in memory of every image of the set."""
        return self.pixels[self.rows]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(num_classes,) images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes)

    def take(self, positions: NDArray[np.int64]) -> ImageSet:
        """The images at `positions` of this set, in that order; no pixel is copied."""
        return ImageSet(
            pixels=self.pixels,
            rows=self.rows[positions],
            labels=self.labels[positions],
            class_names=self.class_names,
        )

    def pieces(self, num_images: int) -> Iterator[NDArray[np.uint8]]:
        """The images, so many at a time, in their order."""
        for start in range(0, len(self), num_images):
            yield self.pixels[self.rows[start : start + num_images]]


def _check_arrays(pixels: NDArray[np.uint8], rows: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or not pixels.flags.c_contiguous:
        raise DatasetError(
            f"images of type {pixels.dtype} and shape {pixels.shape} are not a C-contiguous uint8 array "
            "(n, c, h, w); convert them first"
        )
    if labels.dtype != np.int64 or labels.shape != rows.shape:
        raise DatasetError(
            f"labels of type {labels.dtype} and shape {labels.shape} are not int64, one for each of "
            f"{len(rows)} images; convert them first"
        )


def _check_labels(labels: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
    if len(set(class_names)) != len(class_names):
        raise DatasetError(f"class names {class_names} name one class twice; give each class its own name")
    outside = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if outside.size:
        raise DatasetError(
            f"label {labels[outside[0]]} of image {outside[0]} is not in 0..{len(class_names) - 1}, the "
            f"{len(class_names)} named classes; correct the label or name the class"
        )
