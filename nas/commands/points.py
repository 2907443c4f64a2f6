"""Measured networks as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.commands.session import Columns
from nas.commands.text import NOTHING, count, moment, percent

_USUAL_SPEEDS = (0.98, 1.02)
"""Between them a sitting is as fast as another, by how well figures repeat."""


def accuracy(figure: Mapping[str, Any] | None) -> str:
    """Such as '93.4% (91.0% to 95.2%)': measured, with its 95 % interval."""
    if figure is None:
        return NOTHING
    low, high = figure["interval_95"]
    return f"{percent(figure['value'])} ({percent(low)} to {percent(high)})"


def rate(run: Mapping[str, Any]) -> str:
    """A learning rate, and what became of it where the training diverged: '0.4 (0.2 in the end)'."""
    told = f"{run['learning_rate']:g}"
    factor = run.get("rate_factor", 1)
    return told if factor == 1 else f"{told} ({factor * run['learning_rate']:g} in the end)"


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


def latency(figure: Mapping[str, Any] | None) -> str:
    """Such as '4.81 (predicted, error 2.9%)' or '4.81 (predicted, error 2.9%; measured 4.9)'."""
    if figure is None:
        return NOTHING
    error = "unknown" if figure["mape"] is None else percent(figure["mape"])
    measured = figure.get("measurement")
    told = "" if measured is None else f"; measured {measured['value']:.3g}{_at_speed(measured)}"
    return f"{figure['value']:.3g} (predicted, error {error}{told})"


def _at_speed(measured: Mapping[str, Any]) -> str:
    speed = measured.get("speed")
    low, high = _USUAL_SPEEDS
    if speed is None or low <= speed <= high:
        return ""
    return f" at {speed:.2f} times the speed"


POINT_COLUMNS: Columns = {
    "MACS": lambda point: count(point["costs"]["macs"]),
    "PARAMS": lambda point: count(point["costs"]["params"]),
    "SIZE_BYTES": lambda point: count(point["costs"]["size_bytes"]),
    "PEAK_BYTES": lambda point: count(point["costs"]["peak_activation_bytes"]),
    "ACCURACY ON VAL (95% INTERVAL)": lambda point: accuracy(point["accuracy_val"]),
}


def trained(network: Mapping[str, Any], training: str) -> str:
    """Such as '95.1% at rate 0.05, +1.2 (-0.3 to +2.7)': on test, with the difference in points."""
    found = next((each for each in network["trained"] if each["training"] == training), None)
    if found is None or found["accuracy_test"] is None:
        return NOTHING
    figure, difference = found["accuracy_test"], found["difference_test"]
    low, high = difference["interval_95"]
    points = f"{100 * difference['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{percent(figure['value'])} at rate {found['learning_rate']:g}, {points}"


def with_latency(columns: Columns, points: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns, and one of latencies where a device was named."""
    if not any(point.get("latency_ms") for point in points):
        return columns
    return {**columns, "LATENCY_MS": lambda point: latency(point.get("latency_ms"))}


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

SUPERNET_FRONTIER_COLUMNS: Columns = {
    **POINT_COLUMNS,
    "CHANCE OF BEING ON IT": lambda point: percent(point["frontier_probability"]),
}

FRONTIER_COLUMNS: Columns = {"TRIAL": lambda point: str(point["number"]), **SUPERNET_FRONTIER_COLUMNS}

EVALUATION_COLUMNS: Columns = {**POINT_COLUMNS, "MEASURED": lambda point: moment(point["created_at"])}

FINALIST_COLUMNS: Columns = {
    "TRIAL": lambda point: str(point["number"]),
    **POINT_COLUMNS,
    "ACCURACY ON TEST (95% INTERVAL)": lambda point: accuracy(point["accuracy_test"]),
}

VERIFIED_COLUMNS: Columns = {
    "NETWORK": lambda network: str(network["number"]),
    "TRIAL": lambda network: NOTHING if network["trial_number"] is None else str(network["trial_number"]),
    "MACS": lambda network: count(network["costs"]["macs"]),
    "INHERITED, ON VAL (95% INTERVAL)": lambda network: accuracy(network["accuracy_val"]),
    "INHERITED, ON TEST (95% INTERVAL)": lambda network: accuracy(network["accuracy_test"]),
    "ALONE, ON TEST, AND POINTS MORE": lambda network: trained(network, "alone"),
    "FINE-TUNED, ON TEST, AND POINTS MORE": lambda network: trained(network, "fine_tuned"),
}

RUN_COLUMNS: Columns = {
    "RUN": lambda run: str(run["number"]),
    "NETWORK": lambda run: str(run["network_number"]),
    "TRAINING": lambda run: run["training"],
    "RATE": rate,
    "EPOCHS": lambda run: count(run["epochs"]),
    "STATE": lambda run: run["state"],
    "ACCURACY ON VAL (95% INTERVAL)": lambda run: accuracy(run["accuracy_val"]),
    "CHOSEN": lambda run: "yes" if run["is_chosen"] else NOTHING,
}

ITEM_COLUMNS: Columns = {
    "NETWORK": lambda item: str(item["number"]),
    "STATE": lambda item: " ".join([item["state"], *item["breaks"]]),
    **POINT_COLUMNS,
}
