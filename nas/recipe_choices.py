"""The closed lists that a recipe chooses from."""

from __future__ import annotations

from enum import StrEnum


class RecipeName(StrEnum):
    """The recipes of `RECIPES`."""

    BIGNAS = "bignas"
    """The sandwich rule with in-place distillation (Yu et al. 2020)."""
    SPOS = "spos"
    """One uniformly drawn network a step (Guo et al. 2020)."""
    OFA = "ofa"
    """Progressive shrinking with a frozen teacher (Cai et al. 2020)."""
    DEPS = "deps"
    """Delayed shrinking with an epsilon ramp (DεpS, 2024)."""
    PANDA = "panda"
    """Paths and images drawn by the norms of their gradients (PA&DA, Lu et al. 2023)."""
    SHIFTNAS = "shiftnas"
    """Costs drawn from learned bins, architectures generated for them (ShiftNAS, Zhang et al. 2023)."""
    ATTENTIVE = "attentive"
    """The best of a few candidates in the place of a random network (AttentiveNAS, Wang et al. 2021)."""
    ALPHANET = "alphanet"
    """In-place distillation by the alpha-divergence (AlphaNet, Wang et al. 2021)."""
    HOUSE = "house"
    """The one that ranked networks best where recipes were chosen from: DεpS."""


class OptimizerKind(StrEnum):
    """The update rule."""

    SGD = "sgd"
    """With Nesterov momentum (AttentiveNAS)."""
    RMSPROP = "rmsprop"
    """With momentum (BigNAS)."""


class RatePolicy(StrEnum):
    """The shape of the learning rate after the warm-up."""

    EXPONENTIAL = "exponential"
    """A constant factor a step, then constant at the floor (BigNAS)."""
    COSINE = "cosine"
    """Half a cosine, never below the floor (AttentiveNAS, without a floor)."""
    PHASED = "phased"
    """A warm-up and half a cosine for each phase of a progressive schedule (Once-for-All)."""


class ScheduleKind(StrEnum):
    """Which part of the space is trained when."""

    STATIC = "static"
    """All of it from the first step to the last (BigNAS)."""
    PROGRESSIVE = "progressive"
    """Kernels, then depths, then widths become elastic, in phases (Once-for-All)."""
    DELAYED_EPSILON = "delayed_epsilon"
    """The largest network alone, then all, the others' weight rising slowly (DεpS)."""


class SamplerKind(StrEnum):
    """Which networks one step trains."""

    SANDWICH = "sandwich"
    """The largest, random ones, the smallest."""
    UNIFORM = "uniform"
    """Random ones alone."""


class RandomPathKind(StrEnum):
    """How the random networks of a step are drawn."""

    UNIFORM = "uniform"
    """Every decision uniformly."""
    IMPORTANCE = "importance"
    """Options by the norms of their gradients (PA of PA&DA)."""
    ATTENTIVE = "attentive"
    """The best or worst of a few candidates of one cost (AttentiveNAS)."""
    SHIFT = "shift"
    """A cost from learned bins, then a generated architecture of that cost (ShiftNAS)."""


class AttentionKind(StrEnum):
    """Which candidate attentive sampling trains."""

    BEST_UP = "best_up"
    """That of the smallest loss on the batch."""
    WORST_UP = "worst_up"
    """That of the largest."""


class BinGradientKind(StrEnum):
    """How the bins of shift sampling learn from the change of the loss on images held out."""

    GENERATOR = "generator"
    """Through the generator: the gradient by the drawn bin, at one bin (ShiftNAS)."""
    SCORE = "score"
    """By the change at every bin, which needs no gradient by the cost (a variant)."""


class DataSamplerKind(StrEnum):
    """Which images one epoch sees."""

    UNIFORM = "uniform"
    """Each once, in a new random order."""
    IMPORTANCE = "importance"
    """Drawn with replacement by the norms of their gradients (DA of PA&DA)."""


class WeightingKind(StrEnum):
    """How losses are weighted where paths or images are not drawn uniformly."""

    NONE = "none"
    """Not at all: the gradient is biased towards what is drawn often (PA&DA's published code)."""
    EXACT = "exact"
    """By the inverse of the probability, relative to uniform draws: unbiased."""
    SELF_NORMALISED = "self_normalised"
    """The same, divided by the mean over the batch; of networks, over the random ones of the step: a single
    one weighs 1."""
    CLIPPED = "clipped"
    """The same, no weight above `weight_limit`."""


class DistillationKind(StrEnum):
    """What networks other than the largest learn from."""

    NONE = "none"
    """The labels."""
    SOFT = "soft"
    """The teacher's predictions alone."""
    SOFT_HARD = "soft_hard"
    """The teacher's predictions and the labels, added (Once-for-All)."""
    ALPHA = "alpha"
    """The teacher's predictions alone, by the larger of two alpha-divergences (AlphaNet)."""


class TeacherKind(StrEnum):
    """Whose predictions are learned from."""

    IN_PLACE = "in_place"
    """The largest network of the same step (BigNAS)."""
    FROZEN = "frozen"
    """A copy of the largest network from before the others were trained (Once-for-All)."""


class RegularisedKind(StrEnum):
    """Which networks get dropout."""

    LARGEST = "largest"
    """The largest network alone (BigNAS)."""
    ALL = "all"
    """Every network (Once-for-All)."""


class BatchNormKind(StrEnum):
    """Whose statistics batch norm uses in training where several workers share a batch."""

    LOCAL = "local"
    """Those of the worker's own part: no exchange, but a part has other statistics than the whole."""
    SYNCHRONISED = "synchronised"
    """Those of the whole batch, exchanged at every layer: the gradients of one process."""


class PrecisionKind(StrEnum):
    """In which numbers the networks of a step are run; weights and their updates are float32 in either."""

    FLOAT32 = "float32"
    """In those of the weights."""
    BFLOAT16 = "bfloat16"
    """Convolutions and products in bfloat16, losses and batch-norm statistics in float32 (autocast)."""


class ClipKind(StrEnum):
    """How large gradients are cut."""

    NONE = "none"
    NORM = "norm"
    """All scaled so that their joint Euclidean norm stays within the threshold."""
    VALUE = "value"
    """Each entry limited to the threshold (AttentiveNAS, AlphaNet)."""


class FlipKind(StrEnum):
    """Which training images are mirrored left to right."""

    AUTO = "auto"
    """Half of them; in the bundled digits none, since a mirrored digit is another or no digit."""
    HALF = "half"
    """Half of them, drawn anew each time."""
    NONE = "none"
