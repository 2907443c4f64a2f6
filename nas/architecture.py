"""Architecture: which network of a search space, as a value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

Value = int | float | str
"""One option of a decision."""


@dataclass(frozen=True)
class Architecture:
    """A network of a search space: frozen, hashable, equal to every other spelling of the same network.

    Made by `SearchSpace.parse`, `decode` and `sample`, which check it; the constructor does not.
    """

    space: str
    """Name of the search space."""
    identity: tuple[tuple[str, Value], ...]
    """The canonical spelling, active decisions only: what equality and the key are made of."""
    choices: tuple[tuple[str, Value], ...] = field(compare=False, repr=False)
    """Active decisions as they were given. They differ from `identity` only in a space where distinct
    spellings of one function carry distinct dead weights (`nas_bench_201`)."""

    @property
    def key(self) -> str:
        """A stable name: the same for equal architectures, in every process and release."""
        canonical = json.dumps([self.space, self.identity], separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:24]

    def __getitem__(self, decision: str) -> Value:
        """The chosen value of an active decision; KeyError when it is inactive or unknown."""
        for name, value in self.choices:
            if name == decision:
                return value
        raise KeyError(decision)

    def get(self, decision: str) -> Value | None:
        """The chosen value, or None when the decision is inactive here."""
        return dict(self.choices).get(decision)

    def to_json(self) -> dict[str, Any]:
        """Readable JSON, one entry for each active decision; `SearchSpace.parse` reads it back."""
        return dict(self.choices)
