"""`nas upload`: files that were sent, which data sets and weights are made of."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from nas.commands.options import ID
from nas.commands.resources import CREATED, DEFAULT_LIMIT
from nas.commands.sending import sent
from nas.commands.session import Columns, Output, Session, with_session
from nas.commands.text import NOTHING, count

_COLUMNS: Columns = {
    "ID": lambda item: item["id"],
    "NAME": lambda item: item["display_name"] or NOTHING,
    "SIZE_BYTES": lambda item: count(item["size_bytes"]),
    **CREATED,
}


@click.group()
def upload() -> None:
    """Files sent to the service, which keeps them until they are deleted."""


@upload.command("create")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_session
def create_upload(session: Session, *, file: Path) -> None:
    """Send FILE as it is: an archive of images, an npz file, or weights that were downloaded."""
    with session.client() as client:
        session.show(client.uploads.get(sent(session, client, file, file.name)))


@upload.command("list")
@click.option(
    "--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="Most to list."
)
@with_session
def list_uploads(session: Session, *, limit: int) -> None:
    """List them, newest first."""
    with session.client() as client:
        found = list(islice(client.uploads.list(), limit + 1))
    session.show_list(found[:limit], _COLUMNS)
    if len(found) > limit:
        session.say(f"there are more; list them with --limit {4 * limit}")


@upload.command("delete")
@click.argument("upload_id", type=ID, metavar="ID")
@with_session
def delete_upload(session: Session, *, upload_id: str) -> None:
    """Delete a file that was sent, and that no job is still to read."""
    with session.client() as client:
        client.uploads.delete(upload_id)
    if session.output is Output.TABLE:
        click.echo(f"{upload_id} is deleted")
    else:
        session.show({"id": upload_id, "deleted": True})
