"""Images in a packed file: unpacked for as long as the listing lives, then read as what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from nas.scratch import ScratchFolder
from supernet.data.folder import is_ignored
from supernet.data.huggingface import open_huggingface
from supernet.data.listing import ImageListing, SourceImage
from supernet.data.npz import is_npz, open_npz
from supernet.data.parquet import ParquetColumns
from supernet.data.unpacking import UnpackLimits, unpack


class ArchiveListing:
    """The images of an archive; its unpacked files are removed with this object, at the latest."""

    def __init__(self, archive: Path, files: ScratchFolder, listing: ImageListing) -> None:
        self.class_names = listing.class_names
        self.splits = listing.splits
        self._archive = archive
        self._files = files
        self._listing = listing

    def images(self) -> Iterator[SourceImage]:
        """Every image, in the order of what the archive holds."""
        with _told_as(self._archive, self._files.path):
            yield from self._listing.images()

    def close(self) -> None:
        """Remove the unpacked files now; nothing can be read any more."""
        self._files.remove()


def open_archive(
    archive: Path,
    columns: ParquetColumns,
    stop_check: StopCheck = never_stop,
    limits: UnpackLimits | None = None,
) -> ImageListing:
    """The images of a zip or tar whose content is class folders, a Hugging Face directory, or one npz file.

    Single folders that wrap everything are seen through. Nothing is left behind where this raises.
    """
    if not archive.is_file():
        raise DatasetError(f"{archive} is no file; give a zip, tar, tar.gz, tar.bz2 or tar.xz")
    if is_npz(archive):
        return open_npz(archive, stop_check)  # an npz is a zip itself, and may be sent as it is
    files = ScratchFolder()
    try:
        with _told_as(archive, files.path):
            unpack(archive, files.path, limits, stop_check)
            return ArchiveListing(archive, files, _open_content(files.path, columns, stop_check))
    except BaseException:
        files.remove()
        raise


def _open_content(folder: Path, columns: ParquetColumns, stop_check: StopCheck) -> ImageListing:
    children = _children(folder)
    if not children:
        raise DatasetError(f"{folder} is empty; pack class folders, Parquet files or one npz file")
    while len(children) == 1 and children[0].is_dir():
        folder = children[0]
        children = _children(folder)
    if len(children) == 1 and children[0].suffix.lower() == ".npz":
        return open_npz(children[0], stop_check)
    return open_huggingface(folder, columns, stop_check)


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name))


@contextmanager
def _told_as(archive: Path, folder: Path) -> Iterator[None]:
    """Refusals name the archive, not the temporary folder, which will be gone when they are read."""
    try:
        yield
    except DatasetError as error:
        if str(folder) not in str(error):
            raise
        raise DatasetError(str(error).replace(str(folder), str(archive))) from error
