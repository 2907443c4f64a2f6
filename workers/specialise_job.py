"""Runs `specialise` jobs: cuts a network out, measures it, and publishes its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.errors import ArtifactError
from nas.job import Job
from nas.ports import StopCheck
from nas.recipes import recipe_from_json
from nas.scratch import ScratchFolder
from nas.store import evaluations, subnets, supernets, verifications
from nas.store.artifacts import Artifact, ArtifactStore
from nas.store.database import Database
from nas.store.jobs import add_event
from nas.trial import Evaluation, Split
from nas.verification import alone_recipe
from supernet.data import DataSplits, ResizedSplits
from supernet.evaluate import EVALUATION_BATCH_SIZE
from supernet.export.bundle import BundleFile, write_bundle
from supernet.export.card import Card, Preprocessing, counted_costs
from supernet.export.verify import IMAGES
from workers.chosen import ChosenNetwork
from workers.context import JobContext
from workers.datasets import DatasetReference, dataset_reference
from workers.figures import PublishedFigures, count_differing
from workers.service import Finish
from workers.trained import TrainedSupernet, describe_supernet, with_own_weights
from workers.weights import fetch_weights, load_weights

_STEPS = ("load", "measure", "bundle", "publish")


class SpecialiseJob:
    """Publishes one network of a trained supernet."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        home: Path,
        *,
        num_threads: int,
        public_url: str,
        max_images_in_zip_bytes: int,
    ) -> None:
        """`public_url` is the service's own, or empty: it has the images that the zip has not."""
        self._public_url = public_url
        self._max_images_in_zip_bytes = max_images_in_zip_bytes
        self._database = database
        self._artifacts = artifacts
        self._home = home
        self._num_threads = num_threads

    def run(self, job: Job, context: JobContext) -> Finish:
        """Extract, measure, write, check; the files and figures appear with the end of the job."""
        torch.set_num_threads(self._num_threads)
        self._tell(context, "load")
        subject = self._load(job.resource_id, context)
        self._tell(context, "measure")
        figures = subject.chosen.settle(self._database, context)
        self._tell(context, "bundle")
        with ScratchFolder() as folder:
            files = subject.write(
                folder,
                figures,
                images_at=f"{self._public_url}/v1/subnets/{job.resource_id}/artifacts/{IMAGES}",
                max_images_in_zip_bytes=self._max_images_in_zip_bytes,
                stop_check=context.check,
            )
            self._tell(context, "publish")
            # A folder of this attempt's own: one that lost its lease must not replace another's files.
            place = f"subnets/{job.resource_id}/{token_hex(8)}"
            try:
                published = [self._publish(place, file, context) for file in files]
            except Exception:
                self._artifacts.delete_folder(place)
                raise

        def finish(session: Session) -> None:
            ids = {split: subject.record(session, e) for split, e in figures.evaluations.items()}
            add_event(session, job.id, "measured", figures.to_event())
            subnets.publish(
                session,
                job.resource_id,
                evaluation_val_id=ids[Split.VAL],
                evaluation_test_id=ids[Split.TEST],
                artifacts=published,
            )

        return finish

    def _tell(self, context: JobContext, step: str) -> None:
        context.check()
        context.report(step, _STEPS.index(step), len(_STEPS))

    def _load(self, subnet_id: str, context: JobContext) -> _Subject:
        with self._database.session() as session:
            subnet = subnets.get(session, subnet_id).row
            trained = describe_supernet(session, supernets.get(session, subnet.supernet_id).row)
            if subnet.verification_id is not None and subnet.run_number is not None:
                run = verifications.one_run(session, subnet.verification_id, subnet.run_number)
                trained = with_own_weights(trained, run, subnet.architecture)
        data = dataset_reference(self._database, self._artifacts, self._home, trained.row.dataset_id)
        return _Subject(
            trained,
            trained.space.canonical(trained.space.parse(subnet.architecture)),
            data,
            data.load(context.check),
            fetch_weights(self._artifacts, trained.weights_uri, trained.checkpoint),
            subnet.own_training,
            context.check,
        )

    def _publish(self, place: str, file: BundleFile, context: JobContext) -> Artifact:
        context.check()
        stored = self._artifacts.put(f"{place}/{file.name}", file.path)
        return Artifact(
            name=file.name,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            media_type=file.media_type,
            uri=stored.uri,
        )


