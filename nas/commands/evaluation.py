"""`nas supernet evaluate` and `nas evaluation`: networks chosen outside, measured."""

from __future__ import annotations

from typing import Any

import click

from nas.client import EvaluationBatch
from nas.commands.exits import UsageError
from nas.commands.options import ID, with_bounds, with_device, with_waiting
from nas.commands.points import ITEM_COLUMNS, with_latency
from nas.commands.request_body import Body, kind_of, put_given, read_document, with_names
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

EVALUATION = Noun(
    name="evaluation",
    people_say="batch of networks to measure",
    collection=lambda client: client.evaluation_batches,
    columns={
        **COMMON_COLUMNS,
        "SUPERNET": lambda item: item["supernet_id"],
        "NETWORKS": lambda item: count(item["num_architectures"]),
        "MEASURED": lambda item: count(item["num_measured"]),
        "INFEASIBLE": lambda item: count(item["num_infeasible"]),
        **CREATED,
    },
)


@click.group()
def evaluation() -> None:
    """Networks that you or another program chose, measured in batches; `nas supernet evaluate` sends one."""


@click.command("evaluate")
@click.argument("supernet_id", type=ID, metavar="SUPERNET")
@click.argument("file", metavar="FILE|-")
@with_device
@with_bounds
@with_names
@with_waiting
@with_session
def evaluate(
    session: Session,
    *,
    body: Body,
    supernet_id: str,
    file: str,
    device: str | None,
    wait: bool,
    timeout: float | None,
    **bounds: Any,
) -> None:
    """Measure the networks in FILE: a list of architectures, or a request's whole body, as YAML or JSON.

    With --wait, show what came of each; a network that breaks a bound is infeasible, and not measured.
    """
    whole = {**_read(file), **body}
    put_given(whole, {"device": device})
    put_given(whole, {f"constraints.{name}": bound for name, bound in bounds.items()})
    with session.client() as client:
        batch = client.supernets.evaluate_from(supernet_id, whole)
        if wait:
            _show_networks(session, session.wait(batch, EVALUATION.name, timeout))
            return
        session.show(batch)
        session.say(f"{batch.id} is {batch.state}; watch it with: nas evaluation watch {batch.id}")


@evaluation.command("networks")
@click.argument("resource_id", type=ID, metavar="ID")
@with_session
def show_networks(session: Session, *, resource_id: str) -> None:
    """What is known so far of each network of a batch, in the order they were given."""
    with session.client() as client:
        _show_networks(session, client.evaluation_batches.get(resource_id))


def _show_networks(session: Session, batch: EvaluationBatch) -> None:
    if session.output is Output.ID:
        click.echo(batch.id)
        return
    networks = list(batch.networks())
    session.show_list(networks, with_latency(ITEM_COLUMNS, networks))
    session.say(f"{batch.id} is {batch.state}")


def _read(file: str) -> Body:
    given = read_document(file)
    if isinstance(given, list):
        return {"architectures": given}
    if not isinstance(given, dict):
        raise UsageError(
            f"{file}: {kind_of(given)} instead of a list of architectures, or a mapping with "
            "'architectures'; write an architecture as `nas best -o json` shows it"
        )
    return given


add_list(
    evaluation, EVALUATION, click.option("--supernet", "supernet_id", help="Only those of this supernet.")
)
add_get(evaluation, EVALUATION)
add_watch(evaluation, EVALUATION)
add_cancel(evaluation, EVALUATION)
add_delete(evaluation, EVALUATION)
