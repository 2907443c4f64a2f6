"""Runs `verify` jobs: chosen networks measured to the end, and trained on their own where that was asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from sqlalchemy import event
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.errors import NasError
from nas.job import Job
from nas.store import supernets, verifications
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.jobs import add_event
from nas.store.tables import VerificationRow, VerificationRunRow
from nas.store.verifications import NetworkWithResults, RunWithEvaluations
from nas.trial import Split
from nas.verification import RunState
from supernet.data import ResizedSplits
from supernet.network import Supernet
from workers.chosen import ChosenNetwork
from workers.context import JobContext
from workers.datasets import DatasetReference, dataset_reference
from workers.own_trainings import OwnTrainings
from workers.run_ledger import RunLedger
from workers.service import Finish
from workers.trained import TrainedSupernet, describe_supernet, with_own_weights
from workers.tuning import Listener, tune_runs
from workers.weights import fetch_weights, load_weights

VERIFICATIONS = "verifications"
"""Below a worker's home; in it a folder for each verification, of checkpoints and of Tune's own notes."""


class VerifyJob:
    """Says what chosen networks are worth: what they inherit on test, and what they learn on their own."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        home: Path,
        *,
        num_threads: int,
        num_at_once: int,
        device: str,
        ensure_ray: Callable[[], None],
    ) -> None:
        """`num_at_once` networks are trained at a time, each in a process with one thread."""
        self._database = database
        self._artifacts = artifacts
        self._home = home
        self._num_threads = num_threads
        self._num_at_once = num_at_once
        self._device = device
        self._ensure_ray = ensure_ray

    def run(self, job: Job, context: JobContext) -> Finish:
        """Measure, train, choose; each result is a row at once, and what has a row is not done again."""
        torch.set_num_threads(self._num_threads)
        work = self._load(job.resource_id, context)
        work.measure_inherited()
        due = work.due_runs()
        if due:
            self._ensure_ray()
            work.train(due, num_at_once=self._num_at_once, device=self._device)
        work.measure_chosen()
        return lambda session: work.finish(session, job.id)

    def _load(self, verification_id: str, context: JobContext) -> _Work:
        with self._database.session() as session:
            row = verifications.get(session, verification_id).row
            trained = describe_supernet(session, supernets.get(session, row.supernet_id).row)
        data = dataset_reference(self._database, self._artifacts, self._home, trained.row.dataset_id)
        return _Work(
            row,
            trained,
            data,
            database=self._database,
            artifacts=self._artifacts,
            folder=verification_folder(self._home, row.id),
            context=context,
        )


