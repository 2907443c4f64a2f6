"""Images in folders named as their classes, with or without folders train, val and test above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decode import MAX_FILE_BYTES
from supernet.data.given_splits import given_split, in_order
from supernet.data.listing import GivenSplit, SourceImage

READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff")
"""Of the formats that are decoded. What is in a file decides, not its suffix."""
UNREAD_SUFFIXES = (
    *(
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".ico",
        ".tga",
        ".psd",
        ".svg",
        ".dng",
        ".cr2",
        ".nef",
        ".arw",
    ),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dcm"),
)
"""Pictures all the same: they are listed, and told as unreadable, rather than left out unsaid."""
SUFFIXES = frozenset({*READ_SUFFIXES, *UNREAD_SUFFIXES})


def is_ignored(name: str) -> bool:
    """Whether a file or folder is the file system's or a tool's, not the user's."""
    return name.startswith((".", "__MACOSX")) or name.lower() in ("thumbs.db", "desktop.ini")


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """The image files below a folder; they are read one at a time."""

    root: Path
    class_names: tuple[str, ...]
    splits: tuple[GivenSplit, ...]
    files: tuple[tuple[GivenSplit, int, Path], ...] = field(repr=False)
    """(split, label, file), by split, class and path."""

    def images(self) -> Iterator[SourceImage]:
        """Every image, in the order of `files`."""
        for split, label, path in self.files:
            where = _shown(path.relative_to(self.root))
            yield SourceImage(split=split, label=label, where=where, content=read_image_file(path))


def open_folder(root: Path, stop_check: StopCheck = never_stop) -> FolderListing:
    """The images of `root`; class names are the folders' names, sorted by code point.

    Class folders may hold folders of their own. Files that are no pictures by their names, and hidden files,
    are ignored; links that lead out of `root` are refused. `stop_check` is called for each folder.
    """
    _check_folder(root)
    parts = _split_folders(root)
    scan = _Scan(root, stop_check)
    found = {split: scan.classes_of(folder) for split, folder in parts.items()}
    names = tuple(sorted(found[GivenSplit.TRAIN]))
    _check_names(root, names)
    for split, classes in found.items():
        _check_known(parts[split], sorted(classes), names)
    return FolderListing(
        root=root,
        class_names=names,
        splits=in_order(set(found)),
        files=tuple(
            (split, label, path)
            for split in in_order(set(found))
            for label, name in enumerate(names)
            for path in found[split].get(name, ())
        ),
    )


def pictures_below(root: Path, stop_check: StopCheck = never_stop) -> list[Path]:
    """Every image file in and below `root`, sorted."""
    return _Scan(root, stop_check).walk(root)[0]


