"""A cell of operations on the edges of a small graph, repeated: NAS-Bench-201.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020; convolutions are ReLU-conv-BN, a node is the sum of
its edges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from nas.architecture import Value
from nas.errors import InvalidArchitectureError
from nas.layers import IMAGE, Act, LayerSpec, LoweringBuilder
from nas.space import CostTerm, Decision, SearchSpace, Values

NONE, SKIP, POOL, CONV_1, CONV_3 = "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3"
OPERATIONS: tuple[Value, ...] = (NONE, SKIP, POOL, CONV_1, CONV_3)
KERNELS: dict[Value, int] = {CONV_1: 1, CONV_3: 3}
EDGES = tuple((source, node) for node in (1, 2, 3) for source in range(node))
"""In the order of the benchmark's string."""

_NOTHING = "#"
"""The function of an edge that carries nothing. It sorts before every other term, so that a sum passed on
by a skip and the same sum written out keep one spelling."""


def edge_name(source: int, node: int) -> str:
    """The decision on the edge between two nodes of the cell."""
    return f"edge{source}to{node}"


@dataclass(frozen=True, kw_only=True)
class CellSpace(SearchSpace):
    """Stem, three stages of equal cells with residual blocks of stride 2 between, head."""

    name: str
    resolution: int
    stage_widths: tuple[int, ...]
    cells_per_stage: int
    default_classes: int = 10
    default_channels: int = 3

    def resolutions_px(self) -> tuple[int, ...]:
        """One fixed size."""
        return (self.resolution,)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The operation of each of the six edges."""
        return tuple(Decision(edge_name(*edge), OPERATIONS) for edge in EDGES)

    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """Every operation is lowered, those that lead nowhere included: the benchmark counts them."""
        net = LoweringBuilder(in_channels, self.resolution)
        tensor = net.conv("stem", IMAGE, self.stage_widths[0], kernel=3)
        for stage, width in enumerate(self.stage_widths, start=1):
            if stage > 1:
                tensor = _lower_reduction(net, f"reduction{stage - 1}", tensor, width)
            for cell in range(1, self.cells_per_stage + 1):
                tensor = _lower_cell(net, f"stage{stage}.cell{cell}", tensor, values)
        tensor = net.batch_norm("head.norm", tensor, act=Act.RELU)
        tensor = net.global_pool("head.pool", tensor)
        net.linear("head.classifier", tensor, num_classes)
        return net.layers()

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """One term an edge of each cell, and one a fixed part."""
        stages = range(1, len(self.stage_widths) + 1)
        cells = [f"stage{s}.cell{c}." for s in stages for c in range(1, self.cells_per_stage + 1)]
        edges = [CostTerm(f"{cell}{d.name}.", (d.name,)) for cell in cells for d in self.decisions]
        fixed = ["stem", "head.", *(f"reduction{stage}." for stage in stages[:-1])]
        return (*edges, *(CostTerm(prefix, ()) for prefix in fixed))

    def option_groups(self) -> Mapping[str, tuple[Decision, ...]]:
        """All edges choose between the same operations."""
        return {"operation": self.decisions}

    def peak_terms(self) -> tuple[CostTerm, ...]:
        """One term with all six edges: how many tensors live at once depends on them together."""
        return (CostTerm("", tuple(d.name for d in self.decisions)),)

    def peak_equivalent(self) -> CellSpace:
        """One cell a stage: the others repeat its shapes."""
        return replace(self, cells_per_stage=1)

    def _canonical(self, values: Values) -> Values:
        return self._representative[_function_of(values)]

    def _spelling(self, values: Values) -> Values:
        """As given: equal functions differ in dead weights, which the benchmark's params and MACs count."""
        return values

    @cached_property
    def _representative(self) -> dict[str, Values]:
        """For each distinct function the spelling with the fewest weights, then the first in option order."""
        best: dict[str, tuple[int, Values]] = {}
        for values in self.all():
            weights = sum(KERNELS.get(operation, 0) ** 2 for operation in values.values())
            function = _function_of(values)
            if function not in best or weights < best[function][0]:
                best[function] = (weights, values)
        return {function: values for function, (_, values) in best.items()}

    def size(self) -> int:
        """Networks distinct up to isomorphism."""
        return len(self._representative)

    def all(self) -> Iterator[Values]:
        """Every assignment, equivalent ones included."""
        names = [d.name for d in self.decisions]
        for chosen in product(OPERATIONS, repeat=len(names)):
            yield dict(zip(names, chosen, strict=True))

    def _parse_native(self, description: Any) -> Values | None:
        """The benchmark's string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        if not isinstance(description, str) or not description.lstrip().startswith("|"):
            return None
        nodes = description.strip().split("+")
        parsed = [re.findall(r"([^|~]+)~(\d+)", node) for node in nodes]
        sources = [[int(source) for _, source in node] for node in parsed]
        written = "+".join("|" + "|".join(f"{op}~{source}" for op, source in node) + "|" for node in parsed)
        if sources != [[0], [0, 1], [0, 1, 2]] or written != description.strip():
            raise InvalidArchitectureError(
                f"{description!r} is not of the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2| "
                f"with op in {', '.join(map(str, OPERATIONS))}"
            )
        operations = [operation for node in parsed for operation, _ in node]
        return {edge_name(*edge): operation for edge, operation in zip(EDGES, operations, strict=True)}


def _function_of(values: Values) -> str:
    """A name of the function the cell computes: equal exactly for isomorphic cells.

    A skip passes its input on, an edge of nothing is nothing, sums do not care for order.
    A node keeps its empty terms, which is the benchmark's own notion (6,466 classes).
    """
    names = {0: "x"}
    for node in (1, 2, 3):
        terms = []
        for source in range(node):
            operation = values[edge_name(source, node)]
            if operation == NONE or names[source] == _NOTHING:
                terms.append(_NOTHING)
            elif operation == SKIP:
                terms.append(names[source])
            else:
                terms.append(f"({names[source]})@{operation}")
        names[node] = "+".join(sorted(terms))
    return names[3]


def _lower_cell(net: LoweringBuilder, cell: str, source: int, values: Values) -> int:
    nodes = {0: source}
    rectified: dict[int, int] = {}
    for node in (1, 2, 3):
        terms = []
        for origin in range(node):
            operation = values[edge_name(origin, node)]
            slot = f"{cell}.{edge_name(origin, node)}"
            if operation == SKIP:
                terms.append(nodes[origin])
            elif operation == POOL:
                terms.append(net.average_pool(f"{slot}.pool", nodes[origin], kernel=3, stride=1))
            elif operation != NONE:
                if origin not in rectified:
                    rectified[origin] = net.activation(f"{cell}.node{origin}.relu", nodes[origin], Act.RELU)
                kernel = KERNELS[operation]
                terms.append(
                    net.conv(f"{slot}.{operation}", rectified[origin], net.channels(source), kernel=kernel)
                )
        nodes[node] = _sum(net, f"{cell}.node{node}", terms, source)
    return nodes[3]


def _sum(net: LoweringBuilder, name: str, terms: list[int], like: int) -> int:
    if not terms:
        return net.zeros(f"{name}.zeros", like)
    return terms[0] if len(terms) == 1 else net.add(f"{name}.add", *terms)


def _lower_reduction(net: LoweringBuilder, name: str, source: int, width: int) -> int:
    tensor = net.activation(f"{name}.relu1", source, Act.RELU)
    tensor = net.conv(f"{name}.conv1", tensor, width, kernel=3, stride=2)
    tensor = net.activation(f"{name}.relu2", tensor, Act.RELU)
    tensor = net.conv(f"{name}.conv2", tensor, width, kernel=3)
    shortcut = net.average_pool(f"{name}.pool", source, kernel=2, stride=2)
    shortcut = net.conv(f"{name}.shortcut", shortcut, width, bn=False)
    return net.add(f"{name}.add", shortcut, tensor)
