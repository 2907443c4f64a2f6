"""Times that are not milliseconds: told by a row, or by a speed that no device has."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nas.devices.device import Device
from nas.devices.measurements import read_measurements
from nas.devices.parts import NetworkBlocks
from nas.devices.table import InvalidTableError, LatencyTable
from nas.devices.units import MANY_MACS
from nas.errors import InvalidRequestError
from search_spaces import SPACES
from tests.devices.lines import NETWORKS, probe_lines, table_of

PHONE = Device(name="phone", runtime="litert", threads=4, batch=2, dtype="fp16")
LINES = list(table_of(device=PHONE).lines())
ALLOWED = {
    "p90_ms": 1.0,
    "mean_ms": 1.0,
    "unit": "ms",
    "warmup": 10,
    "warmup_s": 3.0,
    "total_s": 1.5,
    "s": 2,
    "n": 50,
    "status": "fine",
    "latency_us": None,
}


def with_row(number, change, lines=LINES):
    """The lines with one changed, counted from 1."""
    row = {**json.loads(lines[number - 1]), **change}
    return [*lines[: number - 1], json.dumps(row), *lines[number:]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threads": 1}, "threads 1, not 4"),
        ({"dtype": "fp32"}, "dtype 'fp32', not 'fp16'"),
        ({"batch": 1}, "batch 1, not 2"),
        ({"runtime": "onnxruntime"}, "runtime 'onnxruntime', not 'litert'"),
        ({"device": "pi5", "threads": 2}, "device 'pi5', not 'phone'; threads 2, not 4"),
    ],
)
def test_a_row_of_another_device_than_the_header_is_refused_by_line(change, told):
    with pytest.raises(InvalidTableError, match=rf"^line 3: the row is of {told} as the header says"):
        LatencyTable.parse(with_row(3, change))


def test_rows_may_say_what_the_header_says():
    told = {
        name: value
        for name, value in json.loads(LINES[0]).items()
        if name not in ("schema", "tools", "base_ms")
    }
    assert set(told) == {"device", "runtime", "threads", "batch", "dtype"}
    rows = [json.dumps({**json.loads(line), **ALLOWED, **told}) for line in LINES[1:]]
    assert LatencyTable.parse([LINES[0], *rows]).rows == table_of(device=PHONE).rows


@pytest.mark.parametrize(
    "name",
    [
        "us",
        "µs",
        "ns",
        "seconds",
        "latency_us",
        "latency_s",
        "p50_us",
        "p90_ns",
        "mean_latency_usec",
        "Time_Sec",
    ],
)
@pytest.mark.parametrize("beside", [True, False], ids=["beside p50_ms", "alone"])
def test_a_time_in_another_unit_is_refused_by_line_and_name(name, beside):
    row = json.loads(LINES[2])
    change = {} if beside else {"p50_ms": None}
    told = rf"^line 3: '{name}' is a time in another unit, and times are milliseconds here: 'p50_ms' of a row"
    with pytest.raises(InvalidTableError, match=told):
        LatencyTable.parse(with_row(3, {**change, name: 1000 * row["p50_ms"]}))


@pytest.mark.parametrize("name", ["unit", "time_unit"])
def test_a_row_that_says_its_unit_says_milliseconds(name):
    assert LatencyTable.parse(with_row(2, {name: "milliseconds"}))
    with pytest.raises(InvalidTableError, match=f"^line 2: {name} 'us' is not milliseconds, the only unit"):
        LatencyTable.parse(with_row(2, {name: "us"}))


def test_headers_are_held_to_milliseconds_too():
    for change, told in [
        ({"unit": "us"}, "unit 'us' is not milli"),
        ({"base_us": 50}, "'base_us' is a time in"),
    ]:
        with pytest.raises(InvalidRequestError, match=told):
            LatencyTable.parse(with_row(1, change))
        with pytest.raises(InvalidRequestError, match=f"^line 1: {told}"):
            read_measurements(with_row(1, change, probe_lines(count=3)), SPACES["micro_8"])


def test_rows_of_measurements_are_held_to_the_same():
    lines = probe_lines(count=3)
    kinds = [json.loads(line).get("kind") for line in lines]
    for kind in ("empty", "block", "network", "network_again"):
        number = 1 + kinds.index(kind)
        with pytest.raises(InvalidTableError, match=f"^line {number}: the row is of threads 2, not 1"):
            read_measurements(with_row(number, {"threads": 2}, lines), SPACES["micro_8"])
        with pytest.raises(
            InvalidTableError, match=f"^line {number}: 'latency_us' is a time in another unit"
        ):
            read_measurements(with_row(number, {"latency_us": 1.0}, lines), SPACES["micro_8"])
    with pytest.raises(
        InvalidTableError, match=r"^line 2: kind 'netwrok' is unknown; allowed: empty, block,"
    ):
        read_measurements(with_row(2, {"kind": "netwrok"}, lines), SPACES["micro_8"])


def timed(ms_of_macs, *, space="ofa_mobilenetv3", batch=1):
    """A table of every block of a space whose times follow from their multiply-accumulates."""
    device = Device(name="made_up", runtime="law", batch=batch)
    blocks = NetworkBlocks.of(SPACES[space]).distinct()
    return LatencyTable(device=device, base_ms=0.0, rows={b: ms_of_macs(batch * b.macs) for b in blocks})


HONEST = {
    # Milliseconds a call, and multiply-accumulates a second.
    "an 8-bit microcontroller that emulates floating point": (0.1, 1e5, 1),
    "a microcontroller": (0.05, 3e7, 1),
    "a processor's core": (0.01, 5e9, 1),
    "a phone whose accelerator takes long to call": (0.5, 1e12, 1),
    "a data-centre GPU, one image": (0.005, 4e14, 1),
    "a data-centre GPU, many images": (0.005, 4e14, 256),
    "the largest accelerator, were a call for nothing": (1e-9, 5e15, 256),
}
WITH_A_WARNING = ("an 8-bit", "a microcontroller", "a data-centre GPU, many", "the largest")


@pytest.mark.parametrize("device", HONEST)
@pytest.mark.parametrize("space", ["micro_8", "ofa_mobilenetv3", "ofa_resnet50"])
def test_no_honest_table_is_refused_and_common_ones_are_not_doubted(device, space):
    call_ms, macs_per_s, batch = HONEST[device]
    table = timed(lambda macs: call_ms + 1e3 * macs / macs_per_s, space=space, batch=batch)
    table.refuse_impossible_speed()
    doubted = [warning for warning in table.warnings() if "make sure that times are milliseconds" in warning]
    assert len(doubted) <= device.startswith(WITH_A_WARNING)


def test_a_cores_times_in_other_units_are_doubted_or_refused():
    core = timed(lambda macs: 0.01 + 1e3 * macs / 5e9)
    in_unit = {name: replace(core, rows={b: f * ms for b, ms in core.rows.items()}) for name, f in
               {"microseconds": 1e3, "nanoseconds": 1e6, "hours": 1 / 3.6e6}.items()}  # fmt: skip
    doubt = in_unit["microseconds"].warnings()[0]
    assert doubt.startswith("blocks of 100,000 multiply-accumulates or more do ")
    assert doubt.endswith("make sure that times are milliseconds, not microseconds")
    for name, told in (("nanoseconds", "slower"), ("hours", "faster")):
        with pytest.raises(
            InvalidRequestError, match=f"{told} than any device .*: the times look like another unit"
        ):
            in_unit[name].refuse_impossible_speed()


def test_times_of_small_blocks_alone_say_nothing_of_the_unit():
    few = {b: 1e6 for b in NETWORKS.distinct() if b.macs < MANY_MACS}
    table = replace(table_of(), rows=few)
    table.refuse_impossible_speed()
    assert not any("milliseconds" in warning for warning in table.warnings())


def test_a_table_that_was_taken_stays_readable():
    slow = timed(lambda macs: 1e6)
    assert LatencyTable.parse(list(slow.lines())).rows == slow.rows


def test_whole_networks_of_an_impossible_speed_are_refused():
    head, *rows = map(json.loads, probe_lines(count=3, with_blocks=False))
    assert read_measurements(map(json.dumps, [head, *rows]), SPACES["micro_8"])
    times = np.array([row["p50_ms"] for row in rows])
    in_nanoseconds = [{**row, "p50_ms": ms} for row, ms in zip(rows, (1e6 * times).tolist(), strict=True)]
    with pytest.raises(InvalidRequestError, match=r"networks of 100,000 .* slower than any device"):
        read_measurements(map(json.dumps, [head, *in_nanoseconds]), SPACES["micro_8"])
