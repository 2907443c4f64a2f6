"""How a command ends: its exit status, and what it says when it went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from nas.client.errors import (
    ApiError,
    InfeasibleConstraintsError,
    NoNetworkWithinBoundsError,
    RequestRefusedError,
    UnsendableRequestError,
    WaitTimeoutError,
)
from nas.commands.text import printable
from nas.errors import NasError


class Exit(IntEnum):
    """The exit status of every command."""

    OK = 0
    FAILED = 1
    """The service, the job or this machine said no."""
    USAGE = 2
    """The request itself is wrong: an option, a field, a value."""
    INFEASIBLE = 3
    """No network keeps the constraints, or none measured so far."""
    TIMED_OUT = 124
    """Waiting ended; the job goes on."""
    INTERRUPTED = 130
    """Ctrl-C; a job goes on."""


class UsageError(NasError):
    """Options that do not go together, or a file that does not say what it must."""


class InterruptedWaitError(NasError):
    """Ctrl-C while a job was waited for; it goes on."""


_STATUS: tuple[tuple[type[Exception], Exit], ...] = (
    (InterruptedWaitError, Exit.INTERRUPTED),
    (WaitTimeoutError, Exit.TIMED_OUT),
    (InfeasibleConstraintsError, Exit.INFEASIBLE),
    (NoNetworkWithinBoundsError, Exit.INFEASIBLE),
    (RequestRefusedError, Exit.USAGE),
    (UnsendableRequestError, Exit.USAGE),
    (UsageError, Exit.USAGE),
)


def told(error: Exception) -> tuple[str, Exit]:
    """What to print about the error, and the exit status."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), Exit.FAILED)
    return "nas: " + "\n  ".join(printable(line) for line in _lines(error)), status


def _lines(error: Exception) -> Iterator[str]:
    if isinstance(error, ApiError):
        yield from _lines_of_problem(error)
    elif isinstance(error, OSError) and error.strerror:
        yield f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, NasError):
        yield from str(error).splitlines()
    else:
        yield f"a defect of this command, please report it: {type(error).__name__}: {error} ({_place(error)})"


def _lines_of_problem(error: ApiError) -> Iterator[str]:
    entries = error.errors
    if len(entries) == 1:
        yield _entry(entries[0])
    else:
        yield str(error)
        yield from map(_entry, entries)
    yield from _remedies(error.problem)


def _entry(entry: Mapping[str, Any]) -> str:
    """Such as 'recipe.epochs: must be at least 1 (given: -1; allowed: …)'; the message may say it all."""
    message = str(entry["message"])
    more = []
    if "value" in entry and (value := json.dumps(entry["value"], ensure_ascii=False)) not in message:
        more.append(f"given: {value}")
    if "allowed" in entry and str(entry["allowed"]) not in message:
        more.append(f"allowed: {entry['allowed']}")
    field = "" if str(entry["field"]) in message else f"{entry['field']}: "
    return f"{field}{message}" + (f" ({'; '.join(more)})" if more else "")


def _remedies(problem: Mapping[str, Any]) -> Iterator[str]:
    """What the problem offers beside its words: bounds that would do, or what is in the way."""
    if relax := problem.get("relax"):
        yield f"bounds that would do together: {_bounds(relax)}"
    for name, bound in (problem.get("relax_alone") or {}).items():
        if bound is not None:
            yield f"a bound that would do alone: {_bounds({name: bound})}"
    for user in problem.get("used_by") or []:
        name = f" {user['display_name']!r}" if user.get("display_name") else ""
        yield f"used by {user['kind']} {user['id']}{name}"


def _bounds(bounds: Mapping[str, float]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {bound:.15g}" for name, bound in bounds.items())


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "nowhere" if trace is None else f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
