"""The demo of `make run`, to its end."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]

_ROW = re.compile(r"^ +(\d+) % +([\d,]+) +([\d,]+) +[\d.]+ MB +([\d.]+)% \(([\d.]+)% to ([\d.]+)%\)", re.M)
_TEST = re.compile(r"^ +([\d,]+) MACs: ([\d.]+)% on test", re.M)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_demo_ends_well_and_shows_a_frontier_worth_the_name(home):
    # As a user starts it: what a training yields depends on the number of threads.
    serving = home.start("--demo", "--exit", settings={})
    # Against hanging alone: on two cores it shares them with another file of tests.
    assert serving.wait_exit(timeout_s=1800) == 0, serving.output
    home.wait_for_no_process()
    budgets = _ROW.findall(serving.output)
    assert [int(row[0]) for row in budgets] == [20, 40, 60, 80, 100]
    assert all(float(low) <= float(value) <= float(high) for *_, value, low, high in budgets)
    macs = [number(row[1]) for row in budgets]
    assert len(set(macs)) >= 3, serving.output
    assert max(macs) >= 2 * min(macs), serving.output
    tested = sorted((number(macs), float(value)) for macs, value in _TEST.findall(serving.output))
    assert [macs for macs, _ in tested] == sorted(set(macs))
    assert tested[-1][1] >= 97
    assert tested[0][1] >= 94
    (folder,) = (home.folder / "downloads").iterdir()
    verify = [sys.executable, "verify.py"]
    checked = subprocess.run(verify, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr
