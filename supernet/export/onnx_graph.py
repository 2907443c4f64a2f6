"""`model.onnx`, written node by node from the lowering.

Not traced: the lowering already is the whole data-flow graph, with few kinds of layers. Written from
it, the graph has exactly these nodes under these names, its weights are called as in the state_dict,
and no exporter that changes from release to release stands between the two.

Batch norms stay nodes of their own: a runtime folds them into the convolutions as it loads the model,
and until then the statistics can be read, or measured anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.layers import IMAGE, Act, LayerKind, LayerSpec
from supernet.elastic.batch_norm import EPS
from supernet.export.dataflow import live_positions
from supernet.extract import PlainNetwork
from supernet.network import slot_key

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

OPSET = 17
"""The newest that needs nothing newer than IR version 8, which every ONNX Runtime since 1.12 reads."""
IR_VERSION = 8


def build_onnx(network: PlainNetwork) -> onnx.ModelProto:
    """`images` (batch, C, H, W) → `logits` (batch, classes): any batch size; H and W are fixed."""
    graph = _Graph(network)
    layers = network.layers
    outputs = {IMAGE: INPUT_NAME}
    for position in live_positions(layers):
        outputs[position] = graph.add_layer(layers[position], [outputs[s] for s in layers[position].inputs])
    graph.nodes[-1].output[0] = OUTPUT_NAME
    model = helper.make_model(
        graph.proto(layers[0], layers[-1]),
        producer_name="nas",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and weights so far. Every `_add_*` returns the name of the tensor it made."""

    def __init__(self, network: PlainNetwork) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._tensors = network.state_dict()

    def proto(self, first: LayerSpec, last: LayerSpec) -> onnx.GraphProto:
        """The graph from the first layer's input to the last one's output."""
        shape: list[str | int | None] = ["batch", first.in_channels, first.in_height, first.in_width]
        images = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape)
        logits = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", last.out_channels])
        return helper.make_graph(self.nodes, "network", [images], [logits], [*self._initializers.values()])

    def add_layer(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """The layer with its batch norm and activation."""
        tensor = _ADDERS[layer.kind](self, layer, inputs)
        if layer.bn:
            tensor = self._add_batch_norm(layer, tensor)
        return tensor if layer.act is None else self._add_act(layer, tensor)

    def add_conv(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """A convolution without its batch norm."""
        return self._add(
            "Conv", layer, [*inputs, *self._weights(layer, "conv")],
            kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2, pads=[layer.padding] * 4,
            group=layer.groups,
        )  # fmt: skip

    def add_linear(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """A linear layer on a 1 × 1 map."""
        features = self._add("Flatten", layer, inputs, axis=1)
        return self._add("Gemm", layer, [features, *self._weights(layer, "linear")], transB=1)

    def add_average_pool(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """Padding is not counted."""
        pads = [layer.padding] * 4
        if layer.reaches_past_edge:
            # As padding, not as ceil_mode: what that makes of the average has changed between runtimes.
            pads = [0, 0, _past_edge(layer, layer.in_height), _past_edge(layer, layer.in_width)]
        return self._add(
            "AveragePool", layer, inputs,
            kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2, pads=pads, count_include_pad=0,
        )  # fmt: skip

    def add_max_pool(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """Padding is never the maximum."""
        return self._add(
            "MaxPool", layer, inputs,
            kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2, pads=[layer.padding] * 4,
        )  # fmt: skip

    def add_global_pool(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """Mean over the map."""
        return self._add("GlobalAveragePool", layer, inputs)

    def add_sum(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """Pair by pair, in PyTorch's order; runtimes fuse an Add with what comes before it, a Sum never."""
        total = inputs[0]
        for number, term in enumerate(inputs[1:]):
            total = self._add("Add", layer, [total, term], suffix=f"_{number}" if number else "")
        return total

    def add_scale(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """Channel-wise product."""
        return self._add("Mul", layer, inputs)

    def add_zeros(self, layer: LayerSpec, inputs: Sequence[str]) -> str:
        """Zeros of the input's shape. Not the input times 0, which an infinity would turn into NaN."""
        zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
        return self._add("ConstantOfShape", layer, [self._add("Shape", layer, inputs)], value=zero)

    def _add_batch_norm(self, layer: LayerSpec, tensor: str) -> str:
        names = ("weight", "bias", "running_mean", "running_var")
        constants = [self._constant(f"{slot_key(layer.name)}.bn.{name}") for name in names]
        return self._add("BatchNormalization", layer, [tensor, *constants], epsilon=EPS)

    def _add_act(self, layer: LayerSpec, tensor: str) -> str:
        match layer.act:
            case Act.RELU:
                return self._add("Relu", layer, [tensor])
            case Act.HARD_SWISH:
                return self._add("HardSwish", layer, [tensor])
            case Act.HARD_SIGMOID:
                return self._add("HardSigmoid", layer, [tensor], alpha=1 / 6, beta=0.5)
            case Act.SWISH:
                return self._add("Mul", layer, [tensor, self._add("Sigmoid", layer, [tensor])])
        raise ValueError(f"layer '{layer.name}': activation {layer.act} has no ONNX form here; add it")

    def _weights(self, layer: LayerSpec, part: str) -> list[str]:
        names = ["weight", "bias"] if layer.bias else ["weight"]
        return [self._constant(f"{slot_key(layer.name)}.{part}.{name}") for name in names]

    def _constant(self, key: str) -> str:
        values = self._tensors[key].detach().cpu().contiguous().numpy()
        self._initializers[key] = numpy_helper.from_array(values, key)
        return key

    def _add(
        self, operator: str, layer: LayerSpec, inputs: Sequence[str], *, suffix: str = "", **attributes: Any
    ) -> str:
        name = f"{layer.name}/{operator}{suffix}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name


def _past_edge(layer: LayerSpec, size: int) -> int:
    """By how many pixels the last window reaches past the edge of a map of that size."""
    return (layer.kernel - size) % layer.stride


_ADDERS: dict[LayerKind, Callable[[_Graph, LayerSpec, Sequence[str]], str]] = {
    LayerKind.CONV: _Graph.add_conv,
    LayerKind.LINEAR: _Graph.add_linear,
    LayerKind.BATCH_NORM: lambda graph, layer, inputs: inputs[0],
    LayerKind.ACTIVATION: lambda graph, layer, inputs: inputs[0],
    LayerKind.AVERAGE_POOL: _Graph.add_average_pool,
    LayerKind.MAX_POOL: _Graph.add_max_pool,
    LayerKind.GLOBAL_POOL: _Graph.add_global_pool,
    LayerKind.ADD: _Graph.add_sum,
    LayerKind.SCALE: _Graph.add_scale,
    LayerKind.ZEROS: _Graph.add_zeros,
}
