"""One process at a time, whoever runs it and wherever: a lock in the database, by a name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from nas.ports import StopCheck
from nas.store.database import Database

_POLL_S = 0.2


@contextmanager
def exclusively(database: Database, name: str, stop_check: StopCheck) -> Iterator[None]:
    """Hold the lock of this name; `stop_check` is called while another holds it.

    It belongs to a connection, so it ends with whoever holds it. No transaction is open meanwhile, for what
    is done under it may take minutes.
    """
    with database.engine.connect() as connection:
        session = connection.execution_options(isolation_level="AUTOCOMMIT")
        key = {"name": name}
        while not session.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"), key):
            stop_check()
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            session.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))"), key)
