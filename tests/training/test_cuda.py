"""A GPU computes what the processor computes, up to rounding.

With `cpu` as the device every check is trivially true: there it shows that the checks themselves run.
"""

import numpy as np
import pytest
import torch

from nas.recipes import RECIPES
from nas.trial import Split
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.data import (
    ArrayListing,
    Augmentation,
    GivenSplit,
    LabelledArrays,
    ResizedSplits,
    SplitPlan,
    Storage,
    TrainingBatches,
    load_listing,
    make_splits,
)
from supernet.device import take_device
from supernet.evaluate import SubnetEvaluator
from supernet.training import Trainer, build_stack, load_checkpoint, save_checkpoint
from tests.training.toy import gradients_of, toy_recipe, toy_supernet, wake_gammas
from tests.training.watchers import PLAIN

LOGITS, GRADIENTS = 1e-4, 1e-3
"""Largest differences allowed: of logits, of a step's whole gradient as a part of its length."""
CPU = torch.device("cpu")


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here: nothing of this has been checked on a GPU by this run")
    tf32 = torch.backends.cudnn.allow_tf32
    yield take_device(request.param)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    # Of each class its own colours, so that there is something to learn.
    pixels = rng.integers(0, 120, (600, 16, 16, 3)) + 40 * (np.arange(600) % 4)[:, None, None, None]
    images = LabelledArrays(images=pixels.astype(np.uint8), labels=np.arange(600) % 4)
    listing = ArrayListing(class_names=tuple("abcd"), arrays={GivenSplit.TRAIN: images})
    return make_splits(load_listing(listing, Storage()), SplitPlan(calibration_images=128))


def networks_of(space):
    rng = np.random.default_rng(0)
    return [space.largest(), space.smallest(), space.sample(rng)]


def woken(space, device):
    return wake_gammas(toy_supernet(space=space)).to(device)


def batches_on(splits, device, *, batch_size=16, **more):
    varied = Augmentation(crop_padding=2, horizontal_flip=True)
    return TrainingBatches(splits, batch_size, 5, varied, device=device, **more)


def trainer_on(splits, device, *, collective=None, recipe=None, **fields):
    recipe = recipe or toy_recipe(**{**PLAIN, "batch_size": 16, **fields})
    supernet = wake_gammas(toy_supernet(kernel_transform=recipe.kernel_transform)).to(device)
    batches = batches_on(
        splits, device, batch_size=recipe.batch_size, held_out_fraction=recipe.held_out_fraction
    )
    stack = build_stack(
        recipe,
        supernet.space,
        steps_per_epoch=batches.steps_per_epoch,
        seed=0,
        num_images=batches.num_images,
    )
    return Trainer(supernet, batches, stack, collective=collective)


class RankOfTwins:
    """One of two ranks of the same images: a sum over both is twice its own."""

    rank, world_size = 0, 2

    def all_reduce_sum(self, flat):
        flat.mul_(2)

    def broadcast(self, tensor):
        pass


def relative_difference(found, expected):
    return ((found.cpu() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("space", sorted(SPACES))
def test_logits_are_those_of_the_processor(device, space):
    ours, theirs = woken(space, device), woken(space, CPU)
    side = theirs.space.resolutions_px()[0]
    images = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0))
    for network in networks_of(theirs.space):
        with torch.no_grad():
            statistics = [
                recalibrate(net, network, [images.to(d)]) for net, d in ((ours, device), (theirs, CPU))
            ]
            found = ours.eval()(images.to(device), network, statistics[0])
            expected = theirs.eval()(images, network, statistics[1])
        assert found.device.type == device.type
        assert (found.cpu() - expected).abs().max() < LOGITS * max(1.0, expected.abs().max().item())
        for name, mean in statistics[1].means.items():
            torch.testing.assert_close(statistics[0].means[name].cpu(), mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(
                statistics[0].variances[name].cpu(), statistics[1].variances[name], rtol=1e-3, atol=1e-4
            )


def test_batches_have_the_same_images_varied_alike(device, splits):
    ours = batches_on(splits, device, held_out_fraction=0.1)
    theirs = batches_on(splits, CPU, held_out_fraction=0.1)
    positions = np.arange(16)
    for found, expected in (
        (ours.batch(3), theirs.batch(3)),
        (ours.batch(1, 1, 2, positions=positions), theirs.batch(1, 1, 2, positions=positions)),
        (ours.held_out(1), theirs.held_out(1)),
    ):
        assert found[0].device.type == found[1].device.type == device.type
        assert found[0].is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found[0].cpu(), expected[0], rtol=1e-6, atol=1e-6)
        assert torch.equal(found[1].cpu(), expected[1])


