"""SearchSpace: a finite set of networks described by decisions, with one lowering to layers."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture, Value
from nas.errors import InvalidArchitectureError
from nas.layers import WEIGHTED, LayerKind, LayerSpec

RESOLUTION = "resolution"
"""The decision on the size of images, in spaces that have one: it takes no weights away."""

Values = Mapping[str, Value]
"""A value for every decision by name, active or not."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The decision counts only where the `parent` decision is at least `minimum`."""

    parent: str
    minimum: int


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice of the space. Options are listed from the cheapest to the dearest."""

    name: str
    options: tuple[Value, ...]
    active_if: Condition | None = None


@dataclass(frozen=True, slots=True)
class CostTerm:
    """The layers whose names start with `prefix` cost what `decisions` say, whatever the others are.

    So every additive cost of a network is a sum of table look-ups, one a term, and every max-type
    cost a maximum of them.
    """

    prefix: str
    decisions: tuple[str, ...]


class SearchSpace(ABC):
    """A set of networks. Subclasses say how decisions become layers; data files make instances."""

    name: str
    default_classes: int
    default_channels: int

    # What a family must say

    @property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """Every decision with at least two options, in the order of the columns of `encode`."""

    @abstractmethod
    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """The layers of the network that a full assignment of values describes."""

    @abstractmethod
    def cost_terms(self) -> tuple[CostTerm, ...]:
        """A partition of the layers by name prefix, each part with the decisions it depends on."""

    def peak_terms(self) -> tuple[CostTerm, ...]:
        """The same for max-type costs, whose parts may depend on more decisions."""
        return self.cost_terms()

    def peak_equivalent(self) -> SearchSpace:
        """A space with the same decisions and the same max-type costs that is cheaper to lower."""
        return self

    def option_groups(self) -> Mapping[str, tuple[Decision, ...]]:
        """Every decision, those together that choose in different places between the same things.

        What is learned about an option counts for its whole group. By default each decision is its own.
        """
        return {decision.name: (decision,) for decision in self.decisions}

    @abstractmethod
    def resolutions_px(self) -> tuple[int, ...]:
        """Sides of the square images the networks of this space read, ascending."""

    def resolution_px(self, architecture: Architecture) -> int:
        """Side of the square image this network reads."""
        chosen = architecture.get(RESOLUTION)
        return int(chosen) if chosen is not None else self.resolutions_px()[-1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the name and decisions: weights of one version of a space are none of another."""
        decisions = [asdict(decision) for decision in self.decisions]
        return hashlib.sha256(json.dumps([self.name, decisions]).encode()).hexdigest()

    @cached_property
    def parents_first(self) -> tuple[Decision, ...]:
        """The decisions in an order in which each comes after the one that it depends on."""
        return tuple(sorted(self.decisions, key=lambda d: d.active_if is not None))

    def _spelling(self, values: Values) -> Values:
        """The values to keep as `choices`; the same network in its canonical spelling, by default."""
        return values

    def _canonical(self, values: Values) -> Values:
        """Equal for two assignments that describe the same network; inactive decisions are dropped later."""
        return values

    def _parse_native(self, description: Any) -> Values | None:
        """Values from the family's own notation, or None when the description is not in it."""
        del description
        return None

    # Lowering

    def lower(
        self, architecture: Architecture, *, num_classes: int | None = None, in_channels: int | None = None
    ) -> tuple[LayerSpec, ...]:
        """The layers of this network in execution order; None takes the space's default."""
        self._check_member(architecture)
        return self.lower_values(
            self._fill(dict(architecture.choices)),
            num_classes=self.default_classes if num_classes is None else num_classes,
            in_channels=self.default_channels if in_channels is None else in_channels,
        )

    # Reading and writing

    def parse(self, description: Any) -> Architecture:
        """The architecture a description names: readable JSON (a mapping or its text) or the native form.

        Raises InvalidArchitectureError naming the field, the value and what is allowed.
        """
        if isinstance(description, Architecture):
            description = description.to_json()
        native = self._parse_native(description)
        if native is not None:
            return self._architecture(self._checked(native))
        if isinstance(description, str):
            description = self._read_json(description)
        if not isinstance(description, Mapping):
            raise InvalidArchitectureError(
                f"an architecture of space '{self.name}' is a mapping from decision to value, "
                f"not {type(description).__name__}; see SPACES['{self.name}'].decisions"
            )
        return self._architecture(self._checked(description))

    def encode(self, architectures: Iterable[Architecture]) -> NDArray[np.int64]:
        """Option indices, shape (n, number of decisions); inactive decisions are 0."""
        rows = []
        for architecture in architectures:
            self._check_member(architecture)
            values = self._fill(dict(architecture.choices))
            rows.append([self._index[d.name][values[d.name]] for d in self.decisions])
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.decisions))

    def decode(self, row: Sequence[int] | NDArray[np.int64]) -> Architecture:
        """The architecture of one row of option indices; inactive columns are ignored."""
        if len(row) != len(self.decisions):
            raise InvalidArchitectureError(
                f"a row of space '{self.name}' has {len(self.decisions)} option indices, not {len(row)}"
            )
        values: dict[str, Value] = {}
        for decision, index in zip(self.decisions, row, strict=True):
            if not 0 <= int(index) < len(decision.options) or int(index) != index:
                raise InvalidArchitectureError(
                    f"option index {index} of '{decision.name}' is not a whole number "
                    f"from 0 to {len(decision.options) - 1}"
                )
            values[decision.name] = decision.options[int(index)]
        return self._architecture(values)

    def canonical(self, architecture: Architecture) -> Architecture:
        """The same network spelled canonically, so that its costs are those of the identity."""
        if architecture.choices == architecture.identity:
            return architecture
        return self._architecture(self._fill(dict(architecture.identity)))

    def contains(self, architecture: Architecture) -> bool:
        """Whether the architecture is a network of this space, spelled canonically."""
        if architecture.space != self.name:
            return False
        try:
            return self.parse(dict(architecture.identity)).identity == architecture.identity
        except InvalidArchitectureError:
            return False

    # Walking

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random network: every decision uniform, depths first, then the choices they leave active."""
        values: dict[str, Value] = {}
        for decision in self.parents_first:
            if is_active(decision, values):
                values[decision.name] = decision.options[int(rng.integers(len(decision.options)))]
        return self.canonical(self._architecture(self._fill(values)))

    def mutate(
        self, architecture: Architecture, rng: np.random.Generator, *, probability: float = 0.1
    ) -> Architecture:
        """A neighbour: each decision drawn anew with `probability`, one at least; never the same network."""
        self._check_member(architecture)
        while True:
            values = dict(self._fill(dict(architecture.identity)))
            redrawn = rng.random(len(self.decisions)) < probability
            redrawn[rng.integers(len(redrawn))] = True
            for decision, is_redrawn in zip(self.decisions, redrawn, strict=True):
                if is_redrawn:
                    values[decision.name] = decision.options[int(rng.integers(len(decision.options)))]
            mutant = self.canonical(self._architecture(values))
            if mutant != architecture:
                return mutant

    def largest(self) -> Architecture:
        """Every decision at its dearest option."""
        return self._architecture(self._extreme(-1))

    def smallest(self) -> Architecture:
        """Every decision at its cheapest option."""
        return self._architecture(self._extreme(0))

    def covering(self) -> tuple[Architecture, ...]:
        """Architectures that between them use every weight of the supernet: the largest, and each option."""
        largest = self._extreme(-1)
        varied = [{**largest, d.name: option} for d in self.decisions for option in d.options]
        spelled = [self._architecture(values) for values in [largest, *varied]]
        # By spelling, not by equality: equal networks may be spelled with different weights.
        return tuple({architecture.choices: architecture for architecture in spelled}.values())

    @cached_property
    def is_weight_entangled(self) -> bool:
        """Whether sizes are chosen and operations are not: the largest network has all the weights.

        Those of shortcuts apart, which bring widths together only where they differ.
        """
        held = {layer.name for layer in self.lower(self.largest())}
        return all(
            layer.kind not in WEIGHTED or layer.name in held or position in _shortcuts(layers)
            for layers in map(self.lower, self.covering())
            for position, layer in enumerate(layers)
        )

    def size(self) -> int:
        """How many distinct networks the space holds."""
        children: dict[str, list[Decision]] = {}
        for decision in self.decisions:
            if decision.active_if:
                children.setdefault(decision.active_if.parent, []).append(decision)
        total = 1
        for decision in self.decisions:
            if decision.active_if is None:
                dependants = children.get(decision.name, [])
                total *= sum(
                    prod(len(d.options) for d in dependants if is_active(d, {decision.name: option}))
                    for option in decision.options
                )
        return total

    # Inner workings

    @cached_property
    def _index(self) -> dict[str, dict[Value, int]]:
        return {d.name: {option: i for i, option in enumerate(d.options)} for d in self.decisions}

    def _extreme(self, position: int) -> dict[str, Value]:
        return {d.name: d.options[position] for d in self.decisions}

    def _fill(self, values: Values) -> dict[str, Value]:
        """Every decision: those not given take their cheapest option (they are inactive)."""
        return {d.name: values.get(d.name, d.options[0]) for d in self.decisions}

    def _architecture(self, values: Values) -> Architecture:
        canonical, spelling = self._canonical(values), self._spelling(values)
        identity = self._active(canonical)
        choices = identity if spelling is canonical else self._active(spelling)
        return Architecture(space=self.name, identity=identity, choices=choices)

    def _active(self, values: Values) -> tuple[tuple[str, Value], ...]:
        return tuple(
            [
                (name, values[name])
                for name, condition in self._conditions
                # As `is_active`, without a call for each of the millions that a search looks at.
                if condition is None or int(values[condition.parent]) >= condition.minimum
            ]
        )

    @cached_property
    def _conditions(self) -> tuple[tuple[str, Condition | None], ...]:
        return tuple((decision.name, decision.active_if) for decision in self.decisions)

    def _check_member(self, architecture: Architecture) -> None:
        if architecture.space != self.name:
            raise InvalidArchitectureError(
                f"the architecture belongs to space '{architecture.space}', not to '{self.name}'"
            )

    def _read_json(self, text: str) -> Any:
        try:
            return json.loads(text)
        # Python reads nested text by recursion, and gives up at some depth.
        except (ValueError, RecursionError):
            raise InvalidArchitectureError(
                f"{text[:80]!r} is neither JSON nor the notation of space '{self.name}'"
            ) from None

    def _checked(self, values: Mapping[Any, Any]) -> Values:
        unknown = [name for name in values if name not in self._index]
        if unknown:
            raise InvalidArchitectureError(
                f"'{unknown[0]}' is no decision of space '{self.name}'; its decisions are "
                + ", ".join(d.name for d in self.decisions)
            )
        checked: dict[str, Value] = {}
        for decision in self.parents_first:
            if decision.name in values:
                checked[decision.name] = self._checked_value(decision, values[decision.name])
            elif is_active(decision, checked):
                raise InvalidArchitectureError(
                    f"'{decision.name}' is missing; choose one of {decision.options} of space '{self.name}'"
                )
        return self._fill(checked)

    def _checked_value(self, decision: Decision, value: Any) -> Value:
        index = None
        # bool is an int in Python and True == 1, yet nobody means a depth of True.
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            index = self._index[decision.name].get(value)
        if index is None:
            raise InvalidArchitectureError(
                f"{decision.name} {value!r} is not in {decision.options} of space '{self.name}'; "
                "widen the space or change the request"
            )
        return decision.options[index]


def _shortcuts(layers: Sequence[LayerSpec]) -> set[int]:
    """Positions of the layers that sums take as they are beside a block."""
    return {layer.inputs[0] for layer in layers if layer.kind is LayerKind.ADD}


def is_active(decision: Decision, values: Values) -> bool:
    """Whether the decision counts beside the values of the decisions that it depends on."""
    condition = decision.active_if
    return condition is None or int(values[condition.parent]) >= condition.minimum
