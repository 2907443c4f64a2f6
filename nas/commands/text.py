"""Texts for a terminal: nothing that moves its cursor, columns that line up, figures that people read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from unicodedata import east_asian_width

NOTHING = "-"
"""Shown where there is no value."""


def printable(text: str) -> str:
    """The text with what would steer the terminal, or break the line, replaced."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of columns, each as wide as its widest cell."""
    cells = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def details(value: Mapping[str, Any]) -> Iterator[str]:
    """Lines of name and value; mappings within it with dotted names, lists as JSON."""
    flat = dict(_flat(value, ""))
    width = max(map(len, flat), default=0)
    for name, text in flat.items():
        yield f"{name:{width}}  {printable(text)}".rstrip()


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, member in value.items():
        if isinstance(member, Mapping) and member:
            yield from _flat(member, f"{prefix}{name}.")
        elif isinstance(member, list | dict):
            yield f"{prefix}{name}", json.dumps(member, ensure_ascii=False)
        else:
            yield f"{prefix}{name}", NOTHING if member is None else str(member)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def count(number: float | None) -> str:
    """Such as 1,234,567."""
    return NOTHING if number is None else f"{number:,.0f}"


def percent(share: float | None) -> str:
    """Such as 93.4%."""
    return NOTHING if share is None else f"{share:.1%}"


def moment(text: str | None) -> str:
    """An RFC 3339 time in this machine's zone, to the minute."""
    return NOTHING if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Such as 0:53, 12:05 or 3:07:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
