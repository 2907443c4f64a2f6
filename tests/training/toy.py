"""A small data set and a small supernet, so that laws of training are checked in seconds."""

from dataclasses import replace

import torch

from nas.recipe import RECIPES
from search_spaces import SPACES
from supernet.network import Supernet
from supernet.training import Trainer, build_stack

NUM_CLASSES = 4


class ToyBatches:
    """Noise around one picture a class; a pure function of (seed, step)."""

    def __init__(self, *, batch_size=8, steps_per_epoch=4, seed=0, dtype=torch.float32):
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self._seed = seed
        self._dtype = dtype
        generator = torch.Generator().manual_seed(seed)
        self._pictures = torch.randn(NUM_CLASSES, 3, 8, 8, generator=generator)

    def batch(self, step, rank=0, world_size=1):
        generator = torch.Generator().manual_seed(1000 * self._seed + step)
        labels = torch.randint(NUM_CLASSES, (self.batch_size,), generator=generator)
        noise = torch.randn(self.batch_size, 3, 8, 8, generator=generator)
        images = (self._pictures[labels] + 0.5 * noise).to(self._dtype)
        share = self.batch_size // world_size
        part = slice(rank * share, (rank + 1) * share)
        return images[part].contiguous(memory_format=torch.channels_last), labels[part]


class RecordingSupernet(Supernet):
    """Notes every forward: the architecture, its dropout, whether it moved torch's generator, its logits."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def forward(self, images, architecture, statistics=None, *, dropout=0.0):
        before = torch.get_rng_state()
        logits = super().forward(images, architecture, statistics, dropout=dropout)
        moved = not torch.equal(before, torch.get_rng_state())
        if logits.requires_grad:
            logits.retain_grad()
        self.calls.append((architecture, dropout, moved, logits))
        return logits


def toy_recipe(name="bignas", **overrides):
    return replace(RECIPES[name], **{"epochs": 2, "batch_size": 8, **overrides})


def toy_supernet(kind=Supernet, *, seed=0, space="micro_8", **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return kind(SPACES[space], num_classes=NUM_CLASSES, generator=generator, **kwargs)


def toy_trainer(*, kind=Supernet, recipe=None, seed=0, dtype=torch.float32, collective=None, data_id=""):
    recipe = recipe or toy_recipe()
    supernet = toy_supernet(kind, seed=seed, kernel_transform=recipe.kernel_transform).to(dtype)
    batches = ToyBatches(batch_size=recipe.batch_size, dtype=dtype)
    stack = build_stack(recipe, supernet.space, steps_per_epoch=batches.steps_per_epoch, seed=seed)
    return Trainer(supernet, batches, stack, collective=collective, data_id=data_id)


def wake_gammas(supernet):
    """Gives the zero-initialised batch norms a scale, without which most weights have no gradient yet."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in supernet.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 + 0.1 * torch.rand(parameter.shape, generator=generator))
    return supernet


def gradients_of(supernet):
    return torch.cat([p.grad.flatten() for p in supernet.parameters()])
