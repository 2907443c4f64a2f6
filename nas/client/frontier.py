"""A frontier: a list of measured networks that can also be read as a table."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any, TypeVar

from nas.client.errors import ClientError

PointT = TypeVar("PointT", bound=Mapping[str, Any])


class Frontier(list[PointT]):
    """Measured networks by rising cost, none of which another beats in every objective."""

    def to_dataframe(self) -> Any:
        """A pandas data frame: a row a network, its costs and accuracy in columns, in the list's order.

        `accuracy_val` lies between 0 and 1, with its 95 % interval in `accuracy_val_low` and `_high`;
        `frontier_probability` is how surely the network is on the frontier.

        Where a device was named, `latency_ms_predicted` is what its model says of every network, and
        `latency_ms_measured` what a probe measured of those that it ran, with the device at
        `device_speed_when_measured` times the speed that predictions are of; NaN where that is not known.
        """
        try:
            import pandas  # only here: the client does without it otherwise
        except ImportError as error:
            raise ClientError(
                "a data frame needs pandas, which is not installed here; run: pip install pandas. "
                "Without it, the frontier is a list of mappings"
            ) from error
        return pandas.DataFrame([_row(point) for point in self], columns=_columns(self))


def _row(point: Mapping[str, Any]) -> dict[str, Any]:
    low, high = point["accuracy_val"]["interval_95"]
    found = {name: point[name] for name in _IDENTITY if name in point}
    figures = {
        "accuracy_val": point["accuracy_val"]["value"],
        "accuracy_val_low": low,
        "accuracy_val_high": high,
        "num_images_val": point["accuracy_val"]["num_images"],
        "frontier_probability": point["frontier_probability"],
    }
    if point.get("latency_ms") is not None:
        figures |= _latency(point["latency_ms"])
    return {**found, **figures, **point["costs"], "architecture": point["architecture"]}


def _latency(figure: Mapping[str, Any]) -> dict[str, float]:
    """The predicted and the measured one, each under a name that says which; unknown ones are NaN."""
    measured: Mapping[str, Any] = figure.get("measurement") or {}
    return {
        "latency_ms_predicted": figure["value"],
        "latency_ms_measured": _number(measured.get("value")),
        "device_speed_when_measured": _number(measured.get("speed")),
    }


def _number(value: float | None) -> float:
    return nan if value is None else float(value)


_IDENTITY = ("number", "architecture_key")
_COLUMNS = (
    "architecture_key",
    "accuracy_val",
    "accuracy_val_low",
    "accuracy_val_high",
    "num_images_val",
    "frontier_probability",
)


def _columns(points: list[PointT]) -> list[str]:
    """Those of the first row; an empty frontier has the columns that every one has."""
    return list(_row(points[0])) if points else list(_COLUMNS)
