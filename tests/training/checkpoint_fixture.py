"""Checkpoints kept for ever: what each format looked like when a release wrote it.

Before a format is raised, its last release writes one:

    python -m tests.training.checkpoint_fixture tests/training/fixtures/checkpoint-format-<number>

The tests then hold that every later release still resumes from it. Files already there are never
written again: made by a newer release they would prove nothing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from nas.families.mbconv import MBConvSpace, Stage
from nas.layers import Act
from supernet.network import Supernet
from supernet.training import Trainer, build_stack, save_checkpoint
from tests.training.toy import NUM_CLASSES, ToyBatches, toy_recipe

FIXTURES = Path(__file__).parent / "fixtures"
NUM_STEPS_BEFORE = 3
NUM_STEPS_AFTER = 3

TINY = MBConvSpace(
    name="tiny",
    resolutions=(8,),
    stem_widths=(8,),
    stem_stride=2,
    stages=(
        Stage(
            name="stage1",
            widths=(8,),
            stride=1,
            depths=(1, 2),
            kernels=(3, 5),
            expansions=(1, 2),
            has_squeeze_excite=False,
            act=Act.RELU,
        ),
    ),
    head_width=16,
)


def tiny_trainer(*, warm_start: str | None = None) -> Trainer:
    """The run that wrote the fixtures, before its first step: kernel transforms and momentum included."""
    recipe = toy_recipe(kernel_transform=True)
    supernet = Supernet(
        TINY,
        num_classes=NUM_CLASSES,
        kernel_transform=True,
        generator=torch.Generator().manual_seed(0),
    )
    batches = ToyBatches(batch_size=recipe.batch_size)
    stack = build_stack(recipe, TINY, steps_per_epoch=batches.steps_per_epoch, seed=0)
    return Trainer(supernet, batches, stack, data_id="toy", warm_start=warm_start)


def main(target: Path) -> None:
    """Write the checkpoint of a run that has done its first steps."""
    if target.exists():
        raise SystemExit(f"{target} exists; a fixture is written once, by the release that it is of")
    trainer = tiny_trainer()
    trainer.run(NUM_STEPS_BEFORE)
    written = save_checkpoint(trainer.state(), target.with_suffix(".new"))
    written.rename(target)
    shutil.rmtree(target.with_suffix(".new"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
