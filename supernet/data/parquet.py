"""Images from Parquet files in the Hugging Face image layout.

The image column is a struct {bytes, path} with the encoded file in `bytes`; the label column holds
integers; class names stand in the schema metadata under `huggingface`, as `datasets` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.listing import GivenSplit, SourceImage

_BATCH_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class ParquetColumns:
    """The names of the two columns that are read."""

    image: str
    label: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _LabelledFile:
    path: Path
    name: str
    """Relative to the source, for messages about its images."""
    split: GivenSplit
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None


class ParquetListing:
    """The images of Parquet files, file after file and row after row."""

    def __init__(
        self,
        files: Mapping[GivenSplit, Sequence[Path]],
        columns: ParquetColumns,
        *,
        root: Path,
        stop_check: StopCheck = never_stop,
    ) -> None:
        """Reads the labels; `root` is what the names of files are told relative to."""
        self._columns = columns
        self._stop_check = stop_check
        self._files: list[_LabelledFile] = []
        for split, paths in files.items():
            for path in paths:
                stop_check()
                name = path.relative_to(root).as_posix()
                self._files.append(_read_labels(path, name, split, columns))
        self._class_names, self._label_values = _agreed_classes(self._files)
        self._splits = tuple(split for split, paths in files.items() if paths)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As the files name them, else the labels themselves."""
        return self._class_names

    @property
    def splits(self) -> tuple[GivenSplit, ...]:
        """Those that have files."""
        return self._splits

    def images(self) -> Iterator[SourceImage]:
        """A few rows at a time are in memory, and what Parquet holds of their row group."""
        for file in self._files:
            self._stop_check()
            labels = np.searchsorted(self._label_values, file.labels).tolist()
            for row, content in enumerate(_contents(file.path, self._columns.image)):
                where = f"row {row} of {file.name}"
                yield SourceImage(split=file.split, label=labels[row], where=where, content=content)


def _contents(path: Path, column: str) -> Iterator[bytes | None]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=[column]):
                yield from pc.struct_field(batch[column], "bytes").to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise _no_parquet(path, error) from error


def _read_labels(path: Path, name: str, split: GivenSplit, columns: ParquetColumns) -> _LabelledFile:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_columns(path, schema, columns)
            table = file.read(columns=[columns.label])
    except (OSError, pa.ArrowException) as error:
        raise _no_parquet(path, error) from error
    class_names = _named_classes(path, schema, columns.label)
    labels = _checked_labels(path, table[columns.label], class_names)
    return _LabelledFile(path=path, name=name, split=split, labels=labels, class_names=class_names)


def _no_parquet(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{path} cannot be read as Parquet ({error}); write the file again")


def _check_columns(path: Path, schema: pa.Schema, columns: ParquetColumns) -> None:
    missing = [name for name in (columns.image, columns.label) if name not in schema.names]
    if missing:
        raise DatasetError(
            f"{path} has no column {missing[0]!r}; "
            "name the columns of the images and labels as image_column and label_column"
        )
    image_type = schema.field(columns.image).type
    if not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise DatasetError(
            f"column {columns.image!r} of {path} is {image_type}, not a struct with the encoded image "
            "in 'bytes'; write it with the Image feature of `datasets`"
        )
    label_type = schema.field(columns.label).type
    if not pa.types.is_integer(label_type):
        raise DatasetError(
            f"column {columns.label!r} of {path} is {label_type}, not integers; "
            "number the classes from 0 and write their names as a ClassLabel feature"
        )


def _named_classes(path: Path, schema: pa.Schema, label_column: str) -> tuple[str, ...] | None:
    """The names in label order, or None where the file names no classes."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        feature = json.loads(text).get("info", {}).get("features", {}).get(label_column, {})
        names = feature.get("names")
    except (ValueError, AttributeError) as error:
        raise DatasetError(
            f"the schema metadata 'huggingface' of {path} is not the JSON that `datasets` writes; "
            "correct or remove it"
        ) from error
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None


def _checked_labels(
    path: Path, column: pa.ChunkedArray, class_names: tuple[str, ...] | None
) -> NDArray[np.int64]:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DatasetError(f"row {row} of {path} has no label; label the image or drop the row")
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    # Hugging Face marks unlabelled images with -1, so a negative label is never a class.
    beyond = len(class_names) if class_names else np.iinfo(np.int64).max
    outside = np.flatnonzero((labels < 0) | (labels >= beyond))
    if outside.size:
        allowed = f"0..{beyond - 1}, the named classes" if class_names else "0 or more"
        raise DatasetError(
            f"label {labels[outside[0]]} at row {outside[0]} of {path} is not in {allowed}; "
            "correct the label, name the class, or drop the row"
        )
    return labels


def _agreed_classes(files: Sequence[_LabelledFile]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(class names, the label value of each): as the files name them, else the sorted labels themselves."""
    named = [file for file in files if file.class_names]
    if not named:
        values = np.unique(np.concatenate([file.labels for file in files]))
        return tuple(str(value) for value in values), values
    names = named[0].class_names or ()
    for file in files:
        if file.class_names != names:
            raise DatasetError(
                f"{file.path} names the classes {file.class_names}, but {named[0].path} names them {names}; "
                "write all files with the same names"
            )
    return names, np.arange(len(names))
