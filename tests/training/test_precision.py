"""Precision: bfloat16 trains the same networks in fewer digits, float32 is what it was to the bit."""

import json

import pytest
import torch

from nas.recipe_choices import PrecisionKind
from supernet.elastic.depthwise import depthwise_conv
from supernet.training import SingleProcess, build_stack
from supernet.training.batch_norm import SynchronisedBatchNorm
from supernet.training.stack import completed_record
from tests.training.toy import RecordingSupernet, gradients_of, toy_recipe, toy_supernet, toy_trainer
from tests.training.watchers import PLAIN, trainer_with

HALF = {**PLAIN, "precision": "bfloat16"}


def step_in(precision, **more):
    trainer = trainer_with(
        recipe=toy_recipe(**PLAIN, precision=precision), dtype=torch.float32, kind=RecordingSupernet, **more
    )
    stats = trainer.train_step(0)
    return trainer, stats


def test_float32_is_the_default_and_touches_no_autocast(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("float32 is to be left alone")

    expected = toy_trainer()
    expected.run(2)
    monkeypatch.setattr(torch, "autocast", refuse)
    assert toy_recipe().precision is PrecisionKind.FLOAT32
    found = toy_trainer(recipe=toy_recipe(precision="float32"))
    found.run(2)
    for ours, theirs in zip(found.supernet.parameters(), expected.supernet.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    # Not a step in between that could round.
    trainer, _ = step_in("float32")
    logits = trainer.supernet.calls[0][3]
    assert logits.dtype == torch.float32
    assert logits.to(torch.float32) is logits


def test_a_record_of_before_there_was_a_choice_was_in_float32():
    record = json.loads(json.dumps(toy_trainer().stack.to_json()))
    del record["recipe"]["precision"], record["strategies"]["precision"]
    assert completed_record(record) == toy_trainer().stack.to_json()


def test_bfloat16_runs_convolutions_in_it_and_keeps_weights_losses_and_gradients_in_float32():
    trainer, stats = step_in("bfloat16")
    assert {call[3].dtype for call in trainer.supernet.calls} == {torch.bfloat16}
    held = [*trainer.supernet.parameters(), *trainer._gradients.parts, trainer._gradients.losses]
    held += [v for v in trainer.state().optimizer.values() if v.ndim]
    assert {tensor.dtype for tensor in held} == {torch.float32}
    # Losses with more digits than bfloat16 has.
    assert any(torch.tensor(loss).bfloat16().item() != loss for loss in stats.slot_losses)
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_has_the_gradients_of_float32_in_fewer_digits():
    (full, told), (half, told_half) = step_in("float32"), step_in("bfloat16")
    expected, found = gradients_of(full.supernet), gradients_of(half.supernet)
    assert told_half.slot_losses == pytest.approx(told.slot_losses, rel=0.02)
    assert not torch.equal(found, expected)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.95


@pytest.mark.parametrize("space", ["micro_8", "ofa_mobilenetv3_32", "nas_bench_macro", "nas_bench_201"])
def test_every_kind_of_layer_has_a_gradient_in_bfloat16(space):
    recipe = toy_recipe(**HALF)
    supernet = toy_supernet(space=space)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    precision = build_stack(recipe, supernet.space, steps_per_epoch=4, seed=0).precision
    for architecture in (supernet.space.largest(), supernet.space.smallest()):
        supernet.zero_grad()
        with precision.forward(torch.device("cpu")):
            logits = supernet.train()(images, architecture)
        logits.float().logsumexp(1).sum().backward()
        grads = [p.grad for p in supernet.parameters() if p.grad is not None]
        assert all(g.isfinite().all() and g.dtype == torch.float32 for g in grads)


def test_the_fast_weight_gradient_of_large_depthwise_kernels_is_for_float32_alone():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 1, 5, 5, requires_grad=True)
    assert type(depthwise_conv(x, weight, 1).grad_fn).__name__ == "_DepthwiseConvBackward"
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv(x, weight, 1)
    assert type(y.grad_fn).__name__ != "_DepthwiseConvBackward"
    y.float().square().sum().backward()
    assert weight.grad.isfinite().all()


def test_synchronised_statistics_of_bfloat16_images_are_taken_in_float32():
    class TwoAlike(SingleProcess):
        """As if a peer held the same images."""

        world_size = 2

        def all_reduce_sum(self, flat):
            assert flat.dtype == torch.float32
            flat.mul_(2)

    x = (100 + torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    weight, bias = torch.ones(4), torch.zeros(4)
    found = SynchronisedBatchNorm().normaliser(TwoAlike())(x, "layer", weight, bias)
    assert found.dtype == torch.bfloat16
    wide = x.double()
    expected = (wide - wide.mean((0, 2, 3), keepdim=True)) / wide.var(
        (0, 2, 3), unbiased=False, keepdim=True
    ).sqrt()
    assert (found.double() - expected).abs().max() < 0.02


def test_a_resumed_run_in_bfloat16_ends_with_the_same_bits():
    recipe = toy_recipe(precision="bfloat16", base_learning_rate=0.02)
    undisturbed, first, second = (toy_trainer(recipe=recipe) for _ in range(3))
    undisturbed.run(6)
    first.run(3)
    second.restore(first.state())
    second.run(3)
    for ours, theirs in zip(second.supernet.parameters(), undisturbed.supernet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_loss_falls_in_bfloat16():
    trainer = toy_trainer(
        recipe=toy_recipe(epochs=10, batch_size=16, base_learning_rate=0.1, precision="bfloat16")
    )
    losses = []
    trainer.run(on_step=lambda stats: losses.append(sum(stats.slot_losses) / len(stats.slot_losses)))
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
