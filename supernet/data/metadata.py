"""Image files whose classes stand in a table beside them: metadata.csv, .jsonl or .parquet.

The table has a column `file_name`, relative to its own folder, and one with the labels; one table for all
images, or one in each of the folders train, val and test.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.folder import FolderListing, check_inside, pictures_below
from supernet.data.given_splits import given_split, in_order
from supernet.data.listing import GivenSplit

TABLE_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"
MAX_TABLE_BYTES = 1 << 28


def metadata_tables(root: Path) -> dict[GivenSplit, Path]:
    """The table of each split, that of all images as train; none where there is none."""
    whole = _table_in(root)
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and given_split(path.name)]
    parts = {given_split(path.name): _table_in(path) for path in folders}
    found = {split: table for split, table in parts.items() if split and table}
    if whole and found:
        raise DatasetError(
            f"{whole} and {next(iter(found.values()))} both list images; keep one table for all, or one in "
            "each of the folders train, val and test"
        )
    if found and len(found) < len(parts):
        raise DatasetError(
            f"{root} holds the folders {', '.join(path.name for path in folders)}, of which only "
            f"{', '.join(found)} have a table of labels; add the others"
        )
    return {GivenSplit.TRAIN: whole} if whole else found


def open_metadata(
    root: Path, tables: dict[GivenSplit, Path], label_column: str, stop_check: StopCheck = never_stop
) -> FolderListing:
    """The images that `tables` list, in the order of their rows.

    Class names are the labels as written, sorted; where all are whole numbers, sorted as numbers. In one
    table for all images the first folder of a file's name gives its split, if every file has one that does.
    """
    if GivenSplit.TRAIN not in tables:
        raise DatasetError(f"{root} has tables of labels for {', '.join(tables)} but none for train; add it")
    rows: list[tuple[GivenSplit, str, Path]] = []
    for split, path in tables.items():
        stop_check()
        own = [(label, _image_path(root, path, name)) for name, label in _rows(path, label_column)]
        _check_complete(path, {image for _, image in own}, stop_check)
        rows += [(split, label, image) for label, image in own]
    names = _class_names({label for _, label, _ in rows})
    places = {name: place for place, name in enumerate(names)}
    rows = _with_splits_of_folders(root, rows) if list(tables.values()) == [_table_in(root)] else rows
    splits = in_order({split for split, _, _ in rows})
    return FolderListing(
        root=root,
        class_names=names,
        splits=splits,
        files=tuple((split, places[label], image) for split, label, image in rows),
    )


def _table_in(folder: Path) -> Path | None:
    found = [folder / name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise DatasetError(f"{folder} holds {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _rows(path: Path, label_column: str) -> Iterator[tuple[str, str]]:
    """(file name, label) of each row."""
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DatasetError(
            f"{path} has more than {MAX_TABLE_BYTES >> 20} MiB; give Parquet with the images in it"
        )
    readers = {".csv": _csv_records, ".jsonl": _jsonl_records, ".parquet": _parquet_records}
    try:
        records = list(readers[path.suffix](path))
    except (ValueError, csv.Error, pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); write it again, as UTF-8") from error
    for number, record in enumerate(records):
        missing = [name for name in (FILE_COLUMN, label_column) if record.get(name) in (None, "")]
        if missing:
            columns = ", ".join(str(name) for name in record)
            raise DatasetError(
                f"row {number} of {path} has no {missing[0]!r} (its columns are {columns}); fill it in, or "
                "name the column of the labels as label_column"
            )
        yield str(record[FILE_COLUMN]), str(record[label_column])


def _csv_records(path: Path) -> Iterator[dict[str, object]]:
    yield from csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)


def _jsonl_records(path: Path) -> Iterator[dict[str, object]]:
    for line in path.read_text("utf-8-sig").splitlines():
        record = json.loads(line) if line.strip() else None
        if record is not None and not isinstance(record, dict):
            raise ValueError(f"{line[:40]!r} is no JSON object")
        if record is not None:
            yield record


def _parquet_records(path: Path) -> Iterator[dict[str, object]]:
    yield from pq.read_table(path).to_pylist()


def _image_path(root: Path, table: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or "\x00" in name:
        raise DatasetError(f"{table} names the file {name!r}; name files below its own folder, without '..'")
    path = table.parent
    for part in relative.parts:
        path = path / part
        check_inside(path, root)
    return path


def _check_complete(table: Path, listed: set[Path], stop_check: StopCheck) -> None:
    unlisted = [path for path in pictures_below(table.parent, stop_check) if path not in listed]
    if unlisted:
        raise DatasetError(
            f"{len(unlisted)} images have no row in {table}, the first is {unlisted[0]}; add their rows or "
            "remove them"
        )


def _class_names(labels: set[str]) -> tuple[str, ...]:
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _with_splits_of_folders(
    root: Path, rows: list[tuple[GivenSplit, str, Path]]
) -> list[tuple[GivenSplit, str, Path]]:
    splits = [given_split(image.relative_to(root).parts[0]) for _, _, image in rows]
    known = [split for split in splits if split is not None]
    if len(known) < len(rows) or GivenSplit.TRAIN not in known:
        return rows
    return [(split, label, image) for split, (_, label, image) in zip(known, rows, strict=True)]
