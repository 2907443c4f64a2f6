"""Alembic's entry point: run on the connection given by `migrate`, or on NAS_DATABASE_URL from a shell."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection

from nas.store.database import Database
from nas.store.tables import Base


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_shell() -> None:
    if "NAS_DATABASE_URL" not in os.environ:
        raise SystemExit("set NAS_DATABASE_URL to the database to migrate or check")
    database = Database(os.environ["NAS_DATABASE_URL"], pool_size=1)
    try:
        with database.engine.connect() as connection:
            run(connection)
    finally:
        database.dispose()


given = context.config.attributes.get("connection")
if given is None:
    run_from_shell()
else:
    run(given)
