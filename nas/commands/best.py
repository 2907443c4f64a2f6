"""`nas best`: the best network known under constraints, now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nas.commands.options import ID, Seconds, with_bounds, with_device
from nas.commands.points import POINT_COLUMNS, with_latency
from nas.commands.session import Session, with_session
from nas.commands.subnet import save


@click.command()
@click.argument("supernet_id", type=ID, metavar="SUPERNET")
@with_device
@with_bounds
@click.option(
    "--download",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also make its bundle, and save it in this folder.",
)
@click.option(
    "--rivals",
    "max_rivals",
    type=click.IntRange(1, 100),
    help="Show it as a table, with up to so many cheaper or dearer ones that may be as good.",
)
@click.option("--timeout", type=Seconds(), help="With --download: seconds, then exit with 124.")
@with_session
def best(
    session: Session, *, supernet_id: str, folder: Path | None, timeout: float | None, **asked: Any
) -> None:
    """The most accurate network measured with a supernet's weights that keeps the bounds."""
    given = {name: value for name, value in asked.items() if value is not None}
    with session.client() as client:
        point = client.supernets.best(supernet_id, **given)
        if folder is None:
            if "max_rivals" in given:
                shown = [point, *point["rivals"]]
                session.show_list(shown, with_latency(POINT_COLUMNS, shown))
            else:
                session.show(point, hidden=("rivals",))
            return
        subnet = session.wait(point.specialise(), "subnet", timeout)
        save(session, subnet, folder)