class _Work:
    """One verification on its way."""

    def __init__(
        self,
        row: VerificationRow,
        trained: TrainedSupernet,
        data: DatasetReference,
        *,
        database: Database,
        artifacts: ArtifactStore,
        folder: Path,
        context: JobContext,
    ) -> None:
        self._row = row
        self._trained = trained
        self._data = data
        self._database = database
        self._artifacts = artifacts
        self._folder = folder
        self._context = context
        self._splits = ResizedSplits(data.load(context.check))
        weights = fetch_weights(artifacts, trained.weights_uri, trained.checkpoint)
        self._supernet = load_weights(trained.description, weights)
        self._num_landed = self._count_landed()

    # What is inherited

    def measure_inherited(self) -> None:
        """Each network as it would be published: on all of val, and on test unless that was done before."""
        networks = self._networks()
        for network in networks:
            self._context.report("inherited", network.network.number, len(networks))
            self._context.check()
            if network.test is not None:
                continue
            chosen = self._chosen(self._trained, self._supernet, self._architecture(network))
            figures = chosen.settle(self._database, self._context)
            with self._context.transaction() as session:
                ids = {split: chosen.record(session, e)[0] for split, e in figures.evaluations.items()}
                verifications.record_inherited(
                    session,
                    self._row.id,
                    network.network.number,
                    evaluation_val_id=ids[Split.VAL],
                    evaluation_test_id=ids[Split.TEST],
                )
                self._land()

    # What is learned

    def due_runs(self) -> list[VerificationRunRow]:
        """Those that have come to nothing yet."""
        return [found.run for found in self._runs() if found.run.state == RunState.DUE]

    def train(self, due: Sequence[VerificationRunRow], *, num_at_once: int, device: str) -> None:
        """Do them all under Ray Tune."""
        source = OwnTrainings(self._row, self._trained, self._supernet, data=self._data, folder=self._folder)
        networks = {network.network.number: self._architecture(network) for network in self._networks()}
        ledger = RunLedger(self._row, self._trained, self._context, due, on_landed=self._land)
        ledger.report()
        tune_runs(
            [source.run(row, networks[row.network_number]) for row in due],
            self._artifacts,
            storage=self._folder / "tune",
            num_at_once=num_at_once,
            device=device,
            check=self._context.check,
            listener=Listener(
                on_measured=ledger.on_measured, on_failed=ledger.on_failed, on_epoch=ledger.on_epoch
            ),
        )

    # What is chosen

    def measure_chosen(self) -> None:
        """Of each network and training the rate that is best on val: once on test."""
        runs = self._runs()
        if runs and not any(found.val for found in runs):
            raise NasError(
                f"none of the {len(runs)} trainings came to anything; the first: {runs[0].run.error}; "
                "choose lower learning_rates, and verify again"
            )
        networks = {network.network.number: network for network in self._networks()}
        best = _best_of_each(runs)
        for done, found in enumerate(best):
            self._context.report("chosen", done, len(best))
            self._context.check()
            if found.test is None:
                self._measure_on_test(found, networks[found.run.network_number])

    def _measure_on_test(self, found: RunWithEvaluations, network: NetworkWithResults) -> None:
        alone = with_own_weights(self._trained, found, network.network.architecture)
        weights = fetch_weights(
            self._artifacts, alone.weights_uri, alone.checkpoint, remedy="verify the network again"
        )
        supernet = load_weights(alone.description, weights)
        chosen = self._chosen(alone, supernet, self._architecture(network))
        figures = chosen.settle(self._database, self._context)
        with self._context.transaction() as session:
            evaluation_id, _ = chosen.record(session, figures.evaluations[Split.TEST])
            verifications.record_choice(
                session, self._row.id, found.run.number, evaluation_test_id=evaluation_id
            )
            self._land()

    # The end

    def finish(self, session: Session, job_id: str) -> None:
        """Say what there is; weights and checkpoints that nobody wants any more go after the commit."""
        count = verifications.counts(session, [self._row.id])[self._row.id]
        payload = {
            "num_networks": count.num_networks,
            "num_measured": count.num_measured,
            "num_failed": count.num_failed,
        }
        add_event(session, job_id, "verification_ended", payload)
        unwanted = verifications.forget_weights(session, self._row.id)

        def clear(_: object) -> None:
            for uri in unwanted:
                self._artifacts.delete_folder(self._artifacts.key_of(uri).rpartition("/")[0])
            shutil.rmtree(self._folder, ignore_errors=True)

        event.listen(session, "after_commit", clear, once=True)

    def _chosen(
        self, trained: TrainedSupernet, supernet: Supernet, architecture: Architecture
    ) -> ChosenNetwork:
        return ChosenNetwork(trained, supernet, self._splits, architecture, self._context.check)

    def _architecture(self, network: NetworkWithResults) -> Architecture:
        space = self._trained.space
        return space.canonical(space.parse(network.network.architecture))

    def _networks(self) -> Sequence[NetworkWithResults]:
        with self._database.session() as session:
            return verifications.networks(session, self._row.id)

    def _runs(self) -> Sequence[RunWithEvaluations]:
        with self._database.session() as session:
            return verifications.runs(session, self._row.id)

    def _count_landed(self) -> int:
        """Results that are rows already, in the unit in which this job lands its work."""
        runs = self._runs()
        return (
            sum(network.test is not None for network in self._networks())
            + sum(found.run.state != RunState.DUE for found in runs)
            + sum(found.test is not None for found in runs)
        )

    def _land(self) -> None:
        self._num_landed += 1
        self._context.landed(self._num_landed)


def verification_folder(home: Path, verification_id: str) -> Path:
    """Where a machine keeps what the verification's trainings go on from."""
    return home / VERIFICATIONS / verification_id


def _best_of_each(runs: Iterable[RunWithEvaluations]) -> list[RunWithEvaluations]:
    """For each network and training the run that is best on val; of equals that of the lowest rate."""
    best: dict[tuple[int, str], RunWithEvaluations] = {}
    for found in sorted(runs, key=lambda found: found.run.learning_rate):
        if found.val is None:
            continue
        key = found.run.network_number, found.run.training
        standing = best.get(key)
        if standing is None or standing.val is None or found.val.num_correct > standing.val.num_correct:
            best[key] = found
    return [best[key] for key in sorted(best)]
