"""Training a supernet: the run itself, the same in this process and on every Ray Train worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import torch

from nas.errors import NasError
from nas.ports import StopCheck
from nas.recipe import Recipe
from nas.recipes import recipe_from_json
from nas.space import SearchSpace
from nas.store.supernets import TrainingPoint
from nas.trial import Split
from supernet.data import DataSplits, ResizedSplits, TrainingBatches, augmentation_for
from supernet.device import CPU, take_device
from supernet.evaluate import SubnetEvaluator
from supernet.network import Supernet
from supernet.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from supernet.training.collective import Collective
from supernet.training.formats import CheckpointError, NewerFormatError
from supernet.training.memory import tune_malloc
from supernet.training.stack import Stack, build_stack
from supernet.training.state import TrainingState, kinds_of_ranks
from supernet.training.trainer import StepStats, Trainer
from workers.context import JobCancelledError, WorkerDrainingError
from workers.datasets import DatasetReference
from workers.warm_start import StartWeights
from workers.weights import SupernetDescription

_PROBE = "probe during training"
"""In place of a checkpoint's SHA-256: probes are shown as curves, never recorded as evaluations."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Everything a process needs to take part in the run."""

    supernet: SupernetDescription
    data: DatasetReference
    recipe: dict[str, Any]
    seed: int
    start: StartWeights | None = None
    """What the run begins from; None for fresh weights."""
    checkpoints: Path
    """Folder of this run's checkpoints; it must reach every process that may resume it."""
    num_threads: int
    """Of each process; a run that goes on keeps the number it began with."""
    device: str = CPU.type
    """As `take_device` names it."""
    checkpoint_interval_s: float = 20.0
    """A killed run repeats at most this much."""
    elapsed_before_s: float = 0.0
    """Since the job was first started."""


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

    def on_point(self, point: TrainingPoint) -> None:
        """After each epoch; returns once the point is kept, for the checkpoint that follows lies past it."""
        ...

    def on_checkpoint(self, step: int) -> None:
        """The steps before `step` are on disk: a run that is killed now goes on from there."""
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


def train(plan: TrainingPlan, *, collective: Collective, observer: Observer) -> Path:
    """Train to the end, from the newest checkpoint if there is one; the path of the final checkpoint."""
    tune_malloc()
    torch.set_num_threads(plan.num_threads)
    return _Run(plan, collective=collective, observer=observer).finish()


def check_plan(plan: TrainingPlan, *, num_workers: int) -> None:
    """Raise what every rank would raise before its first step; the plan's images must be here."""
    recipe = recipe_from_json(plan.recipe)
    batches = _training_batches(plan, plan.data.load(), recipe)
    batches.batch(0, rank=0, world_size=num_workers)
    space = plan.supernet.build().space
    _stack(plan, space, batches, recipe)


