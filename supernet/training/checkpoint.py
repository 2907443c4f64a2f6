"""Checkpoints: a training state as a folder of safetensors and JSON, whole or not there at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from supernet.training.checkpoint_files import read_files, sync, write_files, write_synced
from supernet.training.formats import CheckpointError, DamagedCheckpointError, NewerFormatError
from supernet.training.state import TrainingState

_PREFIX = "step-"
_REPLACING = ".new"
"""Ends the name of a checkpoint while it takes the place of another of the same step."""
_NAME = re.compile(rf"{_PREFIX}\d+({re.escape(_REPLACING)})?")


def save_checkpoint(
    state: TrainingState, folder: Path, *, keep: int = 2, spare_step: int | None = None
) -> Path:
    """Writes `folder/step-<number>`, prunes all but the newest `keep`, and returns the new path.

    The checkpoint of `spare_step` is kept too, however old.

    Written under another name and renamed once on disk, and renamed before it is deleted: whatever bears
    the name is complete, and where one replaces another, one of them bears it at every moment. Processes
    that write to one folder take turns. CheckpointError where it cannot be written, on a full disk say: then
    the checkpoints before it are as they were.
    """
    try:
        return _save(state, folder, keep, spare_step)
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
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if _NAME.fullmatch(path.name))


def checkpoint_of(folder: Path, step: int) -> Path | None:
    """The checkpoint of that step, or None where there is none."""
    return next((path for path in reversed(checkpoints(folder)) if step_of(path) == step), None)


def step_of(path: Path) -> int:
    """How many steps the checkpoint of that name has behind it."""
    return int(path.name.removeprefix(_PREFIX).removesuffix(_REPLACING))


def rewind_checkpoints(folder: Path, step: int) -> Path | None:
    """Deletes every checkpoint of more than `step` steps; the newest that is left, or None.

    The newest goes first: a process killed meanwhile leaves the beginning of the same row.
    """
    if not folder.exists():
        return None
    try:
        with _sole_writer(folder):
            _end_replacements(folder)
            for path in reversed(checkpoints(folder)):
                if step_of(path) > step:
                    path.rename(_hidden_name(path))
            sync(folder)
            _delete_litter(folder)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoints past step {step} could not be deleted from {folder} ({_reason(error)}); give "
            "the worker's user the right to write there, then train again"
        ) from error
    return latest_checkpoint(folder)


def put_aside(path: Path) -> None:
    """Give a damaged checkpoint a name under which nobody takes it for one."""
    try:
        path.rename(path.with_name(f".damaged.{path.name}.{uuid4().hex}"))
    except OSError as error:
        raise CheckpointError(
            f"{path} is damaged and cannot be put aside ({_reason(error)}); give the worker's user the right "
            "to write there, or delete it, then train again"
        ) from error


def newest_readable_step(folder: Path, most: int) -> int:
    """Steps of the newest checkpoint that is not damaged, of those of `most` steps; 0 where there is none.

    CheckpointError where one cannot be read for now: whether it is damaged is not known then.
    """
    for path in reversed(checkpoints(folder)):
        if step_of(path) <= most:
            try:
                return load_checkpoint(path).step
            except DamagedCheckpointError:
                continue
    return 0


def newest_readable(folder: Path) -> Path | None:
    """The newest checkpoint that is not damaged, or None; the only one there is is not looked into.

    One of a newer release counts: it is not for this one to call it damaged. CheckpointError where one
    cannot be read for now.
    """
    found = checkpoints(folder)
    while len(found) > 1:
        try:
            load_checkpoint(found[-1])
        except NewerFormatError:
            break
        except DamagedCheckpointError:
            found.pop()
        else:
            break
    return found[-1] if found else None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden_name(path)
    try:
        write_synced(temporary, content)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def load_checkpoint(path: Path) -> TrainingState:
    """The state that `save_checkpoint` wrote, in this release or an older one.

    DamagedCheckpointError where its files are not as they were written; NewerFormatError where a newer
    release wrote it; CheckpointError where the system does not give its bytes, which may be intact.
    """
    try:
        return read_files(path)
    except NewerFormatError as error:
        raise NewerFormatError(f"{path} is no checkpoint for this release: {error}") from error
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
    ) as error:
        raise DamagedCheckpointError(
            f"{path} holds no readable checkpoint ({_reason(error)}); "
            "delete it to go on from the one before it"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({_reason(error)}) and was left as it is; mend that, then go on"
        ) from error


def _save(state: TrainingState, folder: Path, keep: int, spare_step: int | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_writer(folder):
        _end_replacements(folder)
        _delete_litter(folder)
        try:
            target = _write_then_rename(state, folder)
            _prune(folder, keep, spare_step)
            return target
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


def _write_then_rename(state: TrainingState, folder: Path) -> Path:
    target = _path_of(folder, state.step)
    temporary = _hidden_name(target)
    temporary.mkdir()
    write_files(state, temporary)
    if target.exists():
        # The same step of the same run: a resumed run got here again.
        temporary.rename(target.with_name(target.name + _REPLACING))
        _end_replacements(folder)
    else:
        temporary.rename(target)
    sync(folder)
    return target


def _end_replacements(folder: Path) -> None:
    """Give what is replacing a checkpoint its name; that of a killed process is as complete as any."""
    for path in folder.glob(f"{_PREFIX}*{_REPLACING}"):
        target = path.with_name(path.name.removesuffix(_REPLACING))
        if target.exists():
            target.rename(_hidden_name(target))
        path.rename(target)


def _prune(folder: Path, keep: int, spare_step: int | None) -> None:
    for old in checkpoints(folder)[:-keep]:
        if step_of(old) != spare_step:
            old.rename(_hidden_name(old))


def _reason(error: Exception) -> str:
    """What the system says, without the number that it gives to it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {Path(error.filename).name}" if error.filename else error.strerror
    return str(error) if not isinstance(error, KeyError) else f"state.json lacks {error}"


def _last_words(folder: Path) -> str:
    latest = latest_checkpoint(folder)
    return "the beginning" if latest is None else f"step {step_of(latest)}, which is intact"


def _path_of(folder: Path, step: int) -> Path:
    return folder / f"{_PREFIX}{step:010d}"


def _hidden_name(path: Path) -> Path:
    """A new name beside `path` that is no checkpoint's."""
    return path.with_name(f".{path.name}.{uuid4().hex}")


def _delete_litter(folder: Path) -> None:
    """Checkpoints unfinished or on their way out, those of a killed process included."""
    for path in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(path)
