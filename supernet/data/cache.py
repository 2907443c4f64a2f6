"""Decoded images on disk, so that they are decoded once: .npy files and JSON, no pickle.

A folder is named by the fingerprint of what it holds, so that data sets of the same content share it:

- `pixels.npy`: (n, c, h, w) uint8, in the order in which the images were decoded; read as a memory map
- `rows.npy`, `labels.npy`, `digests.npy`: the canonical order, see `supernet.data.decoded`
- `contents.json`: class names, images of each given split, the fingerprint
- `draws/<plan>.npz`: which images a plan puts into which split, and the statistics of its training images
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decode import ImageShape
from supernet.data.decoded import CanonicalOrder, DecodedImages
from supernet.data.listing import GivenSplit
from supernet.data.splits import DataSplits, Draw, SplitPlan, assemble_splits, draw_splits

FORMAT = 2
_DESCRIPTION = "contents.json"
_DRAWS = "draws"
_FLUSH_BYTES = 1 << 26
_SPARE_BYTES = 1 << 28
"""Left free on the disk beside what is written."""
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError)


class PixelFile:
    """A .npy file of images that is written one image at a time."""

    def __init__(self, file: IO[bytes], shape: ImageShape) -> None:
        self._file = file
        self._shape = shape
        self._num_images = 0
        self._unflushed_bytes = 0
        self._write_header()

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """The next image, (c, h, w)."""
        self._file.write(pixels.data)
        self._num_images += 1
        self._unflushed_bytes += pixels.nbytes
        # In pieces that reach the disk: what waits to be written is memory too.
        if self._unflushed_bytes >= _FLUSH_BYTES:
            _flush_to_disk(self._file)
            self._unflushed_bytes = 0

    def finish(self) -> None:
        """How many images there are is known only now."""
        self._file.seek(0)
        self._write_header()
        _flush_to_disk(self._file)

    def _write_header(self) -> None:
        # NumPy leaves room in a header for a first axis of any length, so that its size is always the same.
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._num_images, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def new_cache(caches: Path) -> Iterator[Path]:
    """A folder to write a cache in, beside the others; it is gone afterwards unless put in its place."""
    temporary = caches / f".{uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def pixel_file(folder: Path, num_images: int, shape: ImageShape) -> Iterator[PixelFile]:
    """The pixels of the cache that is written in `folder`, of at most `num_images`."""
    _check_space(folder, num_images, shape)
    with (folder / "pixels.npy").open("wb") as file:
        writer = PixelFile(file, shape)
        yield writer
        writer.finish()


def put_in_place(temporary: Path, order: CanonicalOrder) -> DecodedImages:
    """The cache whose pixels lie in `temporary`, whole and under its own name.

    Where a whole cache of the same images is there already, that is used: whoever wrote it was quicker.
    """
    fingerprint = order.fingerprint()
    for name in ("rows", "labels", "digests"):
        with (temporary / f"{name}.npy").open("wb") as file:
            np.save(file, getattr(order, name), allow_pickle=False)
            _flush_to_disk(file)
    description = {
        "format": FORMAT,
        "class_names": order.class_names,
        "counts": {split.value: count for split, count in order.counts.items()},
        "fingerprint": fingerprint,
    }
    with (temporary / _DESCRIPTION).open("w") as file:
        json.dump(description, file, indent=1)
        _flush_to_disk(file)
    folder = temporary.parent / fingerprint
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        return _held_or_replaced(temporary, folder)
    return load_cache(folder)


def load_cache(folder: Path) -> DecodedImages:
    """The images in `folder`; they stay on disk until they are touched."""
    try:
        decoded = _read_files(folder)
        # The sign by which a sweep sees that somebody uses it.
        os.utime(folder)
    except _UNREADABLE as error:
        raise DatasetError(
            f"{folder} holds no readable cache of decoded images ({error}); "
            "delete it and prepare the data again"
        ) from error
    return decoded


def load_splits(folder: Path, plan: SplitPlan, stop_check: StopCheck = never_stop) -> DataSplits:
    """The images in `folder`, split as `plan` says; a plan is drawn once and then kept beside them."""
    decoded = load_cache(folder)
    content = json.dumps([FORMAT, plan.to_json()], sort_keys=True)
    path = folder / _DRAWS / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npz"
    try:
        return assemble_splits(decoded, plan, _read_draw(path))
    except (*_UNREADABLE, IndexError):
        # None yet, or a damaged one, which costs time only.
        draw = draw_splits(decoded, plan, stop_check)
    _write_draw(path, draw)
    return assemble_splits(decoded, plan, draw)


def _held_or_replaced(temporary: Path, folder: Path) -> DecodedImages:
    try:
        return load_cache(folder)
    except DatasetError:
        shutil.rmtree(folder)
        temporary.rename(folder)
        return load_cache(folder)


def _check_space(folder: Path, num_images: int, shape: ImageShape) -> None:
    needed = num_images * shape.channels * shape.height * shape.width + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(
            f"{num_images} images of {shape.height}x{shape.width} pixels need {needed / 2**30:.1f} GiB on "
            f"the disk of {folder.parent}, which has {free / 2**30:.1f} GiB free; free "
            f"{(needed - free) / 2**30:.1f} GiB, or register the images with a smaller stored_size"
        )


def _flush_to_disk(file: IO[Any]) -> None:
    # A rename must not reach the disk before the bytes do.
    file.flush()
    os.fsync(file.fileno())


def _read_files(folder: Path) -> DecodedImages:
    description = json.loads((folder / _DESCRIPTION).read_text())
    if description["format"] != FORMAT:
        raise ValueError(f"format {description['format']}, not {FORMAT}")
    # Copy on write, not read-only: torch warns of undefined behaviour when it wraps a read-only array.
    # Nothing writes, so processes share the pages, and the file cannot change either way.
    pixels = np.load(folder / "pixels.npy", mmap_mode="c", allow_pickle=False)
    order = CanonicalOrder(
        class_names=tuple(description["class_names"]),
        counts={GivenSplit(split): count for split, count in description["counts"].items()},
        rows=np.load(folder / "rows.npy", allow_pickle=False),
        labels=np.load(folder / "labels.npy", allow_pickle=False),
        digests=np.load(folder / "digests.npy", allow_pickle=False),
    )
    lengths = {
        len(pixels),
        len(order.rows),
        len(order.labels),
        len(order.digests),
        sum(order.counts.values()),
    }
    if len(lengths) != 1:
        raise ValueError(f"its files hold {sorted(lengths)} images")
    return DecodedImages(pixels=pixels, order=order, fingerprint=description["fingerprint"])


def _read_draw(path: Path) -> Draw:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            parts = {name: held[name] for name in ("train", "calibration", "val", "test")}
            return Draw(**parts, mean=tuple(held["mean"].tolist()), std=tuple(held["std"].tolist()))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged") from error


def _write_draw(path: Path, draw: Draw) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **{each.name: getattr(draw, each.name) for each in fields(draw)})
            _flush_to_disk(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
