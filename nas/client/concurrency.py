"""How the blocking client waits: the counterpart of `nas.client.asynchronous.concurrency`, by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def sleep(duration_s: float) -> None:
    """Wait."""
    time.sleep(duration_s)


def beside(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `work` returns; this client has nothing else to do meanwhile."""
    return work(*args, **named)
