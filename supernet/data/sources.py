"""Where images come from: a data set that a package carries, or Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.images import ImageSet
from supernet.data.parquet import ParquetColumns, read_parquet

BUNDLED_NAMES = ("digits",)


class SourceKind(StrEnum):
    """How the images are kept."""

    BUNDLED = "bundled"
    PARQUET = "parquet"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Names a set of labelled images. Bundled: `name`. Parquet: `path`, or `train` with or without `test`."""

    kind: SourceKind
    name: str | None = None
    """A bundled data set, one of `BUNDLED_NAMES`."""
    path: str | None = None
    """A Parquet file, or a folder with train*.parquet and, if it has a test split, test*.parquet.

    The files lie in the folder itself or in one sub-folder (`data/train-00000-of-00005.parquet`).
    Other splits in it are not read: name their files as `train` and `test`.
    """
    train: str | None = None
    """The Parquet file of the training images."""
    test: str | None = None
    """The Parquet file of the test images; without it a test split is made."""
    image_column: str = "image"
    label_column: str = "label"

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_text(field.name, getattr(self, field.name))
        if self.kind == SourceKind.BUNDLED:
            self._check_bundled()
        else:
            self._check_parquet()

    def _check_bundled(self) -> None:
        if self.name not in BUNDLED_NAMES:
            raise DatasetError(
                f"bundled data set {self.name!r} is not one of {_listed(BUNDLED_NAMES)}; choose one of them, "
                "or give your own images as kind 'parquet'"
            )
        if self.path or self.train or self.test:
            raise DatasetError("a bundled source takes a name and no files; leave out path, train and test")

    def _check_parquet(self) -> None:
        if self.name is not None:
            raise DatasetError(f"a parquet source has no name, but {self.name!r} is given; leave it out")
        if bool(self.path) == bool(self.train):
            raise DatasetError("a parquet source takes either path or train, exactly one of them; give one")
        if self.path and self.test:
            raise DatasetError(
                "a parquet source with path finds its own test files; give train and test instead"
            )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSource:
        """The source that `to_json` wrote, or that a request spells."""
        allowed = [field.name for field in fields(cls)]
        unknown = sorted(set(value) - set(allowed))
        if unknown:
            raise DatasetError(
                f"source fields {_listed(unknown)} are not among {_listed(allowed)}; leave them out"
            )
        kind = value.get("kind")
        if kind not in tuple(SourceKind):
            raise DatasetError(
                f"source kind {kind!r} is not one of {_listed(SourceKind)}; choose one of them"
            )
        return cls(**{**value, "kind": SourceKind(kind)})

    def to_json(self) -> dict[str, str]:
        """The fields that are set, as JSON values."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SourceImages:
    """What a source holds, decoded; both sets share size, channels and class names."""

    train: ImageSet
    test: ImageSet | None
    """None where the source has no test split."""


def load_source(source: DataSource, stop_check: StopCheck = never_stop) -> SourceImages:
    """The decoded images of `source`, in the order of its files and rows."""
    if source.kind == SourceKind.BUNDLED:
        return SourceImages(train=_read_digits(), test=None)
    train_files, test_files = _parquet_files(source)
    columns = ParquetColumns(image=source.image_column, label=source.label_column)
    train, test = read_parquet(train_files, test_files, columns, stop_check)
    return SourceImages(train=train, test=test)


def _read_digits() -> ImageSet:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries; its 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits  # slow to import, and only the demo needs it

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return ImageSet(
        images=np.ascontiguousarray(pixels[:, None]),
        labels=digits.target.astype(np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _parquet_files(source: DataSource) -> tuple[list[Path], list[Path]]:
    if source.train:
        return [_existing(source.train)], [_existing(source.test)] if source.test else []
    path = _existing(source.path or "")
    return _files_of_folder(path) if path.is_dir() else ([path], [])


def _files_of_folder(folder: Path) -> tuple[list[Path], list[Path]]:
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
    return sorted(holders[0].glob("train*.parquet")), sorted(holders[0].glob("test*.parquet"))


def _existing(path: str) -> Path:
    found = Path(path)
    if not found.exists():
        raise DatasetError(f"{path} does not exist on this machine; correct the path or put the file there")
    return found


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise DatasetError(
            f"source field {name} is {value!r}, not a non-empty text; correct it or leave it out"
        )


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
