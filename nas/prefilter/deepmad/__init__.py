"""DeepMAD: networks judged by entropy and effectiveness, with no training; the best of a space, with proof.

`score` reads a network's lowering. `solve` finds a space's best networks under budgets, `cut_options` what
may be left out of it. A higher score is no promise of a higher accuracy: it is a pre-filter.
"""

from nas.prefilter.deepmad.counter import DEEPMAD_FLOPS, backbone_params, deepmad_flops
from nas.prefilter.deepmad.cut import Survivors, cut_options
from nas.prefilter.deepmad.exact import Ranked, Solution, solve
from nas.prefilter.deepmad.program import Demand
from nas.prefilter.deepmad.score import (
    DepthSpread,
    Monotone,
    PenalisedStages,
    ResolutionMode,
    Score,
    ScoreRules,
    is_monotone,
    score,
)
from nas.prefilter.deepmad.structure import BlockKind, Stage, Structure

__all__ = [
    "DEEPMAD_FLOPS",
    "BlockKind",
    "Demand",
    "DepthSpread",
    "Monotone",
    "PenalisedStages",
    "Ranked",
    "ResolutionMode",
    "Score",
    "ScoreRules",
    "Solution",
    "Stage",
    "Structure",
    "Survivors",
    "backbone_params",
    "cut_options",
    "deepmad_flops",
    "is_monotone",
    "score",
    "solve",
]
