"""Runs `train` jobs: in this process, or on several Ray Train workers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from nas import plateau
from nas.errors import NasError
from nas.job import Job
from nas.probes import EpochProbes
from nas.recipes import recipe_from_json
from nas.store import probes as store
from nas.store import supernets
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.jobs import add_event
from nas.store.supernets import TrainingPoint
from nas.store.tables import SupernetRow
from nas.trial import wilson_interval
from nas.weights_file import SUPERNET_FILE, WeightsDescription
from supernet.data import DataSplits, calibration_id
from supernet.evaluate import CALIBRATION_BATCH_SIZE
from supernet.network import Supernet
from supernet.training.checkpoint import latest_checkpoint, load_checkpoint
from supernet.training.collective import SingleProcess
from supernet.training.formats import CheckpointError
from supernet.training.guard import Rollback
from workers.context import JobContext
from workers.datasets import dataset_reference
from workers.observer import WarmStartPoint
from workers.ray_training import train_on_ray
from workers.service import Finish
from workers.training import TrainingPlan, train
from workers.warm_start import WarmStarts
from workers.weights import SupernetDescription, publish_weights

CHECKPOINTS = "checkpoints"
"""Below a worker's home; in it a folder for each supernet in training."""


class TrainingJob:
    """Trains a supernet and publishes its weights."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        home: Path,
        *,
        num_threads: int,
        device: str,
        ensure_ray: Callable[[], None],
    ) -> None:
        self._ensure_ray = ensure_ray
        self._database = database
        self._artifacts = artifacts
        self._home = home
        self._num_threads = num_threads
        self._device = device

    def run(self, job: Job, context: JobContext) -> Finish:
        """Train, from a checkpoint if there is one; the weights appear with the end of the job."""
        with self._database.session() as session:
            row = supernets.get(session, job.resource_id).row
        plan = self._plan(row, job, context)
        self._record_resolved(row, plan, context)
        observer = JobObserver(context, job.id, row.id)
        try:
            self._train(row, plan, observer, context)
        except NasError:
            # What the last checkpoint holds may serve as another training's start: let the row tell of it.
            with context.transaction():
                pass
            raise
        return self._publish(row, plan, context)

    def _train(
        self, row: SupernetRow, plan: TrainingPlan, observer: JobObserver, context: JobContext
    ) -> None:
        if row.num_workers == 1:
            train(plan, collective=SingleProcess(), observer=observer)
        else:
            self._ensure_ray()
            train_on_ray(plan, num_workers=row.num_workers, observer=observer, check=context.check)

    def _plan(self, row: SupernetRow, job: Job, context: JobContext) -> TrainingPlan:
        data = dataset_reference(self._database, self._artifacts, self._home, row.dataset_id)
        splits = data.load(context.check)
        recipe = recipe_from_json(row.recipe)
        started = job.started_at or job.created_at
        description = SupernetDescription(
            search_space=row.search_space,
            num_classes=splits.num_classes,
            in_channels=splits.num_channels,
            kernel_transform=recipe.kernel_transform,
        )
        sources = WarmStarts(self._database, self._artifacts, self._home / CHECKPOINTS)
        return TrainingPlan(
            supernet=description,
            start=sources.prepare(row, description, splits.class_names),
            data=data,
            recipe=row.recipe,
            seed=row.seed,
            checkpoints=checkpoint_folder(self._home, row.id),
            num_threads=max(1, self._num_threads // row.num_workers),
            device=self._device,
            num_probes=row.num_probes,
            elapsed_before_s=(datetime.now(UTC) - started).total_seconds(),
        )

    def _record_resolved(self, row: SupernetRow, plan: TrainingPlan, context: JobContext) -> None:
        with context.transaction() as session:
            supernets.set_recipe(session, row.id, recipe_from_json(row.recipe).to_json())
            if plan.start is not None:
                supernets.set_warm_start_sha256(session, row.id, plan.start.sha256)

    def _publish(self, row: SupernetRow, plan: TrainingPlan, context: JobContext) -> Finish:
        context.report("publish", 0, 1)
        final = latest_checkpoint(plan.checkpoints)
        if final is None:
            raise CheckpointError(
                f"the final checkpoint was deleted from {plan.checkpoints} before its weights were "
                "published; leave the worker's home alone, and train again"
            )
        supernet = plan.supernet.build()
        state = load_checkpoint(final)
        supernet.load_state_dict(state.weights)
        # A name of this attempt's own: one that lost its lease must not replace what another published.
        key = f"supernets/{row.id}/{token_hex(8)}/{SUPERNET_FILE}"
        splits = plan.data.load()
        stored = publish_weights(self._artifacts, key, supernet, _describe(supernet, splits, row))
        calibration = calibration_id(splits, CALIBRATION_BATCH_SIZE)
        context.report("publish", 1, 1)

        def finish(session: Session) -> None:
            supernets.set_weights(
                session, row.id, checkpoint=stored.sha256, weights_uri=stored.uri, calibration=calibration
            )
            supernets.set_resume_departures(session, row.id, state.departures)
            # Only once the row says so: until then a killed worker needs them.
            event.listen(session, "after_commit", lambda _: _discard(plan.checkpoints), once=True)

        return finish


class JobObserver:
    """Writes what the training tells to the job's row, curves and events."""

    def __init__(self, context: JobContext, job_id: str, supernet_id: str) -> None:
        self._context = context
        self._job_id = job_id
        self._supernet_id = supernet_id

    def on_step(self, done: int, total: int) -> None:
        """Progress; raises when the job is to stop."""
        self._context.report("train", done, total)
        self._context.check()

    def on_point(self, point: TrainingPoint) -> None:
        """A point of the curves, and an event for those who watch."""
        with self._context.transaction() as session:
            supernets.record_point(session, self._supernet_id, point)
            add_event(session, self._job_id, "epoch", asdict(point))

    def on_probes(self, probes: EpochProbes) -> None:
        """Rows, and an event for those who watch; advice, once, when nothing rises any more."""
        with self._context.transaction() as session:
            store.record(session, self._supernet_id, probes)
            add_event(session, self._job_id, "probes", _describe_probes(probes))
            if probes.is_settled and store.note_if_flat(session, self._supernet_id, probes.epoch):
                add_event(session, self._job_id, "probes_flat", _advice(probes))

    def on_checkpoint(self, num_steps: int) -> None:
        """So many steps need not be repeated."""
        self._context.landed(num_steps)

    def on_rollback(self, rollbacks: Sequence[Rollback]) -> None:
        """Note those that are not known yet, each with an event."""
        with self._context.transaction() as session:
            told = [asdict(rollback) for rollback in rollbacks]
            for payload in supernets.set_rollbacks(session, self._supernet_id, told):
                add_event(session, self._job_id, "rolled_back", payload)

    def on_damaged_checkpoint(self, name: str, reason: str) -> None:
        """Say that the run goes on from an older one, whose steps it then takes once more."""
        with self._context.transaction() as session:
            self._context.lost(session)
            add_event(session, self._job_id, "checkpoint_damaged", {"name": name, "reason": reason})

    def on_warm_start(self, start: WarmStartPoint) -> None:
        """Say what the training begins from, and how far that is already."""
        with self._context.transaction() as session:
            add_event(session, self._job_id, "warm_started", asdict(start))

    def check(self) -> None:
        """Raises when the job is to stop."""
        self._context.check()

    def on_resume(self, step: int, departures: tuple[str, ...]) -> None:
        """Say from where the run goes on, and whether it is still bit for bit the undisturbed one."""
        # The attempt that wrote this checkpoint may not have lived to tell of it.
        self._context.landed(step)
        payload = {"step": step, "is_exact": not departures, "departures": list(departures)}
        with self._context.transaction() as session:
            supernets.set_resume_departures(session, self._supernet_id, departures)
            add_event(session, self._job_id, "resumed", payload)


