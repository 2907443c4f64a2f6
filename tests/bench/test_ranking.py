"""The ranking bench: its statistics, its networks, its budget, and that a killed training goes on."""

import json
import math
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from bench import ranking_alone, ranking_run, sittings
from bench.ranking_alone import train_alone
from bench.ranking_protocol import (
    HALF_WIDTH,
    HALF_WIDTH_CELLS,
    PROTOCOLS,
    CountingSupernet,
    Protocol,
    epochs_within,
    judged_networks,
)
from bench.ranking_report import lines, report
from bench.ranking_run import Run
from bench.ranking_statistics import (
    Bootstrap,
    kendall_tau,
    rho_of_resamples,
    spearman_rho,
    tau_of_resamples,
    within_bins,
)
from bench.ranking_truth import (
    BENCHMARKS,
    CELL_NETWORKS_FILE,
    CHOICE_NETWORKS_FILE,
    FULL_CHOICE_NETWORKS_FILE,
    NETWORKS_FILE,
    Table,
    networks_by_bin,
)
from bench.sittings import OutOfTimeError
from nas.costs import costs
from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.data import (
    ArrayListing,
    GivenSplit,
    LabelledArrays,
    SplitPlan,
    Storage,
    load_listing,
    make_splits,
)
from tests.shared_data import shared_data

MACRO = SPACES["nas_bench_macro"]
NAMES = tuple(name for names in networks_by_bin() for name in names)


# Statistics


def with_ties(seed, size=40):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, size).astype(float), rng.integers(0, 12, size).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_ties_included(seed):
    x, y = with_ties(seed)
    assert kendall_tau(x, y) == pytest.approx(kendalltau(x, y).statistic)
    assert spearman_rho(x, y) == pytest.approx(spearmanr(x, y).statistic)


def test_a_resamples_correlation_is_that_of_the_networks_it_drew():
    x, y = with_ties(0)
    drawn = np.random.default_rng(1).integers(0, len(x), (3, len(x)))
    counts = np.stack([np.bincount(rows, minlength=len(x)) for rows in drawn]).astype(float)
    taus, rhos = tau_of_resamples(x, y, counts), rho_of_resamples(x, y, counts)
    for rows, tau, rho in zip(drawn, taus, rhos, strict=True):
        assert tau == pytest.approx(kendalltau(x[rows], y[rows]).statistic)
        assert rho == pytest.approx(spearmanr(x[rows], y[rows]).statistic)


def test_what_ranks_nothing_agrees_with_nothing():
    assert kendall_tau(np.zeros(5), np.arange(5)) == spearman_rho(np.zeros(5), np.arange(5)) == 0


def test_within_bins_is_the_mean_of_the_bins():
    x, y = with_ties(2)
    bins = np.repeat([0, 1], 20)
    halves = [kendalltau(x[part], y[part]).statistic for part in (slice(20), slice(20, 40))]
    assert within_bins(kendall_tau, x, y, bins) == pytest.approx(np.mean(halves))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    bins = np.repeat(np.arange(4), 20)
    inside = 0
    for _ in range(60):
        x = rng.standard_normal(80)
        y = 0.6 * x + 0.8 * rng.standard_normal(80)
        _, resampled = Bootstrap(bins, 300).of(tau_of_resamples, [(x, y)])
        low, high = np.percentile(resampled, [2.5, 97.5])
        # Of a correlation of 0.6 between normal numbers.
        inside += low <= 2 / math.pi * math.asin(0.6) <= high
    assert inside >= 51


def test_several_trainings_are_resampled_too():
    truth = np.arange(40.0)
    bins = np.repeat([0, 1], 20)
    good, bad = (truth, truth), (-truth, truth)
    value, resampled = Bootstrap(bins, 200).of(tau_of_resamples, [good, bad])
    assert value == 0
    assert set(np.round(resampled, 6)) == {-1.0, 0.0, 1.0}


# The networks