def read_image_file(path: Path) -> bytes | None:
    """The file's bytes; None where it is a link to nothing.

    Past `MAX_FILE_BYTES` one byte more is read, by which `decode` knows it as too large.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(
            f"{_shown(path)} cannot be read ({error.strerror}); let the worker's user read it, or remove it"
        ) from error


def check_inside(path: Path, root: Path) -> None:
    """Refuses a link below `root` that leads out of it.

    A snapshot in the Hugging Face cache links to the files beside it, and may.
    """
    if not path.is_symlink():
        return
    real, home = path.resolve(), root.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not real.is_relative_to(home) and not real.is_relative_to(blobs):
        raise DatasetError(
            f"{_shown(path)} is a link that leads out of the folder {_shown(root)}; put a copy of what it "
            "leads to in its place, or remove it"
        )


class _Scan:
    """Walks class folders, never past the root."""

    def __init__(self, root: Path, stop_check: StopCheck) -> None:
        self._root = root
        self._stop_check = stop_check

    def classes_of(self, folder: Path) -> dict[str, list[Path]]:
        """The image files of each class folder in `folder`, sorted."""
        if folder != self._root:
            check_inside(folder, self._root)
        loose = [path for path in _children(folder) if not path.is_dir() and _is_picture(path)]
        if loose:
            raise DatasetError(
                f"the image {_shown(loose[0])} lies beside the class folders, so it has no class; move each "
                f"of the {len(loose)} such images into the folder of its class, or remove them"
            )
        return {path.name: self._images_of(path) for path in _children(folder) if path.is_dir()}

    def _images_of(self, class_folder: Path) -> list[Path]:
        images, num_ignored = self.walk(class_folder)
        if not images:
            ignored = f" (the {num_ignored} other files in it are ignored)" if num_ignored else ""
            raise DatasetError(
                f"class folder {_shown(class_folder)} holds no images{ignored}; put images into it, named "
                f"as one of {', '.join(READ_SUFFIXES)}, or remove the folder"
            )
        return images

    def walk(self, top: Path) -> tuple[list[Path], int]:
        """(the image files in and below `top`, sorted; how many other files are there)."""
        images: list[Path] = []
        num_ignored = 0
        waiting: list[tuple[Path, tuple[Path, ...]]] = [(top, ())]
        while waiting:
            self._stop_check()
            folder, above = waiting.pop()
            check_inside(folder, self._root)
            real = folder.resolve()
            if real in above:
                raise DatasetError(f"the link {_shown(folder)} leads into a folder that holds it; remove it")
            for path in _children(folder):
                if path.is_dir():
                    waiting.append((path, (*above, real)))
                elif _is_picture(path):
                    check_inside(path, self._root)
                    images.append(path)
                else:
                    num_ignored += 1
        return sorted(images), num_ignored


def _split_folders(root: Path) -> dict[GivenSplit, Path]:
    """The folder of each given split; `root` itself as train where none is given."""
    folders = [path for path in _children(root) if path.is_dir()]
    splits: dict[GivenSplit, Path] = {}
    for folder in folders:
        split = given_split(folder.name)
        if split is not None and split in splits:
            raise DatasetError(
                f"the folders {splits[split].name!r} and {folder.name!r} of {_shown(root)} both name the "
                f"split {split.value!r}; keep one of them"
            )
        if split is not None:
            splits[split] = folder
    if not splits or not any(_holds_folders(folder) for folder in splits.values()):
        return {GivenSplit.TRAIN: root}  # a class may well be called "train", as opposed to "bus"
    others = [folder.name for folder in folders if given_split(folder.name) is None]
    if GivenSplit.TRAIN not in splits or others:
        raise DatasetError(
            f"{_shown(root)} holds the folders {', '.join(folder.name for folder in folders)}: give train, "
            "val and test, of which val and test may be missing, or class folders alone; move or rename "
            "the rest"
        )
    return splits


def _holds_folders(folder: Path) -> bool:
    """Whether class folders lie in it, and no images beside them."""
    children = _children(folder)
    return any(path.is_dir() for path in children) and not any(
        _is_picture(path) for path in children if not path.is_dir()
    )


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(
            f"{_shown(root)} is no folder; give the folder that holds the class folders, or name the kind of "
            "the file: parquet, npz or archive"
        )
    if not any(path.is_dir() for path in _children(root)):
        raise DatasetError(
            f"{_shown(root)} holds no class folders; put the images of each class into a folder of its own, "
            "named as the class"
        )


def _check_names(root: Path, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DatasetError(
            f"{_shown(root)} holds one class folder only, {', '.join(names)!r}: there is nothing to tell "
            "apart; add a class, or give the path of that folder if the class folders lie in it"
        )
    for name in names:
        if _shown(Path(name)) != name:
            raise DatasetError(f"the class folder {name!r} of {_shown(root)} has no name in UTF-8; rename it")


def _check_known(folder: Path, names: list[str], known: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DatasetError(
            f"{_shown(folder)} holds the class folders {', '.join(unknown)}, which are not among those of "
            f"train ({', '.join(known)}); rename them, or add them to train"
        )


def _children(folder: Path) -> list[Path]:
    """What is in `folder` and not ignored, sorted by name."""
    try:
        return sorted(path for path in folder.iterdir() if not is_ignored(path.name))
    except OSError as error:
        raise DatasetError(
            f"the folder {_shown(folder)} cannot be read ({error.strerror}); let the worker's user read it"
        ) from error


def _is_picture(path: Path) -> bool:
    # A pipe or a device would never end; a link to nothing is a picture that is missing.
    return path.suffix.lower() in SUFFIXES and (path.is_file() or not path.exists())


def _shown(path: Path) -> str:
    """The path for messages; bytes that are no UTF-8 would break every store they reach."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")
