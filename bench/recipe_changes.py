"""Fields of a recipe changed on a command line: `--set num_random=4 --set dropout=0`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """`--set`, as often as there are fields to change; `recipe_changes` reads what was given."""
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="of the recipe")


def recipe_changes(assignments: Sequence[str]) -> dict[str, Any]:
    """By field; ends the program where one is not FIELD=JSON."""
    return dict(_field_and_value(text) for text in assignments)


def _field_and_value(text: str) -> tuple[str, Any]:
    field, _, value = text.partition("=")
    try:
        return field, json.loads(value)
    except ValueError:
        raise SystemExit(f"--set {text} is not FIELD=JSON, such as num_random=4") from None