@pytest.mark.parametrize(
    ("space", "file"), [("nas_bench_macro", NETWORKS_FILE), ("nas_bench_201", CELL_NETWORKS_FILE)]
)
def test_the_networks_are_20_of_each_of_10_bins_and_no_two_are_the_same(space, file):
    space, bins = SPACES[space], networks_by_bin(file=file)
    assert [len(names) for names in bins] == [20] * 10
    parsed = [[space.parse(name) for name in names] for names in bins]
    assert len({space.canonical(architecture) for each in parsed for architecture in each}) == 200
    edges = json.loads(file.read_text())["edges_macs"]
    for number, each in enumerate(parsed):
        macs = [costs(space, architecture)["macs"] for architecture in each]
        assert edges[number] <= min(macs) <= max(macs) <= edges[number + 1]


@pytest.mark.parametrize("space", BENCHMARKS)
def test_the_networks_are_those_that_the_table_and_the_seed_give(space):
    benchmark = BENCHMARKS[space]
    table = benchmark.read(shared_data(space).parent)
    committed = {file.name: json.loads(file.read_text()) for file in benchmark.files}
    assert benchmark.choose_networks(table) == committed


@pytest.mark.parametrize("space", BENCHMARKS)
def test_the_tables_baselines_are_those_known_and_another_table_is_refused(space):
    benchmark = BENCHMARKS[space]
    table = benchmark.read(shared_data(space).parent)
    benchmark.check(table.baselines())
    broken = replace(table, macs_n=table.macs_n[::-1])
    with pytest.raises(ValueError, match=r"tau of 'macs' on the table is .*, not 0\.(545|607)"):
        benchmark.check(broken.baselines())


def test_no_network_that_judges_takes_part_in_the_choice():
    judging, few, choosing = (
        {MACRO.parse(name) for names in networks_by_bin(file=file) for name in names}
        for file in (NETWORKS_FILE, CHOICE_NETWORKS_FILE, FULL_CHOICE_NETWORKS_FILE)
    )
    assert (len(judging), len(few), len(choosing)) == (200, 30, 100)
    assert not judging & choosing
    assert few < choosing


# The protocol


