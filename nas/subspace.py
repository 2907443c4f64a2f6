"""SubSpace: the networks of a space whose decisions keep to some of their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log

import numpy as np

from nas.architecture import Architecture, Value
from nas.space import Decision, SearchSpace, is_active


@dataclass(frozen=True)
class SubSpace:
    """A part of a space; its networks are networks of the whole, and all weights are shared.

    What is drawn is spelled canonically. Where one network has several spellings, the canonical one may name
    options that were left out, unless the decisions that it exchanges all keep the same options: the layers
    of a stage of `nas_bench_macro`, say.
    """

    space: SearchSpace
    """The whole."""
    kept: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """For decisions by name, the options that are left, in the order of the space; all where not named."""

    def __post_init__(self) -> None:
        known = {decision.name: decision.options for decision in self.space.decisions}
        for name, options in self.kept.items():
            if name not in known:
                raise ValueError(f"'{name}' is no decision of space '{self.space.name}'")
            if not options or options != tuple(o for o in known[name] if o in options):
                raise ValueError(
                    f"{options} are not some of {known[name]}, the options of '{name}', in order"
                )

    def options(self, decision: Decision) -> tuple[Value, ...]:
        """What is left of the decision."""
        return self.kept.get(decision.name, decision.options)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random network: every decision uniform over what is left of it, depths first."""
        values: dict[str, Value] = {}
        for decision in self.space.parents_first:
            if is_active(decision, values):
                options = self.options(decision)
                values[decision.name] = options[int(rng.integers(len(options)))]
        return self.spelled(values)

    def spelled(self, values: Mapping[str, Value]) -> Architecture:
        """The network of these values, which need not name inactive decisions, spelled canonically."""
        return self.space.canonical(self.space.parse(dict(values)))

    def largest(self) -> Architecture:
        """Every decision at the dearest option that is left."""
        return self.space.parse({d.name: self.options(d)[-1] for d in self.space.decisions})

    def smallest(self) -> Architecture:
        """Every decision at the cheapest option that is left."""
        return self.space.parse({d.name: self.options(d)[0] for d in self.space.decisions})

    def contains(self, architecture: Architecture) -> bool:
        """Whether every active decision keeps to what is left of it."""
        chosen = dict(architecture.choices)
        return all(chosen[d.name] in self.options(d) for d in self.space.decisions if d.name in chosen)

    def log_probability(self, architecture: Architecture) -> float:
        """Natural logarithm of the probability that `sample` makes these choices.

        Where several spellings are one network, that of the spelling.
        """
        chosen = dict(architecture.choices)
        return -sum(log(len(self.options(d))) for d in self.space.decisions if d.name in chosen)
