"""The probe, from the work file to a model; and what it refuses, on runners whose times are written down."""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections import Counter

import numpy as np
import onnxruntime
import pytest

from nas.devices import measurements, probe
from nas.devices.blocks import fused_blocks
from nas.devices.fitting import fit_latency
from nas.devices.measurements import read_measurements
from nas.devices.parts import NetworkBlocks
from nas.devices.table import InvalidTableError
from nas.errors import InvalidRequestError
from search_spaces import SPACES
from supernet.export import build_onnx
from supernet.export.block_graph import build_block, input_shapes
from supernet.export.probe_work import spread_networks, write_probe_work
from supernet.extract import PlainNetwork
from tests.devices.lines import probe_lines
from tests.small_spaces import SMALL_SPACES

SPACE = SPACES["micro_8"]
NETWORKS = NetworkBlocks.of(SPACE, num_classes=7, in_channels=1)

CAN_PIN = hasattr(os, "sched_setaffinity")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "work.zip"
    write_probe_work(path, NETWORKS, num_networks=24, max_blocks=12)
    return path


@pytest.fixture
def patient(monkeypatch):
    """No demand on the machine that runs the tests, and short visits."""
    for name, value in {"DRIFT": 1e9, "LEAST_AGREEING": 0.0, "RUNS": 3, "VISITS": 2}.items():
        monkeypatch.setattr(probe, name, value)
    monkeypatch.setattr(measurements, "LEAST_AGREEING", 0.0)


@pytest.fixture(autouse=True)
def unpinned():
    """The probe stays on some processors to its end, which here is not that of the process."""
    allowed = os.sched_getaffinity(0) if CAN_PIN else set()
    yield
    if CAN_PIN:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("name", sorted(SMALL_SPACES))
def test_blocks_together_do_what_the_whole_network_does(name):
    space = SMALL_SPACES[name]
    architecture = space.sample(np.random.default_rng(3))
    layers = space.lower(architecture)
    whole = build_onnx(PlainNetwork(layers).eval())
    # A batch norm behind a convolution is folded into it.
    blocks = [build_block(block, batch=1) for block in fused_blocks(layers)]
    counts = [Counter(n.op_type for g in graphs for n in g.graph.node) for graphs in ([whole], blocks)]
    for counted in counts:
        del counted["BatchNormalization"], counted["Abs"]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["micro_8", "ofa_resnet50", "nas_bench_201"])
def test_a_blocks_model_has_the_blocks_output(name):
    space = SMALL_SPACES[name]
    for block in set(fused_blocks(space.lower(space.largest()))):
        session = onnxruntime.InferenceSession(build_block(block, batch=2).SerializeToString())
        feeds = {n: np.zeros(s, np.float32) for n, s in input_shapes(block, batch=2).items()}
        (output,) = session.run(None, feeds)
        assert output.size == 2 * block.cout * block.out_h * block.out_w


def test_from_the_work_file_to_a_model(work, tmp_path, patient):
    out = tmp_path / "out.jsonl"
    assert probe.main([str(work), str(out), "--device", "here"]) == 0
    lines = out.read_text().splitlines()
    found = read_measurements(lines, SPACE)
    assert found.networks.device.name == "here" and found.networks.device.runtime == "onnxruntime"
    assert (found.networks.networks.num_classes, found.networks.networks.in_channels) == (7, 1)
    assert len(found.table.rows) == 12 and set(found.table.rows) < set(NETWORKS.distinct())
    assert len(found.networks) == len(found.again) == 24
    assert np.array_equal(found.networks.codes, found.again.codes)
    for row in map(json.loads, lines[1:]):
        assert 0 < row["low_ms"] <= row["p50_ms"] <= row["high_ms"] and row["n"] >= 6
    model = fit_latency(found.networks)
    assert (model.predict_ms(NETWORKS, found.networks.codes) > 0).all()
    with pytest.raises(InvalidTableError, match="space 'micro'"):
        read_measurements(lines, SPACES["micro"])
    with pytest.raises(InvalidTableError, match="lack 'num_classes'"):
        header = {k: v for k, v in json.loads(lines[0]).items() if k != "num_classes"}
        read_measurements([json.dumps(header), *lines[1:]], SPACE)
    spoiled = [json.loads(line) for line in lines]
    next(row for row in spoiled if row.get("kind") == "empty")["p50_ms"] = "fast"
    line = 1 + next(i for i, row in enumerate(spoiled) if row.get("kind") == "empty")
    with pytest.raises(InvalidTableError, match=f"line {line}: p50_ms 'fast'"):
        read_measurements(map(json.dumps, spoiled), SPACE)
    block = next(i for i, row in enumerate(map(json.loads, lines)) if row.get("kind") == "block")
    with pytest.raises(InvalidTableError, match=f"line {len(lines) + 1}: block .* was told before"):
        read_measurements([*lines, lines[block]], SPACE)
    network = next(i for i, row in enumerate(map(json.loads, lines)) if row.get("kind") == "network")
    foreign = [
        *lines[:network],
        json.dumps({**json.loads(lines[network]), "architecture": {}}),
        *lines[network + 1 :],
    ]
    with pytest.raises(InvalidTableError, match=f"line {network + 1}: "):
        read_measurements(foreign, SPACE)
    without_empty = [line for line in lines if json.loads(line).get("kind") != "empty"]
    with pytest.raises(InvalidTableError, match="0 rows are of kind 'empty'"):
        read_measurements(without_empty, SPACE)


