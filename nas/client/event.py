"""What happened to a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.job import JobState


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    id: int
    kind: str
    payload: dict[str, Any]
    created_at: str

    @property
    def is_terminal(self) -> bool:
        """Whether the job ended with it."""
        return self.kind == "state" and JobState(self.payload["state"]).is_terminal

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Event:
        """By name: a later service may tell more."""
        return cls(data["id"], data["kind"], data["payload"], data["created_at"])
