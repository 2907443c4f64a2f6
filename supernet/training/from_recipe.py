"""From a recipe to the strategy for each part of a step: one method a part, one branch a choice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from nas.progressive_phases import RunPhase, phases_of_run
from nas.recipe import Recipe
from nas.recipe_choices import (
    BatchNormKind,
    DataSamplerKind,
    DistillationKind,
    PrecisionKind,
    RandomPathKind,
    RatePolicy,
    RegularisedKind,
    SamplerKind,
    ScheduleKind,
    TeacherKind,
)
from nas.space import SearchSpace
from nas.subspace import SubSpace
from supernet.training.alpha_divergence import AlphaDistillation
from supernet.training.attentive_paths import AttentivePaths
from supernet.training.batch_norm import BatchNormPolicy, LocalBatchNorm, SynchronisedBatchNorm
from supernet.training.data_importance import ImportanceData
from supernet.training.data_sampler import DataSampler, UniformData
from supernet.training.delayed_epsilon import DelayedEpsilonSchedule
from supernet.training.distillation import Distillation, NoDistillation, SoftDistillation, StudentLoss
from supernet.training.frozen_teacher import FrozenTeacher
from supernet.training.gradient import GradientPolicy, SummedGradients
from supernet.training.importance import ImportanceWeights
from supernet.training.learning_rate import (
    CosineWithFloor,
    ExponentialWithFloor,
    LearningRate,
    Phased,
    Warmup,
)
from supernet.training.path_importance import ImportancePaths
from supernet.training.path_norms import PathNorms
from supernet.training.paths import PathSampler, RandomPaths, SandwichSampler, UniformPaths, UniformSampler
from supernet.training.precision import Bfloat16Autocast, FullPrecision, Precision
from supernet.training.progressive import ProgressiveSchedule
from supernet.training.regularisation import EveryNetwork, LargestOnly, Regularisation
from supernet.training.shared_resolution import SharedResolutionPaths
from supernet.training.shift_paths import ShiftPaths
from supernet.training.shrink import ShrinkSchedule, StaticSchedule


@dataclass(frozen=True, kw_only=True)
class FromRecipe:
    """Makes the strategies of one run; what does not go together the recipe has refused."""

    recipe: Recipe
    space: SearchSpace
    seed: int
    steps_per_epoch: int
    num_images: int
    """Those that the weights learn from."""

    @property
    def num_steps(self) -> int:
        """Length of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    # What is trained

    @cached_property
    def shrink(self) -> ShrinkSchedule:
        """Which part of the space counts when."""
        recipe, space = self.recipe, SubSpace(self.space)
        match recipe.schedule:
            case ScheduleKind.STATIC:
                return StaticSchedule(space, num_random=recipe.num_random)
            case ScheduleKind.PROGRESSIVE:
                return ProgressiveSchedule(
                    phases_of_run(self.space, self.num_steps),
                    num_random=recipe.num_random,
                    sorts_channels=recipe.channel_sort,
                    freezes_transforms=recipe.freeze_transforms,
                    restarts_momentum=recipe.restart_momentum,
                )
            case ScheduleKind.DELAYED_EPSILON:
                return DelayedEpsilonSchedule(
                    space,
                    num_random=recipe.num_random,
                    num_delay_steps=round(recipe.delay_fraction * self.num_steps),
                    num_ramp_steps=round(recipe.ramp_fraction * self.num_steps),
                    learning_rate=self.learning_rate,
                    sorts_channels=recipe.channel_sort,
                )

    def data(self) -> DataSampler:
        """Which images a step sees."""
        recipe = self.recipe
        match recipe.data_sampler:
            case DataSamplerKind.UNIFORM:
                return UniformData()
            case DataSamplerKind.IMPORTANCE:
                return ImportanceData(
                    num_images=self.num_images,
                    batch_size=recipe.batch_size,
                    num_epochs=recipe.epochs,
                    steps_per_epoch=self.steps_per_epoch,
                    seed=self.seed,
                    limit=recipe.importance_limit,
                    weights=self._importance_weights(),
                    carries_scores=recipe.carry_scores,
                )

    def sampler(self) -> PathSampler:
        """Which networks a step trains."""
        match self.recipe.sampler:
            case SamplerKind.SANDWICH:
                return SandwichSampler(self._random_paths())
            case SamplerKind.UNIFORM:
                return UniformSampler(self._random_paths())

    def _random_paths(self) -> RandomPaths:
        recipe = self.recipe
        match recipe.random_paths:
            case RandomPathKind.UNIFORM if recipe.schedule is ScheduleKind.PROGRESSIVE:
                return SharedResolutionPaths(self.seed)
            case RandomPathKind.UNIFORM:
                return UniformPaths(self.seed)
            case RandomPathKind.IMPORTANCE:
                return self._importance_paths()
            case RandomPathKind.SHIFT:
                return ShiftPaths(recipe, self.space, seed=self.seed, num_steps=self.num_steps)
            case RandomPathKind.ATTENTIVE:
                return AttentivePaths(
                    self.seed,
                    attention=recipe.attention,
                    num_candidates=recipe.num_candidates,
                    num_bins=recipe.num_bins,
                    label_smoothing=recipe.label_smoothing,
                )

    def _importance_paths(self) -> ImportancePaths:
        recipe = self.recipe
        return ImportancePaths(
            self.space,
            num_epochs=recipe.epochs,
            seed=self.seed,
            limit=recipe.importance_limit,
            weights=self._importance_weights(),
            norms=PathNorms(self.space, normalise=recipe.normalise_path_norms),
            clip=self.gradient().clip if recipe.observe_clipped else None,
            full_epoch=self.shrink.full_step // self.steps_per_epoch,
        )

    def _importance_weights(self) -> ImportanceWeights:
        return ImportanceWeights(kind=self.recipe.importance_weighting, limit=self.recipe.weight_limit)

    # How

    def distillation(self) -> Distillation:
        """What networks learn from."""
        match self.recipe.distillation:
            case DistillationKind.NONE:
                return NoDistillation(label_smoothing=self.recipe.label_smoothing)
            case DistillationKind.SOFT | DistillationKind.SOFT_HARD:
                return self._soft_distillation()
            case DistillationKind.ALPHA:
                return AlphaDistillation(
                    label_smoothing=self.recipe.label_smoothing, ratio_limit=self.recipe.ratio_limit
                )

    def _soft_distillation(self) -> Distillation:
        options = {
            "label_smoothing": self.recipe.label_smoothing,
            "temperature": self.recipe.temperature,
            "keeps_labels": self.recipe.distillation is DistillationKind.SOFT_HARD,
        }
        match self.recipe.teacher:
            case TeacherKind.IN_PLACE:
                return SoftDistillation(**options)
            case TeacherKind.FROZEN:
                return FrozenTeacher(StudentLoss(**options), self.shrink)

    def gradient(self) -> GradientPolicy:
        """How gradients are weighed and cut."""
        return SummedGradients(self.recipe.clip, self.recipe.clip_threshold)

    def regularisation(self) -> Regularisation:
        """Which networks get dropout."""
        match self.recipe.regularised:
            case RegularisedKind.LARGEST:
                return LargestOnly(dropout=self.recipe.dropout)
            case RegularisedKind.ALL:
                return EveryNetwork(dropout=self.recipe.dropout)

    def batch_norm(self) -> BatchNormPolicy:
        """Whose statistics networks are normalised by."""
        match self.recipe.batch_norm:
            case BatchNormKind.LOCAL:
                return LocalBatchNorm()
            case BatchNormKind.SYNCHRONISED:
                return SynchronisedBatchNorm()

    def precision(self) -> Precision:
        """In which numbers networks are run."""
        match self.recipe.precision:
            case PrecisionKind.FLOAT32:
                return FullPrecision()
            case PrecisionKind.BFLOAT16:
                return Bfloat16Autocast()

    @cached_property
    def learning_rate(self) -> LearningRate:
        """The rate of every step."""
        if self.recipe.learning_rate_policy is RatePolicy.PHASED:
            phases = phases_of_run(self.space, self.num_steps)
            return Phased({phase.first_step: self._rate_of_phase(phase) for phase in phases})
        num_left = self.num_steps - self._num_warmup_steps
        return Warmup(self._after_warmup(num_left), num_steps=self._num_warmup_steps)

    @property
    def _num_warmup_steps(self) -> int:
        return round(self.recipe.warmup_fraction * self.num_steps)

    def _rate_of_phase(self, phase: RunPhase) -> LearningRate:
        """A warm-up, of a length told for the whole run, where the phase has one; then half a cosine."""
        num_warmup_steps = min(self._num_warmup_steps, phase.num_steps) if phase.published.has_warmup else 0
        peak = self.recipe.base_learning_rate * phase.published.relative_rate
        num_left = phase.num_steps - num_warmup_steps
        cosine = CosineWithFloor(peak, floor=self.recipe.floor_fraction, num_steps=num_left)
        return Warmup(cosine, num_steps=num_warmup_steps)

    def _after_warmup(self, num_steps: int) -> LearningRate:
        recipe = self.recipe
        initial, floor = recipe.base_learning_rate, recipe.floor_fraction
        if recipe.learning_rate_policy is RatePolicy.COSINE:
            return CosineWithFloor(initial, floor=floor, num_steps=num_steps)
        floor_step = round(recipe.decay_fraction * num_steps)
        return ExponentialWithFloor(initial, floor=floor, floor_step=floor_step)
