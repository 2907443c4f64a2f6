"""Waiting: progress on stderr, time limits, Ctrl-C, terminals and pipes. Processes of their own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from nas.job import JobKind, Progress
from tests.api.conftest import DIGITS
from tests.commands.conftest import Ended

pytestmark = pytest.mark.timeout(120)


def ended(process) -> Ended:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return Ended(process.returncode, out, err)


@pytest.fixture
def dataset(client):
    return client.datasets.create(DIGITS)


def test_out_of_time_ends_with_124_and_says_how_to_go_on(nas, dataset):
    for arguments in (["dataset", "watch", dataset.id], ["job", "watch", dataset.job_id]):
        over = nas(*arguments, "--timeout", "0.3")
        assert (over.status, over.out) == (124, "")
        assert "it goes on" in over.err
        assert f"nas {arguments[0]} watch {arguments[2]}" in over.err
    waited = nas("dataset", "add", "digits", "--wait", "--timeout", "0.3", "-o", "json")
    assert (waited.status, waited.out) == (124, "")


def test_ctrl_c_ends_with_130_and_says_that_the_job_goes_on(start, client, dataset):
    watching = start("dataset", "watch", dataset.id)
    assert watching.stderr.readline() == f"{dataset.id}  queued\n"
    watching.send_signal(signal.SIGINT)
    over = ended(watching)
    assert (over.status, over.out) == (130, "")
    assert f"{dataset.id} goes on" in over.err
    assert f"nas dataset watch {dataset.id}" in over.err
    assert client.datasets.get(dataset.id).state == "queued"


def test_progress_tells_rate_and_time_left_in_few_lines(start, dataset, worker):
    watching = start("dataset", "watch", dataset.id)
    lease = worker.claim(JobKind.IMPORT_DATASET)
    for done in range(0, 100, 2):
        progress = Progress(phase="decode", done=done, total=100)
        worker.queue.heartbeat(lease, lease_s=60, progress=progress)
        time.sleep(0.1)
    worker.queue.fail(lease, "enough")
    over = ended(watching)
    lines = [line for line in over.err.splitlines() if "decode" in line]
    assert 2 <= len(lines) <= 10
    assert "/100" in lines[-1]
    assert "/s" in lines[-1]
    assert "left" in lines[-1]
    assert (over.status, "enough" in over.err) == (1, True)


def test_with_json_nothing_but_json_unless_asked(start, client, dataset, worker):
    quiet = start("dataset", "watch", dataset.id, "-o", "json")
    asked = start("dataset", "watch", dataset.id, "-o", "json", "--progress")
    assert asked.stderr.readline() == f"{dataset.id}  queued\n"
    worker.import_dataset()
    quiet, asked = ended(quiet), ended(asked)
    assert quiet.err == ""
    assert json.loads(quiet.out) == json.loads(asked.out) == dict(client.datasets.get(dataset.id))
    silent = ended(start("dataset", "watch", dataset.id, "--no-progress"))
    assert (silent.status, silent.err) == (0, "")


def on_a_terminal(start, *arguments, **environment) -> str:
    """What a terminal of 60 columns is sent."""
    terminal, ours = pty.openpty()
    env = {**os.environ, **environment, "COLUMNS": "60"}
    process = start(*arguments, env=env, stdout=ours, stderr=ours)
    os.close(ours)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # The way Linux tells that the other end is closed.
        pass
    os.close(terminal)
    process.wait(60)
    return shown.decode()


def test_on_a_terminal_one_line_is_renewed(start, service_url, dataset, worker):
    worker.fail(JobKind.IMPORT_DATASET, "over")
    shown = on_a_terminal(start, "dataset", "watch", dataset.id, NAS_URL=service_url)
    renewed = shown.split("\r")[1]
    assert renewed.startswith(f"{dataset.id}  failed")
    assert "\x1b[K" in renewed
    assert shown.rstrip().endswith(f"nas dataset get {dataset.id}")


@pytest.mark.slow
def test_colours_only_where_they_are_wanted(start, service_url, tmp_path):
    plain = on_a_terminal(start, "doctor", "--home", tmp_path, NAS_URL=service_url, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "\x1b[3" in on_a_terminal(start, "doctor", "--home", tmp_path, NAS_URL=service_url, NO_COLOR="")


def test_a_reader_that_leaves_is_no_error_to_tell(start, client, service_url):
    for _ in range(60):
        client.datasets.create(DIGITS, display_name="x" * 200, labels={f"n{n}": "y" * 250 for n in range(20)})
    command = f"{sys.executable} -m nas.cli dataset list --limit 1000 -o json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "NAS_URL": service_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (len(done.stdout), done.stderr) == (10, "")


def test_a_letter_that_the_terminal_has_not_is_no_error(start, client, service_url):
    dataset = client.datasets.create(DIGITS, display_name="ключ ✓")
    over = ended(
        start(
            "dataset",
            "get",
            dataset.id,
            env={**os.environ, "NAS_URL": service_url, "PYTHONIOENCODING": "latin-1"},
        )
    )
    assert (over.status, "  ???? ?\n" in over.out) == (0, True), over.out


def test_completion_for_the_shell_knows_the_commands(start, service_url):
    environment = {**os.environ, "_NAS_COMPLETE": "bash_complete", "COMP_WORDS": "nas sea", "COMP_CWORD": "1"}
    over = ended(start(env=environment))
    assert over.out.split() == ["plain,search"]
