"""What the domain asks of the outside, as Protocols; `workers.wiring` says who answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from nas.architecture import Architecture
from nas.trial import Evaluation

StopCheck = Callable[[], None]
"""Raises if the work is to stop. Cheap enough to call for every image."""


def never_stop() -> None:
    """The `StopCheck` of work that goes on to its end."""


class Evaluator(Protocol):
    """Measures networks: one process, a pool of actors, or a table."""

    def evaluate(
        self, architectures: Sequence[Architecture], on_result: Callable[[Evaluation], None]
    ) -> list[Evaluation]:
        """One evaluation an architecture, in the order given; `on_result` is told each as it comes."""
        ...
