"""The commands that the documentation shows, as scripts that can be run.

What a document says is run as one reader would: from top to bottom, in one folder, against one service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

RUN, SHOWN = ("sh", "python"), ("text", "json", "yaml", "toml")
"""Languages of blocks: those that are run, and those that are only read."""

ELSEWHERE = {
    "make run": "it installs, then runs what tests/e2e/test_demo.py runs",
    "make run ARGS=--exit": "it installs, then runs what tests/e2e/test_demo.py runs",
    "make test": "continuous integration runs it",
    "python -m pytest tests/e2e/test_killed_search.py": "`make test-all` runs it",
}
"""Commands that are not run here, and where they are."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```\s*$", re.M | re.S
)
COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """For messages, and to go there."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def script(self) -> str:
        """The block for bash, less what runs elsewhere."""
        lines = [line for line in self.text.splitlines() if COMMENT.sub("", line).strip() not in ELSEWHERE]
        # What a measurement yields is not asked here, only whether the command is right.
        return "".join(f"{line.replace('python -m bench', 'python -m bench --quick')}\n" for line in lines)


def blocks(document: Path) -> Iterator[Block]:
    """Its fenced blocks, from top to bottom."""
    text = document.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(document, line, match["language"], match["text"])


def indented_blocks(document: Path) -> list[int]:
    """Lines that Markdown shows as code although no fence says in which language."""
    outside = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), document.read_text())
    lines = outside.splitlines()
    return [
        number
        for number, (before, line) in enumerate(zip(["", *lines], lines, strict=False), start=1)
        if line.startswith("    ") and not before.strip()
    ]
