"""How far gradients move where each rank normalises its own part of the batch.

In one process, on scikit-learn's digits and `micro_8`, whose last maps are 2 × 2: a hard case. The batch is
normalised in as many parts as there are ranks, which is all that ranks with batch norms of their own do
otherwise than one process (`tests/training/test_ranks.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.recipes import recipe_from_json
from search_spaces import SPACES
from supernet.data import (
    Augmentation,
    DataSource,
    SplitPlan,
    TrainingBatches,
    load_source,
    make_splits,
)
from supernet.elastic.batch_norm import Normaliser, normalise_by_batch
from supernet.network import Supernet
from supernet.training import Trainer, build_stack, tune_malloc

BATCH_SIZE = 256
NUM_RANKS = (2, 4, 8, 16, 32)
NUM_BATCHES = 5


def main(arguments: Sequence[str]) -> None:
    """The difference as a part of the gradient's length, mean over batches; of the largest network."""
    parser = argparse.ArgumentParser(prog="bench ranks")
    parser.add_argument("--epochs", type=int, default=20, help="of training before gradients are compared")
    options = parser.parse_args(arguments)
    tune_malloc()
    torch.set_num_threads(1)
    splits = make_splits(
        load_source(DataSource.from_json({"kind": "bundled", "name": "digits"})), SplitPlan()
    )
    batches = TrainingBatches(splits, BATCH_SIZE, 0, Augmentation(crop_padding=1, horizontal_flip=False))
    net = _trained(batches, options.epochs)
    whole = [_gradient(net, batches.batch(step), normalise_by_batch) for step in range(NUM_BATCHES + 1)]
    for ranks in NUM_RANKS:
        parts = [_gradient(net, batches.batch(step), _in_parts(ranks)) for step in range(NUM_BATCHES)]
        _tell(f"{ranks} ranks, {BATCH_SIZE // ranks} images each", parts, whole[:-1])
    _tell("one process on another batch", whole[1:], whole[:-1])


def _trained(batches: TrainingBatches, epochs: int) -> Supernet:
    recipe = recipe_from_json({"name": "bignas", "batch_size": BATCH_SIZE, "epochs": epochs})
    generator = torch.Generator().manual_seed(0)
    net = Supernet(SPACES["micro_8"], num_classes=10, in_channels=1, generator=generator)
    stack = build_stack(recipe, net.space, steps_per_epoch=batches.steps_per_epoch, seed=0)
    Trainer(net, batches, stack).run()
    return net.train()


def _in_parts(count: int) -> Normaliser:
    def normalise(x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([normalise_by_batch(part, slot, weight, bias) for part in x.chunk(count)])

    return normalise


def _gradient(net: Supernet, batch: tuple[Tensor, Tensor], normalise: Normaliser) -> Tensor:
    images, labels = batch
    net.zero_grad()
    F.cross_entropy(net(images, net.space.largest(), normalise=normalise), labels).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def _tell(what: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    pairs = list(zip(found, expected, strict=True))
    apart = sum(((f - e).norm() / e.norm()).item() for f, e in pairs) / len(pairs)
    cosine = sum(F.cosine_similarity(f, e, dim=0).item() for f, e in pairs) / len(pairs)
    print(f"{what}: gradients {100 * apart:.0f} % of their length apart, cosine {cosine:.2f}")
