"""A small data set and a small supernet, so that laws of training are checked in seconds."""

from dataclasses import replace

import torch

from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.network import Supernet
from supernet.training import SingleProcess, Trainer, build_stack
from supernet.training.paths import Slot, StepContext

NUM_CLASSES = 4


class ToyBatches:
    """Noise around one picture a class; a pure function of (seed, step)."""

    def __init__(self, *, batch_size=8, steps_per_epoch=4, seed=0, dtype=torch.float32):
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.num_images = batch_size * steps_per_epoch
        self._seed = seed
        self._dtype = dtype
        generator = torch.Generator().manual_seed(seed)
        self._pictures = torch.randn(NUM_CLASSES, 3, 8, 8, generator=generator)

    def batch(self, step, rank=0, world_size=1, *, positions=None):
        generator = torch.Generator().manual_seed(1000 * self._seed + step)
        labels = torch.randint(NUM_CLASSES, (self.batch_size,), generator=generator)
        noise = torch.randn(self.batch_size, 3, 8, 8, generator=generator)
        if positions is not None:
            labels, noise = self._at(positions)
        images = (self._pictures[labels] + 0.5 * noise).to(self._dtype)
        share = self.batch_size // world_size
        part = slice(rank * share, (rank + 1) * share)
        return images[part].contiguous(memory_format=torch.channels_last), labels[part]

    def held_out(self, number, rank=0, world_size=1):
        return self.batch(10_000 + number, rank, world_size)

    def _at(self, positions):
        """Labels and noise of single images, each always the same."""
        labels, noise = [], []
        for position in positions:
            generator = torch.Generator().manual_seed(5_000_000 + 1000 * self._seed + int(position))
            labels.append(torch.randint(NUM_CLASSES, (1,), generator=generator))
            noise.append(torch.randn(3, 8, 8, generator=generator))
        return torch.cat(labels), torch.stack(noise)


class RecordingSupernet(Supernet):
    """Notes every forward: the architecture, its dropout, whether it moved torch's generator, its logits."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def forward(self, images, architecture, statistics=None, *, dropout=0.0, **more):
        before = torch.get_rng_state()
        logits = super().forward(images, architecture, statistics, dropout=dropout, **more)
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


def toy_trainer(*, kind=Supernet, recipe=None, seed=0, dtype=torch.float32, **of_trainer):
    recipe = recipe or toy_recipe()
    supernet = toy_supernet(kind, seed=seed, kernel_transform=recipe.kernel_transform).to(dtype)
    batches = ToyBatches(batch_size=recipe.batch_size, dtype=dtype)
    stack = build_stack(
        recipe,
        supernet.space,
        steps_per_epoch=batches.steps_per_epoch,
        seed=seed,
        num_images=batches.num_images,
    )
    return Trainer(supernet, batches, stack, **of_trainer)


def step_context(step, *, supernet=None, batches=None, collective=None):
    """What a sampler sees at a step; of a supernet of no use where it is given none."""
    batches = batches or ToyBatches()
    images, labels = batches.batch(step)
    return StepContext(
        step=step,
        supernet=supernet,
        images=images,
        labels_n=labels,
        collective=collective or SingleProcess(),
        held_out=batches.held_out,
    )


def slots_of(stack, step):
    """What a stack proposes at a step."""
    return stack.sampler.propose(stack.shrink.phase(step), step_context(step))


def slot_in(role):
    """A slot of which the role alone matters."""
    return Slot(role, None)


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
