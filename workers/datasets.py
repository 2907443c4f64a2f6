"""Data sets on a worker: imported once, kept decoded, made again from their source when the copy is gone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from nas.errors import DatasetError
from nas.job import Job
from nas.ports import StopCheck, never_stop
from nas.store import datasets
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.datasets import DatasetContents
from supernet.data import DataSource, DataSplits, SplitPlan, load_cache, load_source, make_splits, save_cache
from workers.context import JobContext
from workers.dataset_files import PublishedSplits, publish_splits
from workers.service import Finish
from workers.uploads import local_source


@dataclass(frozen=True, kw_only=True)
class DatasetReference:
    """Enough to get the very same splits in any process."""

    dataset_id: str
    source: dict[str, Any]
    split: dict[str, Any]
    fingerprint: str
    cache: Path
    published: PublishedSplits | None = None
    """The splits as the import published them; None for a data set of an older release."""

    def load(self, stop_check: StopCheck = never_stop) -> DataSplits:
        """The splits, checked against the fingerprint: this machine's copy, else those published, else anew.

        The source is wanted only where nothing was published, so it may be gone, or on another machine.
        """
        cached = self._cached()
        if cached is not None:
            return self._checked(cached)
        if self.published is not None and self.published.are_there():
            with self.published.fetched(self.cache.parent, self.split, stop_check) as splits:
                save_cache(self._checked(splits), self.cache, stop_check)
            return load_cache(self.cache)
        # Checked before it is kept: a copy of changed images would outlive their restoration.
        splits = import_splits(self.source, self.split, stop_check)
        save_cache(self._checked(splits), self.cache, stop_check)
        return load_cache(self.cache)

    def _checked(self, splits: DataSplits) -> DataSplits:
        if splits.fingerprint != self.fingerprint:
            raise DatasetError(
                f"the images of data set {self.dataset_id} have changed since it was registered; "
                "restore them, or register them as a new data set"
            )
        return splits

    def _cached(self) -> DataSplits | None:
        """This machine's copy; none where there is none, or where it is damaged, which costs time only."""
        try:
            return load_cache(self.cache)
        except (OSError, ValueError, KeyError):
            shutil.rmtree(self.cache, ignore_errors=True)
            return None

    def data_source(self) -> DataSource:
        """Where the images come from."""
        return DataSource.from_json(self.source)


def import_splits(
    source: dict[str, Any], split: dict[str, Any], stop_check: StopCheck = never_stop
) -> DataSplits:
    """Decode the source and draw the splits."""
    images = load_source(DataSource.from_json(source), stop_check)
    return make_splits(images, SplitPlan.from_json(split), stop_check)


class DatasetImport:
    """Runs `import_dataset` jobs."""

    def __init__(self, database: Database, artifacts: ArtifactStore, home: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._home = home

    def run(self, job: Job, context: JobContext) -> Finish:
        """Decode, split, keep, publish, and say what was found."""
        context.report("decode", 0, 1)
        named = DataSource.from_json(job.spec["source"])
        with local_source(self._database, self._artifacts, named, context.check) as source:
            splits = import_splits(source.to_json(), job.spec["split"], context.check)
        save_cache(splits, cache_folder(self._home, job.resource_id), context.check)
        context.report("decode", 1, 1)
        contents = _contents(splits)
        files = publish_splits(self._artifacts, job.resource_id, splits, self._home, context)

        def finish(session: Session) -> None:
            datasets.set_contents(session, job.resource_id, contents)
            datasets.set_files(session, job.resource_id, files)

        return finish


def dataset_reference(
    database: Database, artifacts: ArtifactStore, home: Path, dataset_id: str
) -> DatasetReference:
    """The registered data set, ready to be loaded here."""
    with database.session() as session:
        found = datasets.get(session, dataset_id)
        files = tuple(datasets.files(session, dataset_id))
    if found.row.fingerprint is None:
        raise DatasetError(f"data set {dataset_id} is not imported: its job is {found.job.state}")
    return DatasetReference(
        dataset_id=dataset_id,
        source=found.row.source,
        split=found.job.spec["split"],
        fingerprint=found.row.fingerprint,
        cache=cache_folder(home, dataset_id),
        published=PublishedSplits(artifacts=artifacts, files=files) if files else None,
    )


def cache_folder(home: Path, dataset_id: str) -> Path:
    """Where a machine keeps the decoded images of a data set."""
    return home / "datasets" / dataset_id


def _contents(splits: DataSplits) -> DatasetContents:
    height, width = splits.image_size
    return DatasetContents(
        fingerprint=splits.fingerprint,
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
    )
