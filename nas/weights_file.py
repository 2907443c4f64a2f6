"""What a file of weights says of itself: a supernet's own file, or the bundle of one of its networks.

Read without torch: safetensors begin with a JSON header, and a bundle has its card. Whoever reads the
tensors after that checks their shapes against the space.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from nas.errors import InvalidRequestError

FORMAT = 1
"""Of the description in a supernet's file; see docs/formats.md."""
CARD_SCHEMA = 1
"""Of the card in a bundle; raised whenever a reader of an older card would misread a new one."""
CARD, NETWORK = "card.json", "model.safetensors"
SUPERNET_FILE = "supernet.safetensors"

_KEY = "supernet"
"""One member, for a header with several has them in any order, and equal weights would be other bytes."""
_MAX_HEADER_BYTES = 20 * 2**20
_MAX_CARD_BYTES = 20 * 2**20
_MAX_DIRECTORY_BYTES = 64 * 2**10
_END_OF_ZIP_BYTES = 22 + 2**16 - 1
_REMEDY = "send supernet.safetensors or bundle.zip as they were downloaded"


class WeightsFileError(InvalidRequestError):
    """A file that holds no weights to start from, or damaged ones."""


@dataclass(frozen=True, kw_only=True)
class WeightsDescription:
    """What weights are of."""

    search_space: str
    space_fingerprint: str | None
    """None where the file does not tell: a bundle's network is checked layer by layer."""
    in_channels: int
    class_names: tuple[str, ...]
    kernel_transform: bool
    data_fingerprint: str
    """SHA-256 of the images that trained them."""
    recipe: str
    """Its name."""
    architecture: Mapping[str, Any] | None = None
    """Of a bundle's network; None for a whole supernet."""

    @property
    def num_classes(self) -> int:
        """How many classes are told apart."""
        return len(self.class_names)

    def to_metadata(self) -> dict[str, str]:
        """For the header of a supernet's file; the same for the same weights."""
        content = {
            "format": FORMAT,
            "search_space": self.search_space,
            "space_fingerprint": self.space_fingerprint,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "kernel_transform": self.kernel_transform,
            "class_names": list(self.class_names),
            "data_fingerprint": self.data_fingerprint,
            "recipe": self.recipe,
        }
        return {_KEY: json.dumps(content, ensure_ascii=False, sort_keys=True)}


def describe_weights(file: IO[bytes]) -> WeightsDescription:
    """What the supernet's file or the bundle's zip is of; WeightsFileError where it is neither, or damaged.

    Of a file of any size no more is read than its header or its card.
    """
    file.seek(0)
    if file.read(4).startswith(b"PK"):
        return _describe_bundle(file)
    return _describe_supernet(_read_header(file))


def read_network(file: IO[bytes], *, max_bytes: int) -> bytes:
    """The model.safetensors of a bundle that was described, its bytes those that the card names."""
    with _open_bundle(file) as bundle:
        expected = _card_of(bundle)["files"][NETWORK]["sha256"]
        content = _read_member(bundle, NETWORK, max_bytes)
    if hashlib.sha256(content).hexdigest() != expected:
        raise WeightsFileError(f"the bytes of {NETWORK} are not those that {CARD} names; {_REMEDY}")
    return content


# A supernet's file


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    size_bytes = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size_bytes < 8 or not 2 <= length <= min(_MAX_HEADER_BYTES, size_bytes - 8):
        raise WeightsFileError(f"the file is neither safetensors nor a zip; {_REMEDY}")
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        num_bytes = max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise WeightsFileError(f"the file is neither safetensors nor a zip; {_REMEDY}") from error
    if size_bytes != 8 + length + num_bytes:
        raise WeightsFileError(
            f"the file has {size_bytes} bytes, its header promises {8 + length + num_bytes}: it is cut or "
            f"damaged; {_REMEDY}"
        )
    return dict(header)


