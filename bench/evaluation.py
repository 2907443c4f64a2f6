"""Measuring a subnet, recalibration included, against the plain reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bench.paired import time_paired
from bench.reference import ReferenceSupernet, statistics_by_copy
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.network import Supernet
from supernet.training import tune_malloc

NUM_CALIBRATION, NUM_VALIDATION, BATCH_SIZE = 512, 1000, 250


def main(arguments: Sequence[str]) -> None:
    """One thread, 512 calibration and 1,000 validation images, four random networks of `micro`."""
    del arguments
    tune_malloc()
    torch.set_num_threads(1)
    space = SPACES["micro"]
    rng = np.random.default_rng(0)
    networks = [space.sample(rng) for _ in range(4)]
    images = torch.randn(NUM_CALIBRATION + NUM_VALIDATION, 3, 32, 32)
    calibration, validation = images.split([NUM_CALIBRATION, NUM_VALIDATION])
    ours, plain = Supernet(space, num_classes=10).eval(), ReferenceSupernet(space, num_classes=10)

    def measure_ours() -> None:
        for network in networks:
            statistics = recalibrate(ours, network, calibration.split(BATCH_SIZE))
            with torch.no_grad():
                for batch in validation.split(BATCH_SIZE):
                    ours(batch, network, statistics)

    def measure_reference() -> None:
        for network in networks:
            layers = space.lower(network, num_classes=10)
            own = statistics_by_copy(plain, layers, calibration.split(BATCH_SIZE))
            with torch.no_grad():
                for batch in validation.split(BATCH_SIZE):
                    own(batch, layers)

    print(time_paired(measure_ours, measure_reference, pairs=5).line("four subnets of micro, 1 thread"))
