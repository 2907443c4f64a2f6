"""A training in as many sittings as it takes: the same call goes on where the last ended or was killed."""

from __future__ import annotations

import json
import time
from pathlib import Path

from supernet.training import Trainer, load_checkpoint, save_checkpoint
from supernet.training.checkpoint import newest_readable, replace_file

CHECKPOINT_EVERY_S = 300.0


class OutOfTimeError(Exception):
    """The sitting is over; the run goes on with the next."""


def is_over(deadline: float) -> bool:
    """Whether the sitting has lasted until `deadline`, on the monotonic clock."""
    return time.monotonic() > deadline


def train(trainer: Trainer, folder: Path, deadline: float) -> None:
    """Trains what the checkpoints in `folder` have not yet; a killed sitting loses minutes at most.

    OutOfTimeError where the sitting ends before.
    """
    newest = newest_readable(folder)
    if newest is not None:
        for line in trainer.restore(load_checkpoint(newest)):
            print(f"no longer exact: {line}")
    clock = _Clock(folder / "clock.json")

    def keep() -> None:
        save_checkpoint(trainer.state(), folder)
        clock.keep()
        print(f"step {trainer.step} of {trainer.stack.num_steps}", flush=True)

    def keep_now_and_then(_: object) -> None:
        if clock.since_kept_s > CHECKPOINT_EVERY_S:
            keep()

    before = trainer.step
    trainer.run(on_step=keep_now_and_then, should_stop=lambda: is_over(deadline))
    if trainer.step > before:
        keep()
    if trainer.step < trainer.stack.num_steps:
        raise OutOfTimeError(f"{trainer.step} of {trainer.stack.num_steps} steps are done")


def spent_s(folder: Path) -> float:
    """Seconds of training that went into the checkpoints in `folder`, over all sittings."""
    return _Clock(folder / "clock.json").spent_s


class _Clock:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.spent_s: float = json.loads(file.read_text())["train_s"] if file.exists() else 0.0
        self._kept_at = time.monotonic()

    @property
    def since_kept_s(self) -> float:
        """What would be lost."""
        return time.monotonic() - self._kept_at

    def keep(self) -> None:
        """Called once the checkpoint is written."""
        self.spent_s += self.since_kept_s
        self._kept_at = time.monotonic()
        replace_file(self._file, json.dumps({"train_s": self.spent_s}).encode())
