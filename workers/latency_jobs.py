"""Runs `make_work_file` and `fit_latency` jobs: what a probe is to measure, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_hex

from sqlalchemy.orm import Session

from nas.devices.accuracy import Accuracy, compare
from nas.devices.boosting import grow_trees
from nas.devices.fitting import MeasuredNetworks, fit_and_judge
from nas.devices.interpolation import FilledTable, interpolate
from nas.devices.measurements import FIT_FROM, read_measurements
from nas.devices.model import LatencyModel
from nas.devices.parts import Floats, NetworkBlocks
from nas.devices.residual import Residual, ResidualInputs
from nas.devices.table import LatencyTable, MissingBlockError
from nas.job import Job
from nas.scratch import ScratchFolder
from nas.store import devices, measurements, work_files
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.jobs import add_event
from nas.store.work_files import WorkPlan
from search_spaces import SPACES
from supernet.export.probe_work import write_probe_work
from workers.context import JobContext
from workers.service import Finish

WORK_FILES = "work-files"
"""Below a worker's home, for files on their way into the artefact store."""


class WorkFileJob:
    """Makes the file that tells a probe what to measure."""

    def __init__(self, database: Database, artifacts: ArtifactStore, home: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._home = home

    def run(self, job: Job, context: JobContext) -> Finish:
        """The same bytes for the same plan."""
        with self._database.session() as session:
            plan = work_files.plan_of(work_files.get(session, job.resource_id).row)
        networks = _networks(plan)

        def on_progress(done: int, total: int) -> None:
            context.check()
            context.report("write", done, total)

        with ScratchFolder(self._home / WORK_FILES) as folder:
            path = folder / work_files.NAME
            num_blocks = write_probe_work(
                path,
                networks,
                num_networks=plan.num_networks,
                given=[networks.space.parse(description) for description in plan.architectures],
                max_blocks=plan.max_blocks,
                batch=plan.batch,
                seed=plan.seed,
                on_progress=on_progress,
            )
            # A folder of this attempt's own: one that lost its lease must not replace another's file.
            place = f"{work_files.folder_of(job.resource_id)}/{token_hex(8)}"
            stored = self._artifacts.put(f"{place}/{work_files.NAME}", path)

        def finish(session: Session) -> None:
            num_blocks_of_space = len(networks.distinct())
            work_files.publish(
                session,
                job.resource_id,
                stored,
                num_blocks=num_blocks,
                num_blocks_of_space=num_blocks_of_space,
            )

        return finish


class LatencyFit:
    """Fits a latency model to what a probe measured."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self, job: Job, context: JobContext) -> Finish:
        """The form that cross-validation chooses; its accuracy is told on networks that it never saw.

        Where too few networks were measured to fit any, their times are all that is kept.
        """
        context.report("fit", 0, 1)
        with self._database.session() as session:
            row = measurements.get(session, job.resource_id).row
            content = measurements.content_of(session, row.id)
            given = _given_table(session, row.device_id)
        measured = read_measurements(content.splitlines(), SPACES[row.search_space])
        if not measured.is_for_fit:
            return partial(_tell_no_fit, job.id, len(measured.networks))
        drawn = measured.drawn
        reader = drawn.networks
        filled = _filled(measured.table if measured.table.rows else given, reader)

        def grow(inputs: ResidualInputs, log_factor: Floats, *, seed: int) -> Residual:
            # Most of the time is spent here, in many short pieces.
            context.check()
            return grow_trees(inputs, log_factor, seed=seed)

        table = None if filled is None else filled.table
        model = fit_and_judge(drawn, table=table, grow_trees=grow)
        if filled is not None and model.table is not None:
            model = replace(model, interpolated=filled.interpolated)
        plain = None if table is None else _accuracy_of_sum(table, drawn)

        context.report("fit", 1, 1)

        def finish(session: Session) -> None:
            measurements.set_model(session, job.resource_id, model, plain)
            add_event(session, job.id, "latency_fitted", measurements.form_of(model))

        return finish


def _networks(plan: WorkPlan) -> NetworkBlocks:
    return NetworkBlocks.of(
        SPACES[plan.search_space], num_classes=plan.num_classes, in_channels=plan.in_channels
    )


def _tell_no_fit(job_id: str, num_networks: int, session: Session) -> None:
    """So few networks are known by what they were measured to take, and no model is made of them."""
    content = {"num_networks": num_networks, "fits_from": FIT_FROM}
    add_event(session, job_id, "latency_not_fitted", content)


def _given_table(session: Session, device_id: str) -> LatencyTable | None:
    """What somebody gave the device; of use where the probe measured whole networks alone."""
    row = devices.current_tables(session, [device_id]).get(device_id)
    if row is None:
        return None
    return LatencyTable.parse(devices.table_of(session, row.id).content.splitlines())


def _filled(table: LatencyTable | None, networks: NetworkBlocks) -> FilledTable | None:
    """The table with every block of the space; None where some cannot be told: the fit does without it."""
    if table is None:
        return None
    # However frameworks run what reaches no output, for the fit tries both.
    blocks = {*networks.distinct(), *replace(networks, drop_dead=not networks.drop_dead).distinct()}
    try:
        return interpolate(table, sorted(blocks))
    except MissingBlockError:
        return None


def _accuracy_of_sum(table: LatencyTable, measured: MeasuredNetworks) -> Accuracy:
    """Of the table as it stands. It was fitted to none of the networks, so all of them judge it."""
    bare = LatencyModel.of_table(table)
    return compare(bare.predict_ms(measured.networks, measured.codes), measured.latency_ms)
