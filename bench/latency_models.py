"""Latency models of devices that are made up, one of each form that a fit may choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nas.devices.accuracy import Accuracy
from nas.devices.basis import Basis, block_figures
from nas.devices.boosting import grow_trees
from nas.devices.device import Device
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.devices.residual import Interactions, ResidualInputs, chosen_options
from nas.devices.table import LatencyTable

_FITTED_TO = 60
"""Networks."""
_FACTOR = 0.05
"""Standard deviation of the logarithm that interactions and trees are fitted to, which is noise."""


def made_up_models(networks: NetworkBlocks) -> Iterator[tuple[str, LatencyModel]]:
    """By form: a sum over blocks, that with interactions, that with trees; the same ones each time."""
    times = {block: 0.01 + 2e-7 * block.macs for block in networks.distinct()}
    device = Device(name="additive", runtime="made_up")
    table = LatencyTable(device=device, base_ms=0.05, rows=times)
    plain = LatencyModel.of_table(table)
    nothing = Accuracy(num_networks=2, mape=0.0, hit_rate=1.0, spearman=1.0)
    yield "additive", replace(plain, accuracy=nothing)
    rng = np.random.default_rng(0)
    codes = np.stack(
        [rng.integers(len(d.options), size=_FITTED_TO) for d in networks.space.decisions], axis=1
    )
    factor = np.exp(_FACTOR * rng.standard_normal(_FITTED_TO))
    inputs = ResidualInputs(
        networks.sums(codes, block_figures(Basis.WORK).values), chosen_options(networks.space, codes)
    )
    for name, residual in (
        ("interactions", Interactions.fit(inputs, np.log(factor), strength=0.3)),
        ("trees", grow_trees(inputs, np.log(factor), seed=0)),
    ):
        own = Device(name=name, runtime="made_up")
        model = replace(
            plain, device=own, table=replace(table, device=own), residual=residual, accuracy=nothing
        )
        yield f"with {name}", model
