"""Divergence guard: what a run does when a loss is no number, or its networks have forgotten everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import log
from typing import Any

from scipy.special import bdtrc

from nas.errors import NasError
from supernet.training.state import TrainingState
from supernet.training.strategy import Strategy, StrategyState

MAX_ROLLBACKS = 3
"""The divergence after that ends the run."""
RATE_FACTOR = 0.5
"""On the learning rate, at each rollback."""

CLEARLY_ABOVE = 1e-9
"""A guess is right as often as this, at most: then a network has learned something."""
AT_CHANCE = 1e-2
"""A guess is right as often as this, at least: then it may be no better than a guess."""
BLOWN_UP = 10.0
"""Times the loss of who holds all classes for equally likely: no epoch of a run that learns comes near."""


class TrainingDivergedError(NasError):
    """A loss or gradient that is no finite number, or networks back at chance; the weights are of no use."""

    def __init__(self, reason: str, *, step: int) -> None:
        """`reason` says what happened, `step` in which step."""
        super().__init__(f"{reason}; go on from a checkpoint with a lower base_learning_rate")
        self.reason = reason
        self.step = step


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A return of the run to an earlier state of itself."""

    step: int
    """From which it went on: of the last good checkpoint, or 0."""
    from_step: int
    """At which it had diverged."""
    reason: str
    """What had happened."""
    rate_factor: float
    """On the recipe's learning rate from then on."""


def rate_factor_of(state: TrainingState) -> float:
    """On the recipe's learning rate, where a run stands."""
    guard = DivergenceGuard()
    guard.load_state_dict(state.strategies.get("guard", {}))
    return guard.rate_factor


class DivergenceGuard(Strategy):
    """Says when a run has diverged, from where it goes on and at what rate; gives up in the end.

    A checkpoint is good if its largest network was not back at chance and its epoch's loss not beyond all
    measure. Whatever the guard knows comes from
    the run itself and is kept with it, so that a run killed after a rollback goes on as one left alone.

    Sources: AlphaNet#6 (losses become NaN on custom data) and AttentiveNAS#5 (collapse to chance in
    mid-run). Neither paper has a remedy; in a run that does not diverge the guard changes no bit.
    """

    def __init__(self) -> None:
        self.rollbacks: tuple[Rollback, ...] = ()
        self.good_step = 0
        """Of the last good checkpoint; 0: none but the beginning."""
        self._has_learned = False

    @property
    def rate_factor(self) -> float:
        """On the recipe's learning rate, now."""
        return self.rollbacks[-1].rate_factor if self.rollbacks else 1.0

    @property
    def num_steps_lost(self) -> int:
        """Steps that were done and then rolled back."""
        return sum(rollback.from_step - rollback.step for rollback in self.rollbacks)

    def judge_loss(self, step: int, loss: float, *, num_classes: int) -> None:
        """TrainingDivergedError if the mean loss of the epoch before this step is far beyond a guess's.

        So it is with a rate far too high from the beginning on, where nothing was learned to be forgotten.
        """
        if loss > BLOWN_UP * log(num_classes):
            raise TrainingDivergedError(
                f"the mean loss of the epoch before step {step} is {loss:.3g}, of which guessing has "
                f"{log(num_classes):.3g}",
                step=step,
            )

    def judge(self, step: int, *, num_correct: int, num_images: int, chance: float) -> None:
        """Take note of the largest network's probe before the step; TrainingDivergedError if it collapsed.

        `chance` is how often the best guess is right that does not look at the image. Collapsed is a network
        that cannot be told from such a guess, by the one-sided binomial test on the probe's images, once an
        earlier probe of the run clearly could.
        """
        # The probability that a guess is right at least as often.
        likelihood = float(bdtrc(num_correct - 1, num_images, chance)) if num_correct else 1.0
        if self._has_learned and likelihood > AT_CHANCE:
            raise TrainingDivergedError(
                f"the largest network is back at chance after step {step}: {num_correct} of {num_images} "
                f"images right, of which guessing gets {chance:.0%}",
                step=step,
            )
        self._has_learned = self._has_learned or likelihood < CLEARLY_ABOVE
        self.good_step = step

    @property
    def may_roll_back(self) -> bool:
        """Whether a divergence now is not one too many."""
        return len(self.rollbacks) < MAX_ROLLBACKS

    def given_up(self, error: TrainingDivergedError, base_learning_rate: float) -> NasError:
        """What ends a run that may not roll back any more."""
        earlier = "; ".join(f"{r.reason}, back to step {r.step}" for r in self.rollbacks)
        return NasError(
            f"the training has diverged {MAX_ROLLBACKS + 1} times and is given up: {error.reason}, at "
            f"{self.rate_factor:g} times the recipe's learning rate; before that: {earlier}. Train anew with "
            f"a recipe.base_learning_rate below {base_learning_rate * self.rate_factor:g}; where it is the "
            "same step each time, look at the images instead"
        )

    def roll_back(self, error: TrainingDivergedError, *, to_step: int) -> Rollback:
        """Lower the rate, for a run that goes on from `to_step`."""
        rollback = Rollback(
            step=to_step,
            from_step=error.step,
            reason=error.reason,
            rate_factor=RATE_FACTOR * self.rate_factor,
        )
        self.rollbacks = (*self.rollbacks, rollback)
        return rollback

    def describe(self) -> dict[str, Any]:
        """Nothing while all is well."""
        return {"rate_factor": self.rate_factor} if self.rollbacks else {}

    def state_dict(self) -> StrategyState:
        """Everything."""
        return {
            "rollbacks": [asdict(rollback) for rollback in self.rollbacks],
            "good_step": self.good_step,
            "has_learned": self._has_learned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave; empty of a run that had no guard yet."""
        self.rollbacks = tuple(Rollback(**rollback) for rollback in state.get("rollbacks", ()))
        self.good_step = state.get("good_step", 0)
        self._has_learned = state.get("has_learned", False)
