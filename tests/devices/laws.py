"""Times of networks that follow a law, so that what a fit finds can be held against it."""

from __future__ import annotations

import numpy as np

from nas.devices.device import Device
from nas.devices.fitting import MeasuredNetworks
from nas.devices.parts import NetworkBlocks

DEVICE = Device(name="made_up", runtime="law")


def block_ms(blocks):
    """Milliseconds of each block, shape (n, 1)."""
    return np.array([[0.01 + 2e-6 * b.macs * (3 if b.op == "depthwise" else 1)] for b in blocks])


def drawn_codes(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(len(d.options), size=count) for d in space.decisions], axis=1)


def measured(space, count, *, noise=0.0, factor=None, seed=0):
    """Networks whose times are 0.3 ms and their blocks', times `factor` of the codes, and noise."""
    networks, codes = NetworkBlocks.of(space), drawn_codes(space, count, seed)
    times = 0.3 + networks.sums(codes, block_ms)[:, 0]
    if factor is not None:
        times = times * factor(codes)
    disturbance = np.exp(noise * np.random.default_rng(seed + 1).standard_normal(count))
    return MeasuredNetworks(device=DEVICE, networks=networks, codes=codes, latency_ms=times * disturbance)
