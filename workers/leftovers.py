"""What killed and beaten attempts leave behind, removed once nobody can want it any more.

Nothing of a job that may go on is touched: checkpoints are what it resumes from, and a worker may be
writing its files. A job's end is final, so from then on only what a row points to is wanted. A worker
that lost its lease may write after that end; what it writes is met by a later look. Of what was deleted
nothing is wanted at all.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from nas.errors import ArtifactError
from nas.job import JobKind
from nas.store import discards, subnets, supernets
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.deletion import SUPERNET, folder_of
from nas.store.jobs import JobQueue
from workers.training_job import CHECKPOINTS

logger = logging.getLogger(__name__)

_LATER_LOOKS_S = 24 * 3600.0
"""The first look goes through all jobs that have ended, later ones through those of this long."""


class Leftovers:
    """The attempts' folders in the artefact store, and this machine's checkpoints."""

    def __init__(self, queue: JobQueue, database: Database, artifacts: ArtifactStore, home: Path) -> None:
        self._queue = queue
        self._database = database
        self._artifacts = artifacts
        self._checkpoints = home / CHECKPOINTS
        self._has_looked = False

    def remove(self) -> None:
        """Remove what is wanted no more."""
        within_s = _LATER_LOOKS_S if self._has_looked else None
        self._remove_attempts(JobKind.SPECIALISE, "subnets", subnets.published_uris, within_s)
        self._remove_attempts(JobKind.TRAIN, "supernets", supernets.published_uris, within_s)
        within = None if within_s is None else timedelta(seconds=within_s)
        discards.remove_due(self._database, self._artifacts, within=within)
        self._remove_checkpoints()
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
        """A succeeded training has published its weights; one failed, cancelled or deleted never goes on."""
        if not self._checkpoints.is_dir():
            return
        kept = [folder.name for folder in self._checkpoints.iterdir() if folder.is_dir()]
        ended = self._queue.have_ended(JobKind.TRAIN, kept) | self._deleted_supernets(kept)
        for supernet_id in sorted(ended):
            shutil.rmtree(self._checkpoints / supernet_id, ignore_errors=True)
            logger.info("checkpoints of an ended training removed", extra={"supernet_id": supernet_id})

    def _deleted_supernets(self, ids: Sequence[str]) -> set[str]:
        """Those of the supernets that were deleted: no job is left to say that their training has ended."""
        by_folder = {folder_of(SUPERNET, supernet_id): supernet_id for supernet_id in ids}
        with self._database.session() as session:
            return {by_folder[key] for key in discards.are_discarded(session, [*by_folder])}
