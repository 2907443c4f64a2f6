"""Certificates, computed in processes of their own, so that no proof holds the service up.

A process is started when first needed. Each space has one that makes the space's tables, once, and keeps
them. A process ends with the service, however that ends, and one that was killed is replaced. What is not
answered in time is undecided, which no search is refused for: the worker looks again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from nas.prefilter.certificate import Certificate, Verdict, certify
from nas.search.constraints import Bounds
from nas.search.cost_model import CostModel
from nas.search.region import FeasibleRegion

LIMIT_S = 1.0
"""What a proof may take, tables apart."""
PATIENCE_S = 15.0
"""How long a request waits in all: for the process to start, for others' proofs, for the space's tables."""
_HANGS_S = 600.0
"""A process that has not answered for so long is replaced."""
_MAX_PROCESSES = 4
_STOPS_S = 2.0

Certify = Callable[[FeasibleRegion, float], Certificate]


class CertificateProcesses:
    """Answers for any number of threads at once; nothing is started by making one."""

    def __init__(self, *, patience_s: float = PATIENCE_S, certify: Certify | None = None) -> None:
        """`certify` runs in the processes, so it must be a function of a module."""
        num_processes = max(1, min(_MAX_PROCESSES, os.cpu_count() or 1))
        self._seats = [_Seat(certify or _certify) for _ in range(num_processes)]
        self._patience_s = patience_s
        self._seat_of: dict[str, _Seat] = {}
        self._lock = threading.Lock()

    def certify(self, region: FeasibleRegion) -> Certificate:
        """Whether a network keeps the region's bounds, as far as that is found in time."""
        if not region.bounds.limits:
            return certify(region)
        return self._seat(region.space.name).certify(region, time.monotonic() + self._patience_s)

    def warm(self, costs: CostModel) -> None:
        """Make the tables of the space now, so that the first request need not; returns at once."""
        thread = threading.Thread(
            target=self.make_tables, args=(costs,), name="certificates-warm", daemon=True
        )
        thread.start()

    def make_tables(self, costs: CostModel) -> None:
        """The same; returns when they are made, or no longer waited for."""
        # Bounds on every cost that all networks keep: answered as soon as the tables are there.
        bounds = Bounds(tuple((name, float(2**62)) for name in sorted(costs.names)))
        self.certify(FeasibleRegion(costs, bounds))

    def close(self) -> None:
        """End every process; what is being asked is answered as undecided."""
        for seat in self._seats:
            seat.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes that have been started."""
        return [pid for seat in self._seats if (pid := seat.pid) is not None]

    def _seat(self, space: str) -> _Seat:
        with self._lock:
            return self._seat_of.setdefault(space, self._seats[len(self._seat_of) % len(self._seats)])


@dataclass
class _Running:
    """A process, and what was asked of it."""

    process: SpawnProcess
    connection: Connection
    num_asked: int = 0
    num_answered: int = 0
    asked_at: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether it has yet to answer a question that nobody waits for any more."""
        return self.num_answered < self.num_asked


class _Seat:
    """One process at a time."""

    def __init__(self, certify: Certify) -> None:
        self._certify = certify
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        running = self._running
        return None if running is None else running.process.pid

    def certify(self, region: FeasibleRegion, deadline: float) -> Certificate:
        """The answer, or undecided at the deadline by the monotonic clock."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return _undecided("others are being answered; ask again")
        try:
            for _ in range(2):
                try:
                    return self._ask(region, deadline)
                except (EOFError, OSError):
                    # It was killed, by whatever: the next one is asked the same.
                    self._stop()
            return _undecided("the process that looks for one ended")
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process; without the lock, for whoever holds it waits for the process."""
        self._is_closed = True
        running = self._running
        if running is not None:
            running.process.kill()
            running.process.join(_STOPS_S)

    def _ask(self, region: FeasibleRegion, deadline: float) -> Certificate:
        running = self._running or self._start()
        if running is None:
            return _undecided("the service is stopping")
        if running.is_busy and _answer(running, deadline) is None:
            if time.monotonic() - running.asked_at > _HANGS_S:
                self._stop()
            return _undecided("the tables of its space are being made; ask again")
        running.connection.send((region, LIMIT_S))
        running.num_asked += 1
        running.asked_at = time.monotonic()
        found = _answer(running, deadline)
        if isinstance(found, Exception):
            raise found
        return found or _undecided("the tables of its space are being made; ask again")

    def _start(self) -> _Running | None:
        if self._is_closed:
            return None
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._certify), name="certificates", daemon=True
        )
        process.start()
        # Else its end would be open here, and its death not be seen.
        theirs.close()
        self._running = _Running(process, ours)
        if self._is_closed:
            # Told to end while it started.
            process.kill()
        return self._running

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.connection.close()
            running.process.kill()
            running.process.join(_STOPS_S)


def _answer(running: _Running, deadline: float) -> Certificate | Exception | None:
    """What the process answers, None at the deadline."""
    if not running.connection.poll(max(0.0, deadline - time.monotonic())):
        return None
    found: Certificate | Exception = running.connection.recv()
    running.num_answered += 1
    return found


def _undecided(why: str) -> Certificate:
    reason = f"neither a network that keeps every bound was found in time, nor a proof that none does: {why}"
    return Certificate(verdict=Verdict.UNDECIDED, reason=reason)


# In the process


def _serve(connection: Connection, certify: Certify) -> None:
    """Answer until the other end is closed, as it is when the service ends in whatever way."""
    # Ctrl-C goes to all processes of a terminal; the service ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            region, limit_s = connection.recv()
            connection.send(_certified(certify, region, limit_s))
    except (EOFError, OSError):
        return


def _certified(certify: Certify, region: FeasibleRegion, limit_s: float) -> Certificate | Exception:
    try:
        return certify(region, limit_s)
    except Exception as error:  # for whoever asked: it is raised there
        return RuntimeError(f"{type(error).__name__} in the process that looks for certificates: {error}")


def _certify(region: FeasibleRegion, limit_s: float) -> Certificate:
    return certify(region, limit_s=limit_s)
