"""Makes the blocking client out of the asynchronous one: `python -m nas.client.derive`.

The logic is written once, in `nas/client/asynchronous/`. Each file there becomes the file of the same name in
`nas/client/`, token by token: `async` and `await` go, the prefix `Async` goes from every name, and the few
names in `_NAMES` are exchanged. Comments and texts stay. `concurrency.py` alone has two versions by hand.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tokenize import NAME, TokenInfo, generate_tokens

FOLDER = Path(__file__).parent
SOURCES = (
    "client",
    "collection",
    "devices",
    "download",
    "events",
    "resource",
    "resources",
    "transport",
    "uploads",
    "verifications",
)

_NAMES = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_lines": "iter_lines",
    "aiter_raw": "iter_raw",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
}
_PREFIX = "Async"
_HEADER = "# Made by `python -m nas.client.derive` from nas/client/asynchronous/{name}.py: change that one.\n"
_RUFF = [sys.executable, "-m", "ruff"]


def blocking_source(name: str) -> str:
    """The blocking module's text, made of the asynchronous module of that name."""
    source = (FOLDER / "asynchronous" / f"{name}.py").read_text()
    made = _HEADER.format(name=name) + blocking(source).replace("nas.client.asynchronous.", "nas.client.")
    # Shorter names sort and wrap differently.
    sorted_imports = _run([*_RUFF, "check", "--select", "I", "--fix", "--quiet", *_as(name)], made)
    return _run([*_RUFF, "format", "--quiet", *_as(name)], sorted_imports)


def blocking(source: str) -> str:
    """The source without `async` and `await`, and with the blocking names."""
    lines = source.splitlines(keepends=True)
    # From the end, so that positions before a change stay what they were.
    for token in reversed(list(_names(source))):
        (row, start), (_, end) = token.start, token.end
        line = lines[row - 1]
        if token.string in ("async", "await"):
            lines[row - 1] = line[:start] + line[end:].lstrip(" ")
        else:
            lines[row - 1] = line[:start] + _blocking_name(token.string) + line[end:]
    return "".join(lines)


def main() -> int:
    """Write every blocking module; the exit status."""
    for name in SOURCES:
        (FOLDER / f"{name}.py").write_text(blocking_source(name))
    return 0


def _names(source: str) -> Iterator[TokenInfo]:
    return (token for token in generate_tokens(io.StringIO(source).readline) if token.type == NAME)


def _blocking_name(name: str) -> str:
    return _NAMES.get(name, name.removeprefix(_PREFIX))


def _as(name: str) -> list[str]:
    return ["--stdin-filename", str(FOLDER / f"{name}.py"), "-"]


def _run(command: list[str], text: str) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
