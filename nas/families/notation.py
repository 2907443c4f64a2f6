"""What the notations of the papers' code share: lists with a value a slot, unused slots included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.architecture import Value
from nas.errors import InvalidArchitectureError
from nas.space import SearchSpace, Values


def is_written_with(description: Any, *fields: str) -> bool:
    """Whether the description is a mapping with any of these fields: a notation's own."""
    return isinstance(description, Mapping) and any(field in description for field in fields)


def list_of(space: SearchSpace, description: Mapping[str, Any], field: str, length: int) -> Sequence[Any]:
    """The field's list, which must have that length."""
    value: Any = description.get(field)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
        raise InvalidArchitectureError(
            f"'{field}' must be a list of {length} values in space '{space.name}', not {value!r}; "
            f"give one for each, or the choices by the names in SPACES['{space.name}'].decisions"
        )
    return value


def refuse_unknown(description: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses fields that the notation does not have."""
    unknown = sorted(set(map(str, description)) - set(known))
    if unknown:
        raise InvalidArchitectureError(
            f"'{unknown[0]}' is unknown beside {', '.join(known[:-1])} and {known[-1]}"
        )


def active_values(space: SearchSpace, values: Mapping[str, Any], fixed: Mapping[str, Value]) -> Values:
    """Those of `values` that are decisions and active: placeholders (0, say) past a depth are let go.

    `fixed` are the values that are no decision; they may be given, but no others.
    """
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fixed:
            kept[name] = value
        elif value != fixed[name]:
            raise InvalidArchitectureError(
                f"{name} {value!r} is not {fixed[name]!r}, its only value in '{space.name}'"
            )
    for decision in space.decisions:
        condition = decision.active_if
        depth = None if condition is None else kept.get(condition.parent)
        if condition is not None and isinstance(depth, int) and depth < condition.minimum:
            kept.pop(decision.name, None)
    return kept
