"""`nas search`: questions put to supernets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click

from nas.commands.exits import Exit
from nas.commands.options import BOUND_NAMES, ID, with_bounds, with_device, with_waiting
from nas.commands.points import (
    FINALIST_COLUMNS,
    FRONTIER_COLUMNS,
    ROUND_COLUMNS,
    TRIAL_COLUMNS,
    latency,
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
    show_created,
)
from nas.commands.session import Output, Session, with_session
from nas.commands.space import cost_range, num_networks
from nas.commands.text import NOTHING, count

SEARCH = Noun(
    name="search",
    people_say="search",
    collection=lambda client: client.searches,
    columns={
        **COMMON_COLUMNS,
        "SUPERNET": lambda item: item["supernet_id"],
        "DEVICE": lambda item: item["device"] or NOTHING,
        "TRIALS": lambda item: count(item["num_trials"]),
        "CONSTRAINTS": lambda item: (
            ", ".join(f"{name} {bound:,.15g}" for name, bound in item["constraints"].items()) or NOTHING
        ),
        **CREATED,
    },
)


@click.group()
def search() -> None:
    """Questions put to a supernet: which networks are worth having?"""


def with_question(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Gives a command the `body` of the request for a search, from all that says what is asked."""

    @click.argument("supernet_id", type=ID, metavar="[SUPERNET]", required=False)
    @click.option("--trials", type=int, help="num_trials: distinct networks to measure.")
    @with_device
    @with_bounds
    @click.option(
        "--objective",
        "objectives",
        multiple=True,
        help="accuracy or a cost; repeat it (default: accuracy and macs).",
    )
    @click.option(
        "--proposer",
        metavar="NAME",
        help="What proposes networks: model (the default), nsga2, tpe, gp, coarse_to_fine or random.",
    )
    @click.option("--prefilter", metavar="NAME", help="deepmad: seeds, and a cut where it proves its worth.")
    @click.option("--seed", type=int)
    @click.option(
        "--flat-rounds", type=int, help="flat_rounds: end after so many rounds of ten without gain."
    )
    @click.option("--extends", type=ID, help="The finished search to go on from.")
    @with_body
    @wraps(command)
    def run(
        *args: Any,
        body: Body,
        supernet_id: str | None,
        device: str | None,
        trials: int | None,
        objectives: tuple[str, ...],
        proposer: str | None,
        prefilter: str | None,
        seed: int | None,
        flat_rounds: int | None,
        extends: str | None,
        **options: Any,
    ) -> int | None:
        given = {
            "supernet_id": supernet_id,
            "device": device,
            "num_trials": trials,
            "objectives": list(objectives) or None,
            "proposer": proposer,
            "prefilter": prefilter,
            "seed": seed,
            "flat_rounds": flat_rounds,
            "extends": extends,
        }
        put_given(body, given)
        put_given(body, {f"constraints.{name}": options.pop(name) for name in BOUND_NAMES})
        return command(*args, body=body, **options)

    return run


@search.command("create")
@with_question
@with_waiting
@with_session
def create_search(session: Session, *, body: Body, wait: bool, timeout: float | None) -> None:
    """Search SUPERNET; every network measured is kept, for this search and for `nas best`."""
    with session.client() as client:
        created = client.searches.create_from(body)
        show_created(session, SEARCH, created, wait=wait, timeout=timeout)


@search.command("validate")
@with_question
@with_session
def validate_search(session: Session, *, body: Body) -> int:
    """Say whether any network keeps the bounds, and what the search would cost; nothing is made.

    `witness` is a network that does, whole with -o json. Exits with 3 where none does: `nearest` comes
    closest, `relax` would do together, `relax_alone` alone.
    """
    with session.client() as client:
        answer = client.searches.validate_from(body)
    session.show(_laid_out(answer) if session.output is Output.TABLE else answer)
    return Exit.INFEASIBLE if answer["verdict"] == "infeasible" else Exit.OK


def _laid_out(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer with networks by their keys, and of the space what places the bounds."""
    space = answer["search_space"]
    profile = {
        "name": space["name"],
        "num_networks": num_networks(space),
        "macs": cost_range(space, "macs"),
        "params": cost_range(space, "params"),
    }
    return {
        **answer,
        **{name: _by_key(answer[name]) for name in ("nearest", "witness")},
        "search_space": profile,
    }


def _by_key(network: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if network is None:
        return None
    shown = {"architecture_key": network["architecture_key"], "costs": network["costs"]}
    return shown if network["latency_ms"] is None else {**shown, "latency_ms": latency(network["latency_ms"])}


@search.command("pareto")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_pareto(session: Session, *, resource_id: str) -> None:
    """The frontier of a search's trials so far, by rising cost."""
    with session.client() as client:
        found = client.searches.pareto(resource_id)
        session.show_list(found, with_latency(FRONTIER_COLUMNS, found))
        if not found:
            session.say(f"nothing is measured yet; see: nas search watch {resource_id}")


@search.command("trials")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_trials(session: Session, *, resource_id: str) -> None:
    """The trials so far: why each network was tried, what was predicted before, and what was measured."""
    with session.client() as client:
        found = list(client.searches.trials(resource_id))
        session.show_list(found, with_latency(TRIAL_COLUMNS, found))


@search.command("rounds")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_rounds(session: Session, *, resource_id: str) -> None:
    """The rounds so far: hypervolume, and how well was predicted what the proposer chose."""
    with session.client() as client:
        session.show_list(list(client.searches.rounds(resource_id)), ROUND_COLUMNS)


@search.command("export")
@click.argument("resource_id", type=ID, metavar="ID")
@click.option(
    "--optuna",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write, for Optuna's JournalFileBackend; optuna-dashboard shows it.",
)
@with_session
def export_search(session: Session, *, resource_id: str, path: Path) -> None:
    """Write the trials so far as an Optuna study named like the search. Optuna is not needed for it."""
    with session.client() as client:
        written = client.searches.export_optuna(resource_id, path)
    if session.output is Output.TABLE:
        session.show_lines([str(written)])
    else:
        session.show({"id": resource_id, "path": str(written)})


@search.command("finalists")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_finalists(session: Session, *, resource_id: str) -> None:
    """Trials of a search that are measured on test, by rising cost; `nas verify finalists` has them measured.

    Figures on test are for reporting: whatever is chosen by them makes them flatter.
    """
    with session.client() as client:
        found = client.searches.finalists(resource_id)
        session.show_list(found, with_latency(FINALIST_COLUMNS, found))
        if not found:
            session.say(f"none is measured on test; have it done by: nas verify finalists {resource_id}")


add_list(search, SEARCH, click.option("--supernet", "supernet_id", help="Only those of this supernet."))
add_get(search, SEARCH)
add_watch(search, SEARCH)
add_cancel(search, SEARCH)
add_delete(search, SEARCH)
