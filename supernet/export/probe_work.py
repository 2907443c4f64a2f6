"""The work file of a probe: a space's fused blocks and some of its whole networks, as ONNX models in one zip.

What `nas/devices/probe.py` measures on any machine, and `nas.devices.measurements` reads.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from nas.architecture import Architecture
from nas.costs import batch_costs
from nas.devices.blocks import FusedBlock
from nas.devices.parts import NetworkBlocks
from nas.errors import InvalidRequestError
from supernet.export.block_graph import build_block, input_shapes, pattern
from supernet.export.onnx_graph import INPUT_NAME, IR_VERSION, OPSET, build_onnx
from supernet.extract import PlainNetwork

SCHEMA = 1
MIN_NETWORKS = 20
DEFAULT_NETWORKS = 60
_DRAWN_PER_NETWORK = 20
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class _Item:
    """As the probe reads it."""

    id: str
    kind: str
    model: str
    inputs: dict[str, list[int]]
    describes: dict[str, Any]


def write_probe_work(
    path: Path,
    networks: NetworkBlocks,
    *,
    num_networks: int = DEFAULT_NETWORKS,
    given: Sequence[Architecture] = (),
    max_blocks: int | None = None,
    batch: int = 1,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes the zip: every block of the space, or `max_blocks` drawn ones, and networks spread by MACs.

    With networks `given`, those too, or them alone where `num_networks` is 0; they are told apart from those
    drawn, to which alone models are fitted. How many blocks are in it.
    `on_progress` is told of every model, and may raise.
    """
    if num_networks < MIN_NETWORKS and not (given and num_networks == 0):
        raise InvalidRequestError(
            f"{num_networks} whole networks are too few to fit a model to; ask for {MIN_NETWORKS} or more"
        )
    rng = np.random.default_rng(seed)
    drawn = spread_networks(networks, num_networks, rng) if num_networks else ()
    asked = map(networks.space.canonical, given)
    # For each whether it is there only because it was asked for.
    chosen = {**dict.fromkeys(drawn, False), **{a: True for a in asked if a not in drawn}}
    blocks = _chosen_blocks(networks, max_blocks, rng)
    items: list[_Item] = []
    total = len(blocks) + len(chosen)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item, model in _models(networks, chosen, blocks, batch):
            on_progress(min(len(items), total), total)
            items.append(item)
            _add(archive, item.model, model.SerializeToString(deterministic=True))
        content = {
            "schema": SCHEMA,
            "space": networks.space.name,
            "num_classes": networks.num_classes,
            "in_channels": networks.in_channels,
            "batch": batch,
            "items": [asdict(item) for item in items],
        }
        _add(archive, "work.json", json.dumps(content).encode())
    return len(blocks)


def sentinel_network(networks: NetworkBlocks) -> Architecture:
    """In every work file of a space the same, of middling MACs: by it the speeds of two sittings compare."""
    return spread_networks(networks, 3, np.random.default_rng(0))[1]


def spread_networks(
    networks: NetworkBlocks, count: int, rng: np.random.Generator
) -> tuple[Architecture, ...]:
    """Distinct networks from the smallest to the largest, at even steps of rank by MACs between."""
    space = networks.space
    drawn = {space.sample(rng) for _ in range(_DRAWN_PER_NETWORK * count)}
    ends = (space.canonical(space.smallest()), space.canonical(space.largest()))
    others = sorted(drawn.difference(ends), key=lambda architecture: architecture.key)
    macs = batch_costs(space, space.encode(others), num_classes=networks.num_classes, names=["macs"])["macs"]
    by_macs = [others[i] for i in np.argsort(macs, kind="stable")]
    steps = np.unique(np.linspace(0, len(by_macs) - 1, min(count - 2, len(by_macs))).astype(int))
    return (ends[0], *(by_macs[i] for i in steps), ends[1])


def _chosen_blocks(
    networks: NetworkBlocks, max_blocks: int | None, rng: np.random.Generator
) -> list[FusedBlock]:
    blocks = list(networks.distinct())
    if max_blocks is None or len(blocks) <= max_blocks:
        return blocks
    return [blocks[i] for i in sorted(rng.choice(len(blocks), max_blocks, replace=False))]


def _models(
    networks: NetworkBlocks,
    chosen: Mapping[Architecture, bool],
    blocks: Sequence[FusedBlock],
    batch: int,
) -> Iterator[tuple[_Item, onnx.ModelProto]]:
    sentinel = sentinel_network(networks)
    yield _network_item(networks, sentinel, "sentinel", "sentinel", batch)
    first = networks.space.lower(sentinel, in_channels=networks.in_channels)[0]
    shape = [batch, first.in_channels, first.in_height, first.in_width]
    yield _item("empty", "empty", {INPUT_NAME: shape}, {}), _empty(shape)
    for number, block in enumerate(blocks):
        item = _item(f"block{number}", "block", input_shapes(block, batch=batch), block.to_json())
        yield item, build_block(block, batch=batch)
    for number, (architecture, is_asked_for) in enumerate(chosen.items()):
        item, model = _network_item(networks, architecture, f"network{number}", "network", batch)
        if is_asked_for:
            item.describes["asked_for"] = True
        yield item, model


def _item(name: str, kind: str, inputs: dict[str, list[int]], describes: dict[str, Any]) -> _Item:
    return _Item(id=name, kind=kind, model=f"models/{name}.onnx", inputs=inputs, describes=describes)


def _network_item(
    networks: NetworkBlocks, architecture: Architecture, name: str, kind: str, batch: int
) -> tuple[_Item, onnx.ModelProto]:
    layers = networks.space.lower(
        architecture, num_classes=networks.num_classes, in_channels=networks.in_channels
    )
    network = PlainNetwork(layers).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(pattern(tuple(parameter.shape))))
    shape = [batch, layers[0].in_channels, layers[0].in_height, layers[0].in_width]
    describes = {"architecture": architecture.to_json()}
    return _item(name, kind, {INPUT_NAME: shape}, describes), build_onnx(network)


def _empty(shape: Sequence[int]) -> onnx.ModelProto:
    """Hands its input's first number back: what a call takes before anything is computed."""
    images = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape)
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [len(shape)])
    node = helper.make_node("Shape", [INPUT_NAME], ["size"])
    return helper.make_model(
        helper.make_graph([node], "empty", [images], [size]),
        producer_name="nas",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
