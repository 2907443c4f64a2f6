"""`nas serve`: the whole service on one machine. Starts, watches and stops its processes."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

import httpx

from nas.errors import NasError
from nas.host_device import add_host
from nas.store.database import migrate
from nas.store.embedded import EmbeddedPostgres

DEFAULT_PORT = 8080
_LOOPBACK = "127.0.0.1"
_STOP_TIMEOUT_S = 25.0
_READY_TIMEOUT_S = 60.0
_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 60.0
_WATCH_S = 0.25
_INTERRUPTED = 130
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]
Work = Callable[[str, threading.Event], int]
"""Gets the service's URL and an event that it sets to end the service; returns the exit status."""


class ServeError(NasError):
    """The service cannot start here; the message says what to change."""


class _StoppedError(NasError):
    """Ctrl-C or SIGTERM came while the service was starting."""


class _StopSignals:
    """SIGINT and SIGTERM, noted and looked at where stopping is safe.

    A handler that raised could strike when a process is started and nobody knows it yet; and one that
    set an Event could deadlock with the wait on it that it interrupts.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def check(self) -> None:
        """Raise if the service is to stop."""
        if self.is_requested:
            raise _StoppedError("stopped")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While they are noted, the signals do nothing else."""

        def note(number: int, frame: FrameType | None) -> None:
            del number, frame
            self.is_requested = True

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the service lives on this machine."""

    home: Path
    """Database, artefacts, checkpoints and logs."""
    port: int | None
    """None takes 8080, or the next free one."""
    database_url: str | None
    """None starts the embedded PostgreSQL."""
    artifact_url: str | None
    """None keeps artefacts under `home`."""


def serve(settings: ServeSettings, say: Say, work: Work | None = None) -> int:
    """Run until Ctrl-C or SIGTERM, and do `work` in a thread meanwhile; the exit status."""
    stop = _StopSignals()
    with stop.noted():
        try:
            status = _serve(settings, say, work, stop)
        except NasError:
            # Ctrl-C in a terminal also reaches PostgreSQL's programs, which then end badly.
            if not stop.is_requested:
                raise
            status = _INTERRUPTED
    if status == _INTERRUPTED:
        say("stopped")
    return status


def _serve(
    settings: ServeSettings,
    say: Say,
    work: Work | None,
    stop: _StopSignals,
) -> int:
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_instance(settings.home) as lock:
        port = _free_port(settings.port, say)
        url = f"http://{_LOOPBACK}:{port}"
        _write_holder(lock, url)
        postgres = None if settings.database_url else EmbeddedPostgres(settings.home)
        family = ProcessFamily(settings.home / "logs", say)
        try:
            say("starting PostgreSQL" if postgres else "connecting to PostgreSQL")
            database_url = postgres.start() if postgres else str(settings.database_url)
            stop.check()
            migrate(database_url)
            stop.check()
            environment = _environment(settings, database_url, port)
            family.add("api", [sys.executable, "-m", "api"], environment)
            family.add("worker", [sys.executable, "-m", "workers"], environment)
            _await_ready(url, family, stop)
            add_host(url)
            say(f"serving on {url} (documentation: {url}/docs; logs: {family.logs})")
            return _watch(family, postgres, _Working(work, url), stop, say)
        finally:
            family.stop()
            if postgres:
                postgres.stop()


class _Working:
    """The caller's work in a thread of its own: a daemon, so that Ctrl-C need not wait for it."""

    def __init__(self, work: Work | None, url: str) -> None:
        self.ended = threading.Event()
        self._status: list[int] = []
        self._thread = threading.Thread(target=self._run, args=(work, url), daemon=True)
        if work is not None:
            self._thread.start()

    def status(self) -> int:
        """What the work returned, once it has said that the service may end."""
        self._thread.join(5)
        return self._status[0] if self._status else 1

    def _run(self, work: Work, url: str) -> None:
        self._status.append(work(url, self.ended))


def _watch(
    family: ProcessFamily, postgres: EmbeddedPostgres | None, working: _Working, stop: _StopSignals, say: Say
) -> int:
    # Children are started by this thread alone: the kernel ties their life to the thread that made them.
    while not working.ended.is_set():
        if stop.is_requested:
            return _INTERRUPTED
        if postgres and postgres.pid is None:
            say("PostgreSQL has ended; starting it again")
            postgres.start()
        family.revive()
        working.ended.wait(_WATCH_S)
    return working.status()