def _describe_supernet(header: Mapping[str, Any]) -> WeightsDescription:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or _KEY not in metadata:
        raise WeightsFileError(
            "the file does not say which supernet its weights are of, as this release's supernet.safetensors "
            "does; name the supernet itself by warm_start.supernet_id, or send a file that says it"
        )
    try:
        content = json.loads(metadata[_KEY])
        _check_version("supernet.safetensors", "format", content["format"], FORMAT)
        return WeightsDescription(
            search_space=_text(content["search_space"]),
            space_fingerprint=_text(content["space_fingerprint"]),
            in_channels=_count(content["in_channels"]),
            class_names=_names(content["class_names"]),
            kernel_transform=_flag(content["kernel_transform"]),
            data_fingerprint=_text(content["data_fingerprint"]),
            recipe=_text(content["recipe"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged("the description in the file's header", error) from error


# A bundle


def _describe_bundle(file: IO[bytes]) -> WeightsDescription:
    with _open_bundle(file) as bundle:
        if NETWORK not in bundle.namelist():
            raise WeightsFileError(f"the zip holds no {NETWORK}; {_REMEDY}")
        card = _card_of(bundle)
    try:
        architecture = card["architecture"]
        decisions = dict(architecture["decisions"])
        provenance = card["provenance"]
        _text(card["files"][NETWORK]["sha256"])
        return WeightsDescription(
            search_space=_text(architecture["space"]),
            space_fingerprint=None,
            in_channels=_count(card["input"]["channels"]),
            class_names=_names(card["output"]["class_names"]),
            # Its kernels are the finished ones, whatever made them.
            kernel_transform=False,
            data_fingerprint=_text(provenance["data"]["fingerprint_sha256"]),
            recipe=_text(provenance["recipe"]["name"]),
            architecture=decisions,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(CARD, error) from error


def _open_bundle(file: IO[bytes]) -> zipfile.ZipFile:
    _check_directory(file)
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise WeightsFileError(f"the zip is damaged ({error}); {_REMEDY}") from error


def _check_directory(file: IO[bytes]) -> None:
    """Before zipfile reads all of it: the directory of a hostile zip may be as large as the file."""
    size_bytes = file.seek(0, 2)
    file.seek(max(0, size_bytes - _END_OF_ZIP_BYTES))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise WeightsFileError(f"the zip is cut; {_REMEDY}")
    if int.from_bytes(tail[end + 12 : end + 16], "little") > _MAX_DIRECTORY_BYTES:
        raise WeightsFileError(f"the zip holds more than the files of a bundle; {_REMEDY}")


def _card_of(bundle: zipfile.ZipFile) -> dict[str, Any]:
    if CARD not in bundle.namelist():
        raise WeightsFileError(f"the zip holds no {CARD}; {_REMEDY}")
    try:
        card = json.loads(_read_member(bundle, CARD, _MAX_CARD_BYTES))
        _check_version(CARD, "schema", card["schema"], CARD_SCHEMA)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(CARD, error) from error
    return dict(card)


def _read_member(bundle: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member of at most `limit` bytes, whatever the zip says of its size."""
    try:
        if bundle.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile("compressed in a way that no bundle is")
        with bundle.open(name) as member:
            content = member.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise WeightsFileError(f"{name} in the zip is damaged ({error}); {_REMEDY}") from error
    if len(content) > limit:
        raise WeightsFileError(f"{name} in the zip is larger than the {limit} bytes it may have; {_REMEDY}")
    return content


# Values


def _check_version(file: str, noun: str, stated: Any, known: int) -> None:
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        raise ValueError(f"{noun} {stated!r} is none that a release has written")
    if stated > known:
        raise WeightsFileError(
            f"{file} has {noun} {stated}, written by a newer release; this release reads {noun}s up to "
            f"{known}; use the release that wrote it"
        )


def _damaged(what: str, error: Exception) -> WeightsFileError:
    if isinstance(error, WeightsFileError):
        return error
    reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return WeightsFileError(f"{what} cannot be read ({reason}); {_REMEDY}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no count")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError(f"{value!r} is no list of class names")
    return tuple(_text(name) for name in value)
