"""The arrays of an npz file by their headers, read whole or row by row, and never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError

MAX_SMALL_BYTES = 1 << 30
"""Of labels and class names, which are read whole."""


@dataclass(frozen=True, kw_only=True)
class NpzArray:
    """One member of the file, by its header."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def array_headers(path: Path) -> dict[str, NpzArray]:
    """Every array of the file by its name, without its values; DatasetError where one is of no use."""
    with _opened(path) as file:
        names = [name.removesuffix(".npy") for name in file.namelist()]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DatasetError(f"{path} holds the array {twice[0]!r} more than once; write the file again")
        return {
            name: _header(path, file, member) for name, member in zip(names, file.namelist(), strict=True)
        }


def _header(path: Path, file: zipfile.ZipFile, member: str) -> NpzArray:
    name = member.removesuffix(".npy")
    with file.open(member) as stream:
        try:
            shape, is_fortran, dtype = _read_header(stream)
        except ValueError as error:
            raise DatasetError(
                f"array {name!r} of {path} has no readable header ({error}); write it again"
            ) from error
    if dtype.hasobject:
        raise DatasetError(
            f"array {name!r} of {path} holds Python objects, which would have to be unpickled; save plain "
            "numbers, and class names as `np.array(names, dtype=str)`"
        )
    if is_fortran:
        raise DatasetError(
            f"array {name!r} of {path} is stored column by column; save `np.ascontiguousarray({name})`"
        )
    declared = dtype.itemsize * int(np.prod(shape, dtype=object))
    if declared > file.getinfo(member).file_size:
        raise DatasetError(
            f"array {name!r} of {path} is cut off: {declared} bytes declared, fewer there; write the file "
            "again"
        )
    return NpzArray(name=name, shape=shape, dtype=dtype)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # the later ones are for headers past 64 KiB, which no array of numbers has
        raise ValueError(f"npy format {version}, not (1, 0)")
    return np.lib.format.read_array_header_1_0(stream)


def read_whole(path: Path, array: NpzArray) -> NDArray[Any]:
    """A small array, in memory."""
    num_bytes = array.dtype.itemsize * int(np.prod(array.shape, dtype=object))
    if num_bytes > MAX_SMALL_BYTES:
        raise DatasetError(
            f"array {array.name!r} of {path} has {num_bytes} bytes, more than {MAX_SMALL_BYTES}; save it "
            "smaller"
        )
    with _member(path, array.name) as stream:
        return np.frombuffer(_exactly(path, stream, num_bytes), dtype=array.dtype).reshape(array.shape)


def read_rows(path: Path, array: NpzArray) -> Iterator[NDArray[np.uint8]]:
    """One row of an array of bytes after the other; one at a time is in memory."""
    shape = array.shape[1:]
    num_bytes = int(np.prod(shape, dtype=object))
    with _member(path, array.name) as stream:
        for _ in range(array.shape[0]):
            yield np.frombuffer(_exactly(path, stream, num_bytes), dtype=np.uint8).reshape(shape)


@contextmanager
def _member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The array's bytes, from the first value on."""
    with _opened(path) as file:
        members = set(file.namelist())
        with file.open(f"{name}.npy" if f"{name}.npy" in members else name) as stream:
            _read_header(stream)
            yield stream


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        # RuntimeError is how zipfile tells of a password.
        raise DatasetError(
            f"{path} cannot be read as npz ({error}); write it with `np.savez` or `np.savez_compressed`"
        ) from error


def _exactly(path: Path, stream: IO[bytes], num_bytes: int) -> bytes:
    content = stream.read(num_bytes)
    if len(content) < num_bytes:
        raise DatasetError(f"{path} is cut off; write the file again")
    return content
