"""The report on a data set, for people: tables, and a line for each warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nas.commands.session import Output, Session
from nas.commands.text import NOTHING, count, details, printable, table

_SPLITS = ("train", "val", "test")
_TABLES = ("classes", "warnings")


def show_report(session: Session, report: Mapping[str, Any]) -> None:
    """Print it: whole as JSON, or for people."""
    if session.output is Output.TABLE:
        session.show_lines(_lines(report))
    else:
        session.show(report)


def say_warnings(session: Session, report: Mapping[str, Any] | None) -> None:
    """Tell on stderr what a person should know of the images before training on them."""
    for warning in (report or {}).get("warnings", ()):
        session.say(f"warning: {printable(warning)}")


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    shown = {name: value for name, value in report.items() if name not in _TABLES}
    listed = shown["unreadable"]["images"]
    shown["unreadable"] = {"count": shown["unreadable"]["count"]}
    if shown["sizes"]:
        common = (
            f"{each['width']} wide, {each['height']} high ({each['images']})"
            for each in shown["sizes"]["most_common"]
        )
        shown["sizes"] = {**shown["sizes"], "most_common": "; ".join(common)}
    yield from details(shown)
    yield ""
    yield from _classes(report["classes"])
    if listed:
        yield ""
        yield from table(["UNREADABLE", "REASON"], [[each["where"], each["reason"]] for each in listed])
    if report["warnings"]:
        yield ""
        yield from (f"warning: {printable(warning)}" for warning in report["warnings"])


def _classes(classes: list[Mapping[str, Any]]) -> Iterator[str]:
    found = {split for each in classes for split in each["images"]}
    splits = [split for split in _SPLITS if split in found]
    rows = [
        [
            each["name"],
            *(count(each["images"][split]) if split in each["images"] else NOTHING for split in splits),
        ]
        for each in classes
    ]
    yield from table(["CLASS", *(split.upper() for split in splits)], rows)
