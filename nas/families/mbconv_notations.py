"""How the code of Once-for-All and of AttentiveNAS writes an architecture of inverted-residual blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.families.notation import active_values, is_written_with, list_of, refuse_unknown
from nas.space import Values

if TYPE_CHECKING:
    from nas.families.mbconv import MBConvSpace

_ONCE_FOR_ALL = ("ks", "e", "d", "r", "w")
_ATTENTIVE_NAS = ("resolution", "width", "kernel_size", "expand_ratio", "depth")


def once_for_all_values(space: MBConvSpace, description: Any) -> Values | None:
    """Of {"ks", "e", "d", "r"}: a kernel and an expansion for each block, a depth for each stage.

    Spaces with elastic width add "w", one a stage; without "r" the resolution is the largest.
    """
    if not is_written_with(description, "ks"):
        return None
    stages = [s for s in space.stages if max(s.depths) > 1]
    slots = sum(max(s.depths) for s in stages)
    kernels = list_of(space, description, "ks", slots)
    expansions = list_of(space, description, "e", slots)
    depths = list_of(space, description, "d", len(stages))
    values: dict[str, Any] = {"resolution": description.get("r", space.resolutions[-1])}
    if any(len(s.widths) > 1 for s in stages):
        for stage, width in zip(stages, list_of(space, description, "w", len(stages)), strict=True):
            values[f"{stage.name}.width"] = width
    first = 0
    for stage, depth in zip(stages, depths, strict=True):
        values[f"{stage.name}.depth"] = depth
        for block in range(1, max(stage.depths) + 1):
            values[f"{stage.block(block)}.kernel"] = kernels[first + block - 1]
            values[f"{stage.block(block)}.expansion"] = expansions[first + block - 1]
        first += max(stage.depths)
    refuse_unknown(description, _ONCE_FOR_ALL)
    return active_values(space, values, space.fixed)


def attentive_nas_values(space: MBConvSpace, description: Any) -> Values | None:
    """Of {"resolution", "width", "kernel_size", "expand_ratio", "depth"}: one of each a stage.

    "width" has two more, that of the stem before and that of the last convolution after the stages'.
    """
    if not is_written_with(description, *_ATTENTIVE_NAS[1:]):
        return None
    names = [stage.name for stage in space.stages]
    refuse_unknown(description, _ATTENTIVE_NAS)
    values: dict[str, Any] = _given(description, "resolution")
    for field, kind, owners in (
        ("width", "width", ["stem", *names, "head"]),
        ("kernel_size", "kernel", names),
        ("expand_ratio", "expansion", names),
        ("depth", "depth", names),
    ):
        for owner, value in zip(owners, list_of(space, description, field, len(owners)), strict=True):
            values[f"{owner}.{kind}"] = value
    return active_values(space, values, space.fixed)


def _given(description: Mapping[str, Any], field: str) -> dict[str, Any]:
    return {field: description[field]} if field in description else {}
