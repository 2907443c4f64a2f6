"""A run's checkpoints, as all of its ranks have them in common."""

from __future__ import annotations

from pathlib import Path

import torch

from supernet.training.checkpoint import (
    checkpoint_of,
    latest_checkpoint,
    load_checkpoint,
    newest_readable_step,
    put_aside,
    rewind_checkpoints,
    save_checkpoint,
)
from supernet.training.collective import Collective
from supernet.training.formats import DamagedCheckpointError
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

        None where there is none, and on a rank that does not see the checkpoint that rank 0 has read.
        CheckpointError for one that cannot be read for now, and NewerFormatError for one of a newer release:
        either may be whole, and to go on from an older one would lose its steps.
        """
        state = self._newest_undamaged() if self._collective.rank == 0 else None
        # Rank 0 alone judges and puts aside: two that did would be in each other's way.
        step = torch.tensor([-1.0 if state is None else state.step], dtype=torch.float64)
        self._collective.broadcast(step)
        if self._collective.rank != 0 and step.item() >= 0:
            path = checkpoint_of(self._folder, int(step.item()))
            state = None if path is None else load_checkpoint(path)
        return state

    def save(self, trainer: Trainer) -> None:
        """Keep the run as it stands, beside the two newest and the last good one."""
        if self._collective.rank == 0:
            guard = trainer.stack.guard
            save_checkpoint(trainer.state(), self._folder, spare_step=guard.good_step)
            self._observer.on_checkpoint(trainer.step + guard.num_steps_lost)

    def last_good_step(self, most: int) -> int:
        """Of the newest checkpoint of at most so many steps that is not damaged; 0 where there is none."""
        step = torch.zeros(1, dtype=torch.float64)
        if self._collective.rank == 0:
            step[0] = newest_readable_step(self._folder, most)
        self._collective.broadcast(step)
        return int(step.item())

    def rewind(self, step: int) -> None:
        """Delete every checkpoint past the step."""
        if self._collective.rank == 0:
            rewind_checkpoints(self._folder, step)

    def _newest_undamaged(self) -> TrainingState | None:
        while (path := latest_checkpoint(self._folder)) is not None:
            try:
                return load_checkpoint(path)
            except DamagedCheckpointError as error:
                put_aside(path)
                self._observer.on_damaged_checkpoint(path.name, str(error))
        return None
