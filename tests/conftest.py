"""PostgreSQL for tests: one server a process, and for each test a migrated database without rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from nas.store.database import Database, migrate
from nas.store.embedded import EmbeddedPostgres
from nas.store.tables import Base

_numbers = count()
_migrated: set[Path] = set()


def pytest_configure(config: pytest.Config) -> None:
    """Where several processes share the cores (`-n`), each computes with one thread."""
    if config.getoption("numprocesses", None):
        # Before the processes start: libraries read it once, as they are loaded.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def throwaway_server(home: Path, bin_dir: Path | None = None) -> Iterator[EmbeddedPostgres]:
    """A server that leaves nothing behind, wherever its files had to lie."""
    server = EmbeddedPostgres(home, bin_dir=bin_dir)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
        server.folder.with_suffix(".lock").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def server_factory() -> Callable[..., AbstractContextManager[EmbeddedPostgres]]:
    return throwaway_server


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with throwaway_server(tmp_path_factory.mktemp("home")) as server:
        forgo_durability(server)
        yield server


@pytest.fixture(scope="session")
def postgres_server(embedded_server: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server the databases are made on; tests/store runs on every installed version as well."""
    return embedded_server


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database of its own, without a schema."""
    name = f"empty_{next(_numbers)}"
    administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE template0")
    yield make_url(postgres_server.url).set(database=name).render_as_string()
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with the newest schema and no rows."""
    url = postgres_server.url
    if postgres_server.folder not in _migrated:
        migrate(url)
        _migrated.add(postgres_server.folder)
    yield url
    # What a test left in a transaction may hold locks; making a database for each test costs ten times this.
    others = "datname = current_database() AND pid <> pg_backend_pid() AND state IS DISTINCT FROM 'idle'"
    administer(postgres_server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    tables = [table.name for table in reversed(Base.metadata.sorted_tables)]
    administer(postgres_server, "; ".join(f"DELETE FROM {table}" for table in tables))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.dispose()


def forgo_durability(server: EmbeddedPostgres) -> None:
    """Commits need not wait for the disk: nothing is read from this server after a crash."""
    administer(server, "ALTER SYSTEM SET synchronous_commit = off")
    administer(server, "SELECT pg_reload_conf()")


def administer(server: EmbeddedPostgres, statement: str) -> None:
    conninfo = make_url(server.url).set(drivername="postgresql").render_as_string()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement)
