"""What a training run tells while it goes on, and to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nas.probes import EpochProbes
from nas.store.supernets import TrainingPoint
from supernet.training.guard import Rollback


@dataclass(frozen=True, kw_only=True)
class WarmStartPoint:
    """What a run began from, and how far that is before its first step."""

    sha256: str
    """Of the file of the weights."""
    classifier: str
    first_layer: str
    """What became of these two: `kept`, `permuted`, `adapted` or `reinitialised`."""
    accuracy_val_largest: float
    """A probe on `num_images_val` images, as at the end of an epoch."""
    accuracy_val_smallest: float
    num_images_val: int


class Observer(Protocol):
    """Whom the run tells what happens. Any call may raise to stop it."""

    def on_step(self, done: int, total: int) -> None:
        """After each step."""
        ...

    def on_probes(self, probes: EpochProbes) -> None:
        """After each epoch, before its point."""
        ...

    def on_point(self, point: TrainingPoint) -> None:
        """After each epoch; returns once point and probes are kept: the next checkpoint lies past them."""
        ...

    def on_checkpoint(self, num_steps: int) -> None:
        """So many steps are on disk, those rolled back included: a run killed now need not repeat them."""
        ...

    def on_rollback(self, rollbacks: Sequence[Rollback]) -> None:
        """The run has diverged and goes on from an earlier state; all its rollbacks, the latest last."""
        ...

    def on_damaged_checkpoint(self, name: str, reason: str) -> None:
        """A checkpoint cannot be read; the run goes on from the one before it, or begins anew."""
        ...

    def on_warm_start(self, start: WarmStartPoint) -> None:
        """The run begins from other weights; not told when it goes on from a checkpoint."""
        ...

    def check(self) -> None:
        """Between steps, where something takes long; raises as the others do."""
        ...

    def on_resume(self, step: int, departures: tuple[str, ...]) -> None:
        """The run goes on from a checkpoint; `departures`, of this time or before, mean: not bit for bit."""
        ...


class SilentObserver:
    """Tells nobody anything."""

    def on_step(self, done: int, total: int) -> None:
        """Nothing."""

    def on_probes(self, probes: EpochProbes) -> None:
        """Nothing."""

    def on_point(self, point: TrainingPoint) -> None:
        """Nothing."""

    def on_checkpoint(self, num_steps: int) -> None:
        """Nothing."""

    def on_rollback(self, rollbacks: Sequence[Rollback]) -> None:
        """Nothing."""

    def on_damaged_checkpoint(self, name: str, reason: str) -> None:
        """Nothing."""

    def on_warm_start(self, start: WarmStartPoint) -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""

    def on_resume(self, step: int, departures: tuple[str, ...]) -> None:
        """Nothing."""
