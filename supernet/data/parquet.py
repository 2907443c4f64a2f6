"""Images from Parquet files in the Hugging Face image layout.

The image column is a struct {bytes, path} with the encoded file in `bytes`; the label column holds
integers; class names stand in the schema metadata under `huggingface`, as `datasets` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decode import EncodedImage, decode_images, survey_images
from supernet.data.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class ParquetColumns:
    """The names of the two columns that are read."""

    image: str
    label: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _EncodedFile:
    path: Path
    images: list[EncodedImage]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None


def read_parquet(
    train_files: Sequence[Path],
    test_files: Sequence[Path],
    columns: ParquetColumns,
    stop_check: StopCheck = never_stop,
) -> tuple[ImageSet, ImageSet | None]:
    """The decoded (train, test) sets; test is None without test files.

    Both sets get one shape: a single channel where every image of both is greyscale (mode L), else
    RGB; the most common height and width over both, the larger area on a tie. An image of another
    size is resized to it (bicubic), its aspect ratio not kept. `stop_check` is called for each file and
    each image.
    """
    train = [_read_file(path, columns, stop_check) for path in train_files]
    test = [_read_file(path, columns, stop_check) for path in test_files]
    class_names, label_values = _agreed_classes([*train, *test])
    shape = survey_images(list(chain.from_iterable(file.images for file in [*train, *test])), stop_check)

    def decoded(files: list[_EncodedFile]) -> ImageSet:
        return ImageSet(
            images=decode_images(list(chain.from_iterable(file.images for file in files)), shape, stop_check),
            labels=np.searchsorted(label_values, np.concatenate([file.labels for file in files])),
            class_names=class_names,
        )

    return decoded(train), decoded(test) if test else None


def _read_file(path: Path, columns: ParquetColumns, stop_check: StopCheck) -> _EncodedFile:
    stop_check()
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow, columns)
            table = file.read(columns=[columns.image, columns.label])
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as Parquet ({error}); write the file again") from error
    encoded = pc.struct_field(table[columns.image], "bytes").to_pylist()
    class_names = _named_classes(path, table.schema, columns.label)
    return _EncodedFile(
        path=path,
        images=[EncodedImage(data=data, file=str(path), row=row) for row, data in enumerate(encoded)],
        labels=_checked_labels(path, table[columns.label], class_names),
        class_names=class_names,
    )


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


def _agreed_classes(files: Sequence[_EncodedFile]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
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
