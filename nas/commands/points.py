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


def predicted(figure: Mapping[str, Any] | None) -> str:
    """Such as '93.1% (90.2% to 96.0%)': expected, with its 90 % interval where there is one."""
    if figure is None:
        return NOTHING
    if figure["interval_90"] is None:
        return percent(figure["value"])
    low, high = figure["interval_90"]
    return f"{percent(figure['value'])} ({percent(low)} to {percent(high)})"


def _quality(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return found["predictor"] or {}


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


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

TRIAL_COLUMNS: Columns = {
    "TRIAL": lambda trial: str(trial["number"]),
    "ROUND": lambda trial: str(trial["round"]),
    "ORIGIN": lambda trial: trial["origin"] or NOTHING,
    "MACS": lambda trial: count(trial["costs"]["macs"]),
    "PARAMS": lambda trial: count(trial["costs"]["params"]),
    "PREDICTED BEFORE (90% INTERVAL)": lambda trial: predicted(trial["predicted_accuracy_val"]),
    "MEASURED ON VAL (95% INTERVAL)": lambda trial: accuracy(trial["accuracy_val"]),
}

ROUND_COLUMNS: Columns = {
    "ROUND": lambda found: str(found["number"]),
    "TRIALS": lambda found: count(found["num_trials"]),
    "MEASURED": lambda found: count(found["num_measured"]),
    "HYPERVOLUME": lambda found: f"{found['hypervolume']:.6g}",
    "PREDICTED": lambda found: count(_quality(found).get("num_forecasts")),
    "INTERVALS HELD": lambda found: percent(_quality(found).get("coverage_90")),
    "TAU WITHIN BINS": lambda found: _figure(_quality(found).get("within_bin_tau")),
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