def test_the_space_of_the_bench_has_half_the_channels_and_is_for_the_bench_alone():
    assert HALF_WIDTH.name not in SPACES
    layers = zip(HALF_WIDTH.lower(HALF_WIDTH.largest()), MACRO.lower(MACRO.largest()), strict=True)
    for half, whole in layers:
        assert 2 * half.out_channels == whole.out_channels or half.name == "head.classifier"
        assert half.out_height in (whole.out_height, whole.out_height // 2)


def protocol(**changes):
    return Protocol(**{"name": "reduced", "space": TINY, "budget_macs": 1e8, "num_per_bin": 1, **changes})


TINY = replace(HALF_WIDTH, name="tiny", resolution=8, stem_width=4, stage_widths=(4, 8, 8), head_width=16)


@pytest.mark.parametrize("name", ["spos", "bignas", "attentive"])
def test_the_budget_is_the_same_for_every_recipe_to_half_an_epoch(name):
    recipe = RECIPES[name]
    budget = protocol(space=HALF_WIDTH, budget_macs=1e13)
    epochs, expected = epochs_within(recipe, budget, num_images=45_000)
    assert abs(expected - 1e13) <= expected / epochs / 2 + 1
    one, of_one = epochs_within(recipe, protocol(space=HALF_WIDTH, budget_macs=1.0), num_images=45_000)
    assert one == 1
    assert expected == pytest.approx(epochs * of_one)


def test_a_supernet_counts_the_macs_of_its_forward_passes_with_its_weights():
    supernet = CountingSupernet(TINY, kernel_transform=False, seed=0).train()
    networks = [TINY.largest(), TINY.smallest(), TINY.largest()]
    for network in networks:
        supernet(torch.zeros(5, 3, 8, 8), network)
    assert supernet.spent_macs == 5 * sum(costs(TINY, network)["macs"] for network in networks)
    assert "spent_macs" in supernet.state_dict()


# A run


def fake_splits(*_):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    arrays = LabelledArrays(images=pixels, labels=np.arange(200) % 10)
    given = {GivenSplit.TRAIN: arrays, GivenSplit.TEST: arrays}
    listing = ArrayListing(class_names=tuple("abcdefghij"), arrays=given)
    return make_splits(load_listing(listing, Storage()), SplitPlan(calibration_images=40))


def fake_table(_):
    rng = np.random.default_rng(0)
    names = (*NAMES, *(name for names in networks_by_bin(file=CHOICE_NETWORKS_FILE) for name in names))
    macs = np.array([costs(MACRO, MACRO.parse(name))["macs"] for name in names])
    layers = np.array([sum(digit != "0" for digit in name) for name in names])
    return Table(names, macs, layers, rng.uniform(80, 95, (len(names), 3)))


def run_in(folder, **changes):
    fields = {
        "label": "bignas",
        "recipe": replace(RECIPES["bignas"], batch_size=20),
        "seed": 3,
        "protocol": protocol(),
        "data": folder,
        "out": folder,
        "device": torch.device("cpu"),
        "deadline": math.inf,
    }
    return Run(**{**fields, **changes})


@pytest.fixture
def invented_data(monkeypatch):
    monkeypatch.setattr(ranking_run, "splits_for", fake_splits)
    invented = replace(BENCHMARKS["nas_bench_macro"], read=fake_table)
    monkeypatch.setitem(BENCHMARKS, "nas_bench_macro", invented)


def test_a_run_in_many_sittings_ends_as_one_in_one(tmp_path, monkeypatch, invented_data):
    undisturbed = run_in(tmp_path / "whole").carry_on()

    monkeypatch.setattr(sittings, "CHECKPOINT_EVERY_S", 3.0)
    num_sittings = 0
    while not run_in(tmp_path / "parts").result_file.exists():
        # Every look at the clock takes a second.
        clock = count()
        monkeypatch.setattr(
            sittings, "time", SimpleNamespace(monotonic=lambda clock=clock: float(next(clock)))
        )
        num_sittings += 1
        assert num_sittings < 50
        try:
            run_in(tmp_path / "parts", deadline=24.0).carry_on()
        except OutOfTimeError:
            continue
    resumed = json.loads(run_in(tmp_path / "parts").result_file.read_text())
    assert num_sittings > 3
    assert resumed["departures"] == []
    for name in ("networks", "spent_macs", "num_steps", "recipe"):
        assert resumed[name] == json.loads(json.dumps(undisturbed[name]))


def test_a_finished_run_is_not_done_again(tmp_path, monkeypatch, invented_data):
    result = run_in(tmp_path).carry_on()
    monkeypatch.setattr(ranking_run, "splits_for", None)
    assert run_in(tmp_path).carry_on() == json.loads(json.dumps(result))
    with pytest.raises(SystemExit, match="another recipe or protocol; choose another --label"):
        run_in(tmp_path, recipe=RECIPES["bignas"]).carry_on()


@pytest.mark.parametrize("name", ["bignas", "attentive"])
def test_what_was_spent_is_about_what_was_expected(tmp_path, invented_data, name):
    result = run_in(tmp_path, recipe=replace(RECIPES[name], batch_size=20)).carry_on()
    assert result["spent_macs"] == pytest.approx(result["expected_macs"], rel=0.2)


CHOICE = {
    "alone_epochs": 1,
    "num_per_bin": 1,
    "budget_macs": 1e6,
    "networks_file": CHOICE_NETWORKS_FILE,
}


def test_without_a_table_networks_are_trained_alone_first_in_parts_and_once(
    tmp_path, monkeypatch, invented_data
):
    monkeypatch.setattr(ranking_alone, "splits_for", fake_splits)
    choice = protocol(**CHOICE)
    with pytest.raises(SystemExit, match="train the networks alone first, with --alone"):
        run_in(tmp_path, protocol=choice).carry_on()
    for part in ((0, 2), (1, 2)):
        train_alone(choice, tmp_path, tmp_path, math.inf, part)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "alone").glob("*.json")}
    assert sorted(path.stem for path in made) == sorted(judged_networks(choice))
    train_alone(choice, tmp_path, tmp_path, math.inf, (0, 1))
    assert {path: path.stat().st_mtime_ns for path in made} == made

    result = run_in(tmp_path, protocol=choice).carry_on()
    for network in result["networks"]:
        told = json.loads((tmp_path / "alone" / f"{network['name']}.json").read_text())["accuracy"]
        assert network["alone"] == [100 * told]


