"""The files of one checkpoint: tensors as safetensors, everything else as JSON, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from supernet.training.formats import FORMAT, StoredState, check_format, release, upgrade
from supernet.training.state import TrainingState

WEIGHTS_FILE = "weights.safetensors"
_OPTIMIZER_FILE = "optimizer.safetensors"
_STRATEGIES_FILE = "strategies.safetensors"
_STATE_FILE = "state.json"


def write_files(state: TrainingState, folder: Path) -> None:
    """Write the state into an empty folder, down to the disk."""
    plain, tensors = _split_tensors(state.strategies)
    contents = {
        WEIGHTS_FILE: tensors_to_bytes(_contiguous(state.weights)),
        _OPTIMIZER_FILE: tensors_to_bytes(_contiguous(state.optimizer)),
        _STRATEGIES_FILE: tensors_to_bytes(_contiguous(tensors)),
    }
    description = {
        "format": FORMAT,
        "release": release(),
        "step": state.step,
        "identity": dict(state.identity),
        "environment": dict(state.environment),
        "departures": list(state.departures),
        "strategies": plain,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents[_STATE_FILE] = json.dumps(description, indent=1).encode()
    for name, content in contents.items():
        write_synced(folder / name, content)
    sync(folder)


def read_files(path: Path) -> TrainingState:
    """The state that this release or an older one wrote; any error, where a file is not as it was written."""
    description = _read_description(path / _STATE_FILE)
    # Before anything else is read: of a newer format nothing else is known.
    check_format(description)
    tensors = {name: _read_tensors(path / name, sha256) for name, sha256 in description["sha256"].items()}
    state = upgrade(StoredState(description=description, tensors=tensors))
    return TrainingState(
        step=state.description["step"],
        identity=state.description["identity"],
        environment=state.description["environment"],
        weights=state.tensors[WEIGHTS_FILE],
        optimizer=state.tensors[_OPTIMIZER_FILE],
        strategies=_join_tensors(state.description["strategies"], state.tensors[_STRATEGIES_FILE]),
        departures=tuple(state.description.get("departures", ())),
    )


def _read_description(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error


def _read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"the bytes of {path.name} are not those that were written")
    return tensors_from_bytes(content)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors can write: on the CPU, dense, none sharing memory with another."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _split_tensors(
    strategies: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    plain: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    for strategy, state in strategies.items():
        plain[strategy] = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        tensors |= {f"{strategy}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    return plain, tensors


def _join_tensors(
    plain: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    joined = {strategy: dict(state) for strategy, state in plain.items()}
    for name, tensor in tensors.items():
        strategy, _, key = name.partition("/")
        joined[strategy][key] = tensor
    return joined


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Makes the folder's entries, names included, survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
