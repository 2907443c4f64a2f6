"""A space small enough to score every network of it, by a formula that shares nothing with the code."""

from itertools import product
from math import log

import numpy as np

from nas.costs import batch_costs
from nas.families.mbconv import MBConvSpace, Stage
from nas.layers import Act

SMALL = MBConvSpace(
    name="deepmad_small",
    resolutions=(24, 32),
    stem_widths=(16,),
    stem_stride=2,
    stages=tuple(
        Stage(
            name=f"stage{number}",
            widths=widths,
            stride=stride,
            depths=depths,
            kernels=(3, 5),
            expansions=(2, 4),
            has_squeeze_excite=number == 3,
            act=Act.RELU,
        )
        for number, (widths, stride, depths) in enumerate(
            [((16,), 1, (1, 2, 3)), ((24, 32), 2, (1, 2, 3)), ((40,), 2, (1, 2))], start=1
        )
    ),
    head_width=128,
)
"""564,480 networks, with every kind of decision."""


class Census:
    """Every network of SMALL, scored by a formula of its own that knows neither lowering nor tables."""

    def __init__(self):
        self.codes = np.concatenate(list(all_codes(SMALL)))
        values = {
            decision.name: np.array(decision.options)[self.codes[:, column]]
            for column, decision in enumerate(SMALL.decisions)
        }
        count = len(self.codes)
        side, width = values["resolution"] // 2, np.full(count, 16)
        log_widths, num_convs = np.full(count, log(27)), np.ones(count)
        self.entropy, self.effectiveness = np.zeros(count), np.zeros(count)
        depths = []
        for stage in SMALL.stages:
            if stage.stride == 2:
                self._tap(1.0, width, side, log_widths, num_convs)
                side = -(-side // 2)
            depth = values[f"{stage.name}.depth"]
            depths.append(depth)
            wide = values.get(f"{stage.name}.width", np.full(count, stage.widths[0]))
            for block in range(1, max(stage.depths) + 1):
                kernel, expansion = (
                    values[f"{stage.block(block)}.{choice}"] for choice in ("kernel", "expansion")
                )
                there = depth >= block
                # All products of these widths and expansions are multiples of 8 already.
                log_widths = log_widths + there * np.log(width * kernel**2 * (width * expansion))
                num_convs = num_convs + 3 * there
                width = np.where(there, wide, width)
        self._tap(8.0, np.full(count, 128), side, log_widths + np.log(width), num_convs + 1)
        self.depth_std = np.std(np.stack(depths), axis=0)
        self.objective = self.entropy - 10 * np.exp(self.depth_std)
        self.costs = batch_costs(SMALL, self.codes, names=("macs", "params"))

    def _tap(self, weight, width, side, log_widths, num_convs):
        self.entropy += weight * np.log(width * side.astype(float) ** 2) * log_widths / 2
        self.effectiveness = np.maximum(self.effectiveness, num_convs * np.exp(-log_widths / num_convs))

    def keeps(self, demand):
        """Which networks keep the demand."""
        kept = np.ones(len(self.codes), dtype=bool)
        for name, limit in demand.budgets.items():
            kept &= self.costs[name] <= limit
        if demand.max_effectiveness is not None:
            kept &= self.effectiveness <= demand.max_effectiveness
        return kept


def all_codes(space):
    """Option indices of every network once: inactive decisions are 0."""
    depths = [i for i, d in enumerate(space.decisions) if d.name.endswith(".depth")]
    for chosen in product(*(range(len(space.decisions[i].options)) for i in depths)):
        given = [space.decisions[i] for i in depths]
        values = {d.name: d.options[c] for d, c in zip(given, chosen, strict=True)}
        sizes = []
        for decision in space.decisions:
            if decision.name in values:
                sizes.append([decision.options.index(values[decision.name])])
            elif decision.active_if and values[decision.active_if.parent] < decision.active_if.minimum:
                sizes.append([0])
            else:
                sizes.append(list(range(len(decision.options))))
        grid = np.meshgrid(*sizes, indexing="ij")
        yield np.stack([axis.ravel() for axis in grid], axis=1)
