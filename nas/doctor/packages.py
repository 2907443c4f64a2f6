"""Python and the installed packages against the versions that the project is tested with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from nas.doctor.check import Check, absent, ok, problem, warning

_PROJECT = "nas-service"
_OLDEST = (3, 11)
_PIN = re.compile(
    r"(?P<name>[\w.-]+)(\[[^]]*\])?==(?P<version>[^;\s]+)(\s*;\s*extra == ['\"](?P<extra>\w+)['\"])?"
)
_EXTRAS = ("worker", "embedded", "dataframe")
_REINSTALL = "install the project again, in an environment of its own: make run, or pip install -e ."


def python() -> Check:
    """The interpreter's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST:
        return problem("python", f"{found}; 3.11 or later is needed", "install a later Python")
    return ok("python", f"{found} at {sys.executable}")


def packages() -> Iterator[Check]:
    """One check for what everything needs, and one for each extra."""
    try:
        pins = [match for line in requires(_PROJECT) or [] if (match := _PIN.match(line))]
    except PackageNotFoundError:
        yield problem("packages", f"{_PROJECT} is not installed as a package", _REINSTALL)
        return
    for extra in (None, *_EXTRAS):
        pinned = {match["name"]: match["version"] for match in pins if match["extra"] == extra}
        if pinned:
            yield _compared(pinned, extra)


def _compared(pinned: dict[str, str], extra: str | None) -> Check:
    name = "packages" if extra is None else f"packages: {extra}"
    installed = {package: _installed(package) for package in pinned}
    missing = [package for package, found in installed.items() if found is None]
    if extra is not None and len(missing) == len(pinned):
        return absent(name, extra)
    if missing:
        return problem(name, f"missing: {', '.join(missing)}", _REINSTALL)
    # A build such as 2.13.0+cpu is that version.
    others = [
        f"{package} {found} instead of {pinned[package]}"
        for package, found in installed.items()
        if found is not None and found.partition("+")[0] != pinned[package]
    ]
    if others:
        return warning(name, f"not the versions tested: {', '.join(others)}", _REINSTALL)
    return ok(name, f"{len(pinned)} of the versions tested")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
