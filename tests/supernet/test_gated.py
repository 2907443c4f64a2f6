"""Networks given by gates are the sliced ones, differentiable by their choices."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.costs import costs
from nas.errors import InvalidRequestError
from nas.families.mbconv import MBConvSpace, Stage
from nas.layers import Act
from search_spaces import SPACES
from supernet.gate_costs import GatedMacs
from supernet.gates import Gates, gated_architecture, hard_gates, num_gates
from supernet.network import Supernet
from tests.training.toy import wake_gammas

NUM_CLASSES = 4
ENTANGLED = sorted(name for name, space in SPACES.items() if space.is_weight_entangled)


def stage(name, widths, **more):
    plain = {"stride": 1, "depths": (1, 2), "kernels": (3, 5), "expansions": (2, 3)}
    return Stage(name=name, widths=widths, **{**plain, **more}, has_squeeze_excite=True, act=Act.SWISH)


NARROWING = MBConvSpace(
    name="narrowing",
    resolutions=(8,),
    stem_widths=(8,),
    stem_stride=1,
    stages=(stage("stage1", (8, 16, 24), depths=(1,), expansions=(1,)), stage("stage2", (8, 16))),
    head_width=16,
)
"""A space whose largest network lacks a shortcut that narrower ones have."""


def double_supernet(space, **kwargs):
    generator = torch.Generator().manual_seed(0)
    supernet = Supernet(space, num_classes=NUM_CLASSES, generator=generator, **kwargs).double()
    return wake_gammas(supernet).train()


def leaf_gates(space, architecture):
    return Gates(space, hard_gates(space, architecture).flat.double().requires_grad_())


def images_for(space, seed=0):
    side = space.resolutions_px()[0]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, space.default_channels, side, side, generator=generator, dtype=torch.float64)


def some_networks(space, count):
    rng = np.random.default_rng(0)
    return [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(count))]


@pytest.mark.parametrize("space", [NARROWING, SPACES["micro_8"]], ids=lambda space: space.name)
def test_the_gradients_by_weights_are_those_of_the_sliced_network(space):
    supernet = double_supernet(space)
    images = images_for(space)
    architecture = some_networks(space, 1)[-1]

    def gradients(**options):
        supernet.zero_grad()
        supernet(images, architecture, **options).square().sum().backward()
        return {name: parameter.grad for name, parameter in supernet.named_parameters()}

    sliced, gated = gradients(), gradients(gates=leaf_gates(space, architecture))
    for name, gradient in sliced.items():
        if gradient is None:
            assert not gated[name].any()
        else:
            torch.testing.assert_close(gated[name], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kernel_transform", [False, True])
def test_kernels_may_be_transformed(kernel_transform):
    supernet = double_supernet(SPACES["micro_8"], kernel_transform=kernel_transform)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if "transforms" in name:
                parameter.add_(0.1)
    images = images_for(supernet.space)
    for architecture in some_networks(supernet.space, 2):
        gated = supernet(images, architecture, gates=hard_gates(supernet.space, architecture))
        torch.testing.assert_close(gated, supernet(images, architecture), rtol=0, atol=1e-10)


def test_shortcuts_that_only_narrower_networks_have_are_found():
    supernet = double_supernet(NARROWING)
    images = images_for(NARROWING)
    names = {layer.name for layer in NARROWING.lower(NARROWING.largest())}
    assert "stage2.block1.add" not in names
    for architecture in some_networks(NARROWING, 30):
        gated = supernet(images, architecture, gates=hard_gates(NARROWING, architecture))
        torch.testing.assert_close(gated, supernet(images, architecture), rtol=0, atol=1e-10)


def test_the_resolution_is_the_architectures():
    space = SPACES["micro"]
    supernet = double_supernet(space)
    images = images_for(space)
    for side in space.resolutions_px():
        architecture = space.parse({**dict(space.smallest().choices), "resolution": side})
        gates = leaf_gates(space, architecture)
        logits = supernet(images, architecture, gates=gates)
        torch.testing.assert_close(logits, supernet(images, architecture), rtol=0, atol=1e-10)
        logits.square().sum().backward()
        by_decision = Gates(space, gates.flat.grad)
        assert not by_decision["resolution"].any()
        assert by_decision["stage1.width"].all()


def test_the_gradient_by_gates_is_that_of_moving_them():
    """Central differences, at a point between networks too."""
    supernet = double_supernet(NARROWING)
    images = images_for(NARROWING)
    architecture = NARROWING.smallest()
    generator = torch.Generator().manual_seed(3)
    between = torch.rand(num_gates(NARROWING), generator=generator, dtype=torch.float64)
    for start in (hard_gates(NARROWING, architecture).flat.double(), between):
        flat = start.clone().requires_grad_()
        supernet(images, architecture, gates=Gates(NARROWING, flat)).square().sum().backward()
        direction = torch.randn(len(start), generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ends = [
                supernet(images, architecture, gates=Gates(NARROWING, start + step * direction))
                .square()
                .sum()
                for step in (-1e-5, 1e-5)
            ]
        slope = (ends[1] - ends[0]) / 2e-5
        torch.testing.assert_close(flat.grad @ direction, slope, rtol=1e-5, atol=1e-6)


def test_gates_spell_their_architecture():
    for name in ENTANGLED:
        space = SPACES[name]
        for architecture in some_networks(space, 5):
            assert gated_architecture(space, hard_gates(space, architecture)) == architecture


@pytest.mark.parametrize("name", sorted(SPACES))
def test_macs_of_one_hot_gates_are_exactly_those_that_are_counted(name):
    space = SPACES[name]
    macs = GatedMacs(space, num_classes=7, in_channels=1)
    networks = some_networks(space, 20)
    flat = torch.stack([hard_gates(space, architecture).flat for architecture in networks])
    counted = [costs(space, a, num_classes=7, in_channels=1)["macs"] for a in networks]
    assert macs(Gates(space, flat)).tolist() == counted
    assert macs(hard_gates(space, networks[3])).item() == counted[3]


def test_macs_between_networks_are_the_expected_ones():
    """Of independent choices: the product form, in which neighbouring widths are multiplied."""
    space = replace(NARROWING, name="two_widths", stages=NARROWING.stages[:1])
    macs = GatedMacs(space, num_classes=NUM_CLASSES, in_channels=3)
    generator = torch.Generator().manual_seed(0)
    gates = Gates(space, torch.rand(num_gates(space), generator=generator, dtype=torch.float64))
    shares = Gates(space, torch.cat([gates[name].softmax(0) for name in gates]))
    expected = 0.0
    for width, by_width in zip((8, 16, 24), shares["stage1.width"], strict=True):
        for kernel, by_kernel in zip((3, 5), shares["stage1.block1.kernel"], strict=True):
            network = space.parse({"stage1.width": width, "stage1.block1.kernel": kernel})
            expected += by_width * by_kernel * costs(space, network, num_classes=NUM_CLASSES)["macs"]
    torch.testing.assert_close(macs(shares), expected)


def test_spaces_whose_blocks_may_lack_single_layers_are_refused():
    first, second = NARROWING.stages
    space = replace(NARROWING, name="unexpanded", stages=(first, replace(second, expansions=(1, 2))))
    architecture = space.smallest()
    with pytest.raises(InvalidRequestError, match=r"space 'unexpanded'.*without 'stage2\.block\d\.expand'"):
        double_supernet(space)(images_for(space), architecture, gates=hard_gates(space, architecture))


@pytest.mark.parametrize("name", sorted(SPACES.keys() - ENTANGLED))
def test_spaces_that_choose_operations_are_refused(name):
    supernet = Supernet(SPACES[name], num_classes=NUM_CLASSES)
    architecture = supernet.space.smallest()
    images = images_for(supernet.space).float()
    with pytest.raises(InvalidRequestError, match=f"space '{name}'.*chooses between operations"):
        supernet(images, architecture, gates=hard_gates(supernet.space, architecture))
