"""Recipe: every number and choice of a training run, as one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

from nas.fields import Interval, checked_fields
from nas.recipe_choices import (
    AttentionKind,
    BatchNormKind,
    BinGradientKind,
    ClipKind,
    DataSamplerKind,
    DistillationKind,
    FlipKind,
    OptimizerKind,
    PrecisionKind,
    RandomPathKind,
    RatePolicy,
    RecipeName,
    RegularisedKind,
    SamplerKind,
    ScheduleKind,
    TeacherKind,
    WeightingKind,
)
from nas.recipe_rules import check_combination

MAX_SLOTS = 32
"""Most networks in one step."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run's choices. The defaults are BigNAS, its rates set for short runs on small images.

    A field's limits and meaning stand beside its type and nowhere else: the API's schema is made from them.
    The default of a field added later must be what was done before, for old records are read with it.
    Raises InvalidFieldError for a value that is not allowed, and for values that do not go together.
    """

    name: Annotated[RecipeName, "The recipe to start from."] = RecipeName.BIGNAS
    epochs: Annotated[int, Interval(1, 100_000), "Passes over the training images."] = 10
    batch_size: Annotated[int, Interval(2, 1_000_000), "Images in one step, over all workers."] = 64
    schedule: Annotated[ScheduleKind, "Which part of the space is trained when."] = ScheduleKind.STATIC
    delay_fraction: Annotated[
        float,
        Interval(0.0, 1.0),
        "Of schedule delayed_epsilon: the part of the run after which the others count in full. DεpS: 150 "
        "epochs of 270.",
    ] = 150 / 270
    ramp_fraction: Annotated[
        float,
        Interval(0.0, 1.0),
        "Of schedule delayed_epsilon: the part of the run, just before, in which their weight rises. DεpS: 5 "
        "epochs of 270.",
    ] = 5 / 270
    channel_sort: Annotated[
        bool,
        "Whether channels are sorted by importance just before smaller widths are first trained "
        "(Once-for-All).",
    ] = False
    restart_momentum: Annotated[
        bool,
        "Of schedule progressive: whether each phase begins with none (Once-for-All's code, whose phases are "
        "runs of their own).",
    ] = False
    sampler: Annotated[SamplerKind, "Which networks one step trains."] = SamplerKind.SANDWICH
    num_random: Annotated[
        int,
        Interval(0, MAX_SLOTS - 2),
        "Random networks in one step; with schedule progressive in one of its last phases, and a quarter of "
        "them, then half, before.",
    ] = 2
    random_paths: Annotated[RandomPathKind, "How the random networks are drawn."] = RandomPathKind.UNIFORM
    data_sampler: Annotated[DataSamplerKind, "Which images one epoch sees."] = DataSamplerKind.UNIFORM
    importance_limit: Annotated[
        float,
        Interval(0.0, 1.0),
        "Largest part that learned probabilities get beside uniform ones. It grows evenly from 0 towards 1 "
        "over the run and stays at this limit once it gets there.",
    ] = 1.0
    carry_scores: Annotated[
        bool,
        "Of data_sampler importance: whether an image keeps its score through epochs in which it is not "
        "drawn. Else it scores 0 there, as in PA&DA's published code, and ever fewer images are drawn.",
    ] = False
    importance_weighting: Annotated[
        WeightingKind, "How losses are weighted where paths or images are not drawn uniformly."
    ] = WeightingKind.NONE
    weight_limit: Annotated[float, Interval(1.0, 1e6), "Of importance_weighting clipped."] = 10.0
    normalise_path_norms: Annotated[
        bool,
        "Whether the gradient norm of an option is divided by the root of its number of weights; else larger "
        "options win by their size.",
    ] = False
    observe_clipped: Annotated[
        bool, "Whether gradient norms are read after gradients are cut, as PA&DA's published code does."
    ] = False
    attention: Annotated[AttentionKind, "Which candidate attentive sampling trains."] = AttentionKind.BEST_UP
    num_candidates: Annotated[int, Interval(1, 64), "Candidates of attentive sampling."] = 3
    num_bins: Annotated[int, Interval(2, 256), "Bins of MACs, in shift and attentive sampling."] = 8
    bin_warmup_fraction: Annotated[
        float,
        Interval(0.0, 1.0),
        "Of shift sampling: the part of the run in which all bins are equally likely. ShiftNAS: 50 epochs, "
        "of how many is not known.",
    ] = 0.1
    bin_interval: Annotated[
        int, Interval(1, 1_000_000), "Of shift sampling: steps between two updates of the bins."
    ] = 100
    bin_gradient: Annotated[
        BinGradientKind, "Of shift sampling: how the bins learn from the change of the held-out loss."
    ] = BinGradientKind.GENERATOR
    bin_learning_rate: Annotated[
        float, Interval(1e-8, 10.0), "Of shift sampling: the bins' own, of Adam. ShiftNAS: 0.001."
    ] = 1e-3
    cost_weight: Annotated[
        float,
        Interval(0.0, 1e6),
        "Of shift sampling: the weight of the cost's own loss (λ), the square of the error as a part of the "
        "cost asked for.",
    ] = 1.0
    generator_batch: Annotated[
        int,
        Interval(1, 1024),
        "Of shift sampling: costs a step that the generator learns to meet; those beyond the step's own "
        "networks are for practice. ShiftNAS: none for practice.",
    ] = 1
    gumbel_temperature: Annotated[float, Interval(1e-3, 100.0), "Of shift sampling."] = 1.0
    held_out_fraction: Annotated[
        float,
        Interval(0.0, 0.5),
        "Part of the training images kept from the weights, from which shift sampling learns. ShiftNAS: "
        "50,000 of 1,281,167.",
    ] = 0.0
    distillation: Annotated[DistillationKind, "What networks other than the largest learn from."] = (
        DistillationKind.SOFT
    )
    teacher: Annotated[TeacherKind, "Whose predictions are learned from."] = TeacherKind.IN_PLACE
    temperature: Annotated[
        float,
        Interval(0.01, 100.0),
        "Of distillation soft and soft_hard, whose loss it scales by its square.",
    ] = 1.0
    ratio_limit: Annotated[
        float,
        Interval(1.0, 1e6),
        "Of distillation alpha: no ratio of probabilities counts more (AlphaNet).",
    ] = 5.0
    optimizer: Annotated[OptimizerKind, "The update rule. BigNAS: RMSProp, rate 0.256 at batch 4096."] = (
        OptimizerKind.SGD
    )
    momentum: Annotated[float, Interval(0.0, 0.9999), "Of either optimizer."] = 0.9
    base_learning_rate: Annotated[
        float,
        Interval(1e-8, 100.0),
        "The rate after warm-up, as it is: not scaled by the batch size. Gradients of networks are summed. "
        "With learning_rate_policy phased that of the first phase, to which the others keep the paper's "
        "relation.",
    ] = 0.2
    warmup_fraction: Annotated[
        float,
        Interval(0.0, 0.9),
        "Part of the run in which the rate rises to its base. AttentiveNAS: 5 epochs of 360. With "
        "learning_rate_policy phased the same number of steps for each phase that has a warm-up.",
    ] = 0.05
    learning_rate_policy: Annotated[RatePolicy, "The shape of the rate after the warm-up."] = (
        RatePolicy.EXPONENTIAL
    )
    # EfficientNet's 0.97 every 2.4 epochs takes 236 of 360 epochs to the floor; short runs cannot spare a
    # third of their steps there.
    decay_fraction: Annotated[
        float, Interval(0.01, 1.0), "Part of an exponential run after which the floor is reached."
    ] = 0.9
    floor_fraction: Annotated[
        float,
        Interval(1e-6, 1.0),
        "The smallest rate after the warm-up, as a part of the base, or of the highest rate of the phase.",
    ] = 0.05
    weight_decay: Annotated[
        float,
        Interval(0.0, 1.0),
        "L2 on weights, not on biases and batch norms, as if of the largest network alone.",
    ] = 1e-5
    label_smoothing: Annotated[
        float, Interval(0.0, 0.9), "Of the labels that the largest network learns from."
    ] = 0.1
    dropout: Annotated[float, Interval(0.0, 0.9), "Before the classifier."] = 0.2
    regularised: Annotated[RegularisedKind, "Which networks get dropout."] = RegularisedKind.LARGEST
    batch_norm: Annotated[
        BatchNormKind, "Whose statistics batch norm uses where several workers share a batch."
    ] = BatchNormKind.LOCAL
    precision: Annotated[
        PrecisionKind,
        "In which numbers the networks of a step are run. Networks are measured and published in float32 "
        "whatever it is; on a CPU bfloat16 gains little.",
    ] = PrecisionKind.FLOAT32
    clip: Annotated[ClipKind, "How large summed gradients are cut."] = ClipKind.VALUE
    clip_threshold: Annotated[float, Interval(1e-6, 1e6), "The limit that `clip` speaks of."] = 1.0
    crop_fraction: Annotated[
        float,
        Interval(0.0, 0.5),
        "Padding around a training image before a crop of its old size is drawn, as a part of its shorter "
        "side: whole pixels, one at least; 0 crops nothing.",
    ] = 0.125
    horizontal_flip: Annotated[
        FlipKind, "Which training images are mirrored: never where left and right differ in meaning."
    ] = FlipKind.AUTO
    kernel_transform: Annotated[
        bool,
        "Whether smaller kernels are learned transforms of the larger ones (Once-for-All), not bare centres.",
    ] = False
    freeze_transforms: Annotated[
        bool,
        "Whether kernel transforms stay as they are after the phase of kernels (Once-for-All's text; its "
        "code trains them on).",
    ] = False

    def __post_init__(self) -> None:
        for field in RECIPE_FIELDS:
            value = field.checked(getattr(self, field.name), owner="recipe")
            object.__setattr__(self, field.name, value)
        check_combination(self)

    def num_held_out(self, num_images: int) -> int:
        """How many of the training images are kept from the weights."""
        return round(self.held_out_fraction * num_images)

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; `recipe_from_json` reads it back."""
        return {name: _plain(value) for name, value in asdict(self).items()}


RECIPE_FIELDS = checked_fields(Recipe)
"""The fields of a recipe, in order, with their limits and meanings."""


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value
