"""One thing looked at, and how it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well as it could, or not for everything."""
    PROBLEM = "problem"
    """The service will not work so."""
    ABSENT = "absent"
    """An extra that is not installed: its part of the service is done elsewhere, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found."""

    name: str
    verdict: Verdict
    finding: str
    """One line."""
    remedy: str = ""
    """What to do; empty where all is well."""

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)


def ok(name: str, finding: str) -> Check:
    """All is well."""
    return Check(name=name, verdict=Verdict.OK, finding=finding)


def warning(name: str, finding: str, remedy: str) -> Check:
    """It could be better."""
    return Check(name=name, verdict=Verdict.WARNING, finding=finding, remedy=remedy)


def problem(name: str, finding: str, remedy: str) -> Check:
    """It must be mended."""
    return Check(name=name, verdict=Verdict.PROBLEM, finding=finding, remedy=remedy)


def absent(name: str, extra: str) -> Check:
    """It belongs to an extra that is not installed."""
    remedy = f"where it is wanted: pip install 'nas-service[{extra}]'"
    return Check(name=name, verdict=Verdict.ABSENT, finding=f"not installed (extra '{extra}')", remedy=remedy)
