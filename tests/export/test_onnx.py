"""The ONNX graph computes what the extracted network computes."""

import onnxruntime
import pytest
import torch

from nas.layers import IMAGE, Act, LayerKind, LoweringBuilder
from search_spaces import SPACES
from supernet.elastic.stateless import run_stateless
from supernet.export import build_onnx
from supernet.export.gates import ONNX_TOLERANCE
from supernet.extract import PlainNetwork
from tests.export.examples import calibrated_network, random_images, random_supernet, sampled_architectures


def max_difference(network, images):
    session = onnxruntime.InferenceSession(
        build_onnx(network).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.inference_mode():
        return float((torch.from_numpy(logits) - network(images)).abs().max())


@pytest.mark.parametrize("space_name", SPACES)
def test_onnx_runtime_agrees_with_torch(space_name):
    supernet = random_supernet(space_name)
    is_large = supernet.space.resolutions_px()[-1] > 32
    for architecture in sampled_architectures(supernet.space, 1 if is_large else 3):
        network = calibrated_network(supernet, architecture)
        images = random_images(network.layers[0].in_height, count=2)
        assert max_difference(network, images) <= ONNX_TOLERANCE


@pytest.mark.parametrize("batch_size", [1, 7])
def test_any_batch_size_is_taken(batch_size):
    supernet = random_supernet("micro")
    network = calibrated_network(supernet, supernet.space.smallest())
    assert max_difference(network, random_images(24, count=batch_size)) <= ONNX_TOLERANCE


def test_every_kind_of_layer_and_activation_has_an_onnx_form():
    net = LoweringBuilder(3, 8)
    tensor = net.conv("conv", IMAGE, 8, kernel=3, bias=True, act=Act.HARD_SIGMOID)
    tensor = net.batch_norm("norm", tensor, act=Act.SWISH)
    tensor = net.average_pool("pool", tensor, kernel=3, stride=1)
    tensor = net.max_pool("max", tensor, kernel=3, stride=2)
    factors = net.activation("act", net.global_pool("squeeze", tensor), Act.HARD_SWISH)
    scaled = net.scale("scale", tensor, factors)
    tensor = net.add("add", tensor, scaled, net.zeros("zeros", tensor), act=Act.RELU)
    net.linear("linear", net.global_pool("mean", tensor), 10)
    layers = net.layers()
    assert {layer.kind for layer in layers} == set(LayerKind)
    assert {layer.act for layer in layers} == {*Act, None}
    network = PlainNetwork(layers).eval()
    assert max_difference(network, random_images(8)) <= 1e-6


@pytest.mark.parametrize("side", [1, 4, 5, 7])
def test_halving_a_map_averages_what_lies_within_it(side):
    net = LoweringBuilder(3, side)
    tensor = net.average_pool("pool", IMAGE, kernel=2, stride=2)
    net.linear("linear", net.global_pool("mean", net.conv("conv", tensor, 8, kernel=3)), 10)
    layers = net.layers()
    network = PlainNetwork(layers).eval()
    halved = run_stateless(layers[0], [torch.ones(1, 3, side, side)])
    assert halved.shape[2:] == (layers[0].out_height, layers[0].out_width) == ((side + 1) // 2,) * 2
    assert bool((halved == 1).all())
    assert max_difference(network, random_images(side)) <= 1e-6


def test_weights_are_called_as_in_the_state_dict():
    supernet = random_supernet("nas_bench_macro")
    network = calibrated_network(supernet, supernet.space.largest())
    names = {tensor.name for tensor in build_onnx(network).graph.initializer}
    expected = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
    assert names == expected


def test_batch_is_free_and_height_and_width_are_fixed():
    supernet = random_supernet("micro")
    graph = build_onnx(calibrated_network(supernet, supernet.space.smallest())).graph
    images, logits = ([dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
                      for value in (graph.input[0], graph.output[0]))  # fmt: skip
    assert (graph.input[0].name, graph.output[0].name) == ("images", "logits")
    assert images == ["batch", 3, 24, 24]
    assert logits == ["batch", 10]
