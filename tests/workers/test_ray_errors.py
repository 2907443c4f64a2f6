"""What Ray says of a failure, told in a sentence."""

from __future__ import annotations

import pytest
from ray.train import WorkerGroupError

from workers.ray_errors import sentence

TRACEBACK = (
    'Traceback (most recent call last):\n  File "train.py", line 7, in step\nRuntimeError: no room left\n'
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(TRACEBACK), "RuntimeError: no room left"),
        (RuntimeError(""), "RuntimeError"),
        (WorkerGroupError(TRACEBACK, {}), "RuntimeError: no room left"),
        (
            WorkerGroupError(TRACEBACK, {1: KeyError("a"), 0: ValueError("first\nlast"), 2: KeyError("a")}),
            "rank 0: ValueError: last; rank 1, 2: KeyError: 'a'",
        ),
    ],
)
def test_no_traceback_is_told(error, expected):
    assert sentence(error) == expected
