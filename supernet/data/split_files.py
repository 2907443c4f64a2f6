"""One split as an .npz file: the same images are the same bytes, and neither way holds them all in memory."""

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
from supernet.data.images import ImageSet
from supernet.data.listing import ArrayListing, GivenSplit, LabelledArrays
from supernet.data.splits import DataSplits

SPLIT_FILES = ("train.npz", "val.npz", "test.npz")

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest a zip can say."""
_PIECE_BYTES = 1 << 24


def write_split_file(path: Path, splits: DataSplits, name: str, stop_check: StopCheck = never_stop) -> None:
    """Writes the split that `name`, one of `SPLIT_FILES`, stands for; `stop_check` is called for each piece.

    Arrays: `images` uint8 (n, c, h, w), `labels` int64 (n,), `class_names` and `fingerprint` (of the data
    set's content) as text; in train.npz also `calibration`, indices into `images` in the order of their use.
    """
    split: ImageSet = getattr(splits, name.removesuffix(".npz"))
    shape = (len(split), *split.pixels.shape[1:])
    pieces = split.pieces(max(1, _PIECE_BYTES // max(1, int(np.prod(shape[1:])))))
    small = {
        "labels": split.labels,
        "class_names": np.array(splits.class_names),
        "fingerprint": np.array(splits.fingerprint),
    }
    if split is splits.train:
        small["calibration"] = splits.calibration
    with zipfile.ZipFile(path, "w") as archive:
        _write_array(archive, "images", shape, split.pixels.dtype, pieces, stop_check)
        for key, array in small.items():
            content = iter([np.ascontiguousarray(array)])
            _write_array(archive, key, array.shape, array.dtype, content, stop_check)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitFilesListing(ArrayListing):
    """The images of the three files, each listed under the split that the source had it in."""

    image_size: tuple[int, int]
    """(height, width) in pixels, of all of them."""

    @classmethod
    def of(
        cls, folder: Path, given_splits: frozenset[GivenSplit], stop_check: StopCheck = never_stop
    ) -> SplitFilesListing:
        """Of the files in `folder`; the images stay on disk, unpacked beside the files.

        `given_splits` are those that the source itself had. DatasetError where the files are not what
        `write_split_file` wrote of one data set.
        """
        try:
            found = {GivenSplit(Path(n).stem): _unpack(folder / n, stop_check) for n in SPLIT_FILES}
            arrays = {split: _labelled(members) for split, members in found.items()}
            fingerprints = {str(members["fingerprint"]) for members in found.values()}
            class_names = tuple(map(str, found[GivenSplit.TRAIN]["class_names"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DatasetError(
                f"the files of the splits cannot be read: {error}; import the data again"
            ) from error
        if len(fingerprints) != 1:
            raise DatasetError("the files of the splits are of different data sets; import the data again")
        height, width = arrays[GivenSplit.TRAIN].images.shape[1:3]
        return cls(
            class_names=class_names,
            arrays=arrays,
            drawn_from_train=frozenset(GivenSplit) - given_splits,
            image_size=(height, width),
        )


def _labelled(members: dict[str, NDArray[Any]]) -> LabelledArrays:
    """As listings have it: channels last, or none where there is but one."""
    images = members["images"]
    pixels = images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
    return LabelledArrays(images=pixels, labels=members["labels"])


def _write_array(
    archive: zipfile.ZipFile,
    key: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    pieces: Iterator[NDArray[Any]],
    stop_check: StopCheck,
) -> None:
    """As `np.savez` does, but not compressed, always of one date, and one piece after the other."""
    entry = zipfile.ZipInfo(f"{key}.npy", date_time=_ZIP_TIME)
    entry.create_system = 3  # Unix, wherever it is written
    entry.external_attr = 0o644 << 16
    # What decides whether the entry needs the format for more than 4 GB.
    entry.file_size = int(np.prod(shape)) * dtype.itemsize
    with archive.open(entry, "w") as file:
        np.lib.format.write_array_header_1_0(
            file,  # type: ignore[arg-type]
            {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
        )
        for piece in pieces:
            stop_check()
            file.write(piece.tobytes())


def _unpack(path: Path, stop_check: StopCheck) -> dict[str, NDArray[Any]]:
    folder = path.with_suffix(".unpacked")
    folder.mkdir()
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            target = folder / f"{len(arrays)}.npy"
            with archive.open(entry) as packed, target.open("wb") as file:
                while piece := packed.read(_PIECE_BYTES):
                    stop_check()
                    file.write(piece)
            key = entry.filename.removesuffix(".npy")
            # Copy on write: torch warns of undefined behaviour when it wraps a read-only array.
            mode = "c" if key == "images" else None
            arrays[key] = np.load(target, mmap_mode=mode, allow_pickle=False)
    return arrays
