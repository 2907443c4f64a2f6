"""What is sent of devices: latency tables and a probe's figures, as JSON lines; times follow a law."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.devices.device import Device
from nas.devices.parts import NetworkBlocks
from nas.devices.table import LatencyTable
from tests.api.worker import CONTENTS, SPACE
from tests.devices.laws import block_ms

HOST = Device(name="host", runtime="onnxruntime")
NETWORKS = NetworkBlocks.of(SPACE, num_classes=CONTENTS.num_classes, in_channels=CONTENTS.in_channels)
"""As the played worker's supernets have them."""
BASE_MS = 0.25


def table_of(networks: NetworkBlocks = NETWORKS, device: Device = HOST, scale: float = 1.0) -> LatencyTable:
    """Of every block of the space."""
    blocks = networks.distinct()
    times = scale * block_ms(blocks)[:, 0]
    return LatencyTable(
        device=device,
        base_ms=BASE_MS,
        rows=dict(zip(blocks, times.tolist(), strict=True)),
        tools={"onnxruntime": "1"},
    )


def text_of(table: LatencyTable) -> str:
    return "\n".join(table.lines())


def probe_lines(
    *,
    networks: NetworkBlocks = NETWORKS,
    device: Device = HOST,
    count: int = 40,
    with_blocks: bool = True,
    factor: float = 0.7,
    noise: float = 0.01,
    asked_for: bool = False,
    sentinel_ms: float | None = None,
) -> list[str]:
    """A probe's figures: a network takes 0.25 ms and `factor` times what its blocks take alone.

    Without a sentinel they are of a probe of before it was told.
    """
    space, rng = networks.space, np.random.default_rng(0)
    chosen = sorted({space.sample(rng) for _ in range(2 * count)}, key=lambda network: network.key)[:count]
    sums = networks.sums(space.encode(chosen), block_ms)[:, 0]
    head = {
        "schema": 1,
        "device": device.name,
        **{name: getattr(device, name) for name in ("runtime", "threads", "batch", "dtype")},
        "tools": {"onnxruntime": "1"},
        "repeatability": {"agreeing": 0.99, "median_apart": 0.01, "num_models": count},
        "space": space.name,
        "num_classes": networks.num_classes,
        "in_channels": networks.in_channels,
    }
    if sentinel_ms is not None:
        head |= {"sentinel": {"architecture": space.smallest().to_json()}, "sentinel_ms": sentinel_ms}
    told = {"asked_for": True} if asked_for else {}
    rows = [{"kind": "empty", "p50_ms": 0.001}]
    if with_blocks:
        blocks = networks.distinct()
        rows += [
            {"kind": "block", **block.to_json(), "p50_ms": 0.001 + milliseconds}
            for block, milliseconds in zip(blocks, block_ms(blocks)[:, 0].tolist(), strict=True)
        ]
    for kind in ("network", "network_again"):
        times = (BASE_MS + factor * sums) * np.exp(noise * rng.standard_normal(len(chosen)))
        rows += [
            {"kind": kind, "architecture": network.to_json(), **told, "p50_ms": milliseconds}
            for network, milliseconds in zip(chosen, times.tolist(), strict=True)
        ]
    return [json.dumps(line) for line in (head, *rows)]


def probe_lines_of(architectures: Sequence[Mapping[str, Any]], **told: Any) -> list[str]:
    """Those of a sitting that measured these networks alone, in both passes, and no blocks."""
    lines = [json.loads(line) for line in probe_lines(count=len(architectures), with_blocks=False, **told)]
    for kind in ("network", "network_again"):
        rows = [line for line in lines if line.get("kind") == kind]
        for row, architecture in zip(rows, architectures, strict=True):
            row["architecture"] = architecture
    return [json.dumps(line) for line in lines]