def test_networks_by_name_are_measured_alone(tmp_path, patient):
    given = [SPACE.largest(), SPACE.smallest(), SPACE.largest()]
    path, out = tmp_path / "work.zip", tmp_path / "out.jsonl"
    assert write_probe_work(path, NETWORKS, given=given, num_networks=0, max_blocks=0) == 0
    assert probe.main([str(path), str(out), "--device", "here"]) == 0
    found = read_measurements(out.read_text().splitlines(), SPACE)
    assert not found.is_for_fit and not found.table.rows
    assert not found.is_drawn.any() and len(found.drawn) == 0
    expected = SPACE.encode([SPACE.canonical(a) for a in given[:2]])
    assert np.array_equal(found.networks.codes, expected)
    with pytest.raises(InvalidRequestError, match="too few"):
        write_probe_work(path, NETWORKS, num_networks=0)


def test_named_networks_come_beside_the_drawn_ones_once(tmp_path):
    given = [SPACE.largest(), SPACE.sample(np.random.default_rng(99))]
    path = tmp_path / "work.zip"
    write_probe_work(path, NETWORKS, given=given, num_networks=24, max_blocks=0)
    with zipfile.ZipFile(path) as archive:
        items = json.loads(archive.read("work.json"))["items"]
    networks = [item["describes"] for item in items if item["kind"] == "network"]
    # The largest is among those drawn.
    assert len(networks) == 25
    named = {"architecture": SPACE.canonical(given[1]).to_json(), "asked_for": True}
    assert [network for network in networks if "asked_for" in network] == [named]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_work_file_of_a_space_has_the_same_sentinel(tmp_path, work, seed):
    def sentinel_of(path):
        with zipfile.ZipFile(path) as archive:
            items = json.loads(archive.read("work.json"))["items"]
            (found,) = [item for item in items if item["kind"] == "sentinel"]
            return found["describes"], archive.read(found["model"])

    path = tmp_path / "work.zip"
    write_probe_work(path, NETWORKS, given=[SPACE.largest()], num_networks=0, max_blocks=0, seed=seed)
    assert sentinel_of(path) == sentinel_of(work)


def test_the_figures_say_which_network_the_sentinel_was():
    told = read_measurements(probe_lines(count=2, sentinel_ms=0.5), SPACES["micro_8"]).sentinel
    assert (told.architecture_key, told.milliseconds) == (SPACES["micro_8"].smallest().key, 0.5)
    assert read_measurements(probe_lines(count=2), SPACES["micro_8"]).sentinel is None
    with pytest.raises(InvalidTableError, match="line 1: sentinel_ms 0 is not"):
        read_measurements(probe_lines(count=2, sentinel_ms=0), SPACES["micro_8"])


@pytest.mark.parametrize("with_blocks", [True, False])
def test_networks_that_were_asked_for_are_no_sample_to_fit_to(with_blocks):
    lines = probe_lines(count=40, asked_for=True, with_blocks=with_blocks)
    found = read_measurements(lines, SPACES["micro_8"])
    assert len(found.networks) == 40 and len(found.drawn) == 0
    # Blocks are measured for a model: that it then cannot be fitted is to be told.
    assert found.is_for_fit == with_blocks


def test_the_work_file_holds_networks_of_the_whole_range(work):
    networks = spread_networks(NETWORKS, 24, np.random.default_rng(0))
    assert len(set(networks)) == 24
    assert networks[0] == SPACE.smallest() and networks[-1] == SPACE.largest()
    with zipfile.ZipFile(work) as archive:
        content = json.loads(archive.read("work.json"))
        assert {item["model"] for item in content["items"]} < set(archive.namelist())
    kinds = Counter(item["kind"] for item in content["items"])
    assert kinds == {"sentinel": 1, "empty": 1, "block": 12, "network": 24}
    with pytest.raises(InvalidRequestError, match="20 or more"):
        write_probe_work(work.with_name("none.zip"), NETWORKS, num_networks=19)


class _Scripted:
    """A runner whose every run takes what `times` says next, and then what it said last."""

    def __init__(self, *times):
        self.times = list(times)

    def visit(self):
        return self.timed(probe.RUNS)

    def timed(self, runs):
        return [self.times.pop(0) if len(self.times) > 1 else self.times[0]] * runs


