"""Latency tables: read back, refused, filled, and added up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nas.devices.blocks import fused_blocks
from nas.devices.device import Device, DType
from nas.devices.interpolation import interpolate
from nas.devices.latency_costs import DeviceCosts
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.devices.table import InvalidTableError, LatencyTable, MissingBlockError
from nas.errors import InvalidRequestError
from nas.fields import InvalidFieldError
from nas.prefilter.certificate import Verdict, certify
from nas.search.constraints import Bounds
from nas.search.cost_model import PartKind, SpaceCosts
from nas.search.region import FeasibleRegion
from search_spaces import SPACES
from tests.prefilter.parted_costs import cost_of

SPACE = SPACES["micro_8"]
NETWORKS = NetworkBlocks.of(SPACE)
DEVICE = Device(name="made_up", runtime="law")


def _time_ms(block):
    """A law that is linear in logarithms, so that interpolation must find it again."""
    return (
        1e-5 * block.cin**0.7 * block.cout**0.6 * (block.h * block.w) ** 0.8 * block.k * (1 + block.fused_add)
    )


TABLE = LatencyTable(
    device=DEVICE,
    base_ms=0.25,
    rows={block: _time_ms(block) for block in NETWORKS.distinct()},
    tools={"law": "1.0"},
)


def _costs(model, space=SPACE):
    return DeviceCosts(exact=SpaceCosts(space=space), model=model)


def _codes(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(len(d.options), size=count) for d in SPACE.decisions], axis=1)


def test_a_table_predicts_the_hand_sum_of_its_rows():
    codes = _codes(50)
    predicted = _costs(LatencyModel.of_table(TABLE)).batch(codes, ["latency_ms", "macs"])
    for code, latency_ms in zip(codes, predicted["latency_ms"], strict=True):
        layers = SPACE.lower(SPACE.decode(code))
        assert latency_ms == pytest.approx(TABLE.total_ms(_blocks(layers)), rel=1e-12)
    assert list(predicted) == ["latency_ms", "macs"]


def _blocks(layers):
    return fused_blocks(layers)


def test_an_edited_row_changes_exactly_the_networks_that_use_its_block():
    codes = _codes(200)
    networks = [set(_blocks(SPACE.lower(SPACE.decode(code)))) for code in codes]
    users = [[block in network for network in networks] for block in TABLE.rows]
    some = [(b, np.array(u)) for b, u in zip(TABLE.rows, users, strict=True) if 20 < sum(u) < 180]
    before = _costs(LatencyModel.of_table(TABLE)).batch(codes, ["latency_ms"])["latency_ms"]
    assert len(some) > 5
    for block, is_user in some[:6]:
        edited = replace(TABLE, rows={**TABLE.rows, block: 2 * TABLE.rows[block]})
        after = _costs(LatencyModel.of_table(edited)).batch(codes, ["latency_ms"])["latency_ms"]
        assert np.array_equal(after != before, is_user)


def test_lines_read_back_as_the_table_they_came_from():
    lines = list(TABLE.lines())
    assert LatencyTable.parse(lines) == TABLE
    assert LatencyTable.parse([lines[0], "", *reversed(lines[1:])]) == TABLE


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"p50_ms": 0}, "line 3: p50_ms 0"),
        ({"p50_ms": -1.0}, "line 3: p50_ms -1"),
        ({"p50_ms": float("nan")}, "line 3: p50_ms nan"),
        ({"p50_ms": "1"}, "line 3: p50_ms '1'"),
        ({"p90_ms": 0.0}, "line 3: p90_ms"),
        ({"cin": -4}, "line 3: cin -4"),
        ({"op": "warp"}, "line 3: op 'warp'"),
    ],
)
def test_impossible_rows_are_refused_by_line(edit, expected):
    lines = list(TABLE.lines())
    lines[2] = json.dumps({**json.loads(lines[2]), **edit})
    with pytest.raises(InvalidTableError, match=expected):
        LatencyTable.parse(lines)


def test_tables_of_another_kind_are_refused():
    lines = list(TABLE.lines())
    header = json.loads(lines[0])
    with pytest.raises(InvalidTableError, match=r"line 4: block .* was told before"):
        LatencyTable.parse([*lines[:3], lines[2]])
    with pytest.raises(InvalidTableError, match="empty"):
        LatencyTable.parse(["", " "])
    for edit, expected in [
        ({"schema": 2}, "schema"),
        ({"base_ms": -1}, "base_ms"),
        ({"base_ms": None}, "base_ms"),
        ({"tools": ["x"]}, "tools"),
        ({"threads": 0}, "threads"),
        ({"colour": "red"}, "colour"),
        ({"device": "Ünknown device"}, "device name"),
    ]:
        with pytest.raises(InvalidRequestError, match=expected):
            LatencyTable.parse([json.dumps({**header, **edit}), *lines[1:]])
    with pytest.raises(InvalidTableError, match="no JSON object"):
        LatencyTable.parse([lines[0], "[" * 100_000])


def test_a_missing_block_is_an_error_and_never_free():
    blocks = list(TABLE.rows)
    lacking = replace(TABLE, rows={b: TABLE.rows[b] for b in blocks[1:]})
    assert lacking.missing(NETWORKS.distinct()) == (blocks[0],)
    with pytest.raises(MissingBlockError, match="1 blocks are not in the table"):
        _costs(LatencyModel.of_table(lacking)).batch(_codes(5), ["latency_ms"])


def test_interpolation_finds_a_law_of_powers_again_and_says_what_it_filled_in():
    depthwise = [b for b in TABLE.rows if (b.op, b.k, b.stride, b.act) == ("depthwise", 5, 1, "relu")]
    middle = sorted(b.cin for b in depthwise)[len(depthwise) // 2]
    inner = [b for b in depthwise if b.cin == middle]
    assert inner
    lacking = replace(TABLE, rows={b: ms for b, ms in TABLE.rows.items() if b not in inner})
    filled = interpolate(lacking, NETWORKS.distinct())
    assert set(filled.interpolated) == set(inner)
    for block in inner:
        assert filled.table.rows[block] == pytest.approx(TABLE.rows[block], rel=1e-6)
    assert interpolate(TABLE, NETWORKS.distinct()).interpolated == ()


def test_nothing_is_interpolated_beyond_what_was_measured():
    widest = max(TABLE.rows, key=lambda b: (b.op == "pointwise") * b.cin)
    lacking = replace(TABLE, rows={b: ms for b, ms in TABLE.rows.items() if b.cin < widest.cin})
    with pytest.raises(MissingBlockError, match="nor between"):
        interpolate(lacking, [widest])


def test_a_larger_block_that_takes_less_is_warned_of():
    assert TABLE.warnings() == ()
    kernels = [b for b in TABLE.rows if b.op == "depthwise" and b.k == 7]
    slipped = replace(TABLE, rows={**TABLE.rows, kernels[0]: TABLE.rows[kernels[0]] / 3})
    assert any(warning.startswith(str(kernels[0])) for warning in slipped.warnings())


def test_the_parts_of_a_table_are_all_of_its_latency():
    costs = _costs(LatencyModel.of_table(TABLE))
    latency = costs.parts("latency_ms")
    assert latency.kind is PartKind.SUM
    codes = _codes(200)
    assert cost_of(latency, codes) == pytest.approx(costs.batch(codes, ["latency_ms"])["latency_ms"])
    assert [part.columns for part in costs.parts("params").parts] == [
        part.columns for part in SpaceCosts(space=SPACE).parts("params").parts
    ]


def test_searches_bound_latency_by_the_devices_cost_model():
    costs = _costs(LatencyModel.of_table(TABLE))
    bounds = Bounds.parse({"max_latency_ms": "50%"}, costs)
    largest = costs.batch(SPACE.encode([SPACE.largest()]), ["latency_ms"])["latency_ms"][0]
    assert dict(bounds.limits)["latency_ms"] == pytest.approx(0.5 * largest)
    found = certify(FeasibleRegion(costs, bounds))
    assert found.verdict is Verdict.FEASIBLE
    layers = SPACE.lower(found.architecture)
    assert TABLE.total_ms(_blocks(layers)) <= 0.5 * largest
    least = costs.batch(SPACE.encode([SPACE.smallest()]), ["latency_ms"])["latency_ms"][0]
    too_low = certify(FeasibleRegion(costs, Bounds.parse({"max_latency_ms": 0.99 * least}, costs)))
    assert too_low.verdict is Verdict.INFEASIBLE
    assert too_low.relief.relax_alone["latency_ms"] == pytest.approx(least)


def test_devices_are_checked_and_read_back():
    device = Device(name="pi_5", runtime="litert", threads=4, batch=8, dtype="int8")
    assert device.dtype is DType.INT8
    assert Device.from_json(json.loads(json.dumps(device.to_json()))) == device
    for field, value in [("name", ""), ("name", "A B"), ("runtime", None), ("threads", 0), ("batch", True)]:
        with pytest.raises(InvalidFieldError, match=field):
            Device(**{"name": "a", "runtime": "b", field: value})
    with pytest.raises(InvalidRequestError, match="'runtime' is missing"):
        Device.from_json({"name": "a"})
    with pytest.raises(InvalidRequestError, match="colour"):
        Device.from_json({"name": "a", "runtime": "b", "colour": "red"})
