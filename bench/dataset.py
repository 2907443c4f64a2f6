"""The images of a bench: a folder of Parquet, or the bundled digits."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from nas.recipe import Recipe
from nas.space import SearchSpace
from supernet.data import (
    DataSource,
    DataSplits,
    ResizedSplits,
    SourceKind,
    TrainingBatches,
    augmentation_for,
    load_source,
    make_splits,
)
from supernet.evaluate import SubnetEvaluator
from supernet.network import Supernet
from supernet.training import Trainer, build_stack


class DataSet:
    """Splits, and trainings on them."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` has train.parquet and test.parquet; None: scikit-learn's digits."""
        self.source = (
            DataSource(kind=SourceKind.BUNDLED, name="digits")
            if folder is None
            else DataSource(kind=SourceKind.PARQUET, path=str(folder.resolve()))
        )

    @cached_property
    def splits(self) -> DataSplits:
        """Read when they are first needed."""
        return make_splits(load_source(self.source))

    @cached_property
    def resized(self) -> ResizedSplits:
        """The splits for measuring."""
        return ResizedSplits(self.splits)

    def trainer(self, space: SearchSpace, recipe: Recipe, seed: int, *, num_lanes: int = 1) -> Trainer:
        """A training from new weights, as a worker would make it."""
        augmentation = augmentation_for(
            self.source,
            self.splits.image_size,
            crop_fraction=recipe.crop_fraction,
            horizontal_flip=recipe.horizontal_flip,
        )
        batches = TrainingBatches(
            self.splits,
            recipe.batch_size,
            seed,
            augmentation,
            held_out_fraction=recipe.held_out_fraction,
        )
        supernet = Supernet(
            space,
            num_classes=self.splits.num_classes,
            in_channels=self.splits.num_channels,
            kernel_transform=recipe.kernel_transform,
            generator=torch.Generator().manual_seed(seed),
        )
        stack = build_stack(
            recipe,
            space,
            steps_per_epoch=batches.steps_per_epoch,
            seed=seed,
            num_images=batches.num_images,
        )
        return Trainer(supernet, batches, stack, data_id=self.splits.fingerprint, num_lanes=num_lanes)

    def evaluator(self, supernet: Supernet) -> SubnetEvaluator:
        """Measures the supernet's networks as they stand, recalibrated."""
        return SubnetEvaluator(supernet.eval(), self.resized, checkpoint="bench")
