"""Uploaded bytes as files of this machine, for as long as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from nas.scratch import ScratchFolder
from nas.store import uploads
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from supernet.data import DataSource

SEND_AGAIN = "send the file again, as a new upload"


@contextmanager
def fetched_upload(
    database: Database, artifacts: ArtifactStore, upload_id: str, stop_check: StopCheck = never_stop
) -> Iterator[Path]:
    """The upload's bytes as a file named by its id, checked against its SHA-256; gone at the end.

    `stop_check` is called for each piece.
    """
    with database.session() as session:
        row = uploads.get(session, upload_id)
        uri, sha256 = row.uri, row.sha256
    with ScratchFolder() as folder:
        path = folder / upload_id
        artifacts.fetch(uri, path, sha256, remedy=SEND_AGAIN, stop_check=stop_check)
        yield path


@contextmanager
def local_source(
    database: Database, artifacts: ArtifactStore, source: DataSource, stop_check: StopCheck = never_stop
) -> Iterator[DataSource]:
    """`source` with its upload, if it names one, as a file of this machine."""
    if source.upload_id is None:
        yield source
        return
    with fetched_upload(database, artifacts, source.upload_id, stop_check) as path:
        try:
            yield replace(source, upload_id=None, path=str(path))
        except DatasetError as error:
            if str(path) not in str(error):
                raise
            # The temporary file is gone when this is read, and was never the reader's.
            raise DatasetError(str(error).replace(str(path), f"upload {source.upload_id}")) from error
