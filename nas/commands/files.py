"""Files saved from the service: where to, and which came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from nas.commands.session import Output, Session
from nas.commands.text import count

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def with_folder(command: CommandT) -> CommandT:
    """Gives the command `folder`, which must be named."""
    option = click.option(
        "-d",
        "--dir",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="The folder to save to; it is made where there is none.",
    )
    return option(command)


def show_saved(
    session: Session, resource_id: str, paths: Sequence[Path], listed: Iterable[Mapping[str, Any]]
) -> None:
    """The files saved, each with what the service lists of it."""
    if session.output is Output.ID:
        click.echo(resource_id)
        return
    known = {str(file["name"]): file for file in listed}
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
        "FILE": lambda file: file["path"],
        "SIZE_BYTES": lambda file: count(file["size_bytes"]),
        "SHA256": lambda file: file["sha256"],
    }
    session.show_list([{**known[path.name], "path": str(path)} for path in paths], columns)