@dataclass
class _Child:
    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    started: float
    pause_s: float = 1.0
    restart_at: float | None = None


@dataclass
class ProcessFamily:
    """The service's processes: each restarted when it dies, all stopped together."""

    logs: Path
    say: Say
    _children: list[_Child] = field(default_factory=list)

    def add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start a process and keep it running."""
        process = self._start(name, command, environment)
        self._children.append(_Child(name, command, environment, process, time.monotonic()))

    def revive(self) -> None:
        """Restart what has died, after a pause that grows while it keeps dying."""
        for child in self._children:
            if child.process.poll() is None:
                continue
            now = time.monotonic()
            if child.restart_at is None:
                # A killed worker leaves Ray's helpers behind, in its process group.
                _kill_group(child.process.pid)
                if now - child.started > _HEALTHY_AFTER_S:
                    child.pause_s = 1.0
                child.restart_at = now + child.pause_s
                self.say(
                    f"the {child.name} process ended with status {child.process.returncode}; starting it "
                    f"again in {child.pause_s:.0f} s (its log: {self.logs / child.name}.log)"
                )
            elif now >= child.restart_at:
                child.process = self._start(child.name, child.command, child.environment)
                child.started, child.restart_at = now, None
                child.pause_s = min(2 * child.pause_s, _LONGEST_PAUSE_S)

    def died(self, name: str) -> bool:
        """Whether the process of that name is not running."""
        return any(child.name == name and child.process.poll() is not None for child in self._children)

    def stop(self) -> None:
        """Ask all to stop, then make them."""
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for child in self._children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"the {child.name} process does not stop; killing it")
            # Also what it may have left: each child leads a process group of its own.
            _kill_group(child.process.pid)
            child.process.wait()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for us; we tell the children.
                start_new_session=True,
                preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
            )


def _die_with_parent() -> Callable[[], None]:
    """For the child to call: the kernel stops it when its parent is killed."""
    # Looked up here: between fork and exec, a lock that another thread held would never be freed.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


@contextmanager
def _only_instance(home: Path) -> Iterator[IO[str]]:
    """Hold the home folder for this process. The kernel frees the lock of one that was killed."""
    with (home / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ServeError(
                f"another instance already serves from {home} ({_holder(lock.read())}); "
                "use that one, stop it, or choose another folder with --home"
            ) from None
        yield lock


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} at {holder['url']}"
    except (ValueError, KeyError, TypeError):
        return "it is just starting"


def _write_holder(lock: IO[str], url: str) -> None:
    lock.seek(0)
    lock.truncate()
    lock.write(json.dumps({"pid": os.getpid(), "url": url}))
    lock.flush()


def _free_port(wanted: int | None, say: Say) -> int:
    if wanted is not None:
        if not _is_free(wanted):
            raise ServeError(f"port {wanted} is taken; stop what uses it, or choose another with --port")
        return wanted
    if _is_free(DEFAULT_PORT):
        return DEFAULT_PORT
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    say(f"port {DEFAULT_PORT} is taken; serving on {port} instead")
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _environment(settings: ServeSettings, database_url: str, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "NAS_DATABASE_URL": database_url,
        "NAS_ARTIFACT_URL": settings.artifact_url or (settings.home.resolve() / "artifacts").as_uri(),
        "NAS_HOME": str(settings.home.resolve()),
        "NAS_HOST": _LOOPBACK,
        "NAS_PORT": str(port),
        "NAS_PUBLIC_URL": os.environ.get("NAS_PUBLIC_URL", f"http://{_LOOPBACK}:{port}"),
        # Threads that spin for a core another process holds slow training several times over; threads that
        # never spin slow it by about a third on an idle machine. A short spin avoids both.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
    }


def _await_ready(url: str, family: ProcessFamily, stop: _StopSignals) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        stop.check()
        try:
            if httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        family.revive()
        time.sleep(0.2)
    raise ServeError(f"the API does not become ready; see {family.logs / 'api.log'}")
