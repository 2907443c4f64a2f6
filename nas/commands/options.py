"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from nas.commands.exits import UsageError
from nas.costs import COST_NAMES
from nas.devices.device import LATENCY

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Seconds(click.ParamType[float]):
    """A positive number of seconds."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error for what is none."""
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            seconds = -1.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is no number of seconds above 0", param, ctx)
        return seconds


class Identifier(click.ParamType[str]):
    """The id of a resource, or a name: any text that is not blank."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text; a usage error where there is nothing to look for."""
        text = str(value)
        if not text.strip():
            self.fail("it is empty; give an id, as `list` shows it", param, ctx)
        return text


class Bound(click.ParamType[Any]):
    """A number, or a percentage; what it means, and whether it may be, the service says."""

    name = "BOUND"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A number where it is spelled as one, else the text."""
        del param, ctx
        for kind in (int, float):
            # Python reads more as numbers than the service does: 1_000, nan, and the digits of every script.
            if isinstance(value, str) and value.isascii() and value[:1].isdigit() and "_" not in value:
                try:
                    return kind(value)
                except ValueError:
                    continue
        return value


ID = Identifier()


def with_bounds(command: CommandT) -> CommandT:
    """Options --max-macs and its like: the command gets max_macs=…, None where it is not given."""
    for name in reversed(BOUND_NAMES):
        option = f"--{name.replace('_', '-')}"
        text = f"Most {name.removeprefix('max_')} allowed: a number, or '60%' of the largest network's."
        command = click.option(option, type=Bound(), help=text)(command)
    return command


BOUND_NAMES = tuple(f"max_{name}" for name in (*COST_NAMES, LATENCY))


def with_device(command: CommandT) -> CommandT:
    """Option --device: the command gets device=…."""
    text = "A device by its name: latencies there are predicted, and --max-latency-ms bounds them."
    return click.option("--device", type=ID, help=text)(command)


def with_waiting(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Options --wait and --timeout: the command gets wait=…, timeout=…."""

    @click.option("--wait", is_flag=True, help="Return when the job has ended.")
    @click.option(
        "--timeout", type=Seconds(), help="With --wait: seconds, then exit with 124; the job goes on."
    )
    @wraps(command)
    def run(*args: Any, wait: bool, timeout: float | None, **options: Any) -> int | None:
        if timeout is not None and not wait:
            raise UsageError("--timeout says how long to wait; add --wait")
        return command(*args, wait=wait, timeout=timeout, **options)

    return run
