"""The report on a data set as people read it."""

from __future__ import annotations

import json

from nas.commands.report import say_warnings, show_report
from nas.commands.session import Output, Session

REPORT = {
    "num_images": 12,
    "classes": [
        {"name": "cat", "images": {"val": 1, "test": 2, "train": 1500}},
        {"name": "犬", "images": {"val": 1, "test": 2, "train": 3}},
    ],
    "sizes": {"num_distinct": 1, "most_common": [{"width": 40, "height": 20, "images": 12}]},
    "unreadable": {
        "count": 1,
        "listed_at_most": 10,
        "images": [{"where": "a/x.jpg", "reason": "it is empty"}],
    },
    "warnings": ["Few images: '\x1b[31m犬'.", "The images differ in size."],
}


def session(output: Output) -> Session:
    return Session(url="", key=None, output=output, shows_progress=False)


def test_people_read_a_row_for_each_class_and_a_line_for_each_warning(capsys):
    show_report(session(Output.TABLE), REPORT)
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "sizes.most_common   40 wide, 20 high (12)",
        "CLASS  TRAIN  VAL  TEST",
        "cat    1,500  1    2",
        "犬     3      1    2",
        "a/x.jpg     it is empty",
        "warning: Few images: '\N{REPLACEMENT CHARACTER}[31m犬'.",
    ):
        assert line in lines
    assert not any("{" in line for line in lines)


def test_the_report_of_a_refused_source_has_fewer_parts(capsys):
    classes = [{"name": "cat", "images": {"train": 0}}]
    report = {**REPORT, "sizes": None, "classes": classes, "warnings": []}
    show_report(session(Output.TABLE), report)
    lines = capsys.readouterr().out.splitlines()
    assert "CLASS  TRAIN" in lines
    assert not any(line.startswith("warning") for line in lines)


def test_programs_read_the_report_whole(capsys):
    show_report(session(Output.JSON), REPORT)
    assert json.loads(capsys.readouterr().out) == REPORT


def test_warnings_are_told_to_people_only(capsys):
    say_warnings(session(Output.JSON), REPORT)
    assert capsys.readouterr().err == ""
    say_warnings(session(Output.TABLE), REPORT)
    assert len(capsys.readouterr().err.splitlines()) == 2
    say_warnings(session(Output.TABLE), None)