def _describe_probes(probes: EpochProbes) -> dict[str, Any]:
    """This epoch's accuracies with their networks' MACs: a point of each curve, and the frontier so far."""
    return {
        "epoch": probes.epoch,
        "step": probes.step,
        "probes": [
            {
                "number": network.number,
                "role": network.role.value,
                "macs": network.macs,
                "accuracy_val": result.accuracy,
                "num_images_val": result.num_images,
                "interval_95": wilson_interval(result.num_correct, result.num_images),
            }
            for network, result in zip(probes.networks, probes.results, strict=True)
        ],
        "front": probes.front,
        "strategies": probes.strategies,
    }


def _advice(probes: EpochProbes) -> dict[str, Any]:
    return {
        "epoch": probes.epoch,
        "step": probes.step,
        "num_epochs": plateau.WINDOW,
        "least_rise": plateau.LEAST_RISE,
        "advice": (
            f"no probe has risen by {plateau.LEAST_RISE:.0%} over the last {plateau.WINDOW} epochs; at this "
            "learning rate more training is unlikely to help. Cancel, and start another training from the "
            "newest checkpoint (warm_start), or let the rate fall as the recipe has it"
        ),
    }


def _describe(supernet: Supernet, splits: DataSplits, row: SupernetRow) -> WeightsDescription:
    return WeightsDescription(
        search_space=supernet.space.name,
        space_fingerprint=supernet.space.fingerprint,
        in_channels=supernet.in_channels,
        class_names=tuple(splits.class_names),
        kernel_transform=supernet.kernel_transform,
        data_fingerprint=splits.fingerprint,
        recipe=recipe_from_json(row.recipe).name.value,
    )


def checkpoint_folder(home: Path, supernet_id: str) -> Path:
    """Where a machine keeps what the supernet's training is resumed from."""
    return home / CHECKPOINTS / supernet_id


def _discard(checkpoints: Path) -> None:
    """Remove a finished run's checkpoints: its weights are published."""
    shutil.rmtree(checkpoints, ignore_errors=True)
