"""Checkpoints: a training state as a folder of safetensors and JSON, whole or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from supernet.training.formats import (
    FORMAT,
    CheckpointError,
    NewerFormatError,
    StoredState,
    check_format,
    release,
    upgrade,
)
from supernet.training.state import TrainingState

WEIGHTS_FILE = "weights.safetensors"
_OPTIMIZER_FILE = "optimizer.safetensors"
_STRATEGIES_FILE = "strategies.safetensors"
_STATE_FILE = "state.json"
_PREFIX = "step-"


def save_checkpoint(state: TrainingState, folder: Path, *, keep: int = 2) -> Path:
    """Writes `folder/step-<number>`, prunes all but the newest `keep`, and returns the new path.

    Written under another name and renamed once on disk, and renamed before it is deleted: whatever bears
    the name is complete. Processes that write to one folder take turns. CheckpointError where it cannot be
    written, on a full disk say: then the checkpoints before it are as they were.
    """
    try:
        return _save(state, folder, keep)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint of step {state.step} could not be written to {folder} ({_reason(error)}); make "
            f"room there, then go on from {_last_words(folder)}"
        ) from error


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the most steps, or None where there is none."""
    return next(reversed(checkpoints(folder)), None)


def checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint in the folder, oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*"))


def newest_readable(folder: Path) -> Path | None:
    """The newest checkpoint that can be read, or None; the only one there is is not looked into.

    One of a newer release counts: it is not for this one to call it damaged.
    """
    found = checkpoints(folder)
    while len(found) > 1:
        try:
            load_checkpoint(found[-1])
        except NewerFormatError:
            break
        except CheckpointError:
            found.pop()
        else:
            break
    return found[-1] if found else None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden_name(path)
    try:
        _write_synced(temporary, content)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def load_checkpoint(path: Path) -> TrainingState:
    """The state that `save_checkpoint` wrote, in this release or an older one.

    CheckpointError where it is damaged; NewerFormatError where a newer release wrote it.
    """
    try:
        return _read_files(path)
    except NewerFormatError as error:
        raise NewerFormatError(f"{path} is no checkpoint for this release: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} holds no readable checkpoint ({_reason(error)}); "
            "delete it to go on from the one before it"
        ) from error


def _save(state: TrainingState, folder: Path, keep: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_writer(folder):
        _delete_litter(folder)
        try:
            return _write_then_rename(state, folder, keep)
        finally:
            _delete_litter(folder)


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """A worker that has lost its job to another may not know it yet: neither deletes what the other writes.

    The lock ends with the process, however that ends.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no such lock; then leases alone keep the writers apart.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_then_rename(state: TrainingState, folder: Path, keep: int) -> Path:
    target = folder / f"{_PREFIX}{state.step:010d}"
    temporary = _hidden_name(target)
    temporary.mkdir()
    _write_files(state, temporary)
    if target.exists():
        # The same step of the same run: a resumed run got here again.
        target.rename(_hidden_name(target))
    temporary.rename(target)
    _sync(folder)
    for old in checkpoints(folder)[:-keep]:
        old.rename(_hidden_name(old))
    return target


def _reason(error: Exception) -> str:
    """What the system says, without the number that it gives to it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {Path(error.filename).name}" if error.filename else error.strerror
    return str(error) if not isinstance(error, KeyError) else f"state.json lacks {error}"


def _last_words(folder: Path) -> str:
    latest = latest_checkpoint(folder)
    return (
        "the beginning"
        if latest is None
        else f"step {int(latest.name.removeprefix(_PREFIX))}, which is intact"
    )


def _hidden_name(path: Path) -> Path:
    """A new name beside `path` that is no checkpoint's."""
    return path.with_name(f".{path.name}.{uuid4().hex}")


def _delete_litter(folder: Path) -> None:
    """Checkpoints unfinished or on their way out, those of a killed process included."""
    for path in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(path)


def _write_files(state: TrainingState, folder: Path) -> None:
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
        _write_synced(folder / name, content)
    _sync(folder)


def _read_files(path: Path) -> TrainingState:
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


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes the folder's entries, names included, survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