class _Bench:
    """Stands for a work file: runners by item."""

    def __init__(self, **runners):
        self.runners = runners

    def runner(self, item):
        return self.runners[item.id]


def _item(name, *visits):
    item = probe.Item(id=name, kind="network", model="", inputs={}, describes={})
    item.visits = [[milliseconds] for milliseconds in visits]
    return item


def test_the_span_of_five_visits_holds_the_true_median_94_times_in_100():
    rng, held = np.random.default_rng(0), 0
    for _ in range(2000):
        item = _item("a")
        # A moment's own slowness, to which that of each run adds little; its median is log 2.
        item.visits = [[moment + rng.normal(0, 0.01) for _ in range(9)] for moment in rng.exponential(size=5)]
        figures = item.figures()
        assert figures["visits"] == 5 and figures["low_ms"] <= figures["p50_ms"] <= figures["high_ms"]
        held += figures["low_ms"] <= np.log(2) <= figures["high_ms"]
    assert held / 2000 == pytest.approx(1 - 2 / 2**5, abs=0.02)


def test_disturbed_visits_are_repeated_and_do_not_count(monkeypatch):
    monkeypatch.setattr(probe, "GLANCES", 1)
    # Its own warm-up and the first glances; calm before the first visit and disturbed after it; calm since.
    sentinel = probe.Sentinel(_Scripted(*[1.0] * (probe.REMEMBERED + 2), 1.5, 1.0))
    item = _item("a")
    probe.measure(_Bench(a=_Scripted(9.0, 2.0)), [item], sentinel, random.Random(0))
    assert item.num_disturbed == 1
    assert {run for visit in item.visits for run in visit} == {2.0} and len(item.visits) == probe.VISITS


def test_a_machine_that_never_rests_gives_no_figures(monkeypatch):
    monkeypatch.setattr(probe, "GLANCES", 1)
    monkeypatch.setattr(probe, "PAUSE_S", 0.0)
    restless = [1.0, *[1.0] * probe.REMEMBERED, *[1.5, 1.0, 0.5] * 400]
    sentinel = probe.Sentinel(_Scripted(*restless))
    monkeypatch.setattr(sentinel, "usual_ms", lambda: 0.8)
    with pytest.raises(probe.NoisyError, match="no undisturbed visit"):
        probe.measure(_Bench(a=_Scripted(2.0)), [_item("a")], sentinel, random.Random(0))


@pytest.mark.skipif(not CAN_PIN, reason="this system keeps no process to some processors")
def test_it_stays_on_the_last_processors_or_those_that_are_named():
    allowed = sorted(os.sched_getaffinity(0))
    assert probe.pin("", 1) == allowed[-1:] == sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed)
    assert probe.pin(str(allowed[0]), 1) == allowed[:1] == sorted(os.sched_getaffinity(0))


def test_what_the_probe_would_not_have_written_the_service_does_not_take():
    assert measurements.LEAST_AGREEING == probe.LEAST_AGREEING
    head, *rows = map(json.loads, probe_lines(count=3))
    head["repeatability"]["agreeing"] = 0.79
    with pytest.raises(InvalidTableError, match="line 1: only 79% of the figures repeat"):
        read_measurements(map(json.dumps, [head, *rows]), SPACES["micro_8"])


def test_a_lowered_clock_is_scaled_back(monkeypatch):
    monkeypatch.setattr(probe, "PAUSE_S", 0.0)
    monkeypatch.setattr(probe, "GLANCES", 2 * probe.REMEMBERED)
    sentinel = probe.Sentinel(_Scripted(*[1.0] * (probe.REMEMBERED + 1), 1.25))
    item = _item("a")
    probe.measure(_Bench(a=_Scripted(5.0)), [item], sentinel, random.Random(0))
    assert item.figures()["p50_ms"] == pytest.approx(4.0) and sentinel.slowest == 1.25


def test_figures_that_do_not_repeat_are_not_written(work, tmp_path, monkeypatch, capsys):
    first = [_item(str(i), 1.0) for i in range(10)]
    steady = [_item(str(i), 1.0 if i < 8 else 1.2) for i in range(10)]
    assert probe.repeatability(first, steady)["agreeing"] == 0.8
    noisy = [_item(str(i), 1.0 if i < 7 else 1.2) for i in range(10)]
    with pytest.raises(probe.NoisyError, match="only 70 %"):
        probe.repeatability(first, noisy)
    monkeypatch.setattr(probe, "measure", lambda work, items, *rest: _fill(items, iter(range(1, 1000))))
    out = tmp_path / "out.jsonl"
    assert probe.main([str(work), str(out)]) == probe.EXIT_NOISY
    assert not list(tmp_path.iterdir()) and "nothing was written" in capsys.readouterr().err


def _fill(items, numbers):
    """Every pass another order: none of its figures is that of the pass before."""
    random.Random(len(items)).shuffle(items)
    for item in items:
        item.visits = [[float(next(numbers))]]
