"""`nas space`: what can be trained and searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from nas.commands.options import ID
from nas.commands.session import Columns, Session, with_session
from nas.commands.text import count

_LONG = 1e12
_FEW = 3


def num_networks(space: Mapping[str, Any]) -> str:
    """Such as 19,683 or 7.2e+12."""
    number = float(space["num_networks"])
    return f"{number:.1e}" if number >= _LONG else count(number)


def _resolutions(space: Mapping[str, Any]) -> str:
    sides = space["resolutions_px"]
    few = ", ".join(map(str, sides))
    return few if len(sides) <= _FEW else f"{min(sides)} to {max(sides)}"


def cost_range(space: Mapping[str, Any], name: str) -> str:
    """Such as '202,368 to 2,675,840': of the smallest and of the largest network."""
    found = space["costs"][name]
    return f"{count(found['smallest'])} to {count(found['largest'])}"


_COLUMNS: Columns = {
    "NAME": lambda space: space["name"],
    "NETWORKS": num_networks,
    "RESOLUTIONS_PX": _resolutions,
    "MACS": lambda space: cost_range(space, "macs"),
    "PARAMS": lambda space: cost_range(space, "params"),
}


@click.group()
def space() -> None:
    """Search spaces: sets of networks that share one supernet."""


@space.command("list")
@with_session
def list_spaces(session: Session) -> None:
    """List them."""
    with session.client() as client:
        session.show_list(client.search_spaces.list(), _COLUMNS)


@space.command("get")
@click.argument("name", type=ID, metavar="NAME")
@click.option("--num-classes", type=int, help="To count costs for.")
@click.option("--in-channels", type=int, help="To count costs for.")
@with_session
def get_space(session: Session, *, name: str, num_classes: int | None, in_channels: int | None) -> None:
    """Show one, decision by decision."""
    with session.client() as client:
        found = client.search_spaces.get(name, num_classes=num_classes, in_channels=in_channels)
    session.show(found)
