"""SearchSettings: the budget, the objectives and the seed of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nas.costs import COST_NAMES
from nas.devices.device import LATENCY
from nas.errors import InvalidRequestError
from nas.pareto import Direction, Objective

ACCURACY = Objective("accuracy", Direction.MAXIMISE)

_SEED_LIMIT = 2**32
"""What NumPy's legacy generator, used by Optuna, can be seeded with."""


class ProposerName(StrEnum):
    """Which method proposes networks after the seeds."""

    NSGA2 = "nsga2"
    TPE = "tpe"
    GP = "gp"
    MODEL = "model"
    COARSE_TO_FINE = "coarse_to_fine"
    RANDOM = "random"


_TRIALS_PER_SEED = {ProposerName.MODEL: 5}
"""Of how many trials one is a seed, where it is not of three: the model needs fewer to go on from."""


def parse_objectives(
    names: Sequence[str], cost_names: Sequence[str] = (*COST_NAMES, LATENCY)
) -> tuple[Objective, ...]:
    """Accuracy, maximised, and any costs, minimised, in the order given; accuracy is always one of them."""
    allowed = (ACCURACY.name, *cost_names)
    for name in names:
        if name not in allowed:
            raise InvalidRequestError(f"objective '{name}' is unknown; allowed: {', '.join(allowed)}")
    if len(set(names)) < len(names) or ACCURACY.name not in names:
        raise InvalidRequestError(
            f"objectives {[*names]} must be distinct and include 'accuracy'; name each once, like "
            "['accuracy', 'macs']"
        )
    return tuple(ACCURACY if n == ACCURACY.name else Objective(n, Direction.MINIMISE) for n in names)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What makes two searches the same, given the same measurements."""

    num_trials: int
    """How many distinct networks to measure, seeds included."""
    objectives: tuple[Objective, ...]
    """Accuracy and any costs; see `parse_objectives`."""
    seed: int
    """From 0 to 2^32 - 1."""
    round_size: int = 10
    """How many networks are measured at once before the proposer learns from them."""
    proposer: ProposerName = ProposerName.MODEL
    flat_rounds: int | None = None
    """End when so many rounds together gained no 0.1 % of the hypervolume; None spends the budget.

    Deviation: None by default, where the usual advice is 3. A budget that was asked for is spent.
    """

    def __post_init__(self) -> None:
        """Refuse impossible values, and take the proposer by its plain name too."""
        for field in ("num_trials", "round_size"):
            if getattr(self, field) < 1:
                raise InvalidRequestError(f"{field} {getattr(self, field)} is not at least 1; raise it")
        if self.flat_rounds is not None and self.flat_rounds < 1:
            raise InvalidRequestError(
                f"flat_rounds {self.flat_rounds} is not at least 1; raise it or leave it out"
            )
        if not 0 <= self.seed < _SEED_LIMIT:
            raise InvalidRequestError(f"seed {self.seed} is not from 0 to {_SEED_LIMIT - 1}; choose another")
        if self.proposer not in [*ProposerName]:
            allowed = ", ".join(ProposerName)
            raise InvalidRequestError(f"proposer '{self.proposer}' is unknown; allowed: {allowed}")
        object.__setattr__(self, "proposer", ProposerName(self.proposer))

    @property
    def num_seeds(self) -> int:
        """Networks of round 0, spread over the range of costs: a share of the budget, one at least."""
        return max(1, self.num_trials // _TRIALS_PER_SEED.get(self.proposer, 3))

    @property
    def cost_objectives(self) -> tuple[str, ...]:
        """The costs among the objectives."""
        return tuple(o.name for o in self.objectives if o != ACCURACY)
