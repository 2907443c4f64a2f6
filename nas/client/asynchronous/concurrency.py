"""How this client waits, and what it does beside the event loop. The blocking client's is written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def sleep(duration_s: float) -> None:
    """Wait; a cancelled task wakes at once."""
    await asyncio.sleep(duration_s)


async def beside(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `work` returns, done in a thread, so that the event loop goes on meanwhile."""
    return await asyncio.to_thread(work, *args, **named)
