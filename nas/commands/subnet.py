"""`nas subnet`: networks taken out of supernets, and their bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nas.client.resources import Subnet
from nas.commands.files import show_saved, with_folder
from nas.commands.options import ID, with_bounds, with_device, with_waiting
from nas.commands.points import accuracy
from nas.commands.request_body import Body, parse_value, put, put_given, with_body
from nas.commands.resources import (
    COMMON_COLUMNS,
    CREATED,
    Noun,
    add_cancel,
    add_delete,
    add_get,
    add_list,
    add_watch,
    show_created,
)
from nas.commands.session import Session, with_session
from nas.commands.text import count
from nas.verification import Training

SUBNET = Noun(
    name="subnet",
    people_say="subnet",
    collection=lambda client: client.subnets,
    columns={
        **COMMON_COLUMNS,
        "SUPERNET": lambda item: item["supernet_id"],
        "MACS": lambda item: count(item["costs"]["macs"]),
        "PARAMS": lambda item: count(item["costs"]["params"]),
        "ACCURACY ON TEST (95% INTERVAL)": lambda item: accuracy(item["accuracy_test"]),
        **CREATED,
    },
)


@click.group()
def subnet() -> None:
    """Networks taken out of a supernet, with ready weights."""


@subnet.command("create")
@click.option("--supernet", type=ID, help="Take it out of this supernet, by --max-… or --architecture.")
@click.option("--architecture", help="As answers show it (JSON), or in the space's native notation.")
@click.option("--search", type=ID, help="Take out a network of this search, by --trial.")
@click.option("--trial", type=int, help="The trial's number.")
@click.option("--verification", type=ID, help="Take a network with what it was trained to, by --training.")
@click.option("--network", type=int, help="The network's number in the verification.")
@click.option(
    "--training",
    type=click.Choice([t.value for t in Training]),
    help="Whose weights: the best rate's on val.",
)
@with_device
@with_bounds
@with_body
@with_waiting
@with_session
def create_subnet(
    session: Session,
    *,
    body: Body,
    supernet: str | None,
    architecture: str | None,
    search: str | None,
    trial: int | None,
    verification: str | None,
    network: int | None,
    training: str | None,
    device: str | None,
    wait: bool,
    timeout: float | None,
    **bounds: Any,
) -> None:
    """Take a network out: recalibrated, exported and checked, with no retraining."""
    given = {
        "supernet_id": supernet,
        "search_id": search,
        "trial_number": trial,
        "verification_id": verification,
        "network_number": network,
        "training": training,
        "device": device,
    }
    put_given(body, given)
    if architecture is not None:
        is_json = architecture.lstrip().startswith("{")
        put(body, "architecture", parse_value(architecture) if is_json else architecture)
    put_given(body, {f"constraints.{name}": bound for name, bound in bounds.items()})
    with session.client() as client:
        created = client.subnets.create_from(body)
        show_created(session, SUBNET, created, wait=wait, timeout=timeout)


@subnet.command("download")
@click.argument("resource_id", type=ID, metavar="ID")
@with_folder
@with_waiting
@with_session
def download_subnet(
    session: Session, *, resource_id: str, folder: Path, wait: bool, timeout: float | None
) -> None:
    """Save a subnet's bundle, checked; what is there already is not fetched again."""
    with session.client() as client:
        found = client.subnets.get(resource_id)
        if wait:
            found = session.wait(found, "subnet", timeout)
        save(session, found, folder)


def save(session: Session, found: Subnet, folder: Path) -> None:
    """The bundle's files in the folder, and their list printed."""
    show_saved(session, found.id, found.download(folder), found.artifacts())
    session.say(f"check it anywhere: cd {folder} && python verify.py")


add_list(subnet, SUBNET, click.option("--supernet", "supernet_id", help="Only those of this supernet."))
add_get(subnet, SUBNET)
add_watch(subnet, SUBNET)
add_cancel(subnet, SUBNET)
add_delete(subnet, SUBNET)
