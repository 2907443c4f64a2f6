"""What can be done to the resources of every kind: list, get, watch, cancel, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import click

from nas.client import Client
from nas.client.collection import Collection, NamedCollection
from nas.client.resource import Resource
from nas.commands.options import ID, Seconds
from nas.commands.session import Columns, Output, Session, with_session
from nas.commands.text import NOTHING, moment

DEFAULT_LIMIT = 50


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A kind of resource as the command line names it."""

    name: str
    """Of the commands: `nas dataset …`."""
    people_say: str
    """Such as 'data set'."""
    collection: Callable[[Client], Collection[Any]]
    columns: Columns
    """Of its list."""
    hidden: Sequence[str] = ()
    """Fields too long for a table."""


def show_created(
    session: Session, noun: Noun, resource: Resource, *, wait: bool, timeout: float | None
) -> None:
    """Print what was created, at once or once its job has succeeded."""
    if wait:
        resource = session.wait(resource, noun.name, timeout)
    session.show(resource, hidden=noun.hidden)
    if not resource.is_terminal:
        session.say(f"{resource.id} is {resource.state}; watch it with: nas {noun.name} watch {resource.id}")


with_limit = click.option(
    "--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="Most to list."
)
"""Gives a command `limit`: it reads one more, shows so many, and ends with `say_if_more`."""


def say_if_more(session: Session, found: Sequence[Any], limit: int) -> None:
    """Tell where more were found than are shown."""
    if len(found) > limit:
        session.say(f"there are more; list them with --limit {4 * limit}")


def add_list(group: click.Group, noun: Noun, *filters: Callable[[Any], Any]) -> None:
    """`list`; `filters` are options that the service knows by their names."""

    @with_limit
    @with_session
    def run(session: Session, *, limit: int, **wanted: Any) -> None:
        given = {name: value for name, value in wanted.items() if value not in (None, ())}
        with session.client() as client:
            found = list(islice(noun.collection(client).list(**given), limit + 1))
        session.show_list(found[:limit], noun.columns)
        say_if_more(session, found, limit)

    for option in filters:
        run = option(run)
    group.command("list", help="List them, newest first.")(run)


def add_get(group: click.Group, noun: Noun) -> None:
    """`get`."""

    @click.argument("resource_id", type=ID, metavar="ID")
    @with_session
    def run(session: Session, *, resource_id: str) -> None:
        with session.client() as client:
            session.show(noun.collection(client).get(resource_id), hidden=noun.hidden)

    group.command("get", help=f"Show one {noun.people_say}.")(run)


def add_watch(group: click.Group, noun: Noun) -> None:
    """`watch`: until the job has ended."""

    @click.argument("resource_id", type=ID, metavar="ID")
    @click.option("--timeout", type=Seconds(), help="Seconds, then exit with 124; the job goes on.")
    @with_session
    def run(session: Session, *, resource_id: str, timeout: float | None) -> None:
        with session.client() as client:
            resource = noun.collection(client).get(resource_id)
            session.show(session.wait(resource, noun.name, timeout), hidden=noun.hidden)

    group.command("watch", help="Show how far its job is until that has ended; exit with 1 if it failed.")(
        run
    )


def add_cancel(group: click.Group, noun: Noun) -> None:
    """`cancel`."""

    @click.argument("resource_id", type=ID, metavar="ID")
    @with_session
    def run(session: Session, *, resource_id: str) -> None:
        with session.client() as client:
            resource = noun.collection(client).get(resource_id).cancel()
        if session.output is Output.TABLE:
            click.echo(f"{resource.id} is {resource.state}")
        else:
            session.show(resource)

    group.command("cancel", help="Ask its job to stop; asking again changes nothing.")(run)


def add_delete(group: click.Group, noun: Noun) -> None:
    """`delete`."""

    @click.argument("resource_id", type=ID, metavar="ID")
    @with_session
    def run(session: Session, *, resource_id: str) -> None:
        with session.client() as client:
            collection = noun.collection(client)
            assert isinstance(collection, NamedCollection)
            collection.delete(resource_id)
        if session.output is Output.TABLE:
            click.echo(f"{resource_id} is deleted")
        else:
            session.show({"id": resource_id, "deleted": True})

    text = f"Delete a {noun.people_say} whose job has ended and on which nothing is built."
    group.command("delete", help=text)(run)


def state_and_progress(item: Mapping[str, Any]) -> str:
    """Such as 'running 34%'."""
    progress = item["progress"]
    if item["state"] != "running" or not progress or not progress["total"]:
        return str(item["state"])
    return f"running {progress['done'] / progress['total']:.0%} of {progress['phase']}"


COMMON_COLUMNS: Columns = {
    "ID": lambda item: item["id"],
    "NAME": lambda item: item["display_name"] or NOTHING,
    "STATE": state_and_progress,
}

CREATED: Columns = {"CREATED": lambda item: moment(item["created_at"])}
