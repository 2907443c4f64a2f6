"""What `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write: Arrow streams and a few JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.folder import check_inside
from supernet.data.given_splits import given_split, in_order
from supernet.data.listing import GivenSplit, SourceImage
from supernet.data.parquet import ParquetColumns

STATE = "state.json"
INFO = "dataset_info.json"
SPLITS = "dataset_dict.json"
_MAX_JSON_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class _SavedSplit:
    """One saved `Dataset`."""

    split: GivenSplit
    files: tuple[Path, ...]
    image_column: str
    labels: NDArray[np.int64] = field(repr=False)
    class_names: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedListing:
    """The rows of saved data sets; the files are mapped, and one row at a time is copied out of them."""

    root: Path
    class_names: tuple[str, ...]
    splits: tuple[GivenSplit, ...]
    parts: tuple[_SavedSplit, ...] = field(repr=False)
    label_values: NDArray[np.int64] = field(repr=False)

    def images(self) -> Iterator[SourceImage]:
        """Every image, split after split, in the order of the rows."""
        for part in self.parts:
            labels = iter(np.searchsorted(self.label_values, part.labels).tolist())
            for path in part.files:
                where = path.relative_to(self.root).as_posix()
                for row, content in enumerate(_contents(path, part.image_column)):
                    yield SourceImage(
                        split=part.split, label=next(labels), where=f"row {row} of {where}", content=content
                    )


def is_saved(root: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (root / SPLITS).is_file() or (root / STATE).is_file()


def open_saved(root: Path, columns: ParquetColumns, stop_check: StopCheck = never_stop) -> SavedListing:
    """The images of a saved data set; parts of it that are none of train, validation, test are not read."""
    folders = _split_folders(root)
    parts = [
        _read_split(root, split, folders[split], columns, stop_check) for split in in_order(set(folders))
    ]
    class_names, values = _agreed_classes(root, parts)
    return SavedListing(
        root=root,
        class_names=class_names,
        splits=tuple(part.split for part in parts),
        parts=tuple(parts),
        label_values=values,
    )


def _split_folders(root: Path) -> dict[GivenSplit, Path]:
    if not (root / SPLITS).is_file():
        return {GivenSplit.TRAIN: root}
    names = _json(root / SPLITS).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{root / SPLITS} has no list 'splits'; save the data set again")
    folders = {split: root / name for name in names if (split := given_split(name)) is not None}
    if GivenSplit.TRAIN not in folders:
        raise DatasetError(
            f"the data set saved in {root} has the parts {', '.join(names) or '(none)'} but no 'train'; "
            "give the path of one part, or name the parts train, validation and test"
        )
    return folders


def _read_split(
    root: Path, split: GivenSplit, folder: Path, columns: ParquetColumns, stop_check: StopCheck
) -> _SavedSplit:
    features = _json(folder / INFO).get("features")
    features = features if isinstance(features, dict) else {}
    image_column = chosen_column(folder, features, columns.image, "Image", "image_column")
    label_column = chosen_column(folder, features, columns.label, "ClassLabel", "label_column")
    files = _data_files(root, folder)
    names = features[label_column].get("names") if isinstance(features[label_column], dict) else None
    class_names = tuple(str(name) for name in names) if isinstance(names, list) and names else None
    labels = [_labels(path, label_column, image_column, class_names, stop_check) for path in files]
    return _SavedSplit(
        split=split,
        files=files,
        image_column=image_column,
        labels=np.concatenate([np.empty(0, dtype=np.int64), *labels]),
        class_names=class_names,
    )


def chosen_column(folder: Path, features: dict[str, Any], wanted: str, kind: str, field_name: str) -> str:
    """`wanted` where there is such a column, else the only column that is a `kind` feature."""
    if wanted in features:
        return wanted
    alike = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == kind
    ]
    if len(alike) == 1:
        return alike[0]
    raise DatasetError(
        f"{folder} has no column {wanted!r}, and not one only of type {kind}, among its columns "
        f"{', '.join(features) or '(none)'}; name it as {field_name}"
    )


def _data_files(root: Path, folder: Path) -> tuple[Path, ...]:
    state = _json(folder / STATE)
    if state.get("_indices_data_files"):
        raise DatasetError(f"{folder} picks rows by an index file; save `dataset.flatten_indices()`")
    try:
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{folder / STATE} names no data files; save the data set again") from error
    files = tuple(folder / name for name in names)
    for name, path in zip(names, files, strict=True):
        if Path(name).name != name or not path.is_file():
            raise DatasetError(
                f"{folder / STATE} names {name!r}, which is no file beside it; save the data set again"
            )
        check_inside(path, root)
    return files


def _labels(
    path: Path,
    label_column: str,
    image_column: str,
    class_names: tuple[str, ...] | None,
    stop_check: StopCheck,
) -> NDArray[np.int64]:
    with _opened(path) as reader:
        _check_columns(path, reader.schema, image_column, label_column)
        columns: list[NDArray[np.int64]] = []
        for batch in reader:
            stop_check()
            column = batch.column(label_column)
            if column.null_count:
                row = sum(len(part) for part in columns) + column.is_null().to_pylist().index(True)
                raise DatasetError(f"row {row} of {path} has no label; label the image or drop the row")
            columns.append(column.to_numpy(zero_copy_only=False).astype(np.int64))
    labels: NDArray[np.int64] = np.concatenate([np.empty(0, dtype=np.int64), *columns])
    beyond = len(class_names) if class_names else np.iinfo(np.int64).max
    outside = np.flatnonzero((labels < 0) | (labels >= beyond))
    if outside.size:
        allowed = f"0..{beyond - 1}, the named classes" if class_names else "0 or more"
        raise DatasetError(
            f"label {labels[outside[0]]} at row {outside[0]} of {path} is not in {allowed}; "
            "correct the label, name the class, or drop the row"
        )
    return labels


def _agreed_classes(root: Path, parts: list[_SavedSplit]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(class names, the label value of each): as the parts name them, else the sorted labels themselves."""
    named = {part.class_names for part in parts}
    if len(named) > 1:
        raise DatasetError(
            f"the parts of the data set saved in {root} name the classes differently; cast them to the same "
            "features"
        )
    names = named.pop()
    if names is None:
        values = np.unique(np.concatenate([part.labels for part in parts]))
        return tuple(str(value) for value in values), values
    return names, np.arange(len(names))


