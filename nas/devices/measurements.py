"""Reads what a probe wrote: a latency table of blocks, and whole networks to fit a model to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.devices.blocks import FusedBlock
from nas.devices.device import Device
from nas.devices.fitting import MeasuredNetworks
from nas.devices.parts import NetworkBlocks
from nas.devices.table import InvalidTableError, LatencyTable
from nas.errors import NasError
from nas.space import SearchSpace

SCHEMA = 1
LEAST_MS = 1e-4
"""What a block is said to take that is as quick as an empty call: not nothing."""
_DEVICE = ("runtime", "threads", "batch", "dtype")


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """One run of the probe."""

    table: LatencyTable
    """Base: an empty call. Rows: what a block takes beyond that."""
    networks: MeasuredNetworks
    again: MeasuredNetworks
    """The same networks in the second pass."""
    repeatability: Mapping[str, Any]


def read_measurements(lines: Iterable[str], space: SearchSpace) -> Measurements:
    """The measurements that the probe's JSON lines hold.

    Raises InvalidTableError where they are not of this space or not the probe's, InvalidRequestError for rows
    with impossible values.
    """
    header, *rows = [_object(line) for line in lines if line.strip()] or [{}]
    if header.get("schema") != SCHEMA or header.get("space") != space.name:
        raise InvalidTableError(
            f"the measurements are not of schema {SCHEMA} and space '{space.name}'; "
            "send the file that probe.py wrote for this space"
        )
    try:
        device = Device(name=header["device"], **{name: header[name] for name in _DEVICE})
        reader = NetworkBlocks.of(space, num_classes=header["num_classes"], in_channels=header["in_channels"])
        (empty,) = [row for row in rows if row["kind"] == "empty"]
        return Measurements(
            table=_table(device, header, float(empty["p50_ms"]), rows),
            networks=_networks(device, reader, [row for row in rows if row["kind"] == "network"]),
            again=_networks(device, reader, [row for row in rows if row["kind"] == "network_again"]),
            repeatability=header["repeatability"],
        )
    except NasError:
        raise
    except KeyError as missing:
        raise InvalidTableError(
            f"the measurements lack {missing}; send the file as probe.py wrote it"
        ) from None
    except (TypeError, ValueError) as error:
        raise InvalidTableError(
            f"the measurements are not as the probe writes them ({error}); send its file unchanged"
        ) from None


def _table(
    device: Device, header: Mapping[str, Any], empty_ms: float, rows: Sequence[Mapping[str, Any]]
) -> LatencyTable:
    blocks = [row for row in rows if row["kind"] == "block"]
    # By way of the table's own reading, so that what is refused there is refused here.
    device_fields = device.to_json()
    head = {"schema": SCHEMA, "device": device_fields.pop("name"), **device_fields}
    lines = [{**head, "base_ms": empty_ms, "tools": header["tools"]}]
    for row in blocks:
        net_ms = max(LEAST_MS, row["p50_ms"] - empty_ms)
        lines.append({**FusedBlock.from_json(row).to_json(), "p50_ms": net_ms})
    return LatencyTable.parse(json.dumps(line) for line in lines)


def _networks(device: Device, reader: NetworkBlocks, rows: Sequence[Mapping[str, Any]]) -> MeasuredNetworks:
    space = reader.space
    return MeasuredNetworks(
        device=device,
        networks=reader,
        codes=space.encode([space.parse(row["architecture"]) for row in rows]),
        latency_ms=np.array([row["p50_ms"] for row in rows], dtype=np.float64),
    )


def _object(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    # Python reads nested text by recursion, and gives up at some depth.
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidTableError(
            "a line of the measurements is no JSON object; send the file as it was written"
        )
    return content
