"""The schema's history, run by alembic; `nas.store.database.migrate` applies it."""
