"""`python -m workers` as a process: what it says when it cannot start, and that it stops when told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(500)

BEGUN_S = 200
"""Importing torch and Ray takes seconds, and on a busy machine minutes."""


def start(log, **settings: str) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "workers"], env=kept | settings, stdout=file, stderr=subprocess.STDOUT
        )


def test_settings_that_are_missing_are_named(tmp_path):
    process = start(tmp_path / "log", NAS_DATABASE_URL="postgresql://nowhere/nas")
    assert process.wait(BEGUN_S) == 1
    told = (tmp_path / "log").read_text()
    assert "NAS_ARTIFACT_URL" in told
    assert "NAS_HOME" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_once_when_told(database_url, tmp_path, number):
    log = tmp_path / "log"
    process = start(
        log, NAS_DATABASE_URL=database_url, NAS_ARTIFACT_URL=str(tmp_path / "a"), NAS_HOME=str(tmp_path)
    )
    try:
        deadline = time.monotonic() + BEGUN_S
        while "worker started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