class _Subject:
    """The network being published, in the supernet and on its own."""

    def __init__(
        self,
        trained: TrainedSupernet,
        architecture: Architecture,
        origin: DatasetReference,
        splits: DataSplits,
        weights: bytes,
        own_training: Mapping[str, Any] | None,
        stop_check: StopCheck,
    ) -> None:
        """`own_training`: what gave the weights, unless they are the supernet's."""
        self._own_training = own_training
        self._trained = trained
        self._origin = origin
        self._data = ResizedSplits(splits)
        self._supernet = load_weights(trained.description, weights)
        self.chosen = ChosenNetwork(trained, self._supernet, self._data, architecture, stop_check)

    def write(
        self,
        folder: Path,
        figures: PublishedFigures,
        *,
        images_at: str,
        max_images_in_zip_bytes: int,
        stop_check: StopCheck,
    ) -> list[BundleFile]:
        """The bundle's files; ArtifactError unless they reproduce the supernet and the card."""
        resolution = self._supernet.space.resolution_px(self.chosen.in_supernet)
        return write_bundle(
            folder,
            images_at=images_at,
            max_images_in_zip_bytes=max_images_in_zip_bytes,
            network=self.chosen.network,
            supernet_logits=self._supernet_logits,
            card=self._card(figures, resolution),
            check={
                split: (self._data.images(split, resolution), self._data.labels(split)) for split in Split
            },
            stop_check=stop_check,
        )

    @torch.no_grad()
    def _supernet_logits(self, images: torch.Tensor) -> torch.Tensor:
        return self._supernet(images, self.chosen.in_supernet, self.chosen.statistics)

    def _card(self, figures: PublishedFigures, resolution: int) -> Card:
        splits, row = self._data.splits, self._trained.row
        return Card(
            architecture=self.chosen.architecture,
            costs=counted_costs(self.chosen.network.layers),
            evaluations=tuple(figures.evaluations.values()),
            batch_size=EVALUATION_BATCH_SIZE,
            preprocessing=Preprocessing(
                resolution_px=resolution, mean=tuple(splits.mean), std=tuple(splits.std)
            ),
            class_names=tuple(splits.class_names),
            supernet_id=row.id,
            supernet_checkpoint=row.checkpoint or self._trained.checkpoint,
            own_training=None if self._own_training is None else self._own_training["training"],
            data_fingerprint=splits.fingerprint,
            split_plan=splits.plan.to_json(),
            num_unreadable=self._origin.num_unreadable,
            stored_rule=self._origin.stored_rule,
            recipe=self._recipe,
            seeds={"training": self._seed, "splits": splits.plan.seed},
            code_version=version("nas-service"),
            # Of a network's own training it is not kept whether it was stopped.
            resume_departures=tuple(row.resume_departures) if self._own_training is None else None,
        )

    @property
    def _recipe(self) -> dict[str, Any]:
        """By which the weights were trained."""
        told = self._own_training
        if told is None:
            return self._trained.row.recipe
        recipe = alone_recipe(recipe_from_json(self._trained.row.recipe), told["learning_rate"])
        return replace(recipe, epochs=told["epochs"]).to_json()

    @property
    def _seed(self) -> int:
        """Of that training."""
        return self._trained.row.seed if self._own_training is None else int(self._own_training["seed"])

    def record(self, session: Session, evaluation: Evaluation) -> int:
        """The evaluation's row, which says what the card says."""
        evaluation_id, is_new = self.chosen.record(session, evaluation)
        if not is_new:
            row = evaluations.get(session, evaluation_id)
            standing = evaluations.as_evaluation(row, self.chosen.architecture)
            if count_differing(evaluation, standing):
                raise ArtifactError(
                    f"another job has meanwhile recorded {standing.num_correct} of {standing.num_images} "
                    f"{standing.split} images as classified rightly, the card of this one says "
                    f"{evaluation.num_correct}; specialise the network again"
                )
        return evaluation_id
