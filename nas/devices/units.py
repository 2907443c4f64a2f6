"""Whether times are milliseconds: rows that name another unit, and speeds that no device has.

A unit cannot be seen in a number. So what is refused is what contradicts itself, or physics; what is merely
unusual is a warning, for a microcontroller's honest times look like a processor's in microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nas.devices.parts import Floats
from nas.errors import InvalidRequestError

MANY_MACS = 1e5
"""For the whole batch: with fewer, the time says more of calling a block than of computing it."""
POSSIBLE_MACS_PER_S = (1e4, 1e16)
"""Of the median block with many MACs; beyond it a table is refused.

8-bit microcontrollers that emulate floating point reach some 1e5; the largest accelerators' peaks are some
5e15, with numbers of 4 or 8 bits, and for far larger work than a block of ours.
"""
USUAL_MACS_PER_S = (1e8, 1e13)
"""Likewise; beyond it a table is doubted. Medians of published tables of blocks lie within it: MBConv on one
thread of a Xeon 5e9 and on a Titan RTX 9e11 (TF-NAS), MobileNetV3 on a small FPGA 2e10, single convolutions
on a V100 4e12. Microcontrollers lie below it, and large accelerators with large batches above it.
"""

_TIME = r"(?:(?:base|latency|lat|time|p\d+|mean|median|avg|average|min|max|low|high|std)_)*"
_UNIT = r"(?:[nuµμ]s(?:ecs?)?|secs?|(?:nano|micro)?seconds?|nanos|micros|minutes?)"
_OTHER_UNIT = re.compile(_TIME + _UNIT, re.IGNORECASE)
# Bare `s` is a stride in many a table; with `latency_` or the like before it, it is seconds.
_SECONDS = re.compile(_TIME.removesuffix("*") + r"+s", re.IGNORECASE)
_SAYS_UNIT = ("unit", "units", "time_unit", "latency_unit")
_MILLISECONDS = ("ms", "msec", "millisecond", "milliseconds")


def refuse_other_units(row: Mapping[str, Any]) -> None:
    """InvalidRequestError for a row, or a header, that gives a time in anything but milliseconds."""
    for name, value in row.items():
        if value is None:
            continue
        if _OTHER_UNIT.fullmatch(name) or _SECONDS.fullmatch(name):
            raise InvalidRequestError(
                f"{name!r} is a time in another unit, and times are milliseconds here: 'p50_ms' of a row, "
                f"'base_ms' of a header; convert it and leave {name!r} out"
            )
        if name in _SAYS_UNIT and value not in _MILLISECONDS:
            raise InvalidRequestError(
                f"{name} {value!r} is not milliseconds, the only unit here; convert the times and leave "
                f"{name!r} out"
            )


def macs_per_second(macs: Floats, milliseconds: Floats) -> float | None:
    """The median over what has many MACs; None where nothing has. Both of shape (n,), of the whole batch."""
    has_many = macs >= MANY_MACS
    if not has_many.any():
        return None
    return float(np.median(macs[has_many] / milliseconds[has_many]) * 1e3)


def refuse_impossible_speed(speed: float | None, what: str) -> None:
    """InvalidRequestError for a speed that no device has; `what` names whose median it is."""
    lowest, highest = POSSIBLE_MACS_PER_S
    if speed is None or lowest <= speed <= highest:
        return
    than = "slower" if speed < lowest else "faster"
    raise InvalidRequestError(
        f"{what} do {speed:.1e} of them a second (median), {than} than any device ({lowest:.0e} to "
        f"{highest:.0e}): the times look like another unit; give them in milliseconds"
    )


def unusual_speed(speed: float | None, what: str) -> str | None:
    """A warning about a speed that few devices have; None where it is usual."""
    lowest, highest = USUAL_MACS_PER_S
    if speed is None or lowest <= speed <= highest:
        return None
    than, unit = (
        ("slower than all but microcontrollers", "microseconds")
        if speed < lowest
        else ("faster than all but large accelerators with large batches", "seconds")
    )
    return (
        f"{what} do {speed:.1e} of them a second (median), {than}: make sure that times are milliseconds, "
        f"not {unit}"
    )
