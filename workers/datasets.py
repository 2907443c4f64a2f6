"""Data sets on a worker: imported once, kept decoded, made again from their source when the copy is gone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from nas.errors import DatasetError
from nas.job import Job
from nas.ports import StopCheck, never_stop
from nas.store import datasets
from nas.store.artifacts import Artifact, ArtifactStore
from nas.store.database import Database
from nas.store.datasets import DatasetContents
from supernet.data import FINGERPRINT_FORMAT, DataSource, DataSplits, Intake, SplitPlan, load_splits
from supernet.data.listing import GivenSplit
from supernet.data.survey import Storage, Survey
from workers.context import JobContext
from workers.dataset_files import PublishedSplits, publish_splits
from workers.service import Finish
from workers.uploads import local_source

CACHES = "datasets"
"""Below a worker's home; in it a folder for each fingerprint, which data sets of the same images share."""


@dataclass(frozen=True, kw_only=True)
class DatasetReference:
    """Enough to get the very same splits in any process."""

    dataset_id: str
    source: dict[str, Any]
    split: dict[str, Any]
    fingerprint: str
    caches: Path
    """Folder of this machine's decoded images."""
    num_unreadable: int = 0
    """Images of the source that were left out."""
    stored_rule: str = ""
    """How the images were brought to one shape."""
    published: PublishedSplits | None = None
    """The splits as the import published them; None for a data set of an older release."""

    @property
    def cache(self) -> Path:
        """Where this machine keeps the decoded images."""
        return self.caches / self.fingerprint

    def load(self, stop_check: StopCheck = never_stop) -> DataSplits:
        """The splits, checked against the fingerprint: this machine's copy, else those published, else anew.

        The source is wanted only where nothing was published, so it may be gone, or on another machine.
        """
        if self.cache.exists():
            try:
                return load_splits(self.cache, SplitPlan.from_json(self.split), stop_check)
            except (OSError, ValueError, KeyError):
                # Damaged, which costs time only.
                shutil.rmtree(self.cache, ignore_errors=True)
        if self.published is not None and self.published.are_there():
            with self.published.fetched(self.caches, stop_check) as listing:
                storage = Storage(stored_size=listing.image_size)
                return self._taken_in(Intake(lambda: listing, storage, self.caches, stop_check))
        return self._taken_in(Intake.of(self.data_source(), self.caches, stop_check))

    def _taken_in(self, intake: Intake) -> DataSplits:
        if intake.decode().fingerprint != self.fingerprint:
            raise DatasetError(
                f"the images of data set {self.dataset_id} have changed since it was registered; "
                "restore them, or register them as a new data set"
            )
        return intake.split(SplitPlan.from_json(self.split))

    def data_source(self) -> DataSource:
        """Where the images come from."""
        return DataSource.from_json(self.source)


class DatasetImport:
    """Runs `import_dataset` jobs."""

    def __init__(self, database: Database, artifacts: ArtifactStore, home: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._home = home

    def run(self, job: Job, context: JobContext) -> Finish:
        """Survey, decode, split, keep, publish, and say what was found: also where it has to be refused."""
        context.report("survey", 0, 1)
        named, caches = DataSource.from_json(job.spec["source"]), self._home / CACHES
        with local_source(self._database, self._artifacts, named, context.check) as source:
            intake = Intake.of(source, caches, context.check)
            try:
                intake.decode(lambda done, total: context.report("decode", done, total))
                splits = intake.split(SplitPlan.from_json(job.spec["split"]))
            except DatasetError:
                report = intake.report()
                if report is not None:
                    with context.transaction() as session:
                        datasets.set_report(session, job.resource_id, report)
                raise
        assert intake.survey is not None  # what was decoded was surveyed
        contents, found = _contents(splits, intake.survey), intake.report()
        files = publish_splits(self._artifacts, job.resource_id, splits, caches, context)

        def finish(session: Session) -> None:
            datasets.set_contents(session, job.resource_id, contents)
            datasets.set_files(session, job.resource_id, files)
            if found is not None:
                datasets.set_report(session, job.resource_id, found)

        return finish


def dataset_reference(
    database: Database, artifacts: ArtifactStore, home: Path, dataset_id: str
) -> DatasetReference:
    """The registered data set, ready to be loaded here."""
    with database.session() as session:
        found = datasets.get(session, dataset_id)
        files = tuple(datasets.files(session, dataset_id))
    row = found.row
    if row.fingerprint is None:
        raise DatasetError(f"data set {dataset_id} is not imported: its job is {found.job.state}")
    if row.fingerprint_format != FINGERPRINT_FORMAT:
        # Drawn anew its splits would be others: images that trained a supernet would come to measure it.
        raise DatasetError(
            f"data set {dataset_id} was imported by an earlier version, which ordered and split its images "
            f"otherwise (format {row.fingerprint_format}, now {FINGERPRINT_FORMAT}); its images need not "
            "have changed: register the same source as a new data set, and train on that"
        )
    return DatasetReference(
        dataset_id=dataset_id,
        source=row.source,
        split=found.job.spec["split"],
        fingerprint=row.fingerprint,
        caches=home / CACHES,
        num_unreadable=row.num_unreadable or 0,
        stored_rule=row.stored_rule or "",
        published=_published(artifacts, files, row.given_splits or []) if files else None,
    )


def _published(
    artifacts: ArtifactStore, files: tuple[Artifact, ...], given_splits: Sequence[str]
) -> PublishedSplits:
    given = frozenset(GivenSplit(name) for name in given_splits)
    return PublishedSplits(artifacts=artifacts, files=files, given_splits=given)


def _contents(splits: DataSplits, survey: Survey) -> DatasetContents:
    height, width = splits.image_size
    return DatasetContents(
        fingerprint=splits.fingerprint,
        fingerprint_format=FINGERPRINT_FORMAT,
        num_classes=splits.num_classes,
        in_channels=splits.num_channels,
        image_height=height,
        image_width=width,
        class_names=list(splits.class_names),
        mean=list(splits.mean),
        std=list(splits.std),
        num_train=len(splits.train),
        num_calibration=len(splits.calibration),
        num_val=len(splits.val),
        num_test=len(splits.test),
        num_unreadable=len(survey.unreadable),
        stored_rule=survey.rule,
        given_splits=[split.value for split in survey.class_counts],
    )
