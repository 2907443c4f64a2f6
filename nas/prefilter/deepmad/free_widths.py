"""Networks of bottlenecks with free widths, many at once as arrays: the tasks of DeepMAD's R18 and R34.

A stem convolution and five stages, each with output width, inner width, kernel and depth of its own. The
arrays hold by formula what `Structure.lower` says of one network; tests hold them to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.deepmad.score import Monotone, PenalisedStages, ScoreRules, needed_log_width
from nas.prefilter.deepmad.structure import BlockKind, Stage, Structure

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STEM_LOG_WIDTH = float(np.log(27.0))
"""ln of the width of a 3 × 3 convolution on three channels."""
GENES = 4
"""Numbers for each stage: output width, inner width, kernel, depth. The stem's width comes before them."""
LAST_TAP_WEIGHT = 8.0
PENALTY_WEIGHT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeTask:
    """What may be chosen, and what must be kept. Widths are multiples of 8."""

    max_flops: float
    """By DeepMAD's counter."""
    max_params: float
    """Of the backbone."""
    max_effectiveness: float
    resolution_px: int = 224
    strides: tuple[int, ...] = (2, 2, 2, 1, 2)
    max_stem: int = 32
    max_width: int = 2048
    min_depths: tuple[int, ...] = (1, 1, 1, 1, 1)
    max_depths: tuple[int, ...] = (3, 30, 30, 30, 30)
    penalised_stages: PenalisedStages = PenalisedStages.OFFICIAL
    """Whose depths are to be alike. Officially the first two may be as shallow as they like, and are: the
    best networks found have depth 1 there. `ALL` and `min_depths` close that loophole."""
    kernels: tuple[int, ...] = (3, 5)
    max_growth: int = 4
    """A stage is at most so many times as wide as what it reads."""
    max_narrowing: int = 10
    """A block is inside at most so many times narrower than its output."""
    monotone: Monotone = Monotone.NONE

    @property
    def num_stages(self) -> int:
        """Stages, the stem not counted."""
        return len(self.strides)

    def sides_px(self) -> tuple[int, ...]:
        """Side of the map behind the stem and behind each stage."""
        sides = [-(-self.resolution_px // 2)]
        for stride in self.strides:
            sides.append(-(-sides[-1] // stride))
        return tuple(sides)

    def tap_stages(self) -> tuple[int, ...]:
        """After which stages a tap lies, 0 for the stem; the last stage's output is the last."""
        return (*(i for i, stride in enumerate(self.strides) if stride > 1), self.num_stages)


@dataclass(frozen=True)
class FreeNetworks:
    """Encoded networks, shape (n, 1 + 4 · stages), with what is asked of them as arrays of shape (n,)."""

    task: FreeTask
    codes: Ints | Floats
    """Fractions stand for networks that cannot be built: what a relaxation looks at."""

    def column(self, stage: int, gene: int) -> Floats:
        """Gene of the stage, counted from 1, of every network."""
        return self.codes[:, 1 + GENES * (stage - 1) + gene].astype(np.float64)

    @cached_property
    def objective(self) -> Floats:
        """H less the penalty on the spread of the depths that are to be alike."""
        rules = ScoreRules(penalised_stages=self.task.penalised_stages)
        count = rules.num_penalised(self.task.num_stages, has_depthwise=False)
        penalty: Floats = PENALTY_WEIGHT * np.exp(np.std(self._depths[:, -count:], axis=1))
        return self._entropy - penalty

    @cached_property
    def ratios(self) -> Floats:
        """FLOPs, parameters and effectiveness, each over its limit: shape (n, 3)."""
        task = self.task
        return np.stack(
            [
                self._flops / task.max_flops,
                self._params / task.max_params,
                self._effectiveness / task.max_effectiveness,
            ],
            axis=1,
        )

    @cached_property
    def excess(self) -> Floats:
        """The largest of the ratios; at most 1 where all limits are kept."""
        excess: Floats = self.ratios.max(axis=1)
        return excess

    def structure(self, row: int) -> Structure:
        """One of the networks."""
        code = [int(number) for number in self.codes[row].tolist()]
        stages = [Stage(kind=BlockKind.CONV, out_channels=code[0], kernel=3, stride=2)]
        for number, stride in enumerate(self.task.strides):
            out, inner, kernel, depth = code[1 + GENES * number : 1 + GENES * (number + 1)]
            stages.append(
                Stage(
                    kind=BlockKind.BOTTLENECK, out_channels=out, inner_channels=inner, kernel=kernel,
                    stride=stride, depth=depth,
                )
            )  # fmt: skip
        return Structure(stages=tuple(stages), resolution_px=self.task.resolution_px)

    @property
    def _depths(self) -> Ints | Floats:
        return self.codes[:, 4::GENES]

    @property
    def _entropy(self) -> Floats:
        return self._sums[0]

    @property
    def _effectiveness(self) -> Floats:
        return self._sums[1]

    @property
    def _flops(self) -> Floats:
        return self._sums[2]

    @property
    def _params(self) -> Floats:
        return self._sums[3]

    @cached_property
    def _sums(self) -> tuple[Floats, Floats, Floats, Floats]:
        task, sides, taps = self.task, self.task.sides_px(), self.task.tap_stages()
        width = self.codes[:, 0].astype(np.float64)
        area = float(sides[0] ** 2)
        log_width, num_convs = np.full(len(width), STEM_LOG_WIDTH), np.ones(len(width))
        flops, params = 30 * width * area, 29 * width
        entropy, effectiveness = np.zeros(len(width)), np.zeros(len(width))
        for stage in range(task.num_stages + 1):
            if stage > 0:
                out, inner, kernel, depth = (self.column(stage, gene) for gene in range(GENES))
                area_in, area = area, float(sides[stage] ** 2)
                is_pooled = task.strides[stage - 1] > 1
                more = depth - 1
                flops = flops + inner * (width + 3) * area_in + width * area_in * is_pooled
                flops += area * (
                    depth * (inner * (inner * kernel**2 + out + 3) + 3 * out)
                    + width * out + 3 * out + more * inner * (out + 3)
                )  # fmt: skip
                params = params + depth * (inner * (inner * kernel**2 + out + 4) + 2 * out)
                params += width * inner + width * out + 2 * out + more * out * inner
                log_width = (
                    log_width + np.log(width) + more * np.log(out) + 2 * depth * np.log(inner * kernel)
                )
                num_convs = num_convs + 3 * depth
                width = out
            if stage in taps:
                weight = LAST_TAP_WEIGHT if stage == task.num_stages else 1.0
                entropy += weight * np.log(width * area) * log_width / 2
                effectiveness = np.maximum(effectiveness, num_convs * np.exp(-log_width / num_convs))
        return entropy, effectiveness, flops, params


def tangent(task: FreeTask, num_convs: float) -> tuple[float, float]:
    """Slope and value at 0 of the tangent at `num_convs` of the least Σ ln width that effectiveness allows.

    Convex, so the tangent lies below it at every depth.
    """
    slope = float(np.log(num_convs / task.max_effectiveness)) + 1.0
    return slope, needed_log_width(num_convs, task.max_effectiveness) - slope * num_convs