def test_images_with_no_room_on_the_device_are_sent_batch_by_batch(device, splits, monkeypatch):
    roomy = batches_on(splits, device).batch(2)
    monkeypatch.setattr("supernet.data.batches.room_bytes", lambda _: 0)
    tight = batches_on(splits, device)
    assert tight._pixels.device.type == "cpu"
    assert torch.equal(tight.batch(2)[0], roomy[0])


@pytest.mark.parametrize(
    ("batch_norm", "collective"), [("local", None), ("local", RankOfTwins()), ("synchronised", RankOfTwins())]
)
def test_a_training_step_has_the_gradients_of_the_processor(device, splits, batch_norm, collective):
    ours, theirs = (
        trainer_on(splits, d, batch_norm=batch_norm, collective=collective) for d in (device, CPU)
    )
    found, expected = ours.train_step(0), theirs.train_step(0)
    assert found.slots == expected.slots
    assert found.slot_losses == pytest.approx(expected.slot_losses, rel=1e-4)
    assert relative_difference(gradients_of(ours.supernet), gradients_of(theirs.supernet)) < GRADIENTS


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_goes_on_from_its_checkpoint(device, splits, tmp_path, name):
    """What strategies keep beside the weights lies where they look for it; to the last phase of the run."""
    recipe = toy_recipe(name, batch_size=48, epochs=4)
    straight, stopped = (trainer_on(splits, device, recipe=recipe) for _ in range(2))
    straight.run()
    half = stopped.stack.num_steps // 2
    stopped.run(half)
    path = save_checkpoint(stopped.state(), tmp_path)
    resumed = trainer_on(splits, device, recipe=recipe)
    resumed.restore(load_checkpoint(path))
    told = []
    resumed.run(on_step=told.append)
    assert len(told) == straight.stack.num_steps - half
    assert all(np.isfinite(stats.slot_losses).all() for stats in told)
    if device.type == "cpu":
        assert torch.equal(weights_of(resumed.supernet), weights_of(straight.supernet))


def weights_of(supernet):
    return torch.cat([parameter.detach().flatten() for parameter in supernet.parameters()])


def test_bfloat16_has_nearly_the_gradients_of_float32(device, splits):
    half, full = trainer_on(splits, device, precision="bfloat16"), trainer_on(splits, CPU)
    assert half.train_step(0).slot_losses == pytest.approx(full.train_step(0).slot_losses, rel=0.03)
    ours, theirs = gradients_of(half.supernet).cpu(), gradients_of(full.supernet)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.95


def test_dropout_depends_on_the_step_alone_and_leaves_the_devices_generator_as_it_was(device, splits):
    def losses(*, disturb):
        trainer = trainer_on(splits, device, dropout=0.5)
        torch.rand(disturb, device=device)
        before = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
        told = trainer.train_step(1).slot_losses
        after = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
        assert torch.equal(before, after)
        return told

    assert losses(disturb=0) == pytest.approx(losses(disturb=7), rel=1e-5)


def test_networks_are_measured_as_on_the_processor(device, splits):
    trained = trainer_on(splits, CPU)
    trained.run(6)
    ours = toy_supernet()
    ours.load_state_dict(trained.supernet.state_dict())
    evaluators = [
        SubnetEvaluator(net, ResizedSplits(splits, device=d), checkpoint="c", max_kept_bytes=2**24)
        for net, d in ((ours.to(device), device), (trained.supernet, CPU))
    ]
    for network in networks_of(ours.space):
        found, expected = (evaluator.evaluate(network, Split.VAL) for evaluator in evaluators)
        assert found.num_images == expected.num_images
        # An image that lies between two classes may fall to either side.
        assert abs(found.num_correct - expected.num_correct) <= 0.01 * expected.num_images


def test_a_checkpoint_goes_from_one_device_to_the_other_and_says_so(device, splits, tmp_path):
    first = trainer_on(splits, device)
    first.run(2)
    path = save_checkpoint(first.state(), tmp_path)
    there, back = trainer_on(splits, CPU), trainer_on(splits, device)
    for trainer in (there, back):
        told = trainer.restore(load_checkpoint(path))
        assert bool(told) == (device.type == "cuda")
        for ours, theirs in zip(trainer.supernet.parameters(), first.supernet.parameters(), strict=True):
            assert torch.equal(ours.cpu(), theirs.cpu())
        trainer.run(1)
