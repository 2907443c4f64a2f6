"""Labelled images held in memory, and the fingerprint of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images with one label each, all of one size; shapes: n images, c channels, h high, w wide."""

    images: NDArray[np.uint8]
    """(n, c, h, w), C-contiguous, as decoded: 0 to 255."""
    labels: NDArray[np.int64]
    """(n,), each an index into `class_names`."""
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_arrays(self.images, self.labels)
        _check_labels(self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(num_classes,) images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes)

    def take(self, indices: NDArray[np.int64]) -> ImageSet:
        """A copy of the images at `indices`, in that order."""
        return ImageSet(
            images=np.ascontiguousarray(self.images[indices]),
            labels=self.labels[indices],
            class_names=self.class_names,
        )


def content_fingerprint(sets: Sequence[ImageSet], stop_check: StopCheck = never_stop) -> str:
    """SHA-256 of the pixels, labels and class names of `sets`, in order.

    Decoded content only: file names, row groups, compression and the number of files do not matter,
    the order of the images and the bounds between the sets do.
    """
    whole = hashlib.sha256(json.dumps(sets[0].class_names).encode())
    for images in sets:
        whole.update(f"set of {len(images)}".encode())
        for digest in _image_digests(images):
            stop_check()
            whole.update(digest)
    return whole.hexdigest()


def _image_digests(images: ImageSet) -> Iterator[bytes]:
    shape = repr(images.images.shape[1:]).encode()
    for pixels, label in zip(images.images, images.labels.tolist(), strict=True):
        digest = hashlib.sha256(shape)
        digest.update(label.to_bytes(8, "little"))
        digest.update(pixels.data)
        yield digest.digest()


def _check_arrays(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
        raise DatasetError(
            f"images of type {images.dtype} and shape {images.shape} are not a C-contiguous uint8 array "
            "(n, c, h, w); convert them first"
        )
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise DatasetError(
            f"labels of type {labels.dtype} and shape {labels.shape} are not int64, one for each of "
            f"{len(images)} images; convert them first"
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
