"""What certificates are computed by in tests, in processes of their own: held up, or killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from api.certificates import CertificateProcesses
from nas.prefilter.certificate import Certificate, certify
from nas.search.constraints import Bounds
from nas.search.cost_model import SpaceCosts
from nas.search.region import FeasibleRegion
from search_spaces import SPACES

GATE = "NAS_TEST_GATE"
"""Names a file; what is held up goes on once it exists."""


def certify_once_told(region: FeasibleRegion, limit_s: float) -> Certificate:
    while not Path(os.environ[GATE]).exists():
        time.sleep(0.01)
    return certify(region, limit_s=limit_s)


def die(region: FeasibleRegion, limit_s: float) -> Certificate:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_once(region: FeasibleRegion, limit_s: float) -> Certificate:
    gate = Path(os.environ[GATE])
    if not gate.exists():
        gate.touch()
        die(region, limit_s)
    return certify(region, limit_s=limit_s)


def fail(region: FeasibleRegion, limit_s: float) -> Certificate:
    raise ZeroDivisionError("on purpose")


def region_within(max_macs: float) -> FeasibleRegion:
    return FeasibleRegion(SpaceCosts(space=SPACES["micro_8"]), Bounds((("macs", max_macs),)))


if __name__ == "__main__":
    # A service that is killed: it tells its process, and does nothing more.
    processes = CertificateProcesses(patience_s=60)
    processes.certify(region_within(1))
    sys.stdout.write(f"{processes.pids[0]}\n")
    sys.stdout.flush()
    time.sleep(600)
