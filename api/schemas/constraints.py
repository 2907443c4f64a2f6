"""Constraints: upper bounds on costs, as numbers or as percentages of the largest network's."""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from api.schemas.common import RequestModel

_PERCENT = re.compile(r"\s*\d{1,3}(\.\d{0,9})?\s*%\s*", re.ASCII)


def _check_bound(value: Any) -> Any:
    """The shape of a bound alone; what it means for a space, `nas.search.constraints` says."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value >= 0 and _is_finite(value):
        return value
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return value
    raise ValueError("not a number of at least 0, nor a percentage of the largest network's like '60%'")


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:
        return False


Bound = Annotated[Any, PlainValidator(_check_bound, json_schema_input_type=float | str)]


class Constraints(RequestModel):
    """Upper bounds; a network on a bound keeps it."""

    max_macs: Bound | None = Field(default=None, description="A number, or '60%' of the largest network's.")
    max_params: Bound | None = None
    max_size_bytes: Bound | None = None
    max_peak_activation_bytes: Bound | None = None
    max_latency_ms: Bound | None = Field(default=None, description="On `device`, as it is predicted.")

    def fields(self) -> dict[str, Any]:
        """Those that are given."""
        return self.model_dump(exclude_none=True)
