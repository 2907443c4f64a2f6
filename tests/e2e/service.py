"""`nas serve` as a user starts it: a process of its own, real ports, real signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from sqlalchemy import make_url

from nas.client import Client
from nas.store.embedded import EmbeddedPostgres
from tests.ports import free_port
from tests.processes import heed_interrupts

QUICK = {"NAS_LEASE_S": "4", "NAS_NUM_THREADS": "1", "NAS_POLL_S": "0.2"}
"""So that a killed worker's job is soon taken up again."""
_MARK = "NAS_TEST_MARK"


def wait_until(predicate: Callable[[], object], *, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


class Home:
    """A home folder, and every process ever started on it: each bears a mark in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._mark = uuid4().hex
        self._num_started = 0

    def start(self, *arguments: str, port: int | None = None, settings: Mapping[str, str] = QUICK) -> Serving:
        """`nas serve` on this home; it is not waited for."""
        self._num_started += 1
        output = self.folder.with_name(f"{self.folder.name}-{self._num_started}.log")
        environment = {
            # The number of threads of the tests' own processes is not what a user's service has.
            **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
            _MARK: self._mark,
            **settings,
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "nas.cli", "serve", "--home", str(self.folder)]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--port", str(port or self.port), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=heed_interrupts,
            )
        return Serving(self, process, output)

    def client(self) -> Client:
        return Client(self.url)

    def processes(self, containing: str = "") -> dict[int, str]:
        """Command lines of this home's living processes by their ids, Ray's and PostgreSQL's included."""
        mark = f"{_MARK}={self._mark}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if containing in line:
                found[int(folder.name)] = line
        return found

    def worker(self) -> int | None:
        """The id of the worker process itself."""
        found = [pid for pid, line in self.processes("-m workers").items() if line.startswith(sys.executable)]
        return min(found, default=None)

    def kill_worker(self) -> None:
        """kill -9, whatever it is doing; Ray's processes are left to themselves."""
        pid = self.worker()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database itself says."""
        url = make_url(EmbeddedPostgres(self.folder).url).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string()) as connection:
            return connection.execute(statement).fetchall()

    def wait_for_no_process(self, *, timeout_s: float = 10, but: str | None = None) -> None:
        """Nothing of this home is alive; `but` names what may be."""
        deadline = time.monotonic() + timeout_s
        while left := [line for line in self.processes().values() if but is None or but not in line]:
            assert time.monotonic() < deadline, f"left running: {left}"
            time.sleep(0.1)

    def remove(self) -> None:
        """End and delete whatever is left."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server = EmbeddedPostgres(self.folder)
        shutil.rmtree(server.folder, ignore_errors=True)
        server.folder.with_suffix(".lock").unlink(missing_ok=True)


class Serving:
    """One run of `nas serve`."""

    def __init__(self, home: Home, process: subprocess.Popen[bytes], output: Path) -> None:
        self.home = home
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_ready(self, *, timeout_s: float = 90) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.output
            return "serving on" in self.output

        wait_until(is_ready, timeout_s=timeout_s, what="ready")

    def wait_exit(self, *, timeout_s: float) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.output}") from None

    def interrupt(self, *, whole_group: bool = False) -> None:
        """Ctrl-C; in a terminal the whole foreground group gets it."""
        (os.killpg if whole_group else os.kill)(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Poller:
    """Asks for /healthz and the given paths all the time, and keeps every answer that is not well."""

    def __init__(self, url: str) -> None:
        self.paths = ["/healthz"]
        self.failures: list[str] = []
        self.num_answers = 0
        self._url = url
        self._over = threading.Event()

    @contextmanager
    def polling(self) -> Iterator[Poller]:
        thread = threading.Thread(target=self._poll)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _poll(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            while not self._over.wait(0.1):
                for path in list(self.paths):
                    self._ask(http, path)

    def _ask(self, http: httpx.Client, path: str) -> None:
        try:
            answer = http.get(path)
        except httpx.HTTPError as error:
            self.failures.append(f"{path}: {type(error).__name__}: {error}")
            return
        self.num_answers += 1
        if answer.status_code != httpx.codes.OK:
            self.failures.append(f"{path}: {answer.status_code} {answer.text[:200]}")
