"""Runs a network given by gates: the largest one, with what the chosen one lacks masked out.

Source: weight entanglement in ShiftNAS (ICCV 2023, section 3.3), whose masks p' = M pᵀ are multiplied into
the operations. Which channels, kernels and blocks a choice leaves is not written down here: it is read off
the lowering of every combination of the decisions that a part of the network depends on, as its costs are.

- Channels: a layer that mixes channels masks those that it would not read. What no layer reads needs no mask,
  for batch norm and depthwise convolutions keep channels apart.
- Kernels: the weight is a sum over kernel sizes, each padded to the largest.
- Depth: a block that may be left out is x + g · block(x).
- Shortcuts that depend on widths: s · x + block(x).
- Resolution is no weight: it is chosen outside the gates, and no gradient reaches its decision.

With one-hot gates the logits are those of the sliced network, and so are the gradients by its weights; the
price is that of a step of the largest network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.architecture import Architecture, Value
from nas.costs.batch import Combination, term_entries
from nas.errors import InvalidRequestError
from nas.layers import IMAGE, LayerKind, LayerSpec
from nas.space import CostTerm, SearchSpace
from supernet.elastic.batch_norm import Normaliser
from supernet.elastic.conv import KernelMix
from supernet.elastic.stateless import activate
from supernet.gates import GateTable, gate_table
from supernet.graph import run_layers
from supernet.resize import resize

if TYPE_CHECKING:
    from supernet.network import Supernet

_RESOLUTION = "resolution"


def run_gated(
    supernet: Supernet,
    images: Tensor,
    architecture: Architecture,
    gates: Mapping[str, Tensor],
    normalise: Normaliser,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Logits (N, classes), differentiable by the gates, each of shape (options,).

    Of the architecture only the resolution is read; the gates say the rest.
    """
    weight = next(supernet.parameters())
    plan = _plan(supernet.space, supernet.num_classes, supernet.in_channels, weight.device, weight.dtype)
    images = resize(images, supernet.space.resolution_px(architecture))
    images = images.contiguous(memory_format=torch.channels_last)
    plain = supernet.layer_runner(normalise, dropout=dropout)

    def run_layer(layer: LayerSpec, inputs: Sequence[Tensor]) -> Tensor:
        gating = plan.gating.get(layer.name)
        if gating is None:
            return plain(layer, inputs)
        if layer.kind is LayerKind.ADD:
            return activate(_gated_sum(gating, gates, *inputs), layer.act)
        x = _masked(gating, gates, inputs[0])
        if gating.kernels is None:
            return plain(layer, [x])
        mix = KernelMix(gating.kernel_forms, gating.kernels(gates))
        return supernet.slot(layer)(x, layer, normalise, kernel_mix=mix)

    return run_layers(plan.layers, images, run_layer)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gating:
    """What depends on gates in one layer; None where nothing does."""

    read_channels: GateTable | None = None
    """1 for each input channel that is there, else 0."""
    kernels: GateTable | None = None
    """1 for the kernel, 0 for the others."""
    kernel_forms: tuple[LayerSpec, ...] = ()
    shortcut: GateTable | None = None
    """Of a sum: whether its first input counts."""
    branch: GateTable | None = None
    """Of a sum: whether its second does."""

    @property
    def is_needed(self) -> bool:
        return any((self.read_channels, self.kernels, self.shortcut, self.branch))


@dataclass(frozen=True, eq=False)
class _Plan:
    """The largest network of a space, and where it is gated."""

    layers: tuple[LayerSpec, ...]
    gating: Mapping[str, _Gating]


def _masked(gating: _Gating, gates: Mapping[str, Tensor], x: Tensor) -> Tensor:
    if gating.read_channels is None:
        return x
    return x * gating.read_channels(gates).view(-1, 1, 1)


def _gated_sum(gating: _Gating, gates: Mapping[str, Tensor], source: Tensor, branch: Tensor) -> Tensor:
    missing = branch.shape[1] - source.shape[1]
    if missing:
        # Each has the channels of its widest network; where those of the chosen one differ, `shortcut` is 0.
        source = F.pad(source, (0, 0, 0, 0, 0, missing))
    if gating.shortcut is not None:
        source = source * gating.shortcut(gates)
    if gating.branch is not None:
        branch = branch * gating.branch(gates)
    return source + branch


# The plan, read off lowerings


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
        """The layer's form; where its block is left out, that which it would have in a deeper network."""
        deeper = (
            (*combination[:axis], options[-1], *combination[axis + 1 :])
            for axis, options in enumerate(self.options)
        )
        return next(forms[name] for c in (combination, *deeper) if name in (forms := self.entries[c]))

    def has(self, name: str, combination: Combination) -> bool:
        """Whether the layer is there."""
        return name in self.entries[combination]


@lru_cache(maxsize=8)
def _plan(
    space: SearchSpace, num_classes: int, in_channels: int, device: torch.device, dtype: torch.dtype
) -> _Plan:
    if not space.is_weight_entangled:
        raise InvalidRequestError(
            f"networks of space '{space.name}' cannot be given by gates: it chooses between operations with "
            "weights of their own, and its largest network does not hold the others; choose a space of sizes"
        )
    terms = _terms(space, num_classes, in_channels)
    largest = _named(space.lower(space.largest(), num_classes=num_classes, in_channels=in_channels))
    forms = _with_all_sums(largest, terms)
    like = torch.empty((), device=device, dtype=dtype)
    gating = {name: _on(like, _gating(space, terms, name, form)) for name, form in forms.items()}
    return _Plan(_positioned(forms), {name: g for name, g in gating.items() if g.is_needed})


