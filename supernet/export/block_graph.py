"""One fused block as an ONNX model, to be timed alone. Its weights are numbers of no meaning."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nas.devices.blocks import FusedBlock, Operation
from nas.layers import Act
from supernet.export.onnx_graph import IR_VERSION, OPSET

INPUT_NAME = "input"

_PATTERN = 512
"""Numbers after which weights repeat: a file of them packs well, and no processor is quicker for it."""


def build_block(block: FusedBlock, *, batch: int) -> onnx.ModelProto:
    """`input` (batch, cin, h, w), and `added0`, … shaped as the output where tensors are added → output."""
    graph = _BlockGraph(block, batch)
    tensor = _OPERATIONS[block.op](graph, INPUT_NAME)
    if not block.fused_add:
        tensor = graph.add_act(tensor, block.act)
    if block.se:
        tensor = graph.add_squeeze_excite(tensor)
    for number in range(block.fused_add):
        tensor = graph.add("Add", [tensor, f"added{number}"])
    if block.fused_add:
        tensor = graph.add_act(tensor, block.act)
    return graph.model(tensor)


def input_shapes(block: FusedBlock, *, batch: int) -> dict[str, list[int]]:
    """By name."""
    output = [batch, block.cout, block.out_h, block.out_w]
    added = {f"added{number}": output for number in range(block.fused_add)}
    return {INPUT_NAME: [batch, block.cin, block.h, block.w], **added}


def pattern(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights that keep a signal's size: normal numbers over the square root of what is summed."""
    numbers = np.random.default_rng(0).standard_normal(_PATTERN).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    return np.asarray(np.resize(numbers, shape) / np.float32(sqrt(fan_in)))


class _BlockGraph:
    """Nodes and weights so far. Every `add…` returns the name of the tensor it made."""

    def __init__(self, block: FusedBlock, batch: int) -> None:
        self.block = block
        self._batch = batch
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []

    def model(self, output: str) -> onnx.ModelProto:
        block = self.block
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in input_shapes(block, batch=self._batch).items()
        ]
        rows = [self._batch, block.cout]
        shape = rows if block.op is Operation.LINEAR else [*rows, block.out_h, block.out_w]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        model = helper.make_model(
            helper.make_graph(self._nodes, "block", inputs, outputs, self._weights),
            producer_name="nas",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def add_act(self, tensor: str, act: str) -> str:
        match act:
            case "":
                return tensor
            case Act.RELU:
                return self.add("Relu", [tensor])
            case Act.HARD_SWISH:
                return self.add("HardSwish", [tensor])
            case Act.HARD_SIGMOID:
                return self.add("HardSigmoid", [tensor], alpha=1 / 6, beta=0.5)
            case Act.SWISH:
                return self.add("Mul", [tensor, self.add("Sigmoid", [tensor])])
        raise ValueError(f"block {self.block}: activation '{act}' has no ONNX form here; add it")

    def add_squeeze_excite(self, tensor: str) -> str:
        block = self.block
        factors = self.add("GlobalAveragePool", [tensor])
        factors = self.add_act(self.add_conv(factors, block.cout, block.se), Act.RELU)
        factors = self.add_act(self.add_conv(factors, block.se, block.cout), Act.HARD_SIGMOID)
        return self.add("Mul", [tensor, factors])

    def add_conv(self, tensor: str, cin: int, cout: int, **attributes: Any) -> str:
        """With a bias, which is what a folded batch norm leaves."""
        kernel = attributes.get("kernel_shape", [1, 1])
        weights = (cout, cin // attributes.get("group", 1), *kernel)
        return self.add("Conv", [tensor, *self.weights(weights, (cout,))], **attributes)

    def weights(self, *shapes: tuple[int, ...]) -> list[str]:
        names = [f"weights{len(self._weights) + i}" for i in range(len(shapes))]
        self._weights += [
            numpy_helper.from_array(pattern(shape), name) for shape, name in zip(shapes, names, strict=True)
        ]
        return names

    def window(self) -> dict[str, Any]:
        """Kernel, stride and padding; what an even kernel lacks at the edge is padding at the end."""
        block = self.block
        before = block.k // 2 if block.k % 2 else 0
        after = [
            max(0, (out - 1) * block.stride + block.k - before - size)
            for size, out in ((block.h, block.out_h), (block.w, block.out_w))
        ]
        return {
            "kernel_shape": [block.k] * 2,
            "strides": [block.stride] * 2,
            "pads": [before, before, *after],
        }


def _conv(graph: _BlockGraph, tensor: str) -> str:
    block = graph.block
    return graph.add_conv(tensor, block.cin, block.cout, group=block.groups, **graph.window())


def _linear(graph: _BlockGraph, tensor: str) -> str:
    block = graph.block
    features = graph.add("Flatten", [tensor], axis=1)
    weights = graph.weights((block.cout, block.cin), (block.cout,))
    return graph.add("Gemm", [features, *weights], transB=1)


def _batch_norm(graph: _BlockGraph, tensor: str) -> str:
    """Its variance is drawn as all weights are, and must not be negative."""
    channels = (graph.block.cout,)
    scale, shift, mean = graph.weights(channels, channels, channels)
    variance = graph.add("Abs", graph.weights(channels))
    return graph.add("BatchNormalization", [tensor, scale, shift, mean, variance])


def _zeros(graph: _BlockGraph, tensor: str) -> str:
    zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    return graph.add("ConstantOfShape", [graph.add("Shape", [tensor])], value=zero)


_OPERATIONS: dict[Operation, Callable[[_BlockGraph, str], str]] = {
    Operation.CONV: _conv,
    Operation.POINTWISE: _conv,
    Operation.DEPTHWISE: _conv,
    Operation.LINEAR: _linear,
    Operation.BATCH_NORM: _batch_norm,
    Operation.ACTIVATION: lambda graph, tensor: tensor,
    Operation.AVERAGE_POOL: lambda graph, tensor: graph.add(
        "AveragePool", [tensor], count_include_pad=0, **graph.window()
    ),
    Operation.MAX_POOL: lambda graph, tensor: graph.add("MaxPool", [tensor], **graph.window()),
    Operation.GLOBAL_POOL: lambda graph, tensor: graph.add("GlobalAveragePool", [tensor]),
    Operation.ADD: lambda graph, tensor: tensor,
    Operation.ZEROS: _zeros,
}
