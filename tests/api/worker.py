"""A worker's part, played through the store: claims, results, ends; nothing is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from nas.architecture import Architecture
from nas.costs import costs
from nas.devices.accuracy import compare
from nas.devices.fitting import fit_and_judge
from nas.devices.measurements import read_measurements
from nas.devices.model import LatencyModel
from nas.devices.table import LatencyTable
from nas.job import JobKind, Progress
from nas.probes import EpochProbes, ProbeResult, ProbeRole, choose_probes
from nas.search.predictor import Prediction
from nas.search.rounds import ForecastReport, Origin, StopReason
from nas.store import (
    datasets,
    devices,
    evaluation_batches,
    evaluations,
    measurements,
    probes,
    searches,
    subnets,
    supernets,
    verifications,
    work_files,
)
from nas.store.artifacts import Artifact, ArtifactStore
from nas.store.database import Database
from nas.store.datasets import DatasetContents
from nas.store.evaluation_columns import packed_code
from nas.store.jobs import JobQueue
from nas.store.supernets import TrainingPoint
from nas.trial import Evaluation, Split
from search_spaces import SPACES

SPACE = SPACES["micro_8"]
WEIGHTS = b"weights"
CHECKPOINT = hashlib.sha256(WEIGHTS).hexdigest()
CALIBRATION = "train[:256]/64"
NUM_VAL = 200
INHERITED = 150
"""Images of these that every network verified gets right."""

CONTENTS = DatasetContents(
    fingerprint="f" * 64,
    fingerprint_format=2,
    num_classes=10,
    in_channels=1,
    image_height=8,
    image_width=8,
    class_names=[str(digit) for digit in range(10)],
    mean=[0.5],
    std=[0.25],
    num_train=1000,
    num_calibration=256,
    num_val=NUM_VAL,
    num_test=300,
    num_unreadable=0,
    stored_rule="one channel, 8 x 8 pixels",
    given_splits=["train"],
)

REPORT = {
    "num_images": 1500,
    "given_splits": {"train": 1500},
    "classes": [{"name": str(d), "images": {"train": 120, "val": 20, "test": 30}} for d in range(10)],
    "imbalance": 1.0,
    "stored": {"channels": 1, "height": 8, "width": 8, "rule": CONTENTS.stored_rule},
    "sizes": None,
    "modes": {"L": 1500},
    "duplicates": {"within": {"train": 0}, "across": {}, "contradictory": 0},
    "unreadable": {"count": 1, "listed_at_most": 1000, "images": [{"where": "row 3", "reason": "cut short"}]},
    "warnings": ["1 images could not be read."],
}

PREDICTIONS = {0: Prediction(0.75, float("-inf"), float("inf")), 1: Prediction(0.875, 0.75, 1.0)}
"""Of the networks that a played search proposes."""
FORECASTS = ForecastReport(num_selected=1, coverage=None, num_ranked=0, within_bin_tau=None)

POINT = TrainingPoint(
    epoch=1,
    step=10,
    images_seen=640,
    train_loss=2.0,
    learning_rate=0.1,
    accuracy_val_largest=0.5,
    accuracy_val_smallest=0.4,
    num_images_val=NUM_VAL,
    elapsed_s=3.0,
)


class PlayedWorker:
    """Does the next job of a kind when told to."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts
        self.queue = JobQueue(database)
        self.probes = epoch_probes(POINT.epoch, [190, 120, 110, 150, 140])

    def claim(self, kind: JobKind):
        lease = self.queue.claim("played", lease_s=60, kinds=[kind])
        assert lease is not None, f"no {kind} job to claim"
        return lease

    @contextmanager
    def job(self, kind: JobKind):
        lease = self.claim(kind)
        self.queue.heartbeat(lease, lease_s=60, progress=Progress(phase="work", done=1, total=2))
        with self.queue.leased(lease) as session:
            yield session, lease.job.resource_id
            self.queue.succeed(lease, session)

    def fail(self, kind: JobKind, error: str) -> None:
        self.queue.fail(self.claim(kind), error)

    def import_dataset(self, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        with self.job(JobKind.IMPORT_DATASET) as (session, dataset_id):
            datasets.set_contents(session, dataset_id, CONTENTS)
            datasets.set_report(session, dataset_id, REPORT)
            published = [self._publish(f"datasets/{dataset_id}", name, data) for name, data in files.items()]
            datasets.set_files(session, dataset_id, published)

    def refuse_dataset(self) -> None:
        """As an import that finds unreadable images: the report stays, the job fails."""
        lease = self.claim(JobKind.IMPORT_DATASET)
        with self.queue.leased(lease) as session:
            datasets.set_report(session, lease.job.resource_id, REPORT)
        self.queue.fail(lease, "1 of 1501 images cannot be read")

    def train(self) -> None:
        with self.job(JobKind.TRAIN) as (session, supernet_id):
            probes.record(session, supernet_id, self.probes)
            supernets.record_point(session, supernet_id, POINT)
            stored = self._artifacts.put(f"supernets/{supernet_id}/a/supernet.safetensors", WEIGHTS)
            supernets.set_weights(
                session, supernet_id, checkpoint=CHECKPOINT, weights_uri=stored.uri, calibration=CALIBRATION
            )

    def search(self, architectures: Sequence[Architecture], num_correct: Sequence[int]) -> None:
        """Two rounds: all but the last two as seeds, these proposed, the very last one with an interval."""
        num_seeds = max(0, len(architectures) - 2)
        with self.job(JobKind.SEARCH) as (session, search_id):
            search = searches.get(session, search_id).row
            supernet_id = search.supernet_id
            for number, (architecture, correct) in enumerate(zip(architectures, num_correct, strict=True)):
                evaluation_id, is_new = evaluations.record(
                    session,
                    supernet_id,
                    measurement(architecture, correct),
                    costs_of(architecture),
                    code=packed_code(SPACE, architecture),
                )
                searches.record_trial(
                    session,
                    search_id,
                    number=number,
                    evaluation_id=evaluation_id,
                    round=int(number >= num_seeds),
                    is_reused=not is_new,
                    origin=Origin.PROPOSED if number >= num_seeds else Origin.SEED,
                    prediction=PREDICTIONS.get(number - num_seeds),
                    predicted_from=num_seeds if number >= num_seeds else None,
                )
            for number, num_trials in enumerate((num_seeds, len(architectures)) if architectures else ()):
                searches.record_round(
                    session,
                    search_id,
                    number=number,
                    num_trials=num_trials,
                    num_measured=num_trials,
                    hypervolume=1e6 * number,
                    reference=[float(100 + place) for place, _ in enumerate(search.objectives)],
                    forecasts=FORECASTS if number else None,
                )
            searches.set_stop_reason(session, search_id, StopReason.BUDGET_SPENT)

    def evaluate(self, num_correct: Sequence[int]) -> None:
        """The networks that are due, in their order, with so many images right."""
        with self.job(JobKind.EVALUATE) as (session, batch_id):
            supernet_id = evaluation_batches.get(session, batch_id).row.supernet_id
            due = [SPACE.parse(description) for description in evaluation_batches.due(session, batch_id)]
            for architecture, correct in zip(due, num_correct, strict=True):
                evaluation_id, is_new = evaluations.record(
                    session, supernet_id, measurement(architecture, correct), costs_of(architecture)
                )
                evaluation_batches.link(
                    session, batch_id, architecture.key, evaluation_id, is_reused=not is_new
                )

    def verify(self, num_correct: Mapping[int, int] = MappingProxyType({})) -> None:
        """Runs by their numbers get so many images right, on val and test alike; those not named fail."""
        with self.job(JobKind.VERIFY) as (session, verification_id):
            supernet_id = verifications.get(session, verification_id).row.supernet_id

            def record(network, correct, split, checkpoint=CHECKPOINT):
                measured = replace(measurement(network, correct, split), checkpoint=checkpoint)
                return evaluations.record(session, supernet_id, measured, costs_of(network))[0]

            networks = {
                found.network.number: SPACE.parse(found.network.architecture)
                for found in verifications.networks(session, verification_id)
            }
            for number, network in networks.items():
                verifications.record_inherited(
                    session,
                    verification_id,
                    number,
                    evaluation_val_id=record(network, INHERITED, Split.VAL),
                    evaluation_test_id=record(network, INHERITED, Split.TEST),
                )
            best: dict[tuple[int, str], tuple[int, Architecture, int]] = {}
            for found in verifications.runs(session, verification_id):
                number, network = found.run.number, networks[found.run.network_number]
                if number not in num_correct:
                    verifications.fail_run(session, verification_id, number, "it diverged")
                    continue
                correct = num_correct[number]
                evaluation_id = record(network, correct, Split.VAL, f"{verification_id}-{number}")
                verifications.record_run(
                    session, verification_id, number, evaluation_val_id=evaluation_id, weights_uri="file:///w"
                )
                group = found.run.network_number, found.run.training
                best[group] = max(best.get(group, (-1, network, -1)), (correct, network, number), key=_first)
            for correct, network, number in best.values():
                evaluation_id = record(network, correct, Split.TEST, f"{verification_id}-{number}")
                verifications.record_choice(
                    session, verification_id, number, evaluation_test_id=evaluation_id
                )

    def fit_latency(self) -> None:
        """A model of the figures, chosen without trees, which take their time."""
        with self.job(JobKind.FIT_LATENCY) as (session, measurements_id):
            row = measurements.get(session, measurements_id).row
            content = measurements.content_of(session, row.id).splitlines()
            measured = read_measurements(content, SPACES[row.search_space])
            if not measured.is_for_fit:
                return
            given = devices.current_tables(session, [row.device_id]).get(row.device_id)
            table = measured.table
            if not table.rows and given is not None:
                table = LatencyTable.parse(devices.table_of(session, given.id).content.splitlines())
            model = fit_and_judge(measured.drawn, table=table if table.rows else None)
            plain = None
            if table.rows:
                sums = LatencyModel.of_table(table).predict_ms(
                    measured.networks.networks, measured.networks.codes
                )
                plain = compare(sums, measured.networks.latency_ms)
            measurements.set_model(session, measurements_id, model, plain)

    def make_work_file(self, content: bytes) -> None:
        with self.job(JobKind.MAKE_WORK_FILE) as (session, work_file_id):
            stored = self._artifacts.put(f"work-files/{work_file_id}/a/work.zip", content)
            work_files.publish(session, work_file_id, stored, num_blocks=3, num_blocks_of_space=4)

    def specialise(self, files: dict[str, bytes]) -> None:
        with self.job(JobKind.SPECIALISE) as (session, subnet_id):
            row = subnets.get(session, subnet_id).row
            architecture = SPACE.parse(row.architecture)
            ids = [
                evaluations.record(
                    session, row.supernet_id, measurement(architecture, 190, split), costs_of(architecture)
                )[0]
                for split in (Split.VAL, Split.TEST)
            ]
            subnets.publish(
                session,
                subnet_id,
                evaluation_val_id=ids[0],
                evaluation_test_id=ids[1],
                artifacts=[self._publish(f"subnets/{subnet_id}", name, data) for name, data in files.items()],
            )

    def _publish(self, place: str, name: str, data: bytes) -> Artifact:
        stored = self._artifacts.put(f"{place}/{name}", data)
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        return Artifact(
            name=name,
            size_bytes=len(data),
            sha256=stored.sha256,
            media_type="application/octet-stream",
            uri=stored.uri,
        )


def _first(values):
    return values[0]


def epoch_probes(epoch: int, num_correct: Sequence[int]) -> EpochProbes:
    """The ends of the space and drawn networks, with so many images right."""
    rng = np.random.default_rng(0)
    networks = choose_probes(SPACE, len(num_correct) - 2, rng, num_classes=10, in_channels=1)
    results = [
        ProbeResult(
            number=network.number,
            num_correct=count,
            num_images=NUM_VAL,
            duration_s=0.01 if network.role is ProbeRole.DRAWN else 0.3 + 0.1 * network.number,
        )
        for network, count in zip(networks, num_correct, strict=True)
    ]
    return EpochProbes(
        epoch=epoch,
        step=10 * epoch,
        networks=networks,
        results=tuple(results),
        strategies={},
        is_settled=True,
    )


def costs_of(architecture: Architecture) -> dict[str, int]:
    return costs(SPACE, architecture, num_classes=CONTENTS.num_classes, in_channels=CONTENTS.in_channels)


def measurement(architecture: Architecture, num_correct: int, split: Split = Split.VAL) -> Evaluation:
    return Evaluation(
        architecture=architecture,
        checkpoint=CHECKPOINT,
        split=split,
        num_images=NUM_VAL,
        calibration=CALIBRATION,
        num_correct=num_correct,
        per_class_correct=(num_correct,),
        per_class_images=(NUM_VAL,),
        correct_bitmap=np.packbits(np.arange(NUM_VAL) < num_correct).tobytes(),
        duration_s=0.1,
    )


def ladder(count: int) -> list[Architecture]:
    """Distinct networks from the smallest to the largest, by rising MACs."""
    rng = np.random.default_rng(0)
    between = {SPACE.sample(rng) for _ in range(count - 2)}
    networks = {SPACE.smallest(), SPACE.largest(), *between}
    return sorted(networks, key=lambda architecture: costs_of(architecture)["macs"])
