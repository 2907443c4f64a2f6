"""What killed and beaten attempts leave behind, and unused copies, once nobody can want them any more.

Nothing of a job that may go on is touched: checkpoints are what it resumes from, and a worker may be
writing its files. A job's end is final, so from then on only what a row points to is wanted, and the newest
checkpoint of a training that published no weights. A worker that lost its lease may write after that end;
what it writes is met by a later look. Of what was deleted nothing is wanted at all.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from nas.errors import ArtifactError
from nas.job import JobKind, JobState
from nas.scratch import is_scratch, remove_abandoned
from nas.store import datasets, discards, subnets, supernets, verifications, work_files
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.deletion import SUPERNET, VERIFICATION, ResourceKind, folder_of
from nas.store.jobs import JobQueue
from supernet.training.checkpoint import newest_readable
from supernet.training.formats import CheckpointError
from workers.datasets import CACHES
from workers.latency_jobs import WORK_FILES
from workers.training_job import CHECKPOINTS
from workers.verify_job import VERIFICATIONS

logger = logging.getLogger(__name__)

_UNUSED_S = 3600.0
"""So long must decoded images lie untouched: they are there before the row that refers to them."""
_LATER_LOOKS_S = 24 * 3600.0
"""The first look goes through all jobs that have ended, later ones through those of this long."""


class Leftovers:
    """The attempts' folders in the artefact store, this machine's checkpoints and decoded images."""

    def __init__(self, queue: JobQueue, database: Database, artifacts: ArtifactStore, home: Path) -> None:
        self._queue = queue
        self._database = database
        self._artifacts = artifacts
        self._home = home
        self._checkpoints = home / CHECKPOINTS
        self._verifications = home / VERIFICATIONS
        self._caches = home / CACHES
        self._work_files = home / WORK_FILES
        self._has_looked = False

    def remove(self) -> None:
        """Remove what is wanted no more."""
        within_s = _LATER_LOOKS_S if self._has_looked else None
        self._remove_attempts(JobKind.IMPORT_DATASET, "datasets", datasets.published_uris, within_s)
        self._remove_attempts(JobKind.SPECIALISE, "subnets", subnets.published_uris, within_s)
        self._remove_attempts(JobKind.MAKE_WORK_FILE, "work-files", work_files.published_uris, within_s)
        self._remove_attempts(JobKind.TRAIN, "supernets", supernets.published_uris, within_s)
        self._remove_attempts(JobKind.VERIFY, VERIFICATIONS, verifications.published_uris, within_s)
        within = None if within_s is None else timedelta(seconds=within_s)
        discards.remove_due(self._database, self._artifacts, within=within)
        self._remove_checkpoints()
        self._remove_verifications()
        self._remove_scratch()
        self._remove_caches()
        self._has_looked = True

    def _remove_attempts(
        self,
        kind: JobKind,
        place: str,
        published_uris: Callable[[Session, str], set[str]],
        within_s: float | None,
    ) -> None:
        """Each attempt writes to a folder of its own; at most one of them was published."""
        for job in self._queue.ended(kind, within_s=within_s):
            # Read after the job was seen to have ended: no row can come to point anywhere else.
            with self._database.session() as session:
                uris = published_uris(session, job.resource_id)
            try:
                wanted = {self._artifacts.key_of(uri).rpartition("/")[0] for uri in uris}
            except ArtifactError:
                # Published to a store that was in use before: whether this one holds copies, nobody knows.
                continue
            for folder in self._artifacts.folders(f"{place}/{job.resource_id}"):
                if folder not in wanted:
                    self._artifacts.delete_folder(folder)
                    logger.info("files of a lost attempt removed", extra={"job_id": job.id, "key": folder})

    def _remove_checkpoints(self) -> None:
        """A succeeded training has published its weights; one failed or cancelled left its newest checkpoint.

        That one another training may begin from, until the supernet is deleted.
        """
        if not self._checkpoints.is_dir():
            return
        kept = [folder.name for folder in self._checkpoints.iterdir() if folder.is_dir()]
        ends = self._queue.have_ended(JobKind.TRAIN, kept)
        useless = {i for i, state in ends.items() if state is JobState.SUCCEEDED}
        useless |= self._deleted(SUPERNET, kept)
        for supernet_id in sorted(useless):
            shutil.rmtree(self._checkpoints / supernet_id, ignore_errors=True)
            logger.info("checkpoints of an ended training removed", extra={"supernet_id": supernet_id})
        for supernet_id in sorted(ends.keys() - useless):
            _keep_newest(self._checkpoints / supernet_id)

    def _remove_verifications(self) -> None:
        """What trainings of single networks would have gone on from, had their verification not ended."""
        if not self._verifications.is_dir():
            return
        kept = [folder.name for folder in self._verifications.iterdir() if folder.is_dir()]
        ended = {*self._queue.have_ended(JobKind.VERIFY, kept)}
        for verification_id in sorted(ended | self._deleted(VERIFICATION, kept)):
            shutil.rmtree(self._verifications / verification_id, ignore_errors=True)
            logger.info("leftovers of a verification removed", extra={"verification_id": verification_id})

    def _deleted(self, kind: ResourceKind, ids: Sequence[str]) -> set[str]:
        """Those that were deleted: no job is left to say that it has ended."""
        by_folder = {folder_of(kind, resource_id): resource_id for resource_id in ids}
        with self._database.session() as session:
            return {by_folder[key] for key in discards.are_discarded(session, [*by_folder])}

    def _remove_caches(self) -> None:
        """Decoded images of no data set, and what is left of imports that were killed.

        A home belongs to one database; images that another one refers to are decoded again when needed.
        """
        if not self._caches.is_dir():
            return
        found = [folder for folder in self._caches.iterdir() if folder.is_dir() and not is_scratch(folder)]
        folders = [folder for folder in found if _is_untouched(folder)]
        if not folders:
            return
        with self._database.session() as session:
            wanted = datasets.fingerprints(session)
        for folder in folders:
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)
                logger.info("unused decoded images removed", extra={"folder": folder.name})

    def _remove_scratch(self) -> None:
        """What killed workers left of uploads, archives, bundles and splits on their way."""
        for place in (None, self._caches, self._work_files):
            remove_abandoned(place)


def _keep_newest(folder: Path) -> None:
    """Remove everything but the newest checkpoint that is not damaged, and the folder where there is none."""
    try:
        newest = newest_readable(folder)
    except CheckpointError as error:
        # Which one is to stay cannot be told for now.
        logger.warning("checkpoints left as they are: %s", error)
        return
    others = [path for path in folder.iterdir() if path != newest] if newest else [folder]
    for path in others:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_untouched(folder: Path) -> bool:
    """Whether nothing in the folder was written, nor the folder itself used, for a while."""
    try:
        touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        # It has just been put in its place, or removed.
        return False
    return time.time() - touched > _UNUSED_S