def test_cells_are_trained_and_ranked_like_any_other_space(tmp_path, monkeypatch):
    monkeypatch.setattr(ranking_run, "splits_for", fake_splits)
    cells = replace(
        PROTOCOLS["cells_reduced"],
        space=replace(HALF_WIDTH_CELLS, name="tiny", resolution=8, stage_widths=(4, 4, 8), cells_per_stage=1),
        num_per_bin=1,
        budget_macs=1e7,
    )
    names = judged_networks(cells)
    rng = np.random.default_rng(0)
    table = Table(names, np.arange(10), np.arange(10), rng.uniform(80, 95, (10, 1)), rng.uniform(50, 80, 10))
    invented = replace(BENCHMARKS["nas_bench_201"], read=lambda _: table)
    monkeypatch.setitem(BENCHMARKS, "nas_bench_201", invented)
    recipe = replace(RECIPES["panda"], batch_size=20)
    result = run_in(tmp_path, label="panda", recipe=recipe, protocol=cells).carry_on()
    assert [network["name"] for network in result["networks"]] == [*names]
    assert result["spent_macs"] == pytest.approx(result["expected_macs"], rel=0.3)
    told = report(tmp_path, 20)["correlations"]
    assert set(told) == {"macs", "non_identity_layers", "trained_briefly", "panda"}


# The report


def write_result(folder, label, seed, inherited, num_alone=3, **changes):
    table = fake_table(None)
    networks = [
        {
            "name": name,
            "bin": i // 20,
            "macs": int(table.macs_n[i]),
            "non_identity_layers": int(table.num_layers_n[i]),
            "alone": table.accuracies_nk[i, :num_alone].tolist(),
            "inherited": float(inherited[i]),
        }
        for i, name in enumerate(NAMES)
    ]
    result = {
        "label": label,
        "seed": seed,
        "protocol": protocol().to_json(),
        "num_steps": 10,
        "expected_macs": 1e9,
        "spent_macs": 1e9,
        "train_s": 60.0,
        "departures": [],
        "table_baselines": table.baselines(),
        "networks": networks,
        **changes,
    }
    (folder / f"{label}-seed{seed}.json").write_text(json.dumps(result))


def test_the_report_tells_a_recipe_that_ranks_from_one_that_does_not(tmp_path):
    truth = fake_table(None).mean_accuracy_n
    rng = np.random.default_rng(5)
    for seed in range(3):
        write_result(tmp_path, "bignas", seed, truth + rng.normal(0, 0.5, len(truth)))
        write_result(tmp_path, "spos", seed, rng.permutation(truth))
    content = report(tmp_path, 200)
    good, poor = (content["correlations"][name]["tau"] for name in ("bignas", "spos"))
    assert good["low"] > 0.7
    assert poor["low"] < 0 < poor["high"]
    for measure in ("tau", "rho", "tau_within_bins", "rho_within_bins"):
        assert content["differences"]["bignas - spos"][measure]["low"] > 0
        assert content["differences"]["bignas - macs"][measure]["low"] > 0
    assert "spos - spos" not in content["differences"]
    assert len(content["trainings"]) == 6
    assert any(line.startswith("| bignas - non_identity_layers | 0.") for line in lines(content))
    json.dumps(content)


def test_where_networks_are_trained_alone_once_nothing_is_told_of_how_that_repeats(tmp_path):
    write_result(tmp_path, "spos", 0, fake_table(None).mean_accuracy_n, num_alone=1)
    found = report(tmp_path, 20)["correlations"]
    assert {*found} == {"macs", "non_identity_layers", "spos"}


def test_trainings_of_two_protocols_are_not_compared(tmp_path):
    truth = fake_table(None).mean_accuracy_n
    write_result(tmp_path, "bignas", 0, truth)
    write_result(tmp_path, "spos", 0, truth, protocol=protocol(budget_macs=2e9).to_json())
    with pytest.raises(SystemExit, match="two protocols"):
        report(tmp_path, 10)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="no finished training"):
        report(tmp_path, 10)
