"""Networks as fused blocks: what they hold, and that parts and wholes agree."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nas.costs import costs
from nas.devices.blocks import FusedBlock, Operation, fused_blocks, placed_blocks
from nas.devices.parts import NetworkBlocks
from nas.errors import InvalidRequestError
from nas.layers import IMAGE, Act, LoweringBuilder
from search_spaces import SPACES
from tests.small_spaces import SMALL_SPACES


def _sampled(space, count):
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


@pytest.mark.parametrize("name", sorted(SMALL_SPACES))
def test_every_live_layer_is_in_one_block_and_no_multiply_accumulate_is_lost(name):
    space = SMALL_SPACES[name]
    for architecture in [space.largest(), space.smallest(), *_sampled(space, 10)]:
        layers = space.lower(architecture)
        placed = placed_blocks(layers, drop_dead=False)
        positions = sorted(position for held, _ in placed for position in held)
        assert positions == list(range(len(layers)))
        assert sum(block.macs for _, block in placed) == costs(space, architecture)["macs"]


@pytest.mark.parametrize("name", sorted(SMALL_SPACES))
def test_parts_hold_the_blocks_of_the_whole_network(name):
    space = SMALL_SPACES[name]
    networks = NetworkBlocks.of(space)
    for architecture in _sampled(space, 10):
        codes = space.encode([architecture])
        whole = fused_blocks(space.lower(architecture))
        if networks.parts():
            parts = [block for part in networks.parts() for block in part.blocks[part.index(codes)[0]]]
            assert Counter(parts) == Counter(whole)
        summed = networks.sums(codes, lambda blocks: np.array([[b.macs, b.moved_bytes] for b in blocks]))
        assert summed.tolist() == [[sum(b.macs for b in whole), sum(b.moved_bytes for b in whole)]]


def test_only_spaces_whose_blocks_cross_terms_are_read_network_by_network():
    whole = {name for name, space in SMALL_SPACES.items() if not NetworkBlocks.of(space).parts()}
    assert whole == {"nas_bench_201"}


def test_what_is_at_hand_is_fused_and_what_is_not_stands_alone():
    net = LoweringBuilder(3, 8)
    stem = net.conv("stem", IMAGE, 4, kernel=3, act=Act.RELU)
    deep = net.conv("depthwise", stem, 4, kernel=3, is_depthwise=True, act=Act.HARD_SWISH)
    pooled = net.global_pool("pool", deep)
    squeezed = net.conv("reduce", pooled, 2, bias=True, bn=False, act=Act.RELU)
    factors = net.conv("expand", squeezed, 4, bias=True, bn=False, act=Act.HARD_SIGMOID)
    scaled = net.scale("scale", deep, factors)
    end = net.conv("project", scaled, 4)
    summed = net.add("add", stem, end, act=Act.RELU)
    twice = net.add("twice", summed, summed)
    net.linear("classifier", net.global_pool("head", twice), 5)
    # Of the stem, its depthwise with squeeze-excite, the projection with its shortcut, a sum on its own.
    assert list(map(str, fused_blocks(net.layers()))) == [
        "conv 3x8x8 -> 4x8x8 k3 s1 g1 relu",
        "depthwise 4x8x8 -> 4x8x8 k3 s1 g4 hard_swish se2",
        "pointwise 4x8x8 -> 4x8x8 k1 s1 g1 relu add1",
        "add 4x8x8 -> 4x8x8 k1 s1 g1 add1",
        "global_pool 4x8x8 -> 4x1x1 k1 s1 g1",
        "linear 4x1x1 -> 5x1x1 k1 s1 g1",
    ]


def test_dead_operations_are_blocks_only_where_they_are_run():
    space = SPACES["nas_bench_201"]
    # Node 1 leads nowhere: its convolution is written, and no exporter keeps it.
    layers = space.lower(space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"))
    live = Counter(block.op for block in fused_blocks(layers) if block.k == 3)
    everything = Counter(block.op for block in fused_blocks(layers, drop_dead=False) if block.k == 3)
    # Stem and four convolutions of the two reductions beside the 15 cells.
    assert (live[Operation.CONV], everything[Operation.CONV]) == (5, 20)


def test_keys_read_back_from_json_and_impossible_ones_are_refused_by_field():
    blocks = NetworkBlocks.of(SPACES["micro_8"]).distinct()
    assert [FusedBlock.from_json(block.to_json()) for block in blocks] == list(blocks)
    content = blocks[0].to_json()
    for field, value in [("cin", 0), ("k", True), ("se", -1), ("h", 2.5), ("op", "warp"), ("act", "sigmoid")]:
        with pytest.raises(InvalidRequestError, match=field):
            FusedBlock.from_json({**content, field: value})
    with pytest.raises(InvalidRequestError, match="out_w"):
        FusedBlock.from_json({name: value for name, value in content.items() if name != "out_w"})
