"""Gates: an architecture as one-hot vectors, by which logits and costs can be differentiated.

Source: weight entanglement as ShiftNAS (ICCV 2023, section 3.3) uses it: p' = M pᵀ, the one-hot choice p of a
decision times a matrix M of cumulative masks. `GateTable` is M for any quantity that depends on one decision
or on several at once; with one-hot vectors it picks an entry, and between them it is the product form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from nas.architecture import Architecture, Value
from nas.space import SearchSpace


def num_gates(space: SearchSpace) -> int:
    """Options of all decisions together: the length of a network's gates."""
    return sum(len(decision.options) for decision in space.decisions)


class Gates(Mapping[str, Tensor]):
    """One vector for each decision of a space, by name, side by side in one tensor."""

    def __init__(self, space: SearchSpace, flat: Tensor) -> None:
        """`flat` has shape (…, num_gates): each decision's options, in the order of the space."""
        self.flat = flat
        sizes = [len(decision.options) for decision in space.decisions]
        names = [decision.name for decision in space.decisions]
        self._by_name = dict(zip(names, flat.split(sizes, dim=-1), strict=True))

    def __getitem__(self, name: str) -> Tensor:
        """Shape (…, options of the decision)."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def hard_gates(space: SearchSpace, architecture: Architecture) -> Gates:
    """The architecture as one-hot vectors; a decision that it leaves inactive is at its cheapest option."""
    (row,) = space.encode([architecture])
    flat = torch.zeros(num_gates(space))
    start = 0
    for decision, index in zip(space.decisions, row.tolist(), strict=True):
        flat[start + index] = 1.0
        start += len(decision.options)
    return Gates(space, flat)


def gated_architecture(space: SearchSpace, gates: Mapping[str, Tensor]) -> Architecture:
    """The network of each decision's largest gate, spelled canonically."""
    row = [int(gates[decision.name].argmax()) for decision in space.decisions]
    return space.canonical(space.decode(row))


@dataclass(frozen=True, eq=False)
class GateTable:
    """A vector for each combination of a few decisions."""

    decisions: tuple[str, ...]
    entries: Tensor
    """Shape (options of the first decision, …, options of the last, length of the vector)."""

    def __call__(self, gates: Mapping[str, Tensor]) -> Tensor:
        """The sum over combinations of the entry times the product of its gates, shape (…, length)."""
        mixed = self.entries.flatten()
        for name in self.decisions:
            gate = gates[name].to(mixed)
            by_option = mixed.unflatten(-1, (gate.shape[-1], -1))
            mixed = (gate.unsqueeze(-1) * by_option).sum(-2)
        return mixed

    @property
    def is_constant(self) -> bool:
        """Whether no decision matters."""
        return not self.decisions

    def to(self, like: Tensor) -> GateTable:
        """On the device and in the precision of `like`."""
        return GateTable(self.decisions, self.entries.to(like))


def gate_table(
    space: SearchSpace, names: Sequence[str], vector_of: Callable[[tuple[Value, ...]], Sequence[float]]
) -> GateTable:
    """What `vector_of` says of each combination of the named decisions, less those that change nothing."""
    options = {decision.name: decision.options for decision in space.decisions}
    rows = [vector_of(combination) for combination in product(*(options[name] for name in names))]
    entries = torch.tensor(rows, dtype=torch.float64)
    entries = entries.reshape(*(len(options[name]) for name in names), entries.shape[-1])
    kept = list(names)
    for axis in reversed(range(len(names))):
        first = entries.narrow(axis, 0, 1)
        if torch.equal(entries, first.expand_as(entries)):
            entries = first.squeeze(axis)
            del kept[axis]
    return GateTable(tuple(kept), entries)