def _terms(space: SearchSpace, num_classes: int, in_channels: int) -> list[_Term]:
    # Resolution changes no layer's channels, kernel or place.
    parts = [
        CostTerm(term.prefix, tuple(name for name in term.decisions if name != _RESOLUTION))
        for term in space.cost_terms()
    ]
    options = {decision.name: decision.options for decision in space.decisions}
    found = term_entries(space, parts, _forms_of_terms, num_classes=num_classes, in_channels=in_channels)
    for entries in found:
        _check_whole(space, entries.values())
    return [
        _Term(
            decisions=part.decisions,
            options=tuple(options[name] for name in part.decisions),
            entries=entries,
        )
        for part, entries in zip(parts, found, strict=True)
    ]


def _check_whole(space: SearchSpace, networks: Collection[_Forms]) -> None:
    """A part is there with all its layers, sums apart, or it is not there at all."""
    kept = [{name for name, form in n.items() if form.layer.kind is not LayerKind.ADD} for n in networks]
    whole: set[str] = set().union(*kept)
    lacking = next((whole - names for names in kept if names and names != whole), None)
    if lacking:
        raise InvalidRequestError(
            f"networks of space '{space.name}' cannot be given by gates: some have a block without "
            f"'{min(lacking)}', and only whole blocks can be masked out; choose a space whose blocks have "
            "all their layers, such as 'micro'"
        )


def _forms_of_terms(
    layers: Sequence[LayerSpec], owners: Sequence[int | None], num_terms: int
) -> list[_Forms]:
    found: list[_Forms] = [{} for _ in range(num_terms)]
    for (name, form), owner in zip(_named(layers).items(), owners, strict=True):
        if owner is not None:
            found[owner][name] = form
    return found


def _named(layers: Sequence[LayerSpec]) -> _Forms:
    return {
        layer.name: _Form(layer, tuple(layers[source].name for source in layer.inputs if source != IMAGE))
        for layer in layers
    }


def _with_all_sums(largest: _Forms, terms: Sequence[_Term]) -> _Forms:
    """The layers of the largest network, and the sums that only narrower ones have."""
    forms = dict(largest)
    for name, form, peers in _missing(forms, terms):
        source, branch = form.inputs
        twin = next(peer for peer in peers if peer != name and peers[peer].inputs[:1] == (source,))
        channels = forms[branch].layer.out_channels
        layer = replace(form.layer, in_channels=channels, out_channels=channels)
        forms = _inserted(forms, name, _Form(layer, (*forms[twin].inputs[:1], branch)))
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


def _inserted(forms: _Forms, name: str, form: _Form) -> _Forms:
    """`form` right after its branch; what read the branch reads it instead."""
    branch = form.inputs[1]
    result: _Forms = {}
    for other, its_form in forms.items():
        inputs = tuple(name if source == branch else source for source in its_form.inputs)
        result[other] = _Form(its_form.layer, inputs)
        if other == branch:
            result[name] = form
    return result


def _positioned(forms: _Forms) -> tuple[LayerSpec, ...]:
    position = {name: number for number, name in enumerate(forms)}
    return tuple(
        replace(form.layer, inputs=tuple(position[source] for source in form.inputs) or (IMAGE,))
        for form in forms.values()
    )


def _gating(space: SearchSpace, terms: Sequence[_Term], name: str, form: _Form) -> _Gating:
    term = next(t for t in terms if any(name in forms for forms in t.entries.values()))
    layer = form.layer
    if layer.kind is LayerKind.ADD:
        return _gating_of_sum(space, term, name, branch=form.inputs[1])
    if layer.kind not in (LayerKind.CONV, LayerKind.LINEAR):
        return _Gating()
    return _gating_of_weights(space, term, layer)


def _gating_of_weights(space: SearchSpace, term: _Term, layer: LayerSpec) -> _Gating:
    def channels(combination: Combination) -> list[float]:
        num_read = term.form(layer.name, combination).layer.in_channels
        return [float(channel < num_read) for channel in range(layer.in_channels)]

    def kernel(combination: Combination) -> list[float]:
        chosen = term.form(layer.name, combination).layer.kernel
        return [float(kernel == chosen) for kernel in sizes]

    sizes = sorted({term.form(layer.name, c).layer.kernel for c in product(*term.options)})
    mixes_channels = layer.groups == 1
    read = gate_table(space, term.decisions, channels) if mixes_channels else None
    return _Gating(
        read_channels=_unless_constant(read),
        kernels=_unless_constant(gate_table(space, term.decisions, kernel)),
        kernel_forms=tuple(replace(layer, kernel=size) for size in sizes),
    )


def _gating_of_sum(space: SearchSpace, term: _Term, name: str, *, branch: str) -> _Gating:
    """Without its block a sum passes on its first input, without its shortcut the second."""

    def has_branch(combination: Combination) -> list[float]:
        return [float(term.has(branch, combination))]

    def has_shortcut(combination: Combination) -> list[float]:
        return [float(term.has(name, combination) or not term.has(branch, combination))]

    return _Gating(
        shortcut=_unless_constant(gate_table(space, term.decisions, has_shortcut)),
        branch=_unless_constant(gate_table(space, term.decisions, has_branch)),
    )


def _unless_constant(table: GateTable | None) -> GateTable | None:
    return None if table is None or table.is_constant else table


def _on(like: Tensor, gating: _Gating) -> _Gating:
    tables = ("read_channels", "kernels", "shortcut", "branch")
    moved = {name: table.to(like) for name in tables if (table := getattr(gating, name)) is not None}
    return replace(gating, **moved)
