"""PostgreSQL: the embedded one or another; its version, and the schema in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from nas.doctor.check import Check, absent, ok, problem, warning
from nas.errors import EmbeddedPostgresError
from nas.store.database import Database, DatabaseError, alembic_config
from nas.store.embedded import EmbeddedPostgres
from nas.store.postgres_install import wheel_bin

_VERSION_TIMEOUT_S = 20.0


def database(home: Path, url: str | None) -> Iterator[Check]:
    """The server of NAS_DATABASE_URL, or the embedded one, which is not started for this."""
    if url is not None:
        yield from _server("postgresql", url)
        return
    programs = _programs()
    yield programs
    if not _has_cluster(home):
        yield ok("database", f"none under {home} yet; `nas serve` makes it")
        return
    try:
        server = EmbeddedPostgres(home)
        if server.pid is None:
            yield ok("database", "the embedded server is not running; `nas serve` starts it")
        else:
            yield from _server("database", server.url)
    except (EmbeddedPostgresError, OSError) as error:
        yield problem("database", str(error), "start `nas serve` under the account that made the database")


def _programs() -> Check:
    name = "postgresql"
    try:
        program = wheel_bin() / "postgres"
    except EmbeddedPostgresError:
        return absent(name, "embedded")
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return problem(name, f"the embedded server cannot be run: {error}", "set NAS_DATABASE_URL to another")
    if done.returncode != 0:
        told = done.stderr.strip().splitlines()[-1:] or ["no word"]
        return problem(
            name, f"the embedded server cannot be run: {told[0]}", "set NAS_DATABASE_URL to another"
        )
    return ok(name, f"embedded: {done.stdout.strip()}")


def _has_cluster(home: Path) -> bool:
    """Seen before EmbeddedPostgres is made: for root, that makes a file in the home."""
    return (home / ("postgres.id" if os.geteuid() == 0 else "postgres")).exists()


def _server(name: str, url: str) -> Iterator[Check]:
    try:
        database = Database(url, pool_size=1, max_overflow=0)
    except DatabaseError as error:
        yield problem(name, str(error), "correct NAS_DATABASE_URL")
        return
    try:
        database.check()
        with database.engine.connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
            revisions = set(MigrationContext.configure(connection).get_current_heads())
    except (DatabaseError, SQLAlchemyError) as error:
        yield problem(name, " ".join(str(error).split()), "start it, or correct NAS_DATABASE_URL")
        return
    finally:
        database.dispose()
    yield ok(name, f"version {version} answers")
    yield _schema(revisions)


def _schema(revisions: set[str]) -> Check:
    name = "schema"
    script = ScriptDirectory.from_config(alembic_config())
    newest = set(script.get_heads())
    found, wanted = (", ".join(sorted(some)) or "none" for some in (revisions, newest))
    if revisions == newest:
        return ok(name, f"revision {found}, the newest")
    if revisions <= {revision.revision for revision in script.walk_revisions()}:
        return warning(
            name, f"revision {found}; the newest is {wanted}", "start `nas serve`, which migrates it"
        )
    return problem(
        name, f"revision {found} is unknown to this version", "start the version of the service that made it"
    )
