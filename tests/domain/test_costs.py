"""Costs against published tables, against the lowering, and against each other."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from nas.costs import COST_NAMES, batch_costs, costs
from nas.errors import InvalidArchitectureError, UnknownNameError
from nas.layers import LayerKind
from search_spaces import SPACES
from tests.shared_data import shared_data


def assert_rows_reproduced(space, architectures, expected):
    batch = batch_costs(space, space.encode(architectures))
    for name, column in expected.items():
        assert batch[name].tolist() == column
    for index, architecture in enumerate(architectures):
        single = costs(space, architecture)
        assert {name: single[name] for name in expected} == {name: c[index] for name, c in expected.items()}


def test_every_published_ofa_row_is_reproduced():
    rows = pq.read_table(shared_data("ofa_mbv3/published_evaluations.parquet")).to_pydict()
    space = SPACES["ofa_mobilenetv3"]
    spelled = [
        dict(zip(["ks", "e", "d", "r"], row, strict=True))
        for row in zip(*(rows[c] for c in ("ks", "e", "d", "r")), strict=True)
    ]
    architectures = [space.parse(row) for row in spelled]
    assert len(architectures) == 717
    assert_rows_reproduced(space, architectures, {"params": rows["params"], "macs": rows["macs"]})


def test_every_row_of_nas_bench_macro_is_reproduced():
    rows = pq.read_table(shared_data("nas_bench_macro/train.parquet")).to_pydict()
    space = SPACES["nas_bench_macro"]
    architectures = [space.parse(text) for text in rows["arch"]]
    assert_rows_reproduced(space, architectures, {"params": rows["params"], "macs": rows["flops"]})
    assert architectures == [space.parse(text) for text in rows["canonical_arch"]]
    assert len(set(architectures)) == len(set(rows["canonical_arch"]))


def test_every_row_of_nas_bench_201_is_reproduced():
    rows = pq.read_table(shared_data("nas_bench_201/train.parquet")).to_pydict()
    space = SPACES["nas_bench_201"]
    architectures = [space.parse(text) for text in rows["arch"]]
    assert_rows_reproduced(
        space, architectures, {"params": rows["params_cifar10"], "macs": rows["macs_cifar10"]}
    )
    by_class = {}
    for architecture, index in zip(architectures, rows["canonical_index"], strict=True):
        assert by_class.setdefault(index, architecture) == architecture
    assert len(set(architectures)) == len(by_class)


def test_the_published_ends_and_the_check_row_of_ofa():
    space = SPACES["ofa_mobilenetv3"]
    smallest = space.parse({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 224})
    check = space.parse(
        {
            "ks": [7, 3, 3, 7, 5, 3, 3, 3, 7, 3, 7, 7, 7, 3, 7, 5, 3, 3, 3, 3],
            "e": [3, 6, 6, 3, 6, 3, 6, 6, 6, 6, 4, 3, 4, 6, 4, 3, 3, 6, 4, 4],
            "d": [3, 2, 2, 3, 2],
            "r": 224,
        }
    )
    expected = [
        (smallest, 3_410_792, 121_278_672),
        (space.largest(), 7_664_760, 566_170_656),
        (check, 4_536_768, 244_945_104),
    ]
    for architecture, params, macs in expected:
        found = costs(space, architecture)
        assert (found["params"], found["macs"]) == (params, macs)


ATTENTIVE_NAS = {
    "A0": (192, "16 16 24 32 64 112 192 216 1792", "3333333", "1444466", "1333331", 203.39),
    "A1": (224, "16 16 24 32 64 112 192 216 1984", "3335353", "1444466", "1333331", 279.24),
    "A2": (224, "16 16 24 32 64 112 200 224 1984", "3333353", "1454466", "1333341", 316.73),
    "A3": (224, "16 16 24 32 64 112 208 224 1984", "3335333", "1444466", "2334351", 356.52),
}
"""Published networks: resolution, widths, and by stage kernel, expansion and depth; millions of MACs."""


@pytest.mark.parametrize("name", ATTENTIVE_NAS)
def test_the_published_networks_of_attentive_nas_have_their_macs(name):
    resolution, widths, kernels, expansions, depths, published = ATTENTIVE_NAS[name]
    space = SPACES["attentive_nas"]
    architecture = space.parse(
        {
            "resolution": resolution,
            "width": [int(width) for width in widths.split()],
            "kernel_size": [int(kernel) for kernel in kernels],
            "expand_ratio": [int(expansion) for expansion in expansions],
            "depth": [int(depth) for depth in depths],
        }
    )
    assert round(costs(space, architecture)["macs"] / 1e6, 2) == published


def test_resnet_50d_is_a_network_of_ofa_resnet50_and_costs_what_follows_from_resnet_50():
    space = SPACES["ofa_resnet50"]
    resnet_50d = space.parse({"d": [2, 1, 2, 2, 1], "e": [0.25] * 18, "w": [2] * 6, "r": 224})
    # ResNet-50, its 7 × 7 stem of 64 filters replaced by three 3 × 3 of 32, 32 and 64.
    stem, deep_stem = 7 * 7 * 3 * 64, 3 * 3 * (3 * 32 + 32 * 32 + 32 * 64)
    found = costs(space, resnet_50d)
    assert found["params"] == 25_557_032 - (stem + 2 * 64) + deep_stem + 2 * (32 + 32 + 64)
    assert found["macs"] == 4_089_184_256 + (deep_stem - stem) * 112 * 112


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("options", [{}, {"num_classes": 7, "in_channels": 1}])
def test_the_vectorised_path_equals_the_lowering(name, options):
    space = SPACES[name]
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(len(d.options), size=150) for d in space.decisions], axis=1)
    batch = batch_costs(space, codes, **options)
    assert tuple(batch) == COST_NAMES
    for index, row in enumerate(codes):
        single = costs(space, space.decode(row), **options)
        assert single == {cost: int(batch[cost][index]) for cost in COST_NAMES}


@pytest.mark.parametrize("name", sorted(SPACES))
def test_cost_terms_own_every_layer_once(name):
    space = SPACES[name]
    for architecture in space.covering():
        for layer in space.lower(architecture):
            owners = [term for term in space.cost_terms() if layer.name.startswith(term.prefix)]
            assert len(owners) == 1 or (
                not owners and layer.kind in (LayerKind.ACTIVATION, LayerKind.ADD, LayerKind.ZEROS)
            )


def test_codes_outside_the_space_are_refused():
    space = SPACES["micro"]
    with pytest.raises(InvalidArchitectureError, match="shape"):
        batch_costs(space, [[0, 1]])
    with pytest.raises(InvalidArchitectureError, match="out of range"):
        batch_costs(space, [[9] * len(space.decisions)])
    with pytest.raises(UnknownNameError, match="allowed: macs"):
        batch_costs(space, space.encode([space.largest()]), names=["flops"])


def test_no_architectures_cost_nothing():
    space = SPACES["micro"]
    assert {name: len(column) for name, column in batch_costs(space, []).items()} == dict.fromkeys(
        COST_NAMES, 0
    )


def test_peak_activation_is_what_a_hand_count_of_the_smallest_micro_network_gives():
    # 24 px: the stem's output is 16 × 12 × 12, and the first depthwise reads and writes 32 × 12 × 12.
    smallest = SPACES["micro"].smallest()
    assert costs(SPACES["micro"], smallest)["peak_activation_bytes"] == 4 * (32 + 32) * 12 * 12
