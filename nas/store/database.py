"""The connection to PostgreSQL, and the schema brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from nas.errors import NasError

MINIMUM_SERVER_VERSION = 15
"""The oldest PostgreSQL the tests run on."""

_EXAMPLE = "postgresql://user@host/name"
_MIGRATION_LOCK = 0x6E6173  # any constant of our own: "nas" in ASCII

_TIMEOUTS = {
    # No query of ours takes a minute; one that does is a bug, and must not hold its locks for ever.
    "statement_timeout": "60s",
    "lock_timeout": "15s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
}


class DatabaseError(NasError):
    """The database cannot be used: not reachable, refused, too old, or its address is malformed."""


class Database:
    """A pool of connections. Thread-safe; make one in each process, and dispose of it at the end."""

    def __init__(self, url: str, *, pool_size: int = 5, max_overflow: int = 10) -> None:
        self.url = normalise_url(url)
        self.engine = _engine(self.url, pool_size=pool_size, max_overflow=max_overflow)
        # Rows are read after their session has ended, so a commit must not empty them.
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for reading; whatever is not committed by the caller is rolled back."""
        with self._sessions() as session:
            yield session

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back by an exception."""
        with self._sessions.begin() as session:
            yield session

    def check(self) -> None:
        """Raise DatabaseError unless the server answers and is recent enough."""
        with _told_clearly(self.url), self.engine.connect() as connection:
            version_num = int(connection.scalar(text("SHOW server_version_num")) or 0)
        if version_num // 10_000 < MINIMUM_SERVER_VERSION:
            raise DatabaseError(
                f"PostgreSQL {version_num // 10_000} at {_printable(self.url)} is too old; "
                f"version {MINIMUM_SERVER_VERSION} or later is needed: upgrade it or change the URL"
            )

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def normalise_url(url: str) -> URL:
    """The SQLAlchemy URL with the psycopg 3 driver; `postgres://` and `postgresql://` are understood."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseError(f"the database URL cannot be read; it looks like {_EXAMPLE}") from error
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise DatabaseError(
        f"the database URL begins with {parsed.drivername!r}; only PostgreSQL is supported: {_EXAMPLE}"
    )


def migrate(url: str) -> None:
    """Bring the schema to the newest revision. Any number of processes may call it at once."""
    database = Database(url, pool_size=1, max_overflow=0)
    try:
        database.check()
        with database.engine.begin() as connection:
            # A migration may rewrite a large table, and the others wait for it here.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.dispose()


def alembic_config() -> Config:
    """Alembic's settings, pointing at the `migrations` package wherever it is installed."""
    spec = find_spec("migrations")
    if spec is None or spec.origin is None:
        raise DatabaseError("the package 'migrations' is missing beside 'nas'; install the whole project")
    config = Config()
    # Alembic reads a percent sign as the start of an interpolation.
    config.set_main_option("script_location", str(Path(spec.origin).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _engine(url: URL, *, pool_size: int, max_overflow: int) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in _TIMEOUTS.items())
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=30,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "nas", "options": options},
    )


@contextmanager
def _told_clearly(url: URL) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise DatabaseError(
            f"PostgreSQL at {_printable(url)} does not answer: {str(error.orig).strip()}; "
            "start it, or correct the database URL"
        ) from error


def _printable(url: URL) -> str:
    return url.render_as_string(hide_password=True)
