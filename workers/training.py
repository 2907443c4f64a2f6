"""Training a supernet: the run itself, the same in this process and on every Ray Train worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas import plateau
from nas.errors import NasError
from nas.probes import EpochProbes, ProbeResult
from nas.recipe import Recipe
from nas.recipe_choices import SamplerKind
from nas.recipes import recipe_from_json
from nas.space import SearchSpace
from nas.store.supernets import TrainingPoint
from supernet.data import DataSplits, TrainingBatches, augmentation_for
from supernet.device import CPU, take_device
from supernet.training.collective import Collective
from supernet.training.guard import Rollback, TrainingDivergedError
from supernet.training.memory import tune_malloc
from supernet.training.stack import Stack, build_stack
from supernet.training.state import TrainingState, kinds_of_ranks
from supernet.training.trainer import StepStats, Trainer
from workers.checkpoints import RunCheckpoints
from workers.context import JobCancelledError, WorkerDrainingError
from workers.datasets import DatasetReference
from workers.observer import Observer, WarmStartPoint
from workers.probing import Probing
from workers.warm_start import StartWeights
from workers.weights import SupernetDescription


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
    """Of each process, shared by the networks of a step, which are computed side by side; a run that goes on
    keeps the number it began with."""
    device: str = CPU.type
    """As `take_device` names it."""
    num_probes: int = 0
    """Networks measured at the end of every epoch, beside the ends of the space."""
    checkpoint_interval_s: float = 20.0
    """A killed run repeats at most this much."""
    elapsed_before_s: float = 0.0
    """Since the job was first started."""


def train(plan: TrainingPlan, *, collective: Collective, observer: Observer) -> Path:
    """Train to the end, from the newest checkpoint if there is one; the path of the final checkpoint."""
    tune_malloc()
    torch.set_num_threads(plan.num_threads)
    splits = plan.data.load()
    started = time.monotonic()
    earlier = _Rewound()
    while True:
        run = _Run(plan, splits, earlier, collective=collective, observer=observer, started=started)
        outcome = run.finish()
        if isinstance(outcome, Path):
            return outcome
        earlier = outcome
        # Its networks' memory goes before those of the next take it.
        del run


def check_plan(plan: TrainingPlan, *, num_workers: int) -> None:
    """Raise what every rank would raise before its first step; the plan's images must be here."""
    recipe = recipe_from_json(plan.recipe)
    batches = _training_batches(plan, plan.data.load(), recipe)
    batches.batch(0, rank=0, world_size=num_workers)
    space = plan.supernet.build().space
    _stack(plan, space, batches, recipe)


@dataclass(frozen=True)
class _Rewound:
    """What is kept of a run that was rolled back: everything else is as in the checkpoint it goes on from."""

    rollbacks: tuple[Rollback, ...] = ()
    departures: tuple[str, ...] = ()


