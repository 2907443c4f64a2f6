"""The schema that the migrations make is the one the models describe."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from nas.store.database import Database, DatabaseError, alembic_config, migrate, normalise_url
from nas.store.tables import Base

# What PostgreSQL itself says of the schema: alembic's comparison leaves checks and foreign keys' names out.
CATALOGUE = """
SELECT 'column', table_name, column_name, concat_ws(' ', udt_name, is_nullable, column_default)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
AND conrelid <> coalesce(to_regclass('alembic_version'), 0)
UNION ALL
SELECT 'index', tablename, indexname, indexdef
FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
ORDER BY 1, 2, 3
"""


def catalogue(database):
    with database.session() as session:
        return [tuple(row) for row in session.execute(text(CATALOGUE))]


@pytest.fixture
def empty_database(empty_database_url):
    database = Database(empty_database_url)
    yield database
    database.dispose()


def test_migrations_leave_nothing_for_alembic_to_do(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_migrated_schema_equals_the_models_to_the_last_constraint(database, empty_database):
    Base.metadata.create_all(empty_database.engine)
    migrated = catalogue(database)
    assert len(migrated) > 100
    assert migrated == catalogue(empty_database)


def test_downgrading_to_base_leaves_no_table(empty_database, empty_database_url):
    migrate(empty_database_url)
    with empty_database.engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(empty_database.engine).get_table_names() == ["alembic_version"]


def test_processes_may_migrate_at_once(empty_database, empty_database_url):
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(migrate, [empty_database_url] * 3))
    assert "jobs" in inspect(empty_database.engine).get_table_names()


def test_alembic_check_runs_from_a_shell(database_url, monkeypatch):
    monkeypatch.setenv("NAS_DATABASE_URL", database_url)
    command.check(alembic_config())


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_the_scheme_uses_the_one_driver(scheme):
    assert normalise_url(f"{scheme}://u@h/n").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://u@h/n", "not a url"])
def test_another_database_is_refused(url):
    with pytest.raises(DatabaseError, match="postgresql://"):
        normalise_url(url)


def test_an_unreachable_server_is_told_without_its_password(tmp_path):
    database = Database(f"postgresql://ada:secret@/nas?host={tmp_path}")
    with pytest.raises(DatabaseError, match="does not answer") as raised:
        database.check()
    assert "secret" not in str(raised.value)


def test_a_server_too_old_is_told(database, monkeypatch):
    monkeypatch.setattr("nas.store.database.MINIMUM_SERVER_VERSION", 99)
    with pytest.raises(DatabaseError, match="too old"):
        database.check()
