"""Folders of the artefact store that nobody wants any more, noted in rows until they are surely gone.

Bytes cannot be removed in a transaction. So a deletion notes the folder together with the rows it
deletes, and an upload notes its folder before the first byte comes: whatever dies in between, the note
stands, and `remove_due` follows it. The notes stay a month: a worker that lost its lease may write into
a folder after it was removed, and a machine may have been off.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.tables import DiscardedFolderRow

_KEPT = timedelta(days=30)


def discard(session: Session, key: str, *, within: timedelta = timedelta(0)) -> None:
    """Note that the folder is to go, once the transaction commits and `within` is over."""
    due_at = func.clock_timestamp() + within
    statement = insert(DiscardedFolderRow).values(key=key, due_at=due_at)
    session.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"due_at": due_at}))


def keep(session: Session, key: str) -> bool:
    """Take the note back; False where it is due, so that the folder may be gone already."""
    kept = delete(DiscardedFolderRow).where(
        DiscardedFolderRow.key == key, DiscardedFolderRow.due_at > func.clock_timestamp()
    )
    return session.scalar(kept.returning(DiscardedFolderRow.key)) is not None


def remove_begun(database: Database, artifacts: ArtifactStore, key: str) -> None:
    """Remove a folder that only the caller writes to, and its note; nothing happens once it is kept."""
    noted = delete(DiscardedFolderRow).where(DiscardedFolderRow.key == key).returning(DiscardedFolderRow.key)
    # The bytes go before the transaction commits: should that fail, the note still stands.
    with database.begin() as session:
        if session.scalar(noted) is not None:
            artifacts.delete_folder(key)


def are_discarded(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of the folders that are to go."""
    query = select(DiscardedFolderRow.key).where(
        DiscardedFolderRow.key.in_(keys), DiscardedFolderRow.due_at <= func.clock_timestamp()
    )
    return set(session.scalars(query))


def remove(database: Database, artifacts: ArtifactStore, key: str) -> bool:
    """Remove one folder if it is due; whether it was. The note stays, for what may still be written."""
    query = (
        select(DiscardedFolderRow)
        .where(DiscardedFolderRow.key == key, DiscardedFolderRow.due_at <= func.clock_timestamp())
        # Against `keep`, which must not find the note while the bytes go.
        .with_for_update(skip_locked=True)
    )
    with database.begin() as session:
        if session.scalar(query) is None:
            return False
        artifacts.delete_folder(key)
    return True


def remove_due(database: Database, artifacts: ArtifactStore, *, within: timedelta | None = None) -> None:
    """Remove every folder that is due, or those that came due `within` the last while; forget old notes."""
    query = select(DiscardedFolderRow.key).where(DiscardedFolderRow.due_at <= func.clock_timestamp())
    if within is not None:
        query = query.where(DiscardedFolderRow.due_at > func.clock_timestamp() - within)
    with database.session() as session:
        keys = session.scalars(query).all()
    for key in keys:
        remove(database, artifacts, key)
    with database.begin() as session:
        age = func.clock_timestamp() - DiscardedFolderRow.due_at
        session.execute(delete(DiscardedFolderRow).where(age > _KEPT))
