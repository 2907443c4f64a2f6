"""DeepMAD's score: entropy over five taps, effectiveness, and the penalty on uneven depths.

H = Σ α_i · ln(c_i · r_i²) · S_i, where c_i and r_i are channels and side at tap i, S_i the entropy of all
blocks up to it, and α is 1 but 8 at the output. The objective is H less `penalty_weight` · exp(spread of
depths). Effectiveness is depth over geometric-mean width, the largest over the taps.

Source: DeepMAD (Shen et al., CVPR 2023) as its public code runs it. Where the two
differ `ScoreRules` has a switch, and the code's way is the default but for one: `ResolutionMode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import exp, inf, log

import numpy as np

from nas.layers import LayerSpec
from nas.prefilter.deepmad.backbone import Backbone, Tap, trace_backbone


class DepthSpread(StrEnum):
    """What the penalty takes the exponential of."""

    STANDARD_DEVIATION = "standard_deviation"
    """As the public code has it."""
    VARIANCE = "variance"
    """As the paper has it; the published R18 would score −2.3e7."""
    NONE = "none"
    """No penalty."""


class PenalisedStages(StrEnum):
    """Whose depths are compared."""

    OFFICIAL = "official"
    """All; in networks of bottlenecks the last three alone, as the public code has it."""
    ALL = "all"


class ResolutionMode(StrEnum):
    """Which side of the map a tap is taken to have."""

    TRUE = "true"
    OFFICIAL = "official"
    """1 behind any squeeze-excite, which is what the public code has there."""


class Monotone(StrEnum):
    """Which widths must not fall from stage to stage."""

    NONE = "none"
    OUT = "out"
    """Those of the blocks' outputs. The published R18 and R34 do not keep it."""
    INNER = "btn"
    """Those inside the blocks. All published networks keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRules:
    """The switches of the score."""

    last_tap_weight: float = 8.0
    """α of the output; that of every other tap is 1."""
    spread: DepthSpread = DepthSpread.STANDARD_DEVIATION
    penalty_weight: float = 10.0
    penalised_stages: PenalisedStages = PenalisedStages.OFFICIAL
    resolution_mode: ResolutionMode = ResolutionMode.TRUE

    def tap_weights(self, num_taps: int) -> tuple[float, ...]:
        """α, one a tap."""
        return (*[1.0] * (num_taps - 1), self.last_tap_weight)

    def log_size(self, tap: Tap) -> float:
        """ln(channels · side²) of a tap."""
        if self.resolution_mode is ResolutionMode.OFFICIAL and tap.is_behind_squeeze_excite:
            return log(tap.channels)
        return tap.log_size

    def num_penalised(self, num_stages: int, *, has_depthwise: bool) -> int:
        """How many of the last stages the penalty looks at."""
        if self.penalised_stages is PenalisedStages.ALL or has_depthwise:
            return num_stages
        return min(3, num_stages)

    def penalty(self, depths: Sequence[int]) -> float:
        """What uneven depths cost, of the stages that the penalty looks at; inf where it overflows."""
        if self.spread is DepthSpread.NONE:
            return 0.0
        variance = float(np.var(depths))
        power = variance if self.spread is DepthSpread.VARIANCE else variance**0.5
        return self.penalty_weight * exp(power) if power < 700 else inf


@dataclass(frozen=True, slots=True)
class Score:
    """What DeepMAD says of one network."""

    tap_entropies: tuple[float, ...]
    """ln(c_i · r_i²) · S_i, one a tap, unweighted."""
    entropy: float
    """H, their weighted sum."""
    tap_effectiveness: tuple[float, ...]
    """Depth over geometric-mean width up to each tap."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    penalty: float

    @property
    def effectiveness(self) -> float:
        """ρ, the largest over the taps; DeepMAD bounds it by 0.3 to 0.5."""
        return max(self.tap_effectiveness)

    @property
    def objective(self) -> float:
        """Entropy less penalty: what DeepMAD maximises."""
        return self.entropy - self.penalty


def score(layers: Sequence[LayerSpec], rules: ScoreRules | None = None) -> Score:
    """The score of a network given by its lowering; None takes the default rules.

    Raises InvalidRequestError for a network that is not made of residual blocks.
    """
    rules = ScoreRules() if rules is None else rules
    backbone = trace_backbone(layers)
    entropies, effectiveness = [], []
    log_width, num_convs = 0.0, 0
    # One entry more than the steps have taps: the output is read behind them all.
    for tap, log_width, num_convs in _running_sums(backbone):
        entropies.append(rules.log_size(tap) * log_width / 2)
        effectiveness.append(num_convs * exp(-log_width / num_convs))
    depths = tuple(backbone.depths.values())
    penalised = rules.num_penalised(len(depths), has_depthwise=backbone.has_depthwise)
    weights = rules.tap_weights(len(entropies))
    return Score(
        tap_entropies=tuple(entropies),
        entropy=sum(weight * entropy for weight, entropy in zip(weights, entropies, strict=True)),
        tap_effectiveness=tuple(effectiveness),
        depths=depths,
        penalty=rules.penalty(depths[len(depths) - penalised :]),
    )


def _running_sums(backbone: Backbone) -> list[tuple[Tap, float, int]]:
    """For each tap the sum of ln width and the number of convolutions before it."""
    sums = []
    log_width, num_convs = 0.0, 0
    for step in backbone.steps:
        if step.tap is not None:
            sums.append((step.tap, log_width, num_convs))
        log_width += step.log_width
        num_convs += int(step.is_conv)
    return [*sums, (backbone.output, log_width, num_convs)]


def needed_log_width(num_convs: float, max_effectiveness: float) -> float:
    """The least Σ ln width at which `num_convs` convolutions have at most this effectiveness.

    ρ = l · exp(−Σ / l) ≤ ρ0 exactly where Σ ≥ l · ln(l / ρ0): linear in Σ for a fixed depth, convex in l.
    """
    return num_convs * log(num_convs / max_effectiveness) if num_convs > 0 else 0.0


def is_monotone(layers: Sequence[LayerSpec], monotone: Monotone) -> bool:
    """Whether the widths that `monotone` names never fall from one stage to the next."""
    if monotone is Monotone.NONE:
        return True
    widths: dict[str, int] = {}
    for step in trace_backbone(layers).steps:
        if step.stage is None or not step.is_conv:
            continue
        if monotone is Monotone.OUT:
            widths[step.stage] = step.layer.out_channels
        else:
            widths.setdefault(step.stage, step.layer.out_channels)
    return all(earlier <= later for earlier, later in pairwise(widths.values()))
