"""The generated source computes what the extracted network computes, to the bit."""

import ast
import sys

import pytest
import torch

from nas.layers import IMAGE, Act, LoweringBuilder
from search_spaces import SPACES
from supernet.export import generate_source
from supernet.extract import PlainNetwork
from tests.export.examples import (
    CLASS_NAMES,
    calibrated_network,
    generated_network,
    random_images,
    random_supernet,
    sampled_architectures,
)

NUM_ARCHITECTURES = {"ofa_mobilenetv3": 1, "attentive_nas": 1, "ofa_resnet50": 1, "nas_bench_201": 8}


def assert_same_bits(network, images):
    with torch.inference_mode():
        assert torch.equal(generated_network(network)(images), network(images))


@pytest.mark.parametrize("space_name", SPACES)
def test_generated_source_gives_the_same_bits(space_name):
    supernet = random_supernet(space_name)
    for architecture in sampled_architectures(supernet.space, NUM_ARCHITECTURES.get(space_name, 3)):
        network = calibrated_network(supernet, architecture)
        assert_same_bits(network, random_images(network.layers[0].in_height, count=2))


@pytest.mark.parametrize("side", [7, 11])
def test_images_of_another_size_are_resized_as_in_the_supernet(side):
    supernet = random_supernet("micro_8")
    network = calibrated_network(supernet, supernet.space.smallest())
    assert_same_bits(network, random_images(side))


def test_operations_that_lead_nowhere_keep_their_weights_and_are_not_run():
    supernet = random_supernet("nas_bench_201")
    # Nothing reads node 1, yet a convolution leads to it.
    dead = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    network = calibrated_network(supernet, supernet.space.parse(dead))
    source = generate_source(network.layers, class_names=CLASS_NAMES)
    assert source.count("stage1_cell1_edge0to1") == 1
    assert "# leads nowhere: counted, but never run" in source
    assert_same_bits(network, random_images(32, count=2))


def test_a_tensor_read_late_survives_others_of_its_name():
    """Two long shortcuts at once, of layers with the same name in their blocks, and one read by a pool."""
    net = LoweringBuilder(3, 8)
    first = net.conv("a.b.conv", IMAGE, 8, act=Act.SWISH)
    second = net.conv("c.d.conv", first, 8)
    third = net.conv("e.f.conv", second, 8)
    fourth = net.add("e.f.add", third, second, act=Act.RELU)
    fifth = net.add("g.add", fourth, first, second)
    sixth = net.average_pool("h.pool", fifth, kernel=3, stride=2)
    net.linear("i.linear", net.global_pool("i.pool", sixth), 10)
    network = PlainNetwork(net.layers()).eval()
    assert_same_bits(network, random_images(8))


@pytest.mark.parametrize("side", [7, 8])
def test_pools_are_the_same_for_maps_of_odd_and_of_even_size(side):
    net = LoweringBuilder(3, side)
    tensor = net.max_pool("a.pool", net.conv("a.conv", IMAGE, 8), kernel=3, stride=2)
    tensor = net.average_pool("b.pool", tensor, kernel=2, stride=2)
    tensor = net.average_pool("c.pool", tensor, kernel=3, stride=1)
    net.linear("d.linear", net.global_pool("d.pool", tensor), 10)
    assert_same_bits(PlainNetwork(net.layers()).eval(), random_images(side))


def test_source_needs_nothing_but_torch_and_safetensors():
    layers = SPACES["micro"].lower(SPACES["micro"].largest())
    tree = ast.parse(generate_source(layers, class_names=CLASS_NAMES))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"torch", "safetensors"}


def test_class_names_survive_whatever_they_hold():
    layers = SPACES["micro_8"].lower(SPACES["micro_8"].smallest())
    names = ['"""', "'", "\\", "new\nline", "{braces}", "日本", "😀", *map(str, range(993))]
    source = generate_source(layers, class_names=names, headline=['""" \\ {x}'])
    module = {}
    exec(source, module)
    assert module["CLASS_NAMES"] == tuple(names)


@pytest.mark.parametrize("space_name", SPACES)
def test_source_is_narrow_enough_to_read(space_name):
    layers = SPACES[space_name].lower(SPACES[space_name].largest())
    source = generate_source(layers, class_names=CLASS_NAMES)
    assert max(map(len, source.splitlines())) <= 110
