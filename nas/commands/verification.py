"""`nas verify`: networks measured on test, and trained on their own to verify what they inherit."""

from __future__ import annotations

import click

from nas.client import Verification
from nas.commands.options import ID, with_waiting
from nas.commands.points import RUN_COLUMNS, VERIFIED_COLUMNS
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
)
from nas.commands.session import Output, Session, with_session
from nas.commands.text import count

VERIFICATION = Noun(
    name="verify",
    people_say="verification",
    collection=lambda client: client.verifications,
    columns={
        **COMMON_COLUMNS,
        "SUPERNET": lambda item: item["supernet_id"],
        "NETWORKS": lambda item: count(item["num_networks"]),
        "TRAININGS": lambda item: count(item["num_runs"]),
        "ENDED": lambda item: count(item["num_measured"] + item["num_failed"]),
        **CREATED,
    },
)

_TRIAL = click.option(
    "--trial", "trials", type=int, multiple=True, help="Of the search; repeat it (default: its frontier)."
)


@click.group()
def verify() -> None:
    """Chosen networks, measured once on test, and trained on their own to verify what they inherit."""


@verify.command("create")
@click.argument("search_id", type=ID, metavar="[SEARCH]", required=False)
@_TRIAL
@click.option(
    "--training",
    "trainings",
    multiple=True,
    type=click.Choice(["alone", "fine_tuned"]),
    help="From fresh weights, or from those inherited; repeat it for both (default: alone).",
)
@click.option(
    "--rate", "rates", type=float, multiple=True, help="learning_rates: the best on val is chosen; repeat it."
)
@click.option("--epochs", type=int, help="Of each training.")
@click.option("--seed", type=int)
@with_body
@with_waiting
@with_session
def create_verification(
    session: Session,
    *,
    body: Body,
    search_id: str | None,
    trials: tuple[int, ...],
    trainings: tuple[str, ...],
    rates: tuple[float, ...],
    epochs: int | None,
    seed: int | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Train networks of SEARCH on their own: each at a few learning rates, the best on val once on test.

    With --wait, show what came of each. Networks of no search are given with -f, as `architectures`.
    """
    given = {
        "search_id": search_id,
        "trial_numbers": list(trials) or None,
        "trainings": list(trainings) or None,
        "learning_rates": list(rates) or None,
        "epochs": epochs,
        "seed": seed,
    }
    put_given(body, given)
    with session.client() as client:
        _show_created(session, client.verifications.create_from(body), wait=wait, timeout=timeout)


@verify.command("finalists")
@click.argument("search_id", type=ID, metavar="SEARCH")
@_TRIAL
@with_waiting
@with_session
def create_finalists(
    session: Session, *, search_id: str, trials: tuple[int, ...], wait: bool, timeout: float | None
) -> None:
    """Measure the finalists of SEARCH on all of val, and once on test, without training anything."""
    with session.client() as client:
        created = client.searches.finalise(search_id, list(trials) or None)
        _show_created(session, created, wait=wait, timeout=timeout)


@verify.command("networks")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_networks(session: Session, *, resource_id: str) -> None:
    """What is known so far of each network: inherited, trained, and the difference."""
    with session.client() as client:
        session.show_list(list(client.verifications.networks(resource_id)), VERIFIED_COLUMNS)


@verify.command("runs")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_runs(session: Session, *, resource_id: str) -> None:
    """Every training, with what came of it so far."""
    with session.client() as client:
        session.show_list(list(client.verifications.runs(resource_id)), RUN_COLUMNS)


def _show_created(session: Session, created: Verification, *, wait: bool, timeout: float | None) -> None:
    if not wait:
        session.show(created)
        session.say(f"{created.id} is {created.state}; watch it with: nas verify watch {created.id}")
        return
    ended = session.wait(created, VERIFICATION.name, timeout)
    if session.output is Output.ID:
        click.echo(ended.id)
        return
    session.show_list(list(ended.networks()), VERIFIED_COLUMNS)
    session.say(f"{ended.id}: {ended['note']}")


add_list(verify, VERIFICATION, click.option("--supernet", "supernet_id", help="Only those of this supernet."))
add_get(verify, VERIFICATION)
add_watch(verify, VERIFICATION)
add_cancel(verify, VERIFICATION)
add_delete(verify, VERIFICATION)
