"""Certificates in processes of their own: the same answers, whatever befalls the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.certificates import CertificateProcesses
from api.settings import ApiSettings
from nas.client import Client
from nas.prefilter.certificate import Verdict, certify
from nas.search.cost_model import SpaceCosts
from nas.store.artifacts import ArtifactStore
from search_spaces import SPACES
from tests.api import certifying
from tests.api.certifying import GATE, region_within
from tests.api.conftest import running

ENOUGH, TOO_LITTLE = 1e9, 1.0
PATIENT_S = 120.0
"""Longer than a machine takes that is busy with other things."""


@pytest.fixture
def gate(tmp_path, monkeypatch):
    path = tmp_path / "open"
    monkeypatch.setenv(GATE, str(path))
    return path


@pytest.fixture
def make():
    """Processes that end with the test."""
    made: list[CertificateProcesses] = []

    def of(certify=None, patience_s=PATIENT_S) -> CertificateProcesses:
        made.append(CertificateProcesses(patience_s=patience_s, certify=certify))
        return made[-1]

    yield of
    for processes in made:
        processes.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def await_end(pid: int) -> None:
    deadline = time.monotonic() + PATIENT_S
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.02)


def test_the_answers_are_those_of_this_process_and_one_process_gives_them(make):
    processes = make()
    assert processes.pids == []
    for max_macs in (ENOUGH, TOO_LITTLE, 2e5):
        assert processes.certify(region_within(max_macs)) == certify(region_within(max_macs))
    assert len(processes.pids) == 1


def test_a_process_that_was_killed_is_replaced(make):
    processes = make()
    processes.certify(region_within(ENOUGH))
    (pid,) = processes.pids
    os.kill(pid, signal.SIGKILL)
    assert processes.certify(region_within(TOO_LITTLE)).verdict is Verdict.INFEASIBLE
    assert processes.pids != [pid]


def test_killed_over_a_question_it_is_asked_again_and_given_up_the_second_time(make, gate):
    assert make(certifying.die_once).certify(region_within(TOO_LITTLE)).verdict is Verdict.INFEASIBLE
    answer = make(certifying.die).certify(region_within(TOO_LITTLE))
    assert answer.verdict is Verdict.UNDECIDED
    assert answer.relief is None


def test_what_fails_in_the_process_fails_for_whoever_asked_and_the_process_goes_on(make):
    processes = make(certifying.fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"ZeroDivisionError.*on purpose"):
            processes.certify(region_within(ENOUGH))
    assert len(processes.pids) == 1


def test_what_is_not_answered_in_time_is_undecided_and_answers_are_never_mixed_up(make, gate):
    processes = make(certifying.certify_once_told, patience_s=0.5)
    for _ in range(2):
        assert processes.certify(region_within(TOO_LITTLE)).verdict is Verdict.UNDECIDED
    gate.touch()
    deadline = time.monotonic() + PATIENT_S
    while (answer := processes.certify(region_within(ENOUGH))).verdict is Verdict.UNDECIDED:
        assert time.monotonic() < deadline
    assert answer == certify(region_within(ENOUGH))


def test_many_ask_at_once(make):
    processes = make()
    bounds = [ENOUGH, TOO_LITTLE] * 8
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda max_macs: processes.certify(region_within(max_macs)), bounds))
    assert [a.verdict for a in answers] == [Verdict.FEASIBLE, Verdict.INFEASIBLE] * 8
    assert len(processes.pids) == 1


def test_warmed_a_process_is_there_before_the_first_question(make):
    processes = make()
    processes.warm(SpaceCosts(space=SPACES["micro_8"]))
    deadline = time.monotonic() + PATIENT_S
    while not processes.pids:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = processes.pids
    assert processes.certify(region_within(ENOUGH)).verdict is Verdict.FEASIBLE
    assert processes.pids == pids


def test_closed_all_processes_end_and_who_waits_is_answered(make, gate):
    processes = make(certifying.certify_once_told)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(processes.certify, region_within(TOO_LITTLE))
        deadline = time.monotonic() + PATIENT_S
        while not processes.pids:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (pid,) = processes.pids
        processes.close()
        assert waiting.result(PATIENT_S).verdict is Verdict.UNDECIDED
    await_end(pid)
    assert processes.certify(region_within(TOO_LITTLE)).verdict is Verdict.UNDECIDED


def test_a_process_ends_with_a_service_that_is_killed():
    command = [sys.executable, "-m", "tests.api.certifying"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        assert is_alive(pid)
        service.kill()
    await_end(pid)


@pytest.fixture
def held_up(postgres_server, database, tmp_path, gate):
    """A service whose certificates wait for the gate, and a client of it."""
    settings = ApiSettings(database_url=postgres_server.url, artifact_url=str(tmp_path / "a"), port=0)
    with running(settings) as (server, url):
        server.app.state.services.certificates._seats = CertificateProcesses(
            certify=certifying.certify_once_told
        )._seats
        server.app.state.services.certificates._patience_s = PATIENT_S
        yield url
        gate.touch()


def test_while_one_waits_for_a_certificate_others_are_answered(held_up, gate, database, tmp_path):
    from tests.api.worker import PlayedWorker

    with Client(held_up, timeout_s=PATIENT_S) as client:
        dataset = client.datasets.create({"kind": "bundled", "name": "digits"})
        supernet = client.supernets.create(dataset.id, "micro_8")
        worker = PlayedWorker(database, ArtifactStore(str(tmp_path / "a")))
        worker.import_dataset()
        worker.train()
        asked = threading.Event()

        def ask():
            asked.set()
            return client.searches.validate(supernet.id, 5, constraints={"max_macs": 1})

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(ask)
            asked.wait()
            for _ in range(5):
                assert httpx.get(f"{held_up}/healthz", timeout=PATIENT_S).status_code == 200
            assert not waiting.done()
            gate.touch()
            assert waiting.result(PATIENT_S)["verdict"] == "infeasible"
