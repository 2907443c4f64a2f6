"""A folder as Hugging Face keeps image data sets, in any of its three ways.

Saved with `save_to_disk`; Parquet files, as a repository has them; or image files, in class folders or with
a table of labels (the "imagefolder" layout).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.folder import check_inside, is_ignored, open_folder
from supernet.data.given_splits import given_split, in_order
from supernet.data.listing import GivenSplit, ImageListing
from supernet.data.metadata import TABLE_NAMES, metadata_tables, open_metadata
from supernet.data.parquet import ParquetColumns, ParquetListing
from supernet.data.saved_dataset import is_saved, open_saved

_DEPTH = 2
"""Folders below the root in which Parquet is looked for: `data/…`, or `<configuration>/<split>/…`."""


def open_huggingface(root: Path, columns: ParquetColumns, stop_check: StopCheck = never_stop) -> ImageListing:
    """The images of `root`; `columns` are those of its tables, where it has tables."""
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder; give the folder of the data set, not a file in it")
    if is_saved(root):
        return open_saved(root, columns, stop_check)
    parquet = _parquet_files(root)
    if parquet:
        return ParquetListing(_splits_of(root, parquet), columns, root=root, stop_check=stop_check)
    tables = metadata_tables(root)
    if tables:
        return open_metadata(root, tables, columns.label, stop_check)
    return open_folder(root, stop_check)


def _parquet_files(root: Path) -> list[Path]:
    """The files in and a little below `root`, hidden ones and tables of labels left out."""
    found: list[Path] = []
    folders = [root]
    for _ in range(_DEPTH + 1):
        children = [
            path for folder in folders for path in sorted(folder.iterdir()) if not is_ignored(path.name)
        ]
        found += [path for path in children if path.suffix == ".parquet" and path.name not in TABLE_NAMES]
        folders = [path for path in children if path.is_dir() and not path.is_symlink()]
    return found


def _splits_of(root: Path, files: Sequence[Path]) -> dict[GivenSplit, list[Path]]:
    """The files of each split, by their names or their folders'.

    Such as `train-00000-of-00005.parquet` and `train/0000.parquet`. Files of other splits, such as `extra`,
    are not read. A single file is train whatever its name, as it is for kind 'parquet'.
    """
    found: dict[GivenSplit, list[Path]] = {}
    for path in files:
        check_inside(path, root)
        split = given_split(re.split(r"[-_.]", path.name)[0]) or given_split(path.parent.name)
        if split is not None:
            found.setdefault(split, []).append(path)
    if not found and len(files) == 1:
        found[GivenSplit.TRAIN] = list(files)
    if GivenSplit.TRAIN not in found:
        raise DatasetError(
            f"no Parquet file of {root} is named as train; name the files train, validation and test, or "
            "give them as kind 'parquet'"
        )
    places = {_configuration(path) for path in found[GivenSplit.TRAIN]}
    if len(places) > 1:
        raise DatasetError(
            f"train files lie in several folders of {root} ({', '.join(sorted(map(str, places)))}); give "
            "the path of one of them"
        )
    place = places.pop()
    own = {split: [path for path in paths if _configuration(path) == place] for split, paths in found.items()}
    return {split: own[split] for split in in_order({split for split, paths in own.items() if paths})}


def _configuration(path: Path) -> Path:
    """The folder that holds the splits: the file's own, or that above a folder named as a split."""
    return path.parent.parent if given_split(path.parent.name) else path.parent
