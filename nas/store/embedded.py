"""A PostgreSQL server of our own, in a folder: no administrator, no port, no account to create.

It listens on a Unix socket in a folder of mode 0700, so whoever can connect is who owns it, and needs
no password. The server outlives a supervisor killed with -9; the next `start` adopts it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psycopg
from sqlalchemy import URL

from nas.errors import EmbeddedPostgresError
from nas.store.postgres_account import (
    make_private_folder,
    make_root_folder,
    server_account,
    server_folder,
    socket_folder,
)
from nas.store.postgres_install import public_copy, wheel_bin

_OWNER = "nas"
_DATABASE = "nas"
_PORT = 5432  # only names the socket: there is no TCP

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The cores belong to training; and parallel workers need more shared memory than containers give.
    "max_parallel_workers_per_gather": "0",
}

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0

_NO_PROCESS = 2**22 + 1
"""Above every process id a kernel gives out."""


class EmbeddedPostgres:
    """The server of one `home`. Starting it twice, from one process or several, gives the same server."""

    def __init__(self, home: Path, *, bin_dir: Path | None = None) -> None:
        self._account = server_account()
        self.folder = server_folder(home, self._account)
        """Everything the server writes lies in here."""
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._bin = bin_dir

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the running server."""
        return _url(self._socket_in_use(), _DATABASE).render_as_string()

    def start(self) -> str:
        """Start the server, or adopt the one that runs; its URL."""
        with self._locked():
            if self.pid is None:
                self._prepare()
                self._launch()
            self._make_database()
        return self.url

    def stop(self) -> None:
        """End the server's sessions and shut it down; nothing happens if it does not run."""
        if not self._data.exists():
            return
        with self._locked():
            for mode in ("fast", "immediate"):
                if self.pid is None:
                    return
                self._run("pg_ctl", "stop", "-D", self._data, "-m", mode, "-w", "-t", int(_STOP_TIMEOUT_S))
            if self.pid is not None:
                raise EmbeddedPostgresError(f"PostgreSQL (pid {self.pid}) does not stop; see {self._log}")

    @property
    def pid(self) -> int | None:
        """The process id of the running server; None for a stale or missing pid file."""
        pid = _recorded_pid(self._data)
        return pid if pid is not None and _serves(pid, self._data) else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process starts or stops this server at a time; the kernel frees the lock of a dead one."""
        self._make_parents()
        with self.folder.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_parents(self) -> None:
        if self._account.switch:
            make_root_folder()
        else:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _prepare(self) -> None:
        make_private_folder(self.folder, self._account)
        make_private_folder(socket_folder(self.folder), self._account)
        if not self._data.exists():
            self._make_cluster()
        self._check_version()

    def _make_cluster(self) -> None:
        # Renamed once complete: killed half-way, the next start begins again.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ("--encoding=UTF8", "--no-locale", "--auth-local=trust", "--auth-host=reject")
        result = self._run("initdb", "-D", unfinished, "-U", _OWNER, *options)
        if result.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")
        unfinished.rename(self._data)

    def _check_version(self) -> None:
        cluster = (self._data / "PG_VERSION").read_text().strip()
        result = self._run("postgres", "--version")
        programs = result.stdout.split()[2].split(".")[0] if result.returncode == 0 else "?"
        if programs != cluster:
            raise EmbeddedPostgresError(
                f"{self._data} was made by PostgreSQL {cluster} and the programs are version {programs} "
                f"{result.stderr.strip()}; use those of version {cluster}, or move the folder away"
            )

    def _launch(self) -> None:
        """Start the server; a stale pid file, or processes left by a killed server, only delay it."""
        socket = socket_folder(self.folder)
        _disown(self._data / "postmaster.pid")
        _disown(socket / f".s.PGSQL.{_PORT}.lock")
        options = _options(socket)
        command: list[str | Path] = ["-D", self._data, "-l", self._log, "-o", options]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._run("pg_ctl", "start", "-w", "-t", int(_START_TIMEOUT_S), *command).returncode != 0:
            # Backends of a killed server hold its shared memory for a moment longer.
            if "still in use" not in self._log_tail() or time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not start; {self._log} ends:\n{self._log_tail()}"
                )
            time.sleep(0.2)

    def _make_database(self) -> None:
        with self._connect_once_ready() as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, (_DATABASE,)).fetchone() is None:
                connection.execute(f"CREATE DATABASE {_DATABASE}")

    def _connect_once_ready(self) -> psycopg.Connection:
        # An adopted server may still be recovering, if whoever started it was killed meanwhile.
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                socket = str(self._socket_in_use())
                return psycopg.connect(
                    host=socket, port=_PORT, user=_OWNER, dbname="postgres", autocommit=True
                )
            except (psycopg.OperationalError, EmbeddedPostgresError) as error:
                if self.pid is None or time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"PostgreSQL does not answer: {error}; {self._log} ends:\n{self._log_tail()}"
                    ) from error
            time.sleep(0.2)

    def _socket_in_use(self) -> Path:
        # Told by the server itself: an adopted one may have been started under another TMPDIR.
        lines = _pid_file_lines(self._data)
        if len(lines) < 5:
            raise EmbeddedPostgresError("the embedded PostgreSQL is not running; call start() first")
        return Path(lines[4])

    def _run(self, program: str, *arguments: str | Path | int) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs under its account, away from our environment and folder."""
        changed = ("PG", "LC_", "LANG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(changed)}
        try:
            return subprocess.run(
                [self._programs() / program, *map(str, arguments)],
                cwd=self.folder,
                env=kept | {"HOME": str(self.folder), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                umask=0o077,
                **self._account.subprocess_options(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"{program} cannot be run as uid {self._account.uid}: {error}"
            ) from error

    def _programs(self) -> Path:
        if self._bin is None:
            self._bin = public_copy(self.folder.parent) if self._account.switch else wheel_bin()
        return self._bin

    def _log_tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
        except FileNotFoundError:
            return "(no log)"


def _url(socket: Path, database: str) -> URL:
    query = {"host": str(socket), "port": str(_PORT)}
    return URL.create("postgresql+psycopg", username=_OWNER, database=database, query=query)


def _options(socket: Path) -> str:
    """The settings as words for the shell that `pg_ctl` starts the server with."""
    settings = _SETTINGS | {"unix_socket_directories": f'"{socket}"', "port": str(_PORT)}
    return " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())


def _pid_file_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _recorded_pid(data: Path) -> int | None:
    lines = _pid_file_lines(data)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _serves(pid: int, data: Path) -> bool:
    """Whether the process is alive and a server of this folder: ids of dead processes are given out again."""
    if not Path("/proc/self").exists():
        # macOS has no /proc.
        listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        return b"postgres" in listed.stdout and os.fsencode(data) in listed.stdout
    try:
        program, *arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return program.endswith(b"postgres") and os.fsencode(data) in arguments


def _disown(lock_file: Path) -> None:
    """Point a dead server's lock file at no process.

    The id in it may be a stranger's by now, or a zombie's that nobody reaps, as in containers: PostgreSQL
    would take either for a server. The file is not removed: its last line lets PostgreSQL check that no
    backend is left on the old shared memory.
    """
    try:
        lines = lock_file.read_text().splitlines()
    except FileNotFoundError:
        return
    # The folder belongs to another account when we are root: never follow a link out of it.
    descriptor = os.open(lock_file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([str(_NO_PROCESS), *lines[1:]]) + "\n")