class _Run:
    def __init__(self, plan: TrainingPlan, *, collective: Collective, observer: Observer) -> None:
        self._plan = plan
        self._collective = collective
        self._observer = observer
        self._splits = plan.data.load()
        recipe = recipe_from_json(plan.recipe)
        device = take_device(plan.device)
        self._batches = _training_batches(plan, self._splits, recipe, device)
        # Made on the processor: the same weights on every device.
        self._supernet = plan.supernet.build(seed=plan.seed).to(device)
        stack = _stack(plan, self._supernet.space, self._batches, recipe)
        if plan.start is not None and collective.rank == 0:
            # The trainer gives all ranks the weights of this one.
            plan.start.load_into(self._supernet)
        self._trainer = Trainer(
            self._supernet,
            self._batches,
            stack,
            collective=collective,
            data_id=self._splits.fingerprint,
            rank_kinds=kinds_of_ranks(collective, device),
            warm_start=None if plan.start is None else plan.start.sha256,
        )
        self._probe = _Probe(self._supernet, ResizedSplits(self._splits, device=device), observer.check)
        self._started = time.monotonic()
        self._saved_at = self._started
        self._is_point_due = False

    def finish(self) -> Path:
        self._resume()
        self._collective_start()
        try:
            self._trainer.run(on_step=self._on_step, on_epoch=self._on_epoch)
        except (JobCancelledError, WorkerDrainingError):
            # A checkpoint made before the epoch's point is told would let a resumed run skip it.
            if not self._is_point_due:
                self._save()
            raise
        return self._save()

    def _collective_start(self) -> None:
        self._observer.on_step(self._trainer.step, self._trainer.stack.num_steps)

    def _resume(self) -> None:
        state = _newest_readable(self._plan.checkpoints)
        if state is not None:
            _keep_num_threads(state)
            self._trainer.restore(state)
            self._observer.on_resume(self._trainer.step, self._trainer.departures)
        elif self._plan.start is not None and self._collective.rank == 0:
            self._tell_warm_start(self._plan.start)
        self._check_ranks_agree()

    def _tell_warm_start(self, start: StartWeights) -> None:
        largest, smallest = self._probe.measure()
        self._observer.on_warm_start(
            WarmStartPoint(
                sha256=start.sha256,
                classifier=start.changes.classifier.value,
                first_layer=start.changes.first_layer.value,
                accuracy_val_largest=largest,
                accuracy_val_smallest=smallest,
                num_images_val=len(self._splits.val),
            )
        )

    def _check_ranks_agree(self) -> None:
        """Ranks that start from different steps would add up gradients of different weights."""
        total = torch.tensor([float(self._trainer.step)], dtype=torch.float64)
        self._collective.all_reduce_sum(total)
        if total.item() != self._trainer.step * self._collective.world_size:
            raise NasError(
                f"the ranks found different checkpoints in {self._plan.checkpoints}; "
                "put NAS_HOME on storage that all machines of the cluster share"
            )

    def _on_step(self, stats: StepStats) -> None:
        if (stats.step + 1) % self._batches.steps_per_epoch == 0:
            # The epoch's point comes first, as in `finish`.
            return
        self._tell_step(stats)
        if time.monotonic() - self._saved_at > self._plan.checkpoint_interval_s:
            self._save()

    def _on_epoch(self, epoch: int, stats: StepStats) -> None:
        if self._collective.rank == 0:
            self._is_point_due = True
            try:
                self._tell_epoch(epoch, stats)
            except WorkerDrainingError:
                # The other ranks wait at the step, where all stop together.
                self._tell_step(stats)
                raise
            self._is_point_due = False
            self._save()
        self._tell_step(stats)

    def _tell_step(self, stats: StepStats) -> None:
        self._observer.on_step(stats.step + 1, self._trainer.stack.num_steps)

    def _tell_epoch(self, epoch: int, stats: StepStats) -> None:
        largest, smallest = self._probe.measure()
        train_loss = self._trainer.stack.loss_meter.last_mean
        assert train_loss is not None  # an epoch has just ended
        point = TrainingPoint(
            epoch=epoch,
            step=stats.step + 1,
            images_seen=(stats.step + 1) * self._batches.batch_size,
            train_loss=train_loss,
            learning_rate=stats.learning_rate,
            accuracy_val_largest=largest,
            accuracy_val_smallest=smallest,
            num_images_val=len(self._splits.val),
            elapsed_s=self._plan.elapsed_before_s + time.monotonic() - self._started,
        )
        # Before the checkpoint: a run killed between the two repeats the epoch and replaces its point.
        self._observer.on_point(point)

    def _save(self) -> Path:
        if self._collective.rank == 0:
            save_checkpoint(self._trainer.state(), self._plan.checkpoints)
            self._observer.on_checkpoint(self._trainer.step)
        self._saved_at = time.monotonic()
        return self._plan.checkpoints


class _Probe:
    """The two ends of the space on val, with statistics of their own."""

    def __init__(self, supernet: Supernet, data: ResizedSplits, stop_check: StopCheck) -> None:
        self._space = supernet.space
        self._evaluator = SubnetEvaluator(supernet, data, checkpoint=_PROBE, stop_check=stop_check)

    def measure(self) -> tuple[float, float]:
        """Accuracy of the largest and of the smallest network."""
        ends = (self._space.largest(), self._space.smallest())
        largest, smallest = (self._evaluator.evaluate(end, Split.VAL).accuracy for end in ends)
        return largest, smallest


def _training_batches(
    plan: TrainingPlan, splits: DataSplits, recipe: Recipe, device: torch.device = CPU
) -> TrainingBatches:
    augmentation = augmentation_for(
        plan.data.data_source(),
        splits.image_size,
        crop_fraction=recipe.crop_fraction,
        horizontal_flip=recipe.horizontal_flip,
    )
    return TrainingBatches(
        splits,
        recipe.batch_size,
        plan.seed,
        augmentation,
        held_out_fraction=recipe.held_out_fraction,
        device=device,
    )


def _keep_num_threads(state: TrainingState) -> None:
    """Sums are split among threads: the run keeps its number, whatever this machine's cores and settings.

    On fewer cores that is slower, and the bits are the same. A record without a number is left to differ.
    """
    recorded = state.environment.get("threads")
    if isinstance(recorded, int) and recorded >= 1:
        torch.set_num_threads(recorded)


def _newest_readable(folder: Path) -> TrainingState | None:
    """The newest checkpoint's state; a damaged one is put aside and the one before it taken.

    Not so one of a newer release: it is whole, and going on from an older one would lose its steps.
    """
    while (path := latest_checkpoint(folder)) is not None:
        try:
            return load_checkpoint(path)
        except NewerFormatError:
            raise
        except CheckpointError:
            path.rename(path.with_name(f".damaged.{path.name}.{uuid4().hex}"))
    return None


def _stack(plan: TrainingPlan, space: SearchSpace, batches: TrainingBatches, recipe: Recipe) -> Stack:
    return build_stack(
        recipe,
        space,
        steps_per_epoch=batches.steps_per_epoch,
        seed=plan.seed,
        num_images=batches.num_images,
    )
