"""Where images lie on this machine: which kind of source it is, and packed into one file for the way."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nas.commands.exits import UsageError

BUNDLED = ("digits",)
KINDS = ("bundled", "folder", "parquet", "npz", "huggingface", "archive")

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_HUGGING_FACE = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
_IMAGEFOLDER_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

Source = dict[str, Any]


def source_of(given: str, kind: str | None) -> Source:
    """The request's `source` for a bundled name or a path here; `kind` overrides what is seen there.

    Paths are made absolute: the workers, who read them, start elsewhere.
    """
    if kind == "bundled" or (kind is None and given in BUNDLED):
        return {"kind": "bundled", "name": given}
    path = Path(given).expanduser()
    if kind is None:
        kind = _kind_of(path)
    # A path that is not here may lie on the service's machine: that is only known by its kind.
    return {"kind": kind, "path": str(path.absolute())}


def _kind_of(path: Path) -> str:
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.exists():
        raise UsageError(
            f"{path}: there is no such file or folder here, and no bundled data set of that name "
            f"({', '.join(BUNDLED)}); correct it, or give --kind if it lies on the service's machine"
        )
    name = path.name.lower()
    if name.endswith(_ARCHIVES):
        return "archive"
    for ending in ("parquet", "npz"):
        if name.endswith(f".{ending}"):
            return ending
    raise UsageError(
        f"{path}: its ending tells no kind of data set; allowed: .parquet, .npz, {', '.join(_ARCHIVES)}, "
        "or a folder; rename it, or give --kind"
    )


def _kind_of_folder(path: Path) -> str:
    names = {entry.name for entry in path.iterdir()}
    if names & {*_HUGGING_FACE, *_IMAGEFOLDER_TABLES} or any((path / "data").glob("*.parquet")):
        return "huggingface"
    if any(name.endswith(".parquet") for name in names):
        return "parquet"
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()):
        return "folder"
    raise UsageError(
        f"{path}: it holds neither folders of classes, nor Parquet files, nor what Hugging Face saves; "
        "put the images of each class in a folder of its own"
    )


@contextmanager
def packed(path: Path) -> Iterator[tuple[IO[bytes], str]]:
    """What lies at the path as one open archive, and its name; one made here is gone at the end."""
    if path.is_file() and path.name.lower().endswith(_ARCHIVES):
        with path.open("rb") as archived:
            yield archived, path.name
        return
    members = [path] if path.is_file() else sorted(filter(_is_packed, path.rglob("*")))
    if not any(member.is_file() for member in members):
        raise UsageError(f"{path}: there is no file in it to upload")
    with tempfile.TemporaryFile(prefix="nas-upload-") as file:
        # Images are compressed already.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            for member in members:
                archive.write(member, member.relative_to(path.parent if path.is_file() else path))
        file.seek(0)
        yield file, f"{path.absolute().name}.zip"


def _is_packed(path: Path) -> bool:
    """Files, and folders that are empty: an empty class is refused by name, not lost on the way."""
    return path.is_file() or (path.is_dir() and not path.is_symlink() and not any(path.iterdir()))
