"""Images and labels as arrays in one npz file, read row by row and never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.given_splits import in_order
from supernet.data.listing import GivenSplit, SourceImage
from supernet.data.npz_arrays import NpzArray, array_headers, read_rows, read_whole

CLASS_NAMES = "class_names"
SPELLINGS = (
    {GivenSplit.TRAIN: ("images", "labels")},
    {split: (f"{split}_images", f"{split}_labels") for split in GivenSplit},
    {split: (f"x_{split}", f"y_{split}") for split in GivenSplit},
)
"""The names of a split's arrays, one spelling a file."""
MAX_IMAGE_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The images of one split: how many, in which layout, and their labels as indices."""

    images: NpzArray
    is_channels_first: bool
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class NpzListing:
    """The rows of the image arrays; one row at a time is in memory."""

    path: Path
    class_names: tuple[str, ...]
    splits: tuple[GivenSplit, ...]
    parts: tuple[_Split, ...]

    def images(self) -> Iterator[SourceImage]:
        """Every image, split after split, in the order of the rows."""
        for split, part in zip(self.splits, self.parts, strict=True):
            rows = read_rows(self.path, part.images)
            for row, (label, pixels) in enumerate(zip(part.labels.tolist(), rows, strict=True)):
                content = (
                    np.ascontiguousarray(pixels.transpose(1, 2, 0)) if part.is_channels_first else pixels
                )
                where = f"row {row} of {part.images.name}"
                yield SourceImage(split=split, label=label, where=where, content=content)


def is_npz(path: Path) -> bool:
    """Whether the file is a zip of arrays and of nothing else."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return False  # such as a tar that ends in an npz
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def open_npz(path: Path, stop_check: StopCheck = never_stop) -> NpzListing:
    """The images of `path`: uint8 of shape (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3.

    Without `class_names` the sorted labels themselves name the classes.
    """
    stop_check()
    arrays = array_headers(path)
    pairs = _pairs(path, arrays)
    labels = {split: _labels(path, names[1], arrays) for split, names in pairs.items()}
    class_names, values = _classes(path, arrays, labels, pairs)
    parts = []
    for split in in_order(set(pairs)):
        images = arrays[pairs[split][0]]
        is_channels_first = _is_channels_first(path, images)
        if len(labels[split]) != images.shape[0]:
            raise DatasetError(
                f"{path} has {images.shape[0]} images in {images.name!r} but {len(labels[split])} labels in "
                f"{pairs[split][1]!r}; give one label for each image"
            )
        indices = np.searchsorted(values, labels[split]).astype(np.int64)
        parts.append(_Split(images=images, is_channels_first=is_channels_first, labels=indices))
    return NpzListing(path=path, class_names=class_names, splits=in_order(set(pairs)), parts=tuple(parts))


def _pairs(path: Path, arrays: dict[str, NpzArray]) -> dict[GivenSplit, tuple[str, str]]:
    """The array names of each split that the file has."""
    spelled = [pairs for pairs in SPELLINGS if set(arrays) & set(pairs[GivenSplit.TRAIN])]
    if len(spelled) != 1:
        kinds = " or ".join(_listed(name for pair in pairs.values() for name in pair) for pairs in SPELLINGS)
        raise DatasetError(
            f"{path} holds the arrays {_listed(arrays) or 'none'}; name them {kinds}, one of these "
            f"spellings only (val and test may be missing; {CLASS_NAMES} may be added)"
        )
    known = {name for pair in spelled[0].values() for name in pair}
    unknown = sorted(set(arrays) - known - {CLASS_NAMES})
    if unknown:
        raise DatasetError(
            f"arrays {_listed(unknown)} of {path} are not among {_listed(sorted(known))}, {CLASS_NAMES}; "
            "rename them or leave them out"
        )
    found = {split: pair for split, pair in spelled[0].items() if set(pair) & set(arrays)}
    for pair in found.values():
        missing = [name for name in pair if name not in arrays]
        if missing:
            raise DatasetError(
                f"{path} has no array {missing[0]!r} beside {_listed(set(pair) - set(missing))}; add it"
            )
    return found


