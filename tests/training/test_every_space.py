"""A supernet of every family trains, and its networks are recalibrated, extracted and exported."""

import numpy as np
import pytest
import torch

from supernet.batchnorm import recalibrate
from supernet.export.gates import EXTRACTED_TOLERANCE, ONNX_TOLERANCE, check_statistics
from supernet.extract import extract
from supernet.network import Supernet
from supernet.training import Trainer, build_stack
from supernet.training.paths import Role
from tests.export.examples import generated_network
from tests.export.test_onnx import max_difference
from tests.small_spaces import SMALL_SPACES
from tests.training.toy import NUM_CLASSES, ToyBatches, toy_recipe

RATES = {"attentive_nas": 0.05, "ofa_resnet50": 0.05, "nas_bench_macro": 0.05, "nas_bench_201": 0.2}
"""Learning rates of a space of each family; the remaining one's is what the toy trains everywhere else."""
NUM_STEPS = {"nas_bench_201": 28}
"""Where 16 do not bring the loss down by more than steps differ, on whatever processor."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer_of(space, recipe, num_steps):
    supernet = Supernet(space, num_classes=NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    batches = ToyBatches(batch_size=recipe.batch_size, steps_per_epoch=num_steps)
    stack = build_stack(
        recipe, space, steps_per_epoch=batches.steps_per_epoch, seed=0, num_images=batches.num_images
    )
    return Trainer(supernet, batches, stack)


@pytest.mark.parametrize("name", RATES)
def test_a_supernet_learns_and_its_networks_are_published_as_they_are(name):
    space = SMALL_SPACES[name]
    recipe = toy_recipe(
        epochs=1, batch_size=16, num_random=1, optimizer="sgd", base_learning_rate=RATES[name],
        warmup_fraction=0.0, dropout=0.0,
    )  # fmt: skip
    num_steps = NUM_STEPS.get(name, 16)
    trainer = trainer_of(space, recipe, num_steps)
    losses = []
    trainer.run(on_step=lambda stats: losses.append(stats.loss(Role.MAX)))
    assert len(losses) == num_steps
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])

    supernet = trainer.supernet.eval()
    for architecture in (space.largest(), space.sample(np.random.default_rng(0))):
        resolution = space.resolution_px(architecture)
        images = torch.randn(4, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))
        statistics = recalibrate(supernet, architecture, [images])
        network = extract(supernet, architecture, statistics)
        check_statistics(network)
        with torch.inference_mode():
            logits = network(images)
            assert (supernet(images, architecture, statistics) - logits).abs().max() <= EXTRACTED_TOLERANCE
            assert torch.equal(generated_network(network)(images), logits)
        assert max_difference(network, images) <= ONNX_TOLERANCE


def test_a_cell_without_operations_trains_its_head_alone():
    """The smallest network of NAS-Bench-201: a batch norm of nothing must not blow gradients up."""
    space = SMALL_SPACES["nas_bench_201"]
    supernet = Supernet(space, num_classes=NUM_CLASSES, generator=torch.Generator().manual_seed(0)).train()
    images, labels = ToyBatches(batch_size=16).batch(0)
    logits = supernet(images, space.smallest())
    torch.nn.functional.cross_entropy(logits, labels).backward()
    moved = {name for name, p in supernet.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved
    assert all(name.startswith("slots.head_") for name in moved)
    assert all(p.grad.abs().max() < 1 for p in supernet.parameters() if p.grad is not None)
