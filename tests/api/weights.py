"""Files of weights as a worker publishes them, small and without torch."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from nas.weights_file import WeightsDescription
from search_spaces import SPACES

SPACE = SPACES["micro_8"]
TENSORS = {"slots.stem.bn.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}


def description(**fields: Any) -> WeightsDescription:
    """Of a supernet for the digits."""
    standard = {
        "search_space": SPACE.name,
        "space_fingerprint": SPACE.fingerprint,
        "in_channels": 1,
        "class_names": tuple("0123456789"),
        "kernel_transform": False,
        "data_fingerprint": "f" * 64,
        "recipe": "bignas",
    }
    return WeightsDescription(**{**standard, **fields})


def supernet_file(metadata: dict[str, str] | None = None, **fields: Any) -> bytes:
    """A supernet's file; `fields` replace what it says of itself, `metadata` all of it."""
    told = description(**fields).to_metadata() if metadata is None else metadata
    header = json.dumps({"__metadata__": told, **TENSORS}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def with_content(**changes: Any) -> bytes:
    """A supernet's file whose description says something else; None leaves a member out."""
    content = json.loads(description().to_metadata()["supernet"]) | changes
    told = {name: value for name, value in content.items() if value is not None}
    return supernet_file({"supernet": json.dumps(told)})


def card(**changes: Any) -> dict[str, Any]:
    """Of the smallest network."""
    return {
        "schema": 1,
        "architecture": {"space": SPACE.name, "decisions": SPACE.smallest().to_json()},
        "input": {"channels": 1},
        "output": {"class_names": list("0123456789")},
        "provenance": {"data": {"fingerprint_sha256": "f" * 64}, "recipe": {"name": "bignas"}},
        "files": {"model.safetensors": {"sha256": "0" * 64, "size_bytes": 3}},
        **changes,
    }


def bundle_file(files: dict[str, bytes | dict[str, Any]] | None = None) -> bytes:
    """A bundle's zip."""
    found = files if files is not None else {"card.json": card(), "model.safetensors": b"abc"}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in found.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return stream.getvalue()
