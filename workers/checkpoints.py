"""A run's checkpoints, as all of its ranks have them in common."""

from __future__ import annotations

from pathlib import Path

import torch

from supernet.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    newest_readable_step,
    put_aside,
    rewind_checkpoints,
    save_checkpoint,
)
from supernet.training.collective import Collective
from supernet.training.formats import CheckpointError, NewerFormatError
from supernet.training.state import TrainingState
from supernet.training.trainer import Trainer
from workers.observer import Observer


class RunCheckpoints:
    """Rank 0 writes and deletes, every rank reads. All ranks call `newest` and `last_good_step` together."""

    def __init__(self, folder: Path, *, collective: Collective, observer: Observer) -> None:
        self._folder = folder
        self._collective = collective
        self._observer = observer

    def newest(self) -> TrainingState | None:
        """The state to go on from; a damaged checkpoint is put aside and the one before it taken.

        None where there is none. NewerFormatError for one of a newer release, which is whole: to go on from
        an older one would lose its steps.
        """
        # Rank 0 looks first: two that put one folder aside would be in each other's way.
        if self._collective.rank != 0:
            self._wait_for_rank_0()
        state = None
        while state is None and (path := latest_checkpoint(self._folder)) is not None:
            state = self._read(path)
        if self._collective.rank == 0:
            self._wait_for_rank_0()
        return state

    def save(self, trainer: Trainer) -> None:
        """Keep the run as it stands, beside the two newest and the last good one."""
        if self._collective.rank == 0:
            guard = trainer.stack.guard
            save_checkpoint(trainer.state(), self._folder, spare_step=guard.good_step)
            self._observer.on_checkpoint(trainer.step + guard.num_steps_lost)

    def last_good_step(self, most: int) -> int:
        """Of the newest checkpoint of at most so many steps that can be read; 0 where there is none."""
        step = torch.zeros(1, dtype=torch.float64)
        if self._collective.rank == 0:
            step[0] = newest_readable_step(self._folder, most)
        self._collective.broadcast(step)
        return int(step.item())

    def rewind(self, step: int) -> None:
        """Delete every checkpoint past the step."""
        if self._collective.rank == 0:
            rewind_checkpoints(self._folder, step)

    def _read(self, path: Path) -> TrainingState | None:
        try:
            return load_checkpoint(path)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            put_aside(path)
            self._observer.on_damaged_checkpoint(path.name, str(error))
            return None

    def _wait_for_rank_0(self) -> None:
        self._collective.broadcast(torch.zeros(1))
