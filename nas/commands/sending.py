"""Files sent to the service, with how far the sending is."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from nas.client import Client
from nas.commands.session import Session


def sent(session: Session, client: Client, file: Path | IO[bytes], name: str) -> str:
    """The id of the upload; `name` is what people see of it."""
    with session.progress() as line:
        upload = client.uploads.create(
            file,
            display_name=name,
            on_progress=None if line is None else lambda done, whole: line.sent(name, done, whole),
        )
    return str(upload["id"])
