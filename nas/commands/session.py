"""What every command that asks the service has in common: where it is, how to print, how to wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Any, TypeVar

import click
import httpx

from nas.client import Client
from nas.client.errors import (
    ClientError,
    JobCancelledError,
    JobFailedError,
    ServiceUnavailableError,
    WaitTimeoutError,
)
from nas.client.messages import connection_settings
from nas.client.resource import Resource
from nas.commands.exits import InterruptedWaitError
from nas.commands.progress import ProgressLine
from nas.commands.text import details, table

DEFAULT_URL = "http://127.0.0.1:8080"

_HELLO_S = 10.0

ResourceT = TypeVar("ResourceT", bound=Resource)
Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
"""Titles, and what stands under them for one item."""


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    ID = "id"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One command's dealings with one service."""

    url: str
    key: str | None
    output: Output
    shows_progress: bool

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the service, which has been seen to answer."""
        greet(self.url, self.key)
        with Client(self.url, self.key) as client:
            yield client

    def show(self, item: Mapping[str, Any], *, hidden: Sequence[str] = ()) -> None:
        """Print one thing; `hidden` names what is too long for a table."""
        if self.output is Output.TABLE:
            shown = {name: value for name, value in item.items() if name not in ("links", *hidden)}
            _echo_lines(details(shown))
        elif self.output is Output.ID:
            click.echo(item.get("id") or item.get("name") or item.get("architecture_key"))
        else:
            click.echo(_json(dict(item)))

    def show_list(self, items: Iterable[Mapping[str, Any]], columns: Columns) -> None:
        """Print several things: a table, a JSON array, or an id a line."""
        if self.output is Output.JSON:
            click.echo(_json([dict(item) for item in items]))
        elif self.output is Output.ID:
            for item in items:
                click.echo(item.get("id") or item.get("name") or item.get("architecture_key"))
        else:
            rows = [[cell(item) for cell in columns.values()] for item in items]
            _echo_lines(table(list(columns), rows))

    def show_lines(self, lines: Iterable[str]) -> None:
        """Print what was laid out for people already."""
        _echo_lines(lines)

    def say(self, text: str) -> None:
        """Tell on stderr what is no result, unless a program is to read the results."""
        if self.output is Output.TABLE:
            click.echo(text, err=True)

    def progress(self) -> Any:
        """A context manager that gives a ProgressLine, or None where none is to be shown."""
        return ProgressLine(sys.stderr) if self.shows_progress else nullcontext()

    def wait(self, resource: ResourceT, noun: str, timeout: float | None) -> ResourceT:
        """The resource once its job has succeeded, its progress shown meanwhile."""
        go_on = (
            f"watch it with: nas {noun} watch {resource.id}; stop it with: nas {noun} cancel {resource.id}"
        )
        try:
            with self.progress() as line:
                return resource.wait(timeout=timeout, on_progress=line)
        except KeyboardInterrupt:
            raise InterruptedWaitError(f"interrupted; {resource.id} goes on\n{go_on}") from None
        except WaitTimeoutError as error:
            raise WaitTimeoutError(f"{error}\n{go_on}") from error
        except ServiceUnavailableError as error:
            raise ServiceUnavailableError(f"{error}\n{resource.id} may go on; {go_on}") from error
        except (JobFailedError, JobCancelledError) as error:
            raise type(error)(f"{error}\nsee: nas {noun} get {resource.id}") from error


def with_session(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Gives the command a Session as its first argument, made of the options that all commands take."""

    @click.option(
        "--url",
        envvar="NAS_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="The service.",
    )
    @click.option("--key", envvar="NAS_KEY", show_envvar=True, metavar="KEY", help="The API key.")
    @click.option(
        "-o",
        "--output",
        type=click.Choice([output.value for output in Output]),
        default=Output.TABLE.value,
        show_default=True,
        help="How to print results: for people, whole as JSON, or the ids alone.",
    )
    @click.option(
        "--progress/--no-progress",
        default=None,
        help="Tell on stderr how far a job is; by default with -o table.",
    )
    @wraps(command)
    def run(
        url: str, key: str | None, output: str, *args: Any, progress: bool | None, **options: Any
    ) -> int | None:
        form = Output(output)
        shows_progress = form is Output.TABLE if progress is None else progress
        session = Session(url=url, key=key or None, output=form, shows_progress=shows_progress)
        return command(session, *args, **options)

    return run


def greet(url: str, key: str | None) -> None:
    """Return if our service answers at the URL; else say what was tried, and how to start one."""
    settings = connection_settings(url, key, _HELLO_S)
    start = "start one with `nas serve`, or name another with --url or NAS_URL"
    try:
        with httpx.Client(**settings) as http:
            answer = http.get("/version")
    except httpx.TransportError as error:
        raise ServiceUnavailableError(
            f"no service answers at {url} ({error or type(error).__name__}); {start}"
        ) from error
    if answer.status_code in (502, 503, 504):
        return  # It is starting, or busy: the client tries again.
    if not _is_ours(answer):
        raise ClientError(
            f"what answers at {url} is not this service (GET /version: {answer.status_code} "
            f"{answer.headers.get('content-type', '')}); {start}"
        )


def _is_ours(answer: httpx.Response) -> bool:
    try:
        found = answer.json()
    except ValueError:
        return False
    # A problem of ours, such as a missing key, is told by the request itself.
    return isinstance(found, dict) and ("api" in found or str(found.get("type", "")).startswith("/problems/"))


def _echo_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
