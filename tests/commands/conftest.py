"""The service of tests/api, with its played worker, and the command line run against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from nas.cli import main
from tests.api.conftest import (
    artifact_store,
    batch,
    client,
    search,
    service_url,
    subnet,
    supernet,
    untrained,
    worker,
)
from tests.processes import heed_interrupts

__all__ = [
    "artifact_store",
    "batch",
    "client",
    "search",
    "service_url",
    "subnet",
    "supernet",
    "untrained",
    "worker",
]


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def unserved(monkeypatch, capsys):
    """Runs a command in this process."""
    for name in ("NAS_KEY", "NAS_HOME", "NAS_DATABASE_URL", "NAS_ARTIFACT_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return run


@pytest.fixture
def nas(unserved, service_url, database_url, monkeypatch):
    """Runs a command against the service."""
    monkeypatch.setenv("NAS_URL", service_url)
    return unserved


@pytest.fixture
def start(service_url, database_url):
    """Starts a command in a process of its own, for signals, terminals and pipes."""
    started = []

    def run(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "nas.cli", *map(str, arguments)],
            **{
                "env": {**os.environ, "NAS_URL": service_url},
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "preexec_fn": heed_interrupts,
                **options,
            },
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