def _is_channels_first(path: Path, images: NpzArray) -> bool:
    """Whether the layout is (n, c, h, w); refused where the shape does not tell."""
    if images.dtype != np.uint8:
        raise DatasetError(
            f"array {images.name!r} of {path} is {images.dtype}, not uint8; save the pixels as 0 to 255, "
            f"such as `np.rint({images.name} * 255).astype(np.uint8)` where they run from 0 to 1"
        )
    shape = images.shape
    if len(shape) not in (3, 4) or 0 in shape:
        raise _wrong_shape(path, images, "is none of (n, h, w), (n, h, w, c), (n, c, h, w) with images in it")
    if int(np.prod(shape[1:], dtype=object)) > MAX_IMAGE_BYTES:
        raise _wrong_shape(path, images, f"has more than {MAX_IMAGE_BYTES} bytes an image")
    if len(shape) == 3:
        return False
    is_first, is_last = shape[1] in (1, 3), shape[3] in (1, 3)
    if not is_first and not is_last:
        raise _wrong_shape(path, images, "has neither 1 nor 3 channels, first or last")
    if is_first and is_last and shape[1:] != (1, 1, 1):
        raise DatasetError(
            f"array {images.name!r} of {path} has shape {shape}, which may be (n, c, h, w) or (n, h, w, c); "
            "save greyscale images as (n, h, w), or the images as PNG files in class folders"
        )
    return is_first


def _wrong_shape(path: Path, images: NpzArray, reason: str) -> DatasetError:
    return DatasetError(
        f"array {images.name!r} of {path} has shape {images.shape}, which {reason}; save greyscale images as "
        "(n, h, w) and RGB images, without alpha, as (n, h, w, 3)"
    )


def _labels(path: Path, name: str, arrays: dict[str, NpzArray]) -> NDArray[np.int64]:
    array = arrays[name]
    if array.dtype.kind not in "iu":
        raise DatasetError(
            f"array {name!r} of {path} is {array.dtype}, not integers; number the classes from 0, and name "
            f"them in {CLASS_NAMES}"
        )
    if len(array.shape) != 1 and array.shape[1:] != (1,):
        raise DatasetError(
            f"array {name!r} of {path} has shape {array.shape}, neither (n,) nor (n, 1); save one number "
            f"for each image, such as `{name}.argmax(axis=1)` where there is a column for each class"
        )
    labels: NDArray[np.int64] = read_whole(path, array).reshape(-1).astype(np.int64)
    negative = np.flatnonzero(labels < 0)
    if negative.size:
        raise DatasetError(
            f"label {labels[negative[0]]} at row {negative[0]} of {name!r} in {path} is below 0; number the "
            "classes from 0 and drop images without a class"
        )
    return labels


def _classes(
    path: Path,
    arrays: dict[str, NpzArray],
    labels: dict[GivenSplit, NDArray[np.int64]],
    pairs: dict[GivenSplit, tuple[str, str]],
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(class names, the label value of each)."""
    if CLASS_NAMES not in arrays:
        values = np.unique(np.concatenate(list(labels.values())))
        return tuple(str(value) for value in values), values
    array = arrays[CLASS_NAMES]
    if array.dtype.kind != "U" or len(array.shape) != 1:
        raise DatasetError(
            f"array {CLASS_NAMES!r} of {path} is {array.dtype} of shape {array.shape}, not a row of texts; "
            "save `np.array(names, dtype=str)`"
        )
    names = tuple(str(name) for name in read_whole(path, array))
    for split, values in labels.items():
        outside = np.flatnonzero(values >= len(names))
        if outside.size:
            raise DatasetError(
                f"label {values[outside[0]]} at row {outside[0]} of {pairs[split][1]!r} in {path} is not in "
                f"0..{len(names) - 1}, the named classes; correct the label or name the class"
            )
    return names, np.arange(len(names))


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names)
