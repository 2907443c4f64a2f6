"""Uploads: bytes that a client sent, for data sets and weights to be made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from nas.errors import ArtifactError, NotFoundError
from nas.store import discards
from nas.store.artifacts import ArtifactStore, StoredArtifact
from nas.store.database import Database
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor
from nas.store.tables import UploadRow

LONGEST = timedelta(hours=24)
"""An upload that has not ended by then is given up, and its bytes are removed."""


def begin(session: Session) -> str:
    """The id of an upload whose bytes are about to come. Unless it is created in time, they go again."""
    upload_id = new_id(Prefix.UPLOAD)
    discards.discard(session, folder_of(upload_id), within=LONGEST)
    return upload_id


def create(session: Session, upload_id: str, *, display_name: str, stored: StoredArtifact) -> UploadRow:
    """The upload that was begun, its bytes being whole."""
    if not discards.keep(session, folder_of(upload_id)):
        raise ArtifactError(f"the bytes took longer than {LONGEST} and were given up; send them again")
    row = UploadRow(
        id=upload_id,
        display_name=display_name,
        uri=stored.uri,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
    )
    session.add(row)
    session.flush()
    return row


def give_up(database: Database, artifacts: ArtifactStore, upload_id: str) -> None:
    """Leave nothing of an upload that was begun and is not to be created; one that was created stays."""
    discards.remove_begun(database, artifacts, folder_of(upload_id))


def get(session: Session, upload_id: str) -> UploadRow:
    """The upload; NotFoundError names what is missing."""
    row = session.get(UploadRow, upload_id)
    if row is None:
        raise NotFoundError(f"no upload {upload_id!r}")
    return row


def hold(session: Session, upload_id: str) -> UploadRow:
    """The upload, which cannot be deleted until the transaction ends: for what is about to refer to it."""
    query = select(UploadRow).where(UploadRow.id == upload_id).with_for_update(read=True, key_share=True)
    row = session.scalar(query)
    if row is None:
        raise NotFoundError(f"no upload {upload_id!r}")
    return row


def list(session: Session, *, page_size: int, after: Cursor | None = None) -> Sequence[UploadRow]:
    """A page of uploads, newest first."""
    query = select(UploadRow)
    if after is not None:
        query = query.where(tuple_(UploadRow.created_at, UploadRow.id) < tuple_(*after))
    query = query.order_by(UploadRow.created_at.desc(), UploadRow.id.desc()).limit(page_size)
    return session.scalars(query).all()


def folder_of(upload_id: str) -> str:
    """Where its bytes lie in the artefact store."""
    return f"uploads/{upload_id}"


def key_of(upload_id: str) -> str:
    """The key of its bytes."""
    return f"{folder_of(upload_id)}/content"
