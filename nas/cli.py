"""The `nas` command: runs one command, and says in one or few lines what went wrong."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from nas.commands.best import best
from nas.commands.dataset import dataset
from nas.commands.device import device
from nas.commands.doctor import doctor
from nas.commands.evaluation import evaluation
from nas.commands.exits import Exit, told
from nas.commands.job import job
from nas.commands.search import search
from nas.commands.serve import serve
from nas.commands.space import space
from nas.commands.subnet import subnet
from nas.commands.supernet import supernet
from nas.commands.upload import upload
from nas.commands.verification import verify


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 no network keeps the constraints, 124 timed out, "
    "130 interrupted.",
)
def commands() -> None:
    """Neural architecture search as a service."""


for _command in (
    serve,
    dataset,
    supernet,
    search,
    evaluation,
    best,
    verify,
    subnet,
    device,
    upload,
    job,
    space,
    doctor,
):
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status, as `nas.commands.exits.Exit` lists them."""
    _never_fail_to_print()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_texts(given)
        status = commands.main(args=given, prog_name="nas", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except Exception as error:
        # Whatever it is, its user gets a sentence; a defect of ours says where it is.
        message, exit_status = told(error)
        click.echo(message, err=True)
        return exit_status
    return status if isinstance(status, int) else Exit.OK


def _never_fail_to_print() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter shows a question mark.
            stream.reconfigure(errors="replace")


def _check_texts(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(
                f"the argument {argument!r} is not valid UTF-8, and cannot be sent; rename it"
            ) from None


if __name__ == "__main__":
    sys.exit(main())
