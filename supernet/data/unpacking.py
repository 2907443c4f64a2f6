"""Archives unpacked safely: nothing outside the folder, no links, no more than the limits allow.

What counts is what is really written, never what an archive says of itself.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop

_CHUNK_BYTES = 1 << 20
_FREE_BYTES = 1 << 28
"""Left free on the disk, whatever is unpacked."""


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """How much an archive may become."""

    members: int = 2_000_000
    total_bytes: int = 64 * 2**30
    ratio: int = 200
    """Bytes unpacked for each byte of the archive; images are compressed already and stay below 2."""
    ratio_from_bytes: int = 1 << 28
    """Below this total the ratio is not looked at: a few blank pictures may well shrink a thousandfold."""


_COMPRESSIONS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_END_BYTES = 1024
_DAMAGED = (EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def unpack(
    archive: Path, folder: Path, limits: UnpackLimits | None = None, stop_check: StopCheck = never_stop
) -> None:
    """Writes the files of `archive` (zip, tar, tar.gz, tar.bz2, tar.xz) below `folder`, which is empty.

    `stop_check` is called for each member and each piece of one. What was written before an error stays.
    """
    target = _Target(archive, folder, limits or UnpackLimits(), stop_check)
    try:
        # By its first bytes: `is_zipfile` looks at the last, and takes a tar that ends in an npz for a zip.
        if _start_of(archive).startswith(_ZIP_STARTS):
            _unpack_zip(archive, target)
        else:
            _unpack_tar(archive, target)
    except _DAMAGED as error:
        raise DatasetError(
            f"{archive} cannot be read as zip, tar, tar.gz, tar.bz2 or tar.xz ({error}); pack it again"
        ) from error
    except NotImplementedError as error:
        raise DatasetError(
            f"{archive} is packed in a way that is not read here ({error}); use deflate"
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{archive} cannot be unpacked here ({error.strerror or error}); see that the file can be read, "
            "that the names in it are ordinary, and that the temporary folder has room"
        ) from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Target:
    """Where members go, and what they have come to so far."""

    def __init__(self, archive: Path, folder: Path, limits: UnpackLimits, stop_check: StopCheck) -> None:
        self.archive = archive
        self.limits = limits
        self.stop_check = stop_check
        self._folder = folder
        self._archive_bytes = archive.stat().st_size
        self._num_members = 0
        self._num_bytes = 0

    def _place(self, name: str) -> Path:
        """Where the member goes: below the folder, whatever its name says."""
        self.stop_check()
        self._num_members += 1
        if self._num_members > self.limits.members:
            raise self.refusal(
                f"holds more than {self.limits.members} members", "give fewer files, or Parquet"
            )
        path = PurePosixPath(name.replace("\\", "/"))
        is_drive = len(path.parts) > 0 and path.parts[0].endswith(":")
        if path.is_absolute() or ".." in path.parts or is_drive or "\x00" in name:
            raise self.refusal(
                f"holds a member named {name!r}, which does not stay in the archive's folder",
                "pack it again with plain relative names",
            )
        return self._folder.joinpath(*path.parts)

    def make_folder(self, name: str) -> None:
        """The member as a folder; an empty one may be a class without images, which is to be told."""
        path = self._place(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refusal(f"holds a folder and a file named {name!r}", "rename one of them") from error

    def write(self, name: str, content: _Readable) -> None:
        """The member's bytes, as a new file; `content` is a `_Metered` stream."""
        path = self._place(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while chunk := content.read(_CHUNK_BYTES):
                    file.write(chunk)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refusal(f"holds two members named {name!r}", "rename one of them") from error

    def count(self, num_bytes: int) -> None:
        """Add to what has been unpacked, and refuse past a limit."""
        before, self._num_bytes = self._num_bytes, self._num_bytes + num_bytes
        if self._num_bytes > self.limits.total_bytes:
            raise self.refusal(
                f"unpacks to more than {self.limits.total_bytes / 2**30:.0f} GiB",
                "give less, or smaller images",
            )
        is_swollen = self._num_bytes > self.limits.ratio * self._archive_bytes
        if is_swollen and self._num_bytes > self.limits.ratio_from_bytes:
            raise self.refusal(
                f"unpacks to more than {self.limits.ratio} times its size", "pack images, not blank space"
            )
        looks_again = before // _FREE_BYTES != self._num_bytes // _FREE_BYTES or before == 0
        if looks_again and shutil.disk_usage(self._folder).free < 2 * _FREE_BYTES:
            raise self.refusal("does not fit the temporary folder's disk", "free some space, or set TMPDIR")

    def refusal(self, reason: str, remedy: str) -> DatasetError:
        """The error that names the archive."""
        return DatasetError(f"{self.archive} {reason}; {remedy}")


def _unpack_zip(archive: Path, target: _Target) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                target.make_folder(member.filename)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _no_file(target, member.filename)
            elif member.flag_bits & 0x1:
                raise target.refusal(
                    f"is locked with a password (member {member.filename!r})", "pack it again without one"
                )
            else:
                with file.open(member) as content:
                    target.write(member.filename, _Metered(content, target))


def _unpack_tar(archive: Path, target: _Target) -> None:
    with archive.open("rb") as packed:
        start = _start_of(archive)
        opener = next((opener for magic, opener in _COMPRESSIONS if start.startswith(magic)), None)
        plain = opener(packed) if opener else packed
        metered = _Metered(plain, target)
        # As a stream: members come in the order of the archive, and nothing is read twice.
        with tarfile.open(fileobj=metered, mode="r|") as file:
            for member in file:
                if member.isdir():
                    target.make_folder(member.name)
                elif not member.isreg() or member.issparse():
                    raise _no_file(target, member.name)
                else:
                    content = file.extractfile(member)
                    assert content is not None  # it is for links and devices only
                    target.write(member.name, content)
        metered.check_end()


class _Metered:
    """A stream that counts what is read from it, and stops where the limits do.

    A tar is metered as a whole: its headers may swell as its files may.
    """

    def __init__(self, file: IO[bytes], target: _Target) -> None:
        self._file = file
        self._target = target
        self._last = b""

    def read(self, size: int) -> bytes:
        self._target.stop_check()
        content = self._file.read(size)
        self._target.count(len(content))
        self._last = (self._last + content[-_TAR_END_BYTES:])[-_TAR_END_BYTES:]
        return content

    def check_end(self) -> None:
        """Refuse a tar without the zeros at its end: cut between two members it would pass for whole."""
        while self.read(_CHUNK_BYTES):  # to the end, where compressions keep their check sum
            pass
        if self._last != bytes(_TAR_END_BYTES):
            raise EOFError("its end is missing")


def _start_of(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(8)


def _no_file(target: _Target, name: str) -> DatasetError:
    return target.refusal(
        f"holds {name!r}, which is no plain file but a link, a device or the like", "pack copies of the files"
    )
