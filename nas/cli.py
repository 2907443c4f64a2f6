"""The `nas` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.errors import NasError
from nas.serve import ServeSettings, serve

OK, FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        return _serve(parsed)
    except NasError as error:
        print(f"nas: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nas", description="Neural architecture search as a service.")
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser(
        "serve", help="run the service on this machine: database, API and worker, until Ctrl-C"
    )
    command.add_argument(
        "--home",
        type=Path,
        default=_default_home(),
        help="folder of the service's data (default: %(default)s)",
    )
    command.add_argument("--port", type=_port, help="port on 127.0.0.1 (default: 8080, or a free one)")
    command.add_argument("--demo", action="store_true", help="also run the demo on scikit-learn's digits")
    command.add_argument("--exit", action="store_true", help="end when the demo has ended")
    return parser


def _default_home() -> Path:
    if given := os.environ.get("NAS_HOME"):
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "nas"


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; choose a number from 1 to 65535")
    return int(text)


def _serve(parsed: argparse.Namespace) -> int:
    if parsed.exit and not parsed.demo:
        raise NasError("--exit says what to do after the demo; add --demo")
    settings = ServeSettings(
        home=parsed.home,
        port=parsed.port,
        database_url=os.environ.get("NAS_DATABASE_URL"),
        artifact_url=os.environ.get("NAS_ARTIFACT_URL"),
    )
    if not parsed.demo:
        return serve(settings, _say)
    # Needs numpy and onnxruntime, which a machine that only serves may lack.
    from nas.demo import Demo

    return serve(settings, _say, Demo(_say, settings.home, ends_service=parsed.exit))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
