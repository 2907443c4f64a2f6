"""Bounds: upper limits on costs, read from a request's `max_…` fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidRequestError, UnknownNameError
from nas.search.cost_model import CostModel

_PREFIX = "max_"
NEXT_TO_NOTHING = 1e-100
"""Limits up to here have no ratio, which might be infinite."""

_PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper limits by cost name; a network on the limit keeps it. No entries: every network is allowed."""

    limits: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, fields: Mapping[str, Any], costs: CostModel) -> Bounds:
        """Limits from fields like {"max_macs": 5e6, "max_params": "60%"}; percent of the largest network's.

        Raises InvalidRequestError naming the field, the value, what is allowed and the remedy.
        """
        names = [_cost_name(field, costs) for field in fields]
        limits = [_limit(name, value, costs) for name, value in zip(names, fields.values(), strict=True)]
        return cls(tuple(sorted(zip(names, limits, strict=True))))

    @property
    def names(self) -> tuple[str, ...]:
        """The costs that are limited."""
        return tuple(name for name, _ in self.limits)

    def without(self, name: str) -> Bounds:
        """The limits on the other costs."""
        return Bounds(tuple((other, limit) for other, limit in self.limits if other != name))

    def to_fields(self) -> dict[str, float]:
        """The same limits as a request would give them, percentages resolved."""
        return {field_of(name): limit for name, limit in self.limits}

    def holds(self, costs: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Which networks keep every limit, given arrays by cost name. UnknownNameError for a missing cost."""
        return self.worst_ratio(costs) <= 1.0

    def worst_ratio(self, costs: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """For each network the largest ratio of a cost to its limit: at most 1 exactly where all hold."""
        shape = next(iter(costs.values())).shape if costs else ()
        worst = np.zeros(shape)
        for name, limit in self.limits:
            if name not in costs:
                raise UnknownNameError(f"cost '{name}' is bounded but not given; an unknown cost is not zero")
            np.maximum(worst, _ratio(costs[name], limit), out=worst)
        return worst


def field_of(name: str) -> str:
    """The request's field that limits a cost."""
    return f"{_PREFIX}{name}"


def cost_of(field: str) -> str:
    """The cost that a request's field limits."""
    return field.removeprefix(_PREFIX)


def _ratio(cost: NDArray[Any], limit: float) -> NDArray[np.float64]:
    numbers = np.asarray(cost, dtype=np.float64)
    # Without a ratio, what counts is that costs above the limit come out above 1, and the more the worse.
    ratio = numbers / limit if limit > NEXT_TO_NOTHING else 1.0 + numbers
    # Division may round a cost just above its limit to 1.
    return np.where(numbers <= limit, np.minimum(ratio, 1.0), np.maximum(ratio, np.nextafter(1.0, 2.0)))


def _cost_name(field: str, costs: CostModel) -> str:
    allowed = [field_of(name) for name in costs.names]
    if field not in allowed:
        raise InvalidRequestError(
            f"constraint '{field}' is unknown for space '{costs.space.name}'; "
            f"allowed: {', '.join(allowed)}; correct the name or leave it out"
        )
    return cost_of(field)


def _limit(name: str, value: Any, costs: CostModel) -> float:
    if isinstance(value, str):
        return _share(name, value) * _largest(name, costs)
    number = _number(value)
    if number is None or not isfinite(number) or number < 0:
        raise InvalidRequestError(
            f"{field_of(name)} {value!r} is not a finite number of at least 0, nor a percentage of the "
            "largest network like '60%'; correct it or leave it out for no limit"
        )
    return number


def _number(value: Any) -> float | None:
    # bool is a number in Python, yet nobody means a budget of True.
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _share(name: str, text: str) -> float:
    match = _PERCENT.fullmatch(text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise InvalidRequestError(
            f"{field_of(name)} {text!r} is no percentage above 0% and up to 100% of the largest network; "
            "write one like '60%', or a plain number for an absolute limit"
        )
    return share


def _largest(name: str, costs: CostModel) -> float:
    codes = costs.space.encode([costs.space.largest()])
    return float(costs.batch(codes, [name])[name][0])
