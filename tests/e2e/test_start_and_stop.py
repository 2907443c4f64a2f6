"""Ctrl-C at any moment, second instances, taken ports, and a supervisor killed with -9."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import httpx
import pytest

from tests.e2e.service import Serving, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DIGITS = {"kind": "bundled", "name": "digits"}
STOP_S = 30
POSTGRES = "postgres"


def stop(serving: Serving, *, whole_group: bool = False) -> None:
    """Ctrl-C, and nothing is left."""
    serving.interrupt(whole_group=whole_group)
    status = serving.wait_exit(timeout_s=STOP_S)
    assert status == 130, serving.output
    assert "Traceback" not in serving.output, serving.output
    serving.home.wait_for_no_process()


def train(client, *, epochs: int):
    dataset = client.datasets.create(DIGITS)
    return client.supernets.create(dataset.id, "micro_8", recipe={"epochs": epochs, "batch_size": 256})


def await_progress(resource, phase: str) -> None:
    def has_begun() -> bool:
        progress = resource.refresh()["progress"]
        return bool(progress) and progress["phase"] == phase and progress["done"] >= 1

    wait_until(has_begun, timeout_s=90, what=f"{phase} to begin")


def test_interrupted_during_start_up_nothing_is_left_and_the_next_start_works(home):
    # From before Python has read the modules, through initdb, the start of the server, and the API's.
    for pause_s in (0.1, 0.6, 1.0, 1.4, 1.8, 2.3, 3.0, 4.0, 6.0):
        serving = home.start()
        time.sleep(pause_s)
        serving.interrupt(whole_group=True)
        # Python itself answers a Ctrl-C that comes before ours can.
        status = serving.wait_exit(timeout_s=STOP_S)
        assert status in (130, -2), f"{pause_s} s: {status}\n{serving.output}"
        home.wait_for_no_process()
    serving = home.start()
    serving.wait_ready()
    assert httpx.get(f"{home.url}/readyz").status_code == httpx.codes.OK
    stop(serving)


def test_interrupted_during_training_and_search_the_next_start_goes_on(home):
    first = home.start()
    first.wait_ready()
    with home.client() as client:
        supernet = train(client, epochs=5)
        # Stopped while the first epoch is probed there is no checkpoint yet, and nothing to go on from.
        wait_until(supernet.curves, timeout_s=90, what="the first epoch")
        stop(first, whole_group=True)
        second = home.start()
        second.wait_ready()
        supernet = supernet.wait(timeout=120)
        assert [point["epoch"] for point in supernet.curves()] == list(range(5))
        assert "resumed" in [event.kind for event in supernet.events()]
        # A clean stop gives the job back: the attempt does not count.
        assert client.jobs.get(supernet.job_id)["attempt"] == 1
        search = client.searches.create(supernet.id, 40)
        await_progress(search, "search")
        assert home.processes("raylet")
        stop(second)
        third = home.start()
        third.wait_ready()
        search = search.wait(timeout=120)
        assert [point["number"] for point in search.trials()] == list(range(40))
        assert client.jobs.get(search.job_id)["attempt"] == 1
    stop(third)


def test_a_second_instance_on_the_same_home_is_refused(home):
    first = home.start()
    first.wait_ready()
    second = home.start()
    assert second.wait_exit(timeout_s=20) == 1
    told = second.output
    assert f"another instance already serves from {home.folder}" in told
    assert f"process {first.process.pid} at {home.url}" in told
    assert "--home" in told
    # The first does not notice.
    assert httpx.get(f"{home.url}/readyz").status_code == httpx.codes.OK
    stop(first)


def test_a_taken_port_is_refused_before_anything_is_started(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        serving = home.start(port=port)
        assert serving.wait_exit(timeout_s=20) == 1
    assert f"port {port} is taken" in serving.output
    assert "starting PostgreSQL" not in serving.output
    home.wait_for_no_process()


def test_killed_itself_its_children_end_and_the_next_start_goes_on(home):
    first = home.start()
    first.wait_ready()
    with home.client() as client:
        supernet = train(client, epochs=2).wait(timeout=120)
        search = client.searches.create(supernet.id, 60)
        await_progress(search, "search")
        first.kill()
        # PostgreSQL alone outlives its supervisor, and is adopted.
        home.wait_for_no_process(timeout_s=30, but=POSTGRES)
        (postmaster,) = [pid for pid, line in home.processes(POSTGRES).items() if " -D " in line]
        second = home.start()
        second.wait_ready()
        assert postmaster in home.processes(POSTGRES)
        search = search.wait(timeout=120)
        assert [point["number"] for point in search.trials()] == list(range(60))
    stop(second)


def test_a_killed_api_is_started_again(home):
    serving = home.start()
    serving.wait_ready()
    (pid,) = [pid for pid, line in home.processes("-m api").items() if line.split()[1:] == ["-m", "api"]]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "the api process ended with status -9" in serving.output, timeout_s=60, what="noticed")
    with home.client() as client:
        assert client.version()
    stop(serving)


def test_logs_and_lock_tell_where_the_service_is(home):
    serving = home.start()
    serving.wait_ready()
    holder = json.loads((home.folder / "serve.lock").read_text())
    assert holder == {"pid": serving.process.pid, "url": home.url}
    log = home.folder / "logs" / "worker.log"
    wait_until(lambda: "worker started" in log.read_text(), timeout_s=60, what="worker started")
    stop(serving)
