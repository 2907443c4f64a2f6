"""Gate plan: where a space's largest network is masked for the others, read off their lowerings.

Which channels, kernels and blocks a choice leaves is written down nowhere else: every combination of the
decisions that a part of the network depends on is lowered, as for its costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from nas.architecture import Value
from nas.costs.batch import Combination, term_entries
from nas.errors import InvalidRequestError
from nas.layers import IMAGE, LayerKind, LayerSpec
from nas.space import RESOLUTION, CostTerm, SearchSpace
from supernet.gates import GateTable, gate_table


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerGating:
    """What depends on gates in one layer; None where nothing does."""

    read_channels: GateTable | None = None
    """1 for each input channel that is there, else 0."""
    kernels: GateTable | None = None
    """1 for the kernel, 0 for the others."""
    kernel_forms: tuple[LayerSpec, ...] = ()
    presence: GateTable | None = None
    """Of a layer of a shortcut: whether it is there; without it its input goes on."""
    shortcut: GateTable | None = None
    """Of a sum: whether its first input counts."""
    branch: GateTable | None = None
    """Of a sum: whether its second does."""

    @property
    def is_needed(self) -> bool:
        """Whether anything does."""
        return any((self.read_channels, self.kernels, self.presence, self.shortcut, self.branch))


@dataclass(frozen=True, eq=False)
class GatePlan:
    """The largest network of a space, and where it is gated."""

    layers: tuple[LayerSpec, ...]
    gating: Mapping[str, LayerGating]


@dataclass(frozen=True)
class _Form:
    """A layer as some network has it."""

    layer: LayerSpec
    inputs: tuple[str, ...]
    """Names of the layers that it reads; empty for the image."""


_Forms = dict[str, _Form]
"""By name, the layers of a cost term in one network."""


@dataclass(frozen=True, kw_only=True)
class _Term:
    """A part of the network, for every combination of the decisions that it depends on."""

    decisions: tuple[str, ...]
    options: tuple[tuple[Value, ...], ...]
    entries: Mapping[Combination, _Forms]

    def form(self, name: str, combination: Combination) -> _Form:
        """The layer's form; where it is left out, that of the network next to this one that has it."""
        having = (other for other, forms in self.entries.items() if name in forms)
        nearest = min(having, key=lambda c: sum(a != b for a, b in zip(c, combination, strict=True)))
        return self.entries[nearest][name]

    def has(self, name: str, combination: Combination) -> bool:
        """Whether the layer is there."""
        return name in self.entries[combination]


@lru_cache(maxsize=8)
def gate_plan(
    space: SearchSpace, num_classes: int, in_channels: int, device: torch.device, dtype: torch.dtype
) -> GatePlan:
    """Made once a process; InvalidRequestError for a space whose networks cannot be masked out of one."""
    if not space.is_weight_entangled:
        raise InvalidRequestError(
            f"networks of space '{space.name}' cannot be given by gates: it chooses between operations with "
            "weights of their own, and its largest network does not hold the others; choose a space of sizes"
        )
    terms = _terms(space, num_classes, in_channels)
    largest = _named(space.lower(space.largest(), num_classes=num_classes, in_channels=in_channels))
    forms = _with_all_shortcuts(largest, terms)
    _check_whole(space, terms, forms)
    like = torch.empty((), device=device, dtype=dtype)
    shortcuts = {form.inputs[0] for form in forms.values() if form.layer.kind is LayerKind.ADD}
    gating = {name: _on(like, _gating(space, terms, name, form, shortcuts)) for name, form in forms.items()}
    return GatePlan(_positioned(forms), {name: g for name, g in gating.items() if g.is_needed})


def _terms(space: SearchSpace, num_classes: int, in_channels: int) -> list[_Term]:
    # Resolution changes no layer's channels, kernel or place.
    parts = [
        CostTerm(term.prefix, tuple(name for name in term.decisions if name != RESOLUTION))
        for term in space.cost_terms()
    ]
    options = {decision.name: decision.options for decision in space.decisions}
    found = term_entries(space, parts, _forms_of_terms, num_classes=num_classes, in_channels=in_channels)
    return [
        _Term(
            decisions=part.decisions,
            options=tuple(options[name] for name in part.decisions),
            entries=entries,
        )
        for part, entries in zip(parts, found, strict=True)
    ]


def _forms_of_terms(
    layers: Sequence[LayerSpec], owners: Sequence[int | None], num_terms: int
) -> list[_Forms]:
    forms: list[_Forms] = [{} for _ in range(num_terms)]
    for (name, form), owner in zip(_named(layers).items(), owners, strict=True):
        if owner is not None:
            forms[owner][name] = form
    return forms


def _named(layers: Sequence[LayerSpec]) -> _Forms:
    return {
        layer.name: _Form(layer, tuple(layers[source].name for source in layer.inputs if source != IMAGE))
        for layer in layers
    }


def _with_all_shortcuts(largest: _Forms, terms: Sequence[_Term]) -> _Forms:
    """The layers of the largest network, and those of shortcuts that only narrower ones have."""
    forms = dict(largest)
    for name, form, peers in _missing(forms, terms):
        if form.layer.kind is LayerKind.ADD:
            forms = _with_sum(forms, name, form, peers)
        else:
            forms = _with_shortcut(forms, name, form, peers)
    return forms


def _missing(forms: _Forms, terms: Sequence[_Term]) -> Iterator[tuple[str, _Form, _Forms]]:
    """Each layer that the largest network lacks, once, with the layers around it."""
    seen = set(forms)
    for term in terms:
        for peers in term.entries.values():
            for name, form in peers.items():
                if name not in seen:
                    seen.add(name)
                    yield name, form, peers


