"""`nas supernet`: weight-shared networks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click

from nas.client import Client
from nas.commands.evaluation import evaluate
from nas.commands.exits import UsageError
from nas.commands.files import show_saved, with_folder
from nas.commands.options import BOUND_NAMES, ID, with_bounds, with_device, with_waiting
from nas.commands.points import (
    EVALUATION_COLUMNS,
    PROBE_COLUMNS,
    SUPERNET_FRONTIER_COLUMNS,
    with_latency,
)
from nas.commands.request_body import Body, put_given, with_body
from nas.commands.resources import (
    COMMON_COLUMNS,
    CREATED,
    Noun,
    add_cancel,
    add_delete,
    add_get,
    add_list,
    add_watch,
    say_if_more,
    show_created,
    with_limit,
)
from nas.commands.sending import sent
from nas.commands.session import Output, Session, with_session
from nas.errors import NasError
from nas.recipe_choices import RecipeName

SUPERNET = Noun(
    name="supernet",
    people_say="supernet",
    collection=lambda client: client.supernets,
    columns={
        **COMMON_COLUMNS,
        "SPACE": lambda item: item["search_space"],
        "DATA SET": lambda item: item["dataset_id"],
        **CREATED,
    },
    hidden=("curves", "recipe", "recipe_notes"),
)


@click.group()
def supernet() -> None:
    """Weight-shared networks: one training, every network of a space."""


@supernet.command("train")
@click.argument("dataset_id", type=ID, metavar="[DATASET]", required=False)
@click.argument("search_space", type=ID, metavar="[SPACE]", required=False)
@click.option("--recipe", metavar="NAME", help=f"The recipe to begin with: {', '.join(RecipeName)}.")
@click.option("--epochs", type=int, help="recipe.epochs; other fields of it with --set recipe.FIELD=VALUE.")
@click.option("--batch-size", type=int, help="recipe.batch_size.")
@click.option("--seed", type=int)
@click.option("--num-workers", type=int, help="Training processes.")
@click.option("--num-probes", type=int, help="Networks measured after every epoch; 0 for the ends alone.")
@click.option(
    "--warm-start",
    type=ID,
    metavar="ID|FILE",
    help="Begin with the weights of this supernet (sn_…), upload (up_…), or downloaded file, which is sent.",
)
@with_body
@with_waiting
@with_session
def train_supernet(
    session: Session,
    *,
    body: Body,
    dataset_id: str | None,
    search_space: str | None,
    recipe: str | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    num_workers: int | None,
    num_probes: int | None,
    warm_start: str | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Train a supernet on DATASET over SPACE; `nas space list` shows the spaces."""
    given = {
        "dataset_id": dataset_id,
        "search_space": search_space,
        "recipe.name": recipe,
        "recipe.epochs": epochs,
        "recipe.batch_size": batch_size,
        "seed": seed,
        "num_workers": num_workers,
        "num_probes": num_probes,
    }
    put_given(body, given)
    with session.client() as client:
        if warm_start is not None:
            body["warm_start"] = _weights(session, client, warm_start)
        created = client.supernets.create_from(body)
        for note in created.get("recipe_notes", ()):
            session.say(f"note: recipe.{note}")
        show_created(session, SUPERNET, created, wait=wait, timeout=timeout)


@supernet.command("probes")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_probes(session: Session, *, resource_id: str) -> None:
    """Show what the networks got right that are measured after every epoch, during training too.

    The table is of the last epoch; -o json has them all.
    """
    with session.client() as client:
        found = client.supernets.get(resource_id)
        probes = found.probes()
    if session.output is Output.JSON:
        session.show(probes)
        return
    if not probes["epochs"]:
        session.say(f"{found.id} is {found.state}; no epoch of it has been measured")
        return
    last = probes["epochs"][-1]
    session.say(f"after epoch {last['epoch']}")
    measured = zip(probes["networks"], last["items"], strict=True)
    session.show_list(
        [{**network, **item, "is_front": network["number"] in last["front"]} for network, item in measured],
        PROBE_COLUMNS,
    )
    if probes["flat_at_epoch"] is not None:
        session.say(f"no probe has risen since epoch {probes['flat_at_epoch']}: more training may not help")


@supernet.command("frontier")
@click.argument("resource_id", type=ID, metavar="ID")
@with_device
@with_bounds
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    help="A cost to lower, beside accuracy; repeat it (default: macs).",
)
@with_session
def show_frontier(session: Session, *, resource_id: str, objectives: tuple[str, ...], **asked: Any) -> None:
    """The frontier over all that was measured with the final weights, whatever asked for it, by rising cost.

    Under any bounds and objectives, also those that no search was ever made with; nothing is measured for it.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    with session.client() as client:
        found = client.supernets.frontier(resource_id, list(objectives) or None, **given)
    session.show_list(found, with_latency(SUPERNET_FRONTIER_COLUMNS, found))
    if found:
        return
    if given.keys() & set(BOUND_NAMES):
        session.say("no network measured so far keeps the bounds; `nas best` with them tells what would do")
    else:
        session.say(f"nothing is measured yet; search it by: nas search create {resource_id} --trials 60")


@supernet.command("evaluations")
@click.argument("resource_id", type=ID, metavar="ID")
@with_device
@with_limit
@with_session
def show_evaluations(session: Session, *, resource_id: str, device: str | None, limit: int) -> None:
    """Everything measured with the final weights, newest first, whichever search or batch asked for it."""
    with session.client() as client:
        found = list(islice(client.supernets.evaluations(resource_id, device), limit + 1))
    session.show_list(found[:limit], with_latency(EVALUATION_COLUMNS, found))
    say_if_more(session, found, limit)
    if not found:
        session.say(f"nothing is measured yet; search it by: nas search create {resource_id} --trials 60")


@supernet.command("download")
@click.argument("resource_id", type=ID, metavar="ID")
@with_folder
@with_session
def download_supernet(session: Session, *, resource_id: str, folder: Path) -> None:
    """Save the weights of a trained supernet: what --warm-start of a later training takes, once uploaded."""
    with session.client() as client:
        found = client.supernets.get(resource_id)
        files = found.artifacts()
        if not files:
            raise NasError(
                f"{found.id} is {found.state} and has no weights yet; see: nas supernet watch {found.id}"
            )
        show_saved(session, found.id, found.download(folder), files)


def _weights(session: Session, client: Client, given: str) -> dict[str, str]:
    """The request's `warm_start` for an id, or for a file here, which is sent first."""
    if given.startswith("sn_"):
        return {"supernet_id": given}
    if given.startswith("up_"):
        return {"upload_id": given}
    path = Path(given).expanduser()
    if not path.is_file():
        raise UsageError(
            f"--warm-start {given!r} is no id of a supernet (sn_…) or upload (up_…), nor a file here; "
            "of a subnet, download the bundle and give its bundle.zip"
        )
    return {"upload_id": sent(session, client, path, path.name)}


supernet.add_command(evaluate)
add_list(supernet, SUPERNET)
add_get(supernet, SUPERNET)
add_watch(supernet, SUPERNET)
add_cancel(supernet, SUPERNET)
add_delete(supernet, SUPERNET)
