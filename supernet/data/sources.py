"""Where images come from, as a request names it, and how each kind of source is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.archive import open_archive
from supernet.data.decode import Fit
from supernet.data.folder import open_folder
from supernet.data.huggingface import open_huggingface
from supernet.data.listing import ArrayListing, GivenSplit, ImageListing, LabelledArrays
from supernet.data.npz import open_npz
from supernet.data.parquet import ParquetColumns, ParquetListing

BUNDLED_NAMES = ("digits",)
MAX_STORED_SIDE = 1024


class SourceKind(StrEnum):
    """How the images are kept."""

    BUNDLED = "bundled"
    PARQUET = "parquet"
    FOLDER = "folder"
    NPZ = "npz"
    HUGGINGFACE = "huggingface"
    ARCHIVE = "archive"


_COLUMNS = ("image_column", "label_column")
FIELDS = {
    SourceKind.BUNDLED: ("name",),
    SourceKind.PARQUET: ("path", "train", "val", "test", *_COLUMNS),
    SourceKind.FOLDER: ("path",),
    SourceKind.NPZ: ("path",),
    SourceKind.HUGGINGFACE: ("path", *_COLUMNS),
    SourceKind.ARCHIVE: ("path", "upload_id", *_COLUMNS),
}
"""What each kind takes beside `STORAGE`."""
STORAGE = ("skip_unreadable", "stored_size", "fit")
"""What every kind says of how its images are taken in."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Names a set of labelled images, and says what is stored of them.

    `FIELDS` and `STORAGE` say which fields each kind takes.
    """

    kind: SourceKind
    name: str | None = None
    """A bundled data set, one of `BUNDLED_NAMES`."""
    path: str | None = None
    """A file or a folder. Parquet: a file, or a folder with train*.parquet and, if it has these splits,
    val*.parquet and test*.parquet, in the folder itself or in one sub-folder
    (`data/train-00000-of-00005.parquet`); files of other names are not read.
    """
    upload_id: str | None = None
    """An uploaded archive; whoever has the upload puts the path of its bytes in place of it."""
    train: str | None = None
    """The Parquet file of the training images."""
    val: str | None = None
    """The Parquet file of the validation images; without it they are drawn from train."""
    test: str | None = None
    """The Parquet file of the test images; without it they are drawn from train."""
    image_column: str = "image"
    label_column: str = "label"
    skip_unreadable: bool = False
    """Whether images that cannot be read are left out and counted; else one of them refuses the source."""
    stored_size: tuple[int, int] | None = None
    """(height, width) in pixels at which images are stored; None: the most common size, see `survey`."""
    fit: Fit = Fit.STRETCH
    """How images of another aspect ratio than the stored one's are brought to it."""

    def __post_init__(self) -> None:
        for name in ("name", "path", "upload_id", "train", "val", "test", *_COLUMNS):
            _check_text(name, getattr(self, name))
        self._check_storage()
        self._check_fields()
        self._check_place()

    def _check_storage(self) -> None:
        if not isinstance(self.skip_unreadable, bool):
            raise DatasetError(f"skip_unreadable is {self.skip_unreadable!r}, not true or false; choose one")
        if self.fit not in tuple(Fit):
            raise DatasetError(f"fit {self.fit!r} is not one of {_listed(Fit)}; choose one of them")
        if self.stored_size is not None and not _is_size(self.stored_size):
            raise DatasetError(
                f"stored_size {self.stored_size!r} is not [height, width] with both in 1..{MAX_STORED_SIDE} "
                "pixels; correct it or leave it out"
            )

    def _check_fields(self) -> None:
        foreign = [name for name in self._given() if name not in self._allowed()]
        if foreign:
            raise DatasetError(
                f"a {self.kind.value} source takes {_listed(self._allowed())}, not {_listed(foreign)}; "
                "leave it out"
            )

    def _check_place(self) -> None:
        if self.kind == SourceKind.BUNDLED and self.name not in BUNDLED_NAMES:
            raise DatasetError(
                f"bundled data set {self.name!r} is not one of {_listed(BUNDLED_NAMES)}; choose one of them, "
                f"or give your own images as kind {_listed(list(SourceKind)[1:])}"
            )
        alternative = {SourceKind.PARQUET: "train", SourceKind.ARCHIVE: "upload_id"}.get(self.kind)
        if alternative and bool(self.path) == bool(getattr(self, alternative)):
            raise DatasetError(
                f"a {self.kind.value} source takes either path or {alternative}, exactly one of them; give "
                "one"
            )
        if self.path and (self.val or self.test):
            raise DatasetError(
                "a parquet source with path finds its own val and test files; give train, val and test "
                "instead"
            )
        if not self.path and not alternative and self.kind != SourceKind.BUNDLED:
            raise DatasetError(f"a {self.kind.value} source has no path; give the path of its files")

    def _allowed(self) -> tuple[str, ...]:
        return ("kind", *FIELDS[self.kind], *STORAGE)

    def _given(self) -> list[str]:
        """The fields whose value is not the one they have where nothing is said."""
        defaults = {field.name: field.default for field in fields(self)}
        return [name for name, default in defaults.items() if getattr(self, name) != default]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSource:
        """The source that `to_json` wrote, or that a request spells."""
        kind = value.get("kind")
        if kind not in tuple(SourceKind):
            raise DatasetError(
                f"source kind {kind!r} is not one of {_listed(SourceKind)}; choose one of them"
            )
        allowed = ("kind", *FIELDS[SourceKind(kind)], *STORAGE)
        unknown = sorted(set(value) - set(allowed))
        if unknown:
            raise DatasetError(
                f"source fields {_listed(unknown)} are not among {_listed(allowed)} of kind {kind!r}; leave "
                "them out"
            )
        size, fit = value.get("stored_size"), value.get("fit", Fit.STRETCH)
        return cls(
            **{
                **value,
                "kind": SourceKind(kind),
                "stored_size": tuple(size) if isinstance(size, list) else size,
                "fit": Fit(fit) if fit in tuple(Fit) else fit,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The fields of the kind that are set, as JSON values."""
        values = {name: getattr(self, name) for name in self._allowed()}
        found = {name: value for name, value in values.items() if value is not None}
        if self.stored_size is not None:
            found["stored_size"] = list(self.stored_size)
        return {**found, "kind": self.kind.value, "fit": self.fit.value}


def open_listing(source: DataSource, stop_check: StopCheck = never_stop) -> ImageListing:
    """The images of `source`, to be read one by one."""
    if source.kind == SourceKind.BUNDLED:
        return _digits()
    if source.upload_id:
        raise DatasetError(f"upload {source.upload_id} has not been fetched; give the path of its bytes")
    columns = ParquetColumns(image=source.image_column, label=source.label_column)
    if source.kind == SourceKind.PARQUET:
        root, files = _parquet_files(source)
        return ParquetListing(files, columns, root=root, stop_check=stop_check)
    path = _existing(source.path or "")
    if source.kind == SourceKind.FOLDER:
        return open_folder(path, stop_check)
    if source.kind == SourceKind.NPZ:
        return open_npz(path, stop_check)
    if source.kind == SourceKind.HUGGINGFACE:
        return open_huggingface(path, columns, stop_check)
    return open_archive(path, columns, stop_check)


def _digits() -> ArrayListing:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries; its 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits  # slow to import, and only the demo needs it

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    train = LabelledArrays(images=pixels, labels=digits.target.astype(np.int64))
    return ArrayListing(
        class_names=tuple(str(digit) for digit in range(10)), arrays={GivenSplit.TRAIN: train}
    )


def _parquet_files(source: DataSource) -> tuple[Path, dict[GivenSplit, list[Path]]]:
    """(what file names are told relative to, the files of each split)."""
    if source.train:
        named = {GivenSplit(split): getattr(source, split) for split in GivenSplit}
        files = {split: [_existing(path)] for split, path in named.items() if path}
        return Path(os.path.commonpath([path.parent for (path,) in files.values()])), files
    path = _existing(source.path or "")
    if path.is_dir():
        return path, _files_of_folder(path)
    return path.parent, {GivenSplit.TRAIN: [path]}


def _files_of_folder(folder: Path) -> dict[GivenSplit, list[Path]]:
    below = sorted(child for child in folder.iterdir() if child.is_dir())
    holders = [place for place in (folder, *below) if any(place.glob("train*.parquet"))]
    if not holders:
        raise DatasetError(
            f"no train*.parquet in {folder} or in a folder directly below; name the files as train and test"
        )
    if len(holders) > 1:
        raise DatasetError(
            f"train*.parquet lies in several places ({_listed(holders)}); give the path of one of them"
        )
    found = {split: sorted(holders[0].glob(f"{split}*.parquet")) for split in GivenSplit}
    return {split: files for split, files in found.items() if files}


def _existing(path: str) -> Path:
    found = Path(path)
    if not found.exists():
        raise DatasetError(f"{path} does not exist on this machine; correct the path or put the file there")
    return found


def _is_size(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(type(side) is int and 1 <= side <= MAX_STORED_SIDE for side in value)


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise DatasetError(
            f"source field {name} is {value!r}, not a non-empty text; correct it or leave it out"
        )


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
