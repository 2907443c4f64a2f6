"""`nas serve`: the whole service on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from nas.commands.exits import UsageError


def default_home() -> Path:
    """Where the service's data lies unless told otherwise: NAS_HOME, or the user's data folder."""
    if given := os.environ.get("NAS_HOME"):
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "nas"


class Port(click.ParamType[int]):
    """A port that can be listened on."""

    name = "PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a usage error for what is none."""
        text = str(value)
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            self.fail(f"{text!r} is no port; choose a number from 1 to 65535", param, ctx)
        return int(text)


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=default_home,
    show_default="NAS_HOME, or a folder for data of yours",
    help="Folder of the service's data.",
)
@click.option("--port", type=Port(), help="Port on 127.0.0.1 (default: 8080, or a free one).")
@click.option("--demo", is_flag=True, help="Also run the demo on scikit-learn's digits.")
@click.option("--exit", "exits", is_flag=True, help="End when the demo has ended.")
def serve(*, home: Path, port: int | None, demo: bool, exits: bool) -> int:
    """Run the service on this machine: database, API and worker, until Ctrl-C."""
    if exits and not demo:
        raise UsageError("--exit says what to do after the demo; add --demo")
    # Only here: the other commands need no database driver.
    from nas.serve import ServeSettings
    from nas.serve import serve as run

    settings = ServeSettings(
        home=home,
        port=port,
        database_url=os.environ.get("NAS_DATABASE_URL"),
        artifact_url=os.environ.get("NAS_ARTIFACT_URL"),
    )
    if not demo:
        return run(settings, click.echo)
    # Needs numpy and onnxruntime, which a machine that only serves may lack.
    from nas.demo import Demo

    return run(settings, click.echo, Demo(click.echo, settings.home, ends_service=exits))
