"""Laws that tie the supernet, its slices and the extracted networks together."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.costs import costs
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.extract import PlainNetwork, extract
from supernet.network import Supernet
from tests.small_spaces import SMALL_SPACES
from tests.supernet.networks import (
    SUPERNET_SPACES,
    make_images,
    make_supernet,
    sample_architectures,
)


@pytest.fixture(params=SUPERNET_SPACES)
def name(request):
    torch.set_num_threads(1)
    return request.param


def test_extracted_logits_equal_sliced_logits(name):
    supernet = make_supernet(name).eval()
    for architecture in sample_architectures(supernet.space, 6):
        images = make_images(supernet.space, architecture)
        statistics = recalibrate(supernet, architecture, [images])
        with torch.no_grad():
            sliced = supernet(images, architecture, statistics)
            assert torch.allclose(extract(supernet, architecture, statistics)(images), sliced, atol=1e-5)
            assert torch.allclose(
                extract(supernet, architecture)(images), supernet(images, architecture), atol=1e-5
            )


def test_extraction_and_slicing_agree_on_images_of_another_size():
    supernet = make_supernet("micro").eval()
    images = torch.randn(2, 3, 40, 36)
    for architecture in sample_architectures(supernet.space, 3):
        with torch.no_grad():
            assert torch.equal(extract(supernet, architecture)(images), supernet(images, architecture))


def test_the_largest_subnet_is_the_plain_network_built_from_the_lowering(name):
    supernet = make_supernet(name).eval()
    largest = supernet.space.largest()
    plain = PlainNetwork(supernet.space.lower(largest, num_classes=10)).eval()
    shared = {
        key.replace("slots.", "").replace(".weights.", ".conv."): value
        for key, value in supernet.state_dict().items()
    }
    shared = {key.replace("classifier.conv", "classifier.linear"): value for key, value in shared.items()}
    missing, unexpected = plain.load_state_dict(shared, strict=False)
    assert all("running" in key or "num_batches" in key for key in missing)
    # Weights that the largest network lacks: of operations not chosen, of a shortcut between equal widths.
    assert not unexpected or name.startswith("nas_bench") or all("shortcut" in key for key in unexpected)
    images = make_images(supernet.space)
    with torch.no_grad():
        assert torch.allclose(plain(images), supernet(images, largest), atol=1e-5)


def test_weights_outside_a_slice_get_no_gradient(name):
    supernet = make_supernet(name)
    for architecture in sample_architectures(supernet.space, 3):
        supernet.zero_grad(set_to_none=True)
        F.cross_entropy(
            supernet(make_images(supernet.space, architecture), architecture), torch.tensor([0, 1, 2])
        ).backward()
        used = {layer.name.replace(".", "_"): layer for layer in supernet.lower(architecture)}
        for key, parameter in supernet.named_parameters():
            layer = used.get(key.split(".")[1])
            if layer is None:
                assert parameter.grad is None
            elif parameter.grad is not None:
                outside = parameter.grad[layer.out_channels :]
                assert outside.count_nonzero() == 0
                if key.endswith("weights.weight"):
                    assert parameter.grad[:, layer.in_channels // layer.groups :].count_nonzero() == 0
                    if parameter.ndim == 4:
                        margin = (parameter.shape[-1] - layer.kernel) // 2
                        ring = parameter.grad.clone()
                        ring[..., margin : margin + layer.kernel, margin : margin + layer.kernel] = 0
                        assert ring.count_nonzero() == 0


def test_every_used_weight_gets_a_gradient():
    supernet = make_supernet("micro")
    largest = supernet.space.largest()
    F.cross_entropy(supernet(make_images(supernet.space, count=8), largest), torch.arange(8)).backward()
    for key, parameter in supernet.named_parameters():
        assert parameter.grad is not None, key
        # A rectifier may silence a channel, never most of a tensor.
        assert parameter.grad.count_nonzero() > parameter.numel() // 2, key


def test_recalibration_touches_nothing(name):
    supernet = make_supernet(name).train()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    random_state = torch.get_rng_state()
    recalibrate(supernet, supernet.space.smallest(), [make_images(supernet.space)])
    assert supernet.training
    assert torch.equal(random_state, torch.get_rng_state())
    for key, value in supernet.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_recalibrated_statistics_are_the_plain_mean_over_batches():
    supernet = make_supernet("micro")
    architecture = sample_architectures(supernet.space, 1)[-1]
    batches = [make_images(supernet.space, architecture, count=8, seed=seed) for seed in range(4)]
    statistics = recalibrate(supernet, architecture, batches)
    # The independent way: torch's own cumulative averages in the extracted network.
    plain = extract(supernet, architecture).train()
    norms = {key: module for key, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for batch in batches:
            plain(batch)
    assert len(norms) == len(statistics.means)
    for slot, mean in statistics.means.items():
        norm = norms[f"{slot.replace('.', '_')}.bn"]
        assert torch.allclose(mean, norm.running_mean, atol=1e-5)
        assert torch.allclose(statistics.variances[slot], norm.running_var, rtol=1e-4)


def test_recalibration_is_per_network():
    supernet = make_supernet("micro")
    first, second = sample_architectures(supernet.space, 2)[-2:]
    images = make_images(supernet.space, count=8)
    one, other = (recalibrate(supernet, architecture, [images]) for architecture in (first, second))
    assert not torch.equal(one.means["head.expand"], other.means["head.expand"])


def test_recalibration_without_images_is_refused():
    supernet = make_supernet("micro_8")
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(supernet, supernet.space.largest(), [])


def test_different_networks_give_different_logits(name):
    supernet = make_supernet(name).eval()
    images = make_images(supernet.space)
    seen = []
    for architecture in sample_architectures(supernet.space, 8):
        statistics = recalibrate(supernet, architecture, [images])
        with torch.no_grad():
            logits = supernet(images, architecture, statistics)
        assert all(not torch.equal(logits, other) for other in seen)
        seen.append(logits)


def test_nothing_of_a_call_is_kept(name):
    supernet = make_supernet(name).eval()
    first, *others = sample_architectures(supernet.space, 4)
    images = make_images(supernet.space)
    with torch.no_grad():
        before = supernet(images, first)
        for other in others:
            supernet(images, other)
        assert torch.equal(supernet(images, first), before)


def count_macs_and_params(module, images):
    """An independent counter: forward hooks on the plain layers, and the parameters they hold."""
    macs = 0

    def count(layer, inputs, output):
        nonlocal macs
        weights_per_output = layer.weight[0].numel()
        macs += output[0].numel() * weights_per_output

    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module(images)
    for hook in hooks:
        hook.remove()
    return macs, sum(parameter.numel() for parameter in module.parameters())


def test_an_independent_counter_over_the_extracted_network_agrees(name):
    supernet = make_supernet(name).eval()
    for architecture in sample_architectures(supernet.space, 12):
        module = extract(supernet, architecture)
        images = make_images(supernet.space, architecture, count=1)
        expected = costs(supernet.space, architecture, num_classes=10)
        assert count_macs_and_params(module, images) == (expected["macs"], expected["params"])
        stored = sum(value.numel() for value in module.state_dict().values() if value.is_floating_point())
        assert 4 * stored == expected["size_bytes"]


@pytest.mark.parametrize("large", ["ofa_mobilenetv3", "attentive_nas", "ofa_resnet50"])
def test_an_independent_counter_agrees_on_large_images(large):
    torch.set_num_threads(1)
    space = SPACES[large]
    supernet = Supernet(space).eval()
    for architecture in sample_architectures(space, 2):
        images = make_images(space, architecture, count=1)
        expected = costs(space, architecture)
        found = count_macs_and_params(extract(supernet, architecture), images)
        assert found == (expected["macs"], expected["params"])


def shapes_seen(module, images):
    """Input and output shape of every named layer while the module runs."""
    seen = {}

    def note(key):
        return lambda _, inputs, output: seen.__setitem__(key, (inputs[0].shape, output.shape))

    for key, layer in module.named_children():
        layer.register_forward_hook(note(key))
    with torch.no_grad():
        module(images)
    return seen


def test_each_layers_shapes_are_those_the_lowering_says(name):
    supernet = make_supernet(name).eval()
    for architecture in sample_architectures(supernet.space, 3):
        module = extract(supernet, architecture)
        seen = shapes_seen(module, make_images(supernet.space, architecture, count=1))
        for layer in module.layers:
            shapes = seen.get(layer.name.replace(".", "_"))
            if shapes and len(shapes[0]) == 4:
                assert tuple(shapes[0][1:]) == (layer.in_channels, layer.in_height, layer.in_width)
                assert tuple(shapes[1][1:]) == (layer.out_channels, layer.out_height, layer.out_width)


def test_identity_transforms_leave_the_centre_crop():
    generator = torch.Generator().manual_seed(0)
    space = SPACES["micro"]
    plain = Supernet(space, generator=generator).eval()
    transformed = Supernet(space, kernel_transform=True).eval()
    transformed.load_state_dict(plain.state_dict(), strict=False)
    for architecture in sample_architectures(space, 4):
        images = make_images(space, architecture)
        with torch.no_grad():
            assert torch.allclose(transformed(images, architecture), plain(images, architecture), atol=1e-5)


def test_a_transform_moves_the_smaller_kernels_only():
    supernet = make_supernet("micro", kernel_transform=True)
    conv = supernet.slots["stage1_block1_depthwise"].weights
    kernels = {}
    for architecture in sample_architectures(supernet.space, 30):
        for layer in supernet.lower(architecture):
            if layer.name == "stage1.block1.depthwise":
                kernels[layer.kernel] = layer
    assert set(kernels) == {3, 5, 7}
    before = {kernel: conv.weight_for(layer).clone() for kernel, layer in kernels.items()}
    with torch.no_grad():
        conv.transforms["5"].add_(0.1)
    moved = {
        kernel: not torch.equal(conv.weight_for(layer), before[kernel]) for kernel, layer in kernels.items()
    }
    assert moved == {3: True, 5: True, 7: False}


def test_the_same_seed_builds_the_same_supernet():
    one, other = (make_supernet("micro_8", seed=7) for _ in range(2))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_random_architectures_stay_in_the_space(name):
    space = SMALL_SPACES[name]
    rng = np.random.default_rng(1)
    assert all(space.contains(space.sample(rng)) for _ in range(20))
