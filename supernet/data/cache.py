"""Decoded splits on disk, so that images are decoded once: .npy files and one JSON, no pickle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.images import ImageSet
from supernet.data.splits import DataSplits, SplitPlan

FORMAT = 1
_SPLITS = ("train", "val", "test")
_DESCRIPTION = "splits.json"
_PIECE_BYTES = 1 << 26


def save_cache(splits: DataSplits, folder: Path, stop_check: StopCheck = never_stop) -> None:
    """Writes `splits` under a temporary name beside `folder`, then renames it.

    A folder that already holds the same splits is left as it is: whoever wrote it was quicker. Nothing is
    left of a folder in which `stop_check`, called for each piece, raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{uuid4().hex}"
    temporary.mkdir()
    try:
        _write_files(splits, temporary, stop_check)
        _rename(temporary, folder, splits)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_cache(folder: Path) -> DataSplits:
    """The splits in `folder`; the images stay on disk until they are touched."""
    try:
        return _read_files(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder} holds no readable cache of decoded images ({error}); "
            "delete it and prepare the data again"
        ) from error


def _write_files(splits: DataSplits, folder: Path, stop_check: StopCheck) -> None:
    for name in _SPLITS:
        images: ImageSet = getattr(splits, name)
        _write_array(folder / f"{name}_images.npy", images.images, stop_check)
        _write_array(folder / f"{name}_labels.npy", images.labels, stop_check)
    _write_array(folder / "calibration.npy", splits.calibration, stop_check)
    with (folder / _DESCRIPTION).open("w") as file:
        json.dump(_description(splits), file, indent=1)
        _flush_to_disk(file)


def _write_array(path: Path, array: NDArray[Any], stop_check: StopCheck) -> None:
    """As `np.save` writes a C-contiguous array, but in pieces that each reach the disk before the next."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        content = memoryview(array).cast("B")
        for start in range(0, len(content), _PIECE_BYTES):
            stop_check()
            file.write(content[start : start + _PIECE_BYTES])
            _flush_to_disk(file)
        _flush_to_disk(file)


def _flush_to_disk(file: IO[Any]) -> None:
    # The rename below must not reach the disk before the bytes do.
    file.flush()
    os.fsync(file.fileno())


def _description(splits: DataSplits) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "counts": splits.counts,
        "class_names": splits.class_names,
        "mean": splits.mean,
        "std": splits.std,
        "plan": splits.plan.to_json(),
        "fingerprint": splits.fingerprint,
    }


def _rename(temporary: Path, folder: Path, splits: DataSplits) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        held = load_cache(folder)
        if (held.fingerprint, held.plan) != (splits.fingerprint, splits.plan):
            raise DatasetError(
                f"{folder} already holds the splits of other images or of another plan; choose another folder"
            ) from error


def _read_files(folder: Path) -> DataSplits:
    description = json.loads((folder / _DESCRIPTION).read_text())
    if description["format"] != FORMAT:
        raise ValueError(f"format {description['format']}, not {FORMAT}")
    names = tuple(description["class_names"])
    splits = DataSplits(
        **{name: _read_set(folder, name, names) for name in _SPLITS},
        calibration=np.load(folder / "calibration.npy", allow_pickle=False),
        plan=SplitPlan.from_json(description["plan"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        fingerprint=description["fingerprint"],
    )
    if splits.counts != description["counts"]:
        raise ValueError(f"{splits.counts} images, not {description['counts']}")
    return splits


def _read_set(folder: Path, name: str, class_names: tuple[str, ...]) -> ImageSet:
    # Copy on write, not read-only: torch warns of undefined behaviour when it wraps a read-only array.
    # Nothing writes, so processes share the pages, and the file cannot change either way.
    images = np.load(folder / f"{name}_images.npy", mmap_mode="c", allow_pickle=False)
    labels = np.load(folder / f"{name}_labels.npy", allow_pickle=False)
    return ImageSet(images=images, labels=labels, class_names=class_names)
