"""Whether the database's schema is the one that the installed migrations end at."""

from __future__ import annotations

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from nas.store.database import Database, alembic_config


def is_schema_current(database: Database) -> bool:
    """Whether every migration has run, and none that is unknown here."""
    newest = set(ScriptDirectory.from_config(alembic_config()).get_heads())
    with database.engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == newest
