"""`nas doctor`: is this machine fit for the service, and is the service well?"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from nas.commands.exits import Exit
from nas.commands.serve import default_home
from nas.commands.session import DEFAULT_URL
from nas.commands.text import printable

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red", "absent": "blue"}


@click.command()
@click.option(
    "--home", type=click.Path(path_type=Path), default=default_home, help="Folder of the service's data."
)
@click.option(
    "--url", envvar="NAS_URL", default=DEFAULT_URL, show_default=True, metavar="URL", help="The service."
)
@click.option("--key", envvar="NAS_KEY", metavar="KEY", help="The API key.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(home: Path, url: str, key: str | None, output: str) -> int:
    """Check this machine, and the service if it runs; exit with 1 if there is a problem.

    Nothing is changed: no folder made, no server started, no byte written.
    """
    # Only here: the other commands need no database driver.
    from nas.doctor.check import Check, Verdict
    from nas.doctor.examine import examine

    checks: list[Check] = []
    for check in examine(home=home, url=url, key=key or None):
        checks.append(check)
        if output == "table":
            mark = _coloured(f"{check.verdict.value:8}", _COLOURS[check.verdict.value])
            remedy = f"; {printable(check.remedy)}" if check.remedy else ""
            click.echo(f"{mark} {check.name}: {printable(check.finding)}{remedy}")
    num_problems = sum(check.verdict is Verdict.PROBLEM for check in checks)
    if output == "json":
        answer = {"is_well": not num_problems, "checks": [check.to_json() for check in checks]}
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    elif num_problems:
        click.echo(f"{num_problems} problem{'s' if num_problems > 1 else ''} found", err=True)
    return Exit.FAILED if num_problems else Exit.OK


def _coloured(text: str, colour: str) -> str:
    # https://no-color.org: any value but none.
    return click.style(text, fg=colour) if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