def _check_columns(path: Path, schema: pa.Schema, image_column: str, label_column: str) -> None:
    missing = [name for name in (image_column, label_column) if name not in schema.names]
    if missing:
        raise DatasetError(
            f"{path} has no column {missing[0]!r}, which its {INFO} names; save the data set again"
        )
    image_type, label_type = schema.field(image_column).type, schema.field(label_column).type
    if not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise DatasetError(
            f"column {image_column!r} of {path} is {image_type}, not encoded images; cast it to the Image "
            "feature of `datasets`"
        )
    if not pa.types.is_integer(label_type):
        raise DatasetError(
            f"column {label_column!r} of {path} is {label_type}, not integers; turn it into classes with "
            f"`dataset.class_encode_column({label_column!r})`"
        )


def _contents(path: Path, image_column: str) -> Iterator[bytes | None]:
    with _opened(path) as reader:
        for batch in reader:
            images = batch.column(image_column)
            # Value by value: a batch as Python bytes would be a second copy of it in memory.
            for image in images:
                yield image["bytes"].as_py() if image.is_valid else None


@contextmanager
def _opened(path: Path) -> Iterator[pa.RecordBatchStreamReader]:
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            yield reader
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"{path} cannot be read as an Arrow stream ({error}); save the data set again"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"more than {_MAX_JSON_BYTES >> 20} MiB")
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON ({error}); save the data set again") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path} is no JSON object; save the data set again")
    return value
