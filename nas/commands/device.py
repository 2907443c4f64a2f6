"""`nas device`: machines to find networks for, and how fast networks are on them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click

from nas.client import Client
from nas.commands.exits import UsageError
from nas.commands.measuring import ProbePlan, Subject, measure_here, pack
from nas.commands.options import ID, Seconds
from nas.commands.resources import CREATED, DEFAULT_LIMIT
from nas.commands.session import Columns, Output, Session, with_session
from nas.commands.text import NOTHING, count, percent
from nas.host_device import NAME as HOST
from nas.job import JobState

_COLUMNS: Columns = {
    "NAME": lambda item: item["name"],
    "RUNTIME": lambda item: item["runtime"],
    "THREADS": lambda item: str(item["threads"]),
    "BATCH": lambda item: str(item["batch"]),
    "DTYPE": lambda item: item["dtype"],
    "KNOWN FOR (MEAN ERROR)": lambda item: _known_for(item),
    **CREATED,
}
_MEASURED_COLUMNS: Columns = {
    "ID": lambda item: item["id"],
    "STATE": lambda item: item["state"],
    "SPACE": lambda item: item["search_space"],
    "CLASSES": lambda item: count(item["num_classes"]),
    "NETWORKS": lambda item: count(item["num_networks"]),
    "MEAN ERROR": lambda item: _accuracy(item, "mape"),
    "WITHIN 10%": lambda item: _accuracy(item, "hit_rate"),
    "SPEARMAN": lambda item: _rank(item["accuracy"]),
    "SECOND PASS": lambda item: _second_pass(item),
    **CREATED,
}


@click.group()
def device() -> None:
    """Machines to find networks for: their latencies are measured once, and predicted for every network."""


@device.command("add")
@click.argument("name", type=ID)
@click.option("--runtime", help="What runs the networks (default: onnxruntime, the probe's).")
@click.option("--threads", type=int, help="That share one network (default: 1).")
@click.option("--batch", type=int, help="Images run together (default: 1).")
@click.option("--dtype", help="fp32, fp16, bf16 or int8.")
@click.option("--notes", help="For people.")
@with_session
def add_device(session: Session, **given: Any) -> None:
    """Name a machine and the way that networks run on it."""
    with session.client() as client:
        session.show(client.devices.create_from(given))


@device.command("list")
@click.option(
    "--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="Most to list."
)
@with_session
def list_devices(session: Session, *, limit: int) -> None:
    """List them, newest first."""
    with session.client() as client:
        found = list(islice(client.devices.list(), limit + 1))
    session.show_list(found[:limit], _COLUMNS)
    if len(found) > limit:
        session.say(f"there are more; list them with --limit {4 * limit}")


@device.command("get")
@click.argument("name", type=ID)
@with_session
def get_device(session: Session, *, name: str) -> None:
    """Show one device, and for which spaces its latencies are known, and how well.

    What a model is off (`accuracy`) stands beside what a second pass of measuring was (`second_pass`): no
    further off is as good as measuring once more.
    """
    with session.client() as client:
        session.show(client.devices.get(name))


@device.command("delete")
@click.argument("name", type=ID)
@with_session
def delete_device(session: Session, *, name: str) -> None:
    """Delete a device with all that was measured on it, unless searches are of it."""
    with session.client() as client:
        client.devices.delete(name)
    if session.output is Output.TABLE:
        click.echo(f"{name} is deleted")
    else:
        session.show({"name": name, "deleted": True})


@device.command("table")
@click.argument("name", type=ID)
@click.argument("file", metavar="[FILE|-]", required=False)
@click.option("--fill-gaps", is_flag=True, help="Estimate blocks that it lacks, between those it has.")
@with_session
def latency_table(session: Session, *, name: str, file: str | None, fill_gaps: bool) -> None:
    """Give a device the latency table in FILE, as JSON lines; without FILE, print the one it has."""
    with session.client() as client:
        if file is None:
            click.echo(client.devices.table(name), nl=False)
            return
        table = client.devices.put_table(name, _text(file), fills_gaps=fill_gaps or None)
        session.show(table)
        for warning in table["warnings"]:
            session.say(f"warning: {warning}")


@device.command("gaps")
@click.argument("name", type=ID)
@click.option("--supernet", "supernet_id", type=ID, help="For the networks of this supernet.")
@click.option("--space", "search_space", help="For the networks of this space.")
@with_session
def table_gaps(session: Session, *, name: str, supernet_id: str | None, search_space: str | None) -> None:
    """List the blocks of a space's networks that a device's latency table lacks."""
    with session.client() as client:
        subject = Subject.asked(client, supernet_id, search_space)
        session.show(client.devices.gaps(name, **subject.fields()))


@device.command("probe")
@click.argument("name", type=ID, default=HOST, required=False)
@click.option("--supernet", "supernet_id", type=ID, help="Measure networks as this supernet has them.")
@click.option("--space", "search_space", help="Measure networks of this space, with its own classes.")
@click.option("--search", "search_id", type=ID, help="Measure the networks on this search's frontier alone.")
@click.option("--networks", type=int, help="Whole networks to draw and measure (default: 60).")
@click.option("--blocks", type=int, help="Most fused blocks to measure (default: 500).")
@click.option("--cores", default="", help="Processors to stay on, like 2,3; Linux alone.")
@click.option(
    "--pack",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Measure elsewhere: put what that takes in this folder.",
)
@click.option("--timeout", type=Seconds(), help="Seconds for the service's part, then exit with 124.")
@with_session
def probe_device(
    session: Session,
    *,
    name: str,
    supernet_id: str | None,
    search_space: str | None,
    search_id: str | None,
    networks: int | None,
    blocks: int | None,
    cores: str,
    folder: Path | None,
    timeout: float | None,
) -> None:
    """Measure how fast networks are on this machine (NAME: host), and have a model fitted to it.

    With --search its finalists are measured, whose times then stand beside the predicted ones; no model is
    fitted to so few. The machine should do nothing else meanwhile: figures that do not repeat are thrown
    away.
    """
    with session.client() as client:
        finalists: list[Mapping[str, Any]] = []
        if search_id is None:
            subject = Subject.asked(client, supernet_id, search_space)
        else:
            subject, finalists = _frontier(client, search_id, supernet_id, search_space)
        plan = ProbePlan(
            device=name,
            subject=subject,
            architectures=finalists,
            num_networks=networks,
            max_blocks=blocks,
            cores=cores,
            timeout_s=timeout,
        )
        if folder is not None:
            pack(session, client, plan, folder)
            return
        _show_measured(session, measure_here(session, client, plan))


@device.command("upload")
@click.argument("name", type=ID)
@click.argument("file", metavar="FILE|-")
@click.option("--wait", is_flag=True, help="Return when the model is fitted.")
@click.option("--timeout", type=Seconds(), help="With --wait: seconds, then exit with 124; the job goes on.")
@with_session
def upload_measurements(session: Session, *, name: str, file: str, wait: bool, timeout: float | None) -> None:
    """Send what the probe wrote on another machine, or times of your own; a model is fitted to it."""
    if timeout is not None and not wait:
        raise UsageError("--timeout says how long to wait; add --wait")
    with session.client() as client:
        found = client.devices.measure(name, _text(file))
        _show_measured(session, session.wait(found, "job", timeout) if wait else found)


@device.command("measurements")
@click.argument("name", type=ID)
@click.option(
    "--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="Most to list."
)
@with_session
def list_measurements(session: Session, *, name: str, limit: int) -> None:
    """List what was measured on a device, and how well the models do, newest first.

    SECOND PASS is the same of a second pass of measuring against the first: mean error, part within 10%,
    Spearman.
    """
    with session.client() as client:
        found = list(islice(client.devices.measurements(client.devices.get(name).name), limit))
    session.show_list(found, _MEASURED_COLUMNS)


def _frontier(
    client: Client, search_id: str, supernet_id: str | None, search_space: str | None
) -> tuple[Subject, list[Mapping[str, Any]]]:
    if supernet_id is not None or search_space is not None:
        raise UsageError("--search says whose networks; leave --supernet and --space out")
    search = client.searches.get(search_id)
    finalists = [point["architecture"] for point in search.pareto()]
    if not finalists:
        raise UsageError(
            f"search {search_id} is {search.state} and has measured no network yet; wait for some"
        )
    return Subject.of_supernet(client, search["supernet_id"]), finalists


def _show_measured(session: Session, found: Mapping[str, Any]) -> None:
    session.show(found, hidden=("spec",))
    accuracy, again = found["accuracy"], found["second_pass"]
    if accuracy is None and found["state"] == JobState.SUCCEEDED:
        session.say(
            f"the times of {found['num_networks']} networks are shown beside the predicted ones, wherever "
            f"device {found['device']} is named"
        )
    if accuracy is not None:
        session.say(
            f"ask for networks with: nas best SUPERNET --device {found['device']} --max-latency-ms 5; "
            f"predictions are off by {percent(accuracy['mape'])} on average"
            + (f", a second pass of measuring by {percent(again['mape'])}" if again else "")
        )


def _text(file: str) -> str:
    with click.open_file(file, encoding="utf-8") as lines:
        try:
            return str(lines.read())
        except UnicodeDecodeError as error:
            raise UsageError(f"{file}: it is no UTF-8 ({error.reason}); give JSON lines") from error


def _known_for(item: Mapping[str, Any]) -> str:
    models = [f"{m['search_space']} ({_errors(m)})" for m in item["models"]]
    table = [] if item["latency_table"] is None else [f"a table of {item['latency_table']['num_blocks']}"]
    return ", ".join([*models, *table]) or NOTHING


def _errors(model: Mapping[str, Any]) -> str:
    error, again = percent(model["accuracy"]["mape"]), model["second_pass"]
    return error if again is None else f"{error}, measured again {percent(again['mape'])}"


def _second_pass(item: Mapping[str, Any]) -> str:
    found = item["second_pass"]
    if found is None:
        return NOTHING
    return f"{percent(found['mape'])}, {percent(found['hit_rate'])}, {_rank(found)}"


def _rank(accuracy: Mapping[str, Any] | None) -> str:
    return NOTHING if accuracy is None or accuracy["spearman"] is None else f"{accuracy['spearman']:.3f}"


def _accuracy(item: Mapping[str, Any], name: str) -> str:
    return NOTHING if item["accuracy"] is None else percent(item["accuracy"][name])
