"""Measured networks as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.commands.session import Columns
from nas.commands.text import NOTHING, count, percent


def accuracy(figure: Mapping[str, Any] | None) -> str:
    """Such as '93.4% (91.0% to 95.2%)': measured, with its 95 % interval."""
    if figure is None:
        return NOTHING
    low, high = figure["interval_95"]
    return f"{percent(figure['value'])} ({percent(low)} to {percent(high)})"


POINT_COLUMNS: Columns = {
    "MACS": lambda point: count(point["costs"]["macs"]),
    "PARAMS": lambda point: count(point["costs"]["params"]),
    "SIZE_BYTES": lambda point: count(point["costs"]["size_bytes"]),
    "PEAK_BYTES": lambda point: count(point["costs"]["peak_activation_bytes"]),
    "ACCURACY ON VAL (95% INTERVAL)": lambda point: accuracy(point["accuracy_val"]),
}

PROBE_COLUMNS: Columns = {
    "PROBE": lambda probe: str(probe["number"]),
    "ROLE": lambda probe: probe["role"],
    **POINT_COLUMNS,
    "ON THE FRONTIER": lambda probe: "yes" if probe["is_front"] else NOTHING,
}

FRONTIER_COLUMNS: Columns = {
    "TRIAL": lambda point: str(point["number"]),
    **POINT_COLUMNS,
    "CHANCE OF BEING ON IT": lambda point: percent(point["frontier_probability"]),
}

ITEM_COLUMNS: Columns = {
    "NETWORK": lambda item: str(item["number"]),
    "STATE": lambda item: " ".join([item["state"], *item["breaks"]]),
    **POINT_COLUMNS,
}
