"""Channel sorting: the important channels first, the largest network as it was, momentum on its channels."""

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD, RMSprop

from supernet.network import Supernet, slot_key
from supernet.training.channel_sort import sort_channels
from tests.small_spaces import SMALL_SPACES
from tests.training.toy import NUM_CLASSES, ToyBatches, wake_gammas

OPTIMIZERS = {"sgd": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True), "rmsprop": RMSprop}


def ready(space="micro_8", *, optimizer="sgd", dtype=torch.float32, **kwargs):
    generator = torch.Generator().manual_seed(0)
    fresh = Supernet(SMALL_SPACES[space], num_classes=NUM_CLASSES, generator=generator, **kwargs)
    supernet = wake_gammas(fresh).to(dtype)
    return supernet, OPTIMIZERS[optimizer](supernet.parameters())


def images_for(supernet):
    side = supernet.space.resolutions_px()[-1]
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(2))


def outputs(supernet, images, *networks):
    """In train mode, where batch norm hides nothing that it could in eval mode without statistics."""
    with torch.no_grad():
        return [supernet.train()(images, network) for network in networks]


def train_largest(supernet, optimizer, steps):
    batches = ToyBatches(dtype=torch.float64)
    for step in steps:
        images, labels = batches.batch(step)
        optimizer.zero_grad()
        F.cross_entropy(supernet(images, supernet.space.largest()), labels).backward()
        optimizer.step()


def read_by_channel(supernet, layer):
    """L1 norm of a layer's weights over each of its input channels."""
    return supernet.slots[slot_key(layer)].weights.weight.abs().sum((0, 2, 3))


@pytest.mark.parametrize("kernel_transform", [False, True])
@pytest.mark.parametrize("space", ["micro_8", "ofa_mobilenetv3_32", "attentive_nas", "ofa_resnet50"])
def test_the_largest_network_computes_what_it_did_and_the_smallest_does_not(space, kernel_transform):
    supernet, optimizer = ready(space, kernel_transform=kernel_transform)
    images, networks = images_for(supernet), (supernet.space.largest(), supernet.space.smallest())
    largest, smallest = outputs(supernet, images, *networks)
    sort_channels(supernet, optimizer)
    largest_after, smallest_after = outputs(supernet, images, *networks)
    assert (largest_after - largest).abs().max() < 1e-5
    assert (smallest_after - smallest).abs().max() > 1e-2


@pytest.mark.parametrize("space", ["micro_8", "ofa_mobilenetv3_32"])
def test_hidden_channels_fall_in_the_l1_norm_of_the_weights_that_lead_out_of_them(space):
    supernet, optimizer = ready(space)
    names = {layer.name for layer in supernet.lower(supernet.space.largest())}
    expanding = sorted(name.removesuffix(".expand") for name in names if name.endswith(".depthwise"))
    blocks = [name.removesuffix(".depthwise") for name in expanding]
    leading_out = [f"{block}.project" for block in blocks if f"{block}.expand" in names]
    leading_out += [name for name in names if name.endswith(".squeeze_excite.expand")]
    before = {name: read_by_channel(supernet, name).detach() for name in leading_out}
    sort_channels(supernet, optimizer)
    assert len(leading_out) > 12
    for name in leading_out:
        after = read_by_channel(supernet, name)
        assert not torch.equal(after, before[name])
        torch.testing.assert_close(after, before[name].sort(descending=True).values)


def test_the_width_of_a_stage_falls_in_the_l1_norm_over_all_that_read_it():
    supernet, optimizer = ready()
    readers = ["stage2.block2.expand", "stage2.block3.expand", "stage3.block1.expand"]
    sort_channels(supernet, optimizer)
    importance = sum(read_by_channel(supernet, reader) for reader in readers)
    torch.testing.assert_close(importance, importance.sort(descending=True).values)


def test_what_no_network_uses_in_part_stays_as_it_is():
    supernet, optimizer = ready("nas_bench_macro")
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    sort_channels(supernet, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_sorting_what_is_sorted_changes_nothing():
    supernet, optimizer = ready()
    sort_channels(supernet, optimizer)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    sort_channels(supernet, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


# Momentum


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_the_optimizer_keeps_goes_with_its_channels(optimizer):
    supernet, kept = ready(optimizer=optimizer)
    for parameter in supernet.parameters():
        kept.state[parameter]["step"] = torch.tensor(3.0)
        kept.state[parameter]["gathered"] = 2 * parameter.detach().clone()
    sort_channels(supernet, kept)
    for parameter in supernet.parameters():
        assert torch.equal(kept.state[parameter]["gathered"], 2 * parameter)
        assert kept.state[parameter]["step"] == 3


def test_training_the_largest_network_on_goes_as_if_nothing_had_been_sorted():
    """It would not, were momentum left on other channels."""
    trained = []
    for is_sorted in (False, True):
        supernet, optimizer = ready(dtype=torch.float64)
        train_largest(supernet, optimizer, range(3))
        if is_sorted:
            sort_channels(supernet, optimizer)
        train_largest(supernet, optimizer, range(3, 8))
        trained.append(outputs(supernet, images_for(supernet).double(), supernet.space.largest())[0])
    torch.testing.assert_close(*trained, rtol=0, atol=1e-9)


# Prefixes that networks were trained with


def test_channels_that_smaller_networks_were_trained_with_stay_the_first():
    supernet, optimizer = ready()
    name = "stage3.block2"
    rows = supernet.slots[slot_key(f"{name}.depthwise")].weights.weight
    project = read_by_channel(supernet, f"{name}.project").detach()
    before = rows.detach().flatten(1).clone()
    sort_channels(supernet, optimizer, exposed={f"{name}.depthwise": [96], f"{name}.expand": [96]})
    order = [int((before == row).all(1).nonzero()) for row in rows.flatten(1)]
    assert sorted(order[:96]) == list(range(96)) != order[:96]
    after = project[order]
    for part in (after[:96], after[96:]):
        torch.testing.assert_close(part, part.sort(descending=True).values)
    # It is the membership that is kept: some channel behind is more important than some before it.
    assert after[96] > after[95]


def test_networks_that_only_grow_by_unexposed_channels_compute_what_they_did():
    """All that was trained so far keeps its function: here networks whose hidden channels are all 3 or 4."""
    supernet, optimizer = ready("ofa_mobilenetv3_32")
    space, images = supernet.space, images_for(supernet)
    choices = space.largest().to_json()
    trained = space.parse({k: 4 if k.endswith("expansion") else v for k, v in choices.items()})
    smaller = space.parse({k: 3 if k.endswith("expansion") else v for k, v in choices.items()})
    before = outputs(supernet, images, space.largest(), trained, smaller)
    exposed = {layer.name: [layer.out_channels] for layer in supernet.lower(trained)}
    sort_channels(supernet, optimizer, exposed=exposed)
    after = outputs(supernet, images, space.largest(), trained, smaller)
    changes = [(a - b).abs().max() for a, b in zip(before, after, strict=True)]
    assert changes[0] < 1e-5
    assert changes[1] < 1e-5
    assert changes[2] > 1e-2


def test_prefixes_within_prefixes_all_keep_their_members():
    supernet, optimizer = ready()
    name = "stage3.block2"
    rows = supernet.slots[slot_key(f"{name}.depthwise")].weights.weight
    before = rows.detach().flatten(1).clone()
    sort_channels(supernet, optimizer, exposed={f"{name}.depthwise": [96, 64, 144]})
    order = [int((before == row).all(1).nonzero()) for row in rows.flatten(1)]
    assert order != sorted(order)
    for number in (64, 96, 144):
        assert sorted(order[:number]) == list(range(number))