class _Run:
    """The run from one rollback to the next: made anew for each, so that it goes on as after a kill."""

    def __init__(
        self,
        plan: TrainingPlan,
        splits: DataSplits,
        earlier: _Rewound,
        *,
        collective: Collective,
        observer: Observer,
        started: float,
    ) -> None:
        self._plan = plan
        self._earlier = earlier
        self._collective = collective
        self._observer = observer
        self._splits = splits
        recipe = recipe_from_json(plan.recipe)
        device = take_device(plan.device)
        self._batches = _training_batches(plan, splits, recipe, device)
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
            data_id=splits.fingerprint,
            rank_kinds=kinds_of_ranks(collective, device),
            warm_start=None if plan.start is None else plan.start.sha256,
            # More would leave threads without work: each lane has its share of them.
            num_lanes=min(plan.num_threads, _num_networks(recipe)),
        )
        self._checkpoints = RunCheckpoints(plan.checkpoints, collective=collective, observer=observer)
        self._probing = Probing(
            self._supernet,
            splits,
            num_drawn=plan.num_probes,
            seed=plan.seed,
            num_images_trained=self._batches.num_images * _num_networks(recipe),
            stop_check=observer.check,
        )
        self._started = started
        self._saved_at = time.monotonic()
        self._is_point_due = False

    def finish(self) -> Path | _Rewound:
        """Train to the end; or to where it is rolled back, to be made anew."""
        self._resume()
        self._collective_start()
        try:
            self._trainer.run(on_step=self._on_step, on_epoch=self._on_epoch)
        except TrainingDivergedError as error:
            return self._roll_back(error)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise NasError(
                f"the training has found too little memory, in a step of {self._batches.batch_size} images "
                f"or in measuring its probes ({_first_line(error)}); choose a smaller recipe.batch_size, "
                "more num_workers on machines of their own, or a machine or GPU with more"
            ) from error
        except (JobCancelledError, WorkerDrainingError):
            # A checkpoint made before the epoch's point is told would let a resumed run skip it.
            if not self._is_point_due:
                self._save()
            raise
        return self._save()

    def _collective_start(self) -> None:
        self._observer.on_step(self._trainer.step, self._trainer.stack.num_steps)

    def _resume(self) -> None:
        state = self._checkpoints.newest()
        if state is not None:
            _keep_num_threads(state)
            self._trainer.restore(state)
        # And before rank 0 writes, all have read.
        self._check_ranks_agree()
        if self._earlier.rollbacks:
            self._take_up(self._earlier)
        elif state is not None:
            self._observer.on_resume(self._trainer.step, self._trainer.departures)
            rollbacks = self._trainer.stack.guard.rollbacks
            if rollbacks and self._collective.rank == 0:
                # Whoever was told of them may have died.
                self._observer.on_rollback(rollbacks)
        elif self._plan.start is not None and self._collective.rank == 0:
            self._tell_warm_start(self._plan.start)

    def _take_up(self, earlier: _Rewound) -> None:
        self._trainer.stack.guard.rollbacks = earlier.rollbacks
        # What was inexact when the run diverged stays so.
        self._trainer.departures = tuple(dict.fromkeys((*earlier.departures, *self._trainer.departures)))
        self._save()

    def _roll_back(self, error: TrainingDivergedError) -> _Rewound:
        """Leave as the newest checkpoint that from which all ranks go on; raise if the run is given up.

        Told first, then deleted from the newest on, then written anew by the run that takes it up: killed at
        any moment, the run diverges once more and is rolled back alike, or has been already.
        """
        guard = self._trainer.stack.guard
        step = self._checkpoints.last_good_step(guard.good_step)
        if not guard.may_roll_back:
            # Another training may begin from its newest checkpoint.
            self._checkpoints.rewind(step)
            raise guard.given_up(error, self._trainer.stack.recipe.base_learning_rate) from error
        guard.roll_back(error, to_step=step)
        if self._collective.rank == 0:
            self._observer.on_rollback(guard.rollbacks)
        self._checkpoints.rewind(step)
        return _Rewound(guard.rollbacks, self._trainer.departures)

    def _tell_warm_start(self, start: StartWeights) -> None:
        try:
            largest, smallest = self._probing.measure_ends()
        except WorkerDrainingError:
            # The other ranks wait at the step, where all stop together.
            return
        self._observer.on_warm_start(
            WarmStartPoint(
                sha256=start.sha256,
                classifier=start.changes.classifier.value,
                first_layer=start.changes.first_layer.value,
                accuracy_val_largest=largest.accuracy,
                accuracy_val_smallest=smallest.accuracy,
                num_images_val=largest.num_images,
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
        largest = None
        if self._collective.rank == 0:
            self._is_point_due = True
            try:
                largest = self._tell_epoch(epoch, stats)
            except WorkerDrainingError:
                self._judge(stats, None)
                # The other ranks wait at the step, where all stop together.
                self._tell_step(stats)
                raise
            self._is_point_due = False
        self._judge(stats, largest)
        self._save()
        self._tell_step(stats)

    def _judge(self, stats: StepStats, largest: ProbeResult | None) -> None:
        """Have the guard of every rank judge what rank 0 has measured, if it has."""
        measured = torch.zeros(2, dtype=torch.float64)
        if largest is not None:
            measured += torch.tensor([largest.num_correct, largest.num_images])
        self._collective.broadcast(measured)
        num_correct, num_images = map(int, measured.tolist())
        if num_images == 0:
            return
        guard, step = self._trainer.stack.guard, stats.step + 1
        guard.judge_loss(step, self._mean_loss(), num_classes=self._supernet.num_classes)
        chance = self._probing.chance
        guard.judge(step, num_correct=num_correct, num_images=num_images, chance=chance)

    def _mean_loss(self) -> float:
        loss = self._trainer.stack.loss_meter.last_mean
        assert loss is not None  # an epoch has just ended
        return loss

    def _tell_step(self, stats: StepStats) -> None:
        self._observer.on_step(stats.step + 1, self._trainer.stack.num_steps)

    def _tell_epoch(self, epoch: int, stats: StepStats) -> ProbeResult:
        ends = largest, smallest = self._probing.measure_ends()
        strategies = self._trainer.stack.describe()
        point = TrainingPoint(
            epoch=epoch,
            step=stats.step + 1,
            images_seen=(stats.step + 1) * self._batches.batch_size,
            train_loss=self._mean_loss(),
            learning_rate=stats.learning_rate,
            accuracy_val_largest=largest.accuracy,
            accuracy_val_smallest=smallest.accuracy,
            num_images_val=largest.num_images,
            strategies=strategies,
            elapsed_s=self._plan.elapsed_before_s + time.monotonic() - self._started,
        )
        probes = EpochProbes(
            epoch=epoch,
            step=point.step,
            networks=self._probing.networks,
            results=(*ends, *self._probing.measure_drawn()),
            strategies=strategies,
            is_settled=self._is_settled(epoch),
        )
        # Before the checkpoint: a run killed between the two repeats the epoch and replaces what it told.
        self._observer.on_probes(probes)
        self._observer.on_point(point)
        return largest

    def _is_settled(self, epoch: int) -> bool:
        first = (epoch - plateau.WINDOW + 1) * self._batches.steps_per_epoch
        shrink, rollbacks = self._trainer.stack.shrink, self._trainer.stack.guard.rollbacks
        since = rollbacks[-1].step if rollbacks else 0
        return first >= since and shrink.phase(first) == shrink.phase(self._trainer.stack.num_steps - 1)

    def _save(self) -> Path:
        self._checkpoints.save(self._trainer)
        self._saved_at = time.monotonic()
        return self._plan.checkpoints


def _is_out_of_memory(error: BaseException) -> bool:
    # On the processor torch says so by the text alone.
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


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


def _num_networks(recipe: Recipe) -> int:
    """In a step."""
    ends = 2 if recipe.sampler is SamplerKind.SANDWICH else 0
    return recipe.num_random + ends


def _keep_num_threads(state: TrainingState) -> None:
    """Sums are split among threads: the run keeps its number, whatever this machine's cores and settings.

    On fewer cores that is slower, and the bits are the same. A record without a number is left to differ.
    """
    recorded = state.environment.get("threads")
    if isinstance(recorded, int) and recorded >= 1:
        torch.set_num_threads(recorded)


def _stack(plan: TrainingPlan, space: SearchSpace, batches: TrainingBatches, recipe: Recipe) -> Stack:
    return build_stack(
        recipe,
        space,
        steps_per_epoch=batches.steps_per_epoch,
        seed=plan.seed,
        num_images=batches.num_images,
    )