def _with_sum(forms: _Forms, name: str, form: _Form, peers: _Forms) -> _Forms:
    """The sum right after its branch; what read the branch reads it instead."""
    source, branch = form.inputs
    twin = next(peer for peer in peers if peer != name and peers[peer].inputs[:1] == (source,))
    channels = forms[branch].layer.out_channels
    layer = replace(form.layer, in_channels=channels, out_channels=channels)
    result: _Forms = {}
    for other, its_form in forms.items():
        inputs = tuple(name if read == branch else read for read in its_form.inputs)
        result[other] = _Form(its_form.layer, inputs)
        if other == branch:
            result[name] = _Form(layer, (forms[twin].inputs[0], branch))
    return result


def _with_shortcut(forms: _Forms, name: str, form: _Form, peers: _Forms) -> _Forms:
    """The layer right before the sum that reads it, on what the sum read."""
    total = next(other for other, its_form in peers.items() if its_form.inputs[:1] == (name,))
    source, branch = forms[total].inputs
    layer = replace(
        form.layer,
        in_channels=forms[source].layer.out_channels,
        out_channels=forms[branch].layer.out_channels,
    )
    result: _Forms = {}
    for other, its_form in forms.items():
        if other == total:
            result[name] = _Form(layer, (source,))
            its_form = _Form(its_form.layer, (name, branch))
        result[other] = its_form
    return result


def _check_whole(space: SearchSpace, terms: Sequence[_Term], forms: _Forms) -> None:
    """Blocks are left out with all their layers or not at all, and nothing else is, shortcuts apart."""
    sums = {name: form.inputs for name, form in forms.items() if form.layer.kind is LayerKind.ADD}
    sources = _sources(forms)
    blocks = [sources[branch] - sources[source] for source, branch in sums.values()]
    shortcuts = {source for source, _ in sums.values()}
    for term in terms:
        names = set().union(*term.entries.values()) - sums.keys() - shortcuts
        for network in term.entries.values():
            left_out = names - network.keys()
            whole = set().union(*(block for block in blocks if block & names <= left_out))
            if not left_out <= whole:
                raise InvalidRequestError(
                    f"networks of space '{space.name}' cannot be given by gates: some have a block without "
                    f"'{min(left_out - whole)}', and only whole blocks can be masked out; choose a space "
                    "whose blocks have all their layers, such as 'micro'"
                )


def _sources(forms: _Forms) -> dict[str, set[str]]:
    """For each layer, it and all that it is made of."""
    sources: dict[str, set[str]] = {}
    for name, form in forms.items():
        sources[name] = {name}.union(*(sources[read] for read in form.inputs))
    return sources


def _positioned(forms: _Forms) -> tuple[LayerSpec, ...]:
    position = {name: number for number, name in enumerate(forms)}
    return tuple(
        replace(form.layer, inputs=tuple(position[source] for source in form.inputs) or (IMAGE,))
        for form in forms.values()
    )


def _gating(
    space: SearchSpace, terms: Sequence[_Term], name: str, form: _Form, shortcuts: set[str]
) -> LayerGating:
    term = next((t for t in terms if any(name in forms for forms in t.entries.values())), None)
    layer = form.layer
    if term is None:
        return LayerGating()
    if layer.kind is LayerKind.ADD:
        return _gating_of_sum(space, term, name, branch=form.inputs[1])
    if layer.kind not in (LayerKind.CONV, LayerKind.LINEAR):
        return LayerGating()
    return _gating_of_weights(space, term, layer, is_shortcut=name in shortcuts)


def _gating_of_weights(
    space: SearchSpace, term: _Term, layer: LayerSpec, *, is_shortcut: bool
) -> LayerGating:
    def channels(combination: Combination) -> list[float]:
        num_read = term.form(layer.name, combination).layer.in_channels
        return [float(channel < num_read) for channel in range(layer.in_channels)]

    def kernel(combination: Combination) -> list[float]:
        chosen = term.form(layer.name, combination).layer.kernel
        return [float(kernel == chosen) for kernel in sizes]

    def presence(combination: Combination) -> list[float]:
        return [float(term.has(layer.name, combination))]

    sizes = sorted({term.form(layer.name, c).layer.kernel for c in product(*term.options)})
    mixes_channels = layer.groups == 1
    read = gate_table(space, term.decisions, channels) if mixes_channels else None
    return LayerGating(
        read_channels=_unless_constant(read),
        kernels=_unless_constant(gate_table(space, term.decisions, kernel)),
        kernel_forms=tuple(replace(layer, kernel=size) for size in sizes),
        presence=_unless_constant(gate_table(space, term.decisions, presence)) if is_shortcut else None,
    )


def _gating_of_sum(space: SearchSpace, term: _Term, name: str, *, branch: str) -> LayerGating:
    """Without its block a sum passes on its first input, without its shortcut the second."""

    def has_branch(combination: Combination) -> list[float]:
        return [float(term.has(branch, combination))]

    def has_shortcut(combination: Combination) -> list[float]:
        return [float(term.has(name, combination) or not term.has(branch, combination))]

    return LayerGating(
        shortcut=_unless_constant(gate_table(space, term.decisions, has_shortcut)),
        branch=_unless_constant(gate_table(space, term.decisions, has_branch)),
    )


def _unless_constant(table: GateTable | None) -> GateTable | None:
    return None if table is None or table.is_constant else table


def _on(like: Tensor, gating: LayerGating) -> LayerGating:
    tables = ("read_channels", "kernels", "presence", "shortcut", "branch")
    moved = {name: table.to(like) for name in tables if (table := getattr(gating, name)) is not None}
    return replace(gating, **moved)
