"""Laws of the accuracy predictor: what it may learn from, what its intervals promise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.layers import LayerKind
from nas.search.cost_model import SpaceCosts
from nas.search.ensemble import Ensemble
from nas.search.features import Features
from nas.search.forecasts import equal_bins, forecast_report, within_bins
from nas.search.paths import operations_of, path_figures
from nas.search.predictor import (
    Prediction,
    Predictor,
    accuracies_at,
    conformal_factor,
    merits_of,
    predictions,
    scores,
)
from nas.search.rounds import Origin, SearchTrial
from nas.search.settings import ProposerName
from nas.search.trees import fit_trees
from search_spaces import SPACES
from tests.search.synthetic import Measured, region_of, search, settings_of

NUM_NETWORKS = 500


@cache
def known_networks() -> tuple[np.ndarray, np.ndarray]:
    """Features and accuracies of random networks: smooth in depth and kernels, and noise of its own size."""
    space = SPACES["micro_8"]
    rng = np.random.default_rng(0)
    networks = [*dict.fromkeys(space.sample(rng) for _ in range(NUM_NETWORKS))]
    codes = space.encode(networks)
    quality = np.log1p(codes) @ rng.uniform(0, 1, codes.shape[1])
    features = Features(SpaceCosts(space=space)).of(networks)
    return features, 0.6 + 0.02 * quality + rng.normal(0, 0.01, len(networks))


def fitted(rows: slice, *, accuracies: np.ndarray | None = None, seed: int = 0) -> Predictor:
    features, measured = known_networks()
    learned = measured[rows] if accuracies is None else accuracies
    return Predictor.fit(features[rows], learned, fit_trees, np.random.default_rng(seed))


def held_out_tau(predictor: Predictor, rows: slice) -> float:
    features, measured = known_networks()
    return float(kendalltau(predictor.mean_and_spread(features[rows])[0], measured[rows]).statistic)


# Features


def test_what_inactive_decisions_hold_leaves_features_bit_identical():
    space = SPACES["micro_8"]
    features = Features(SpaceCosts(space=space))
    rng = np.random.default_rng(1)
    networks = [space.sample(rng) for _ in range(50)]
    codes = space.encode(networks)
    dirty = codes.copy()
    for row, network in zip(dirty, networks, strict=True):
        for column, decision in enumerate(space.decisions):
            if network.get(decision.name) is None:
                row[column] = rng.integers(1, len(decision.options))
    assert (dirty != codes).any()
    assert features.of_codes(dirty).tobytes() == features.of_codes(codes).tobytes()
    assert features.of(networks).tobytes() == features.of_codes(codes).tobytes()


def test_an_inactive_decision_leaves_its_columns_zero_and_an_active_one_a_single_one():
    space = SPACES["micro_8"]
    features = Features(SpaceCosts(space=space))
    network = space.sample(np.random.default_rng(2))
    row = features.of([network])[0]
    start = 0
    for decision in space.decisions:
        columns = row[start : start + len(decision.options)]
        chosen = network.get(decision.name)
        expected = [float(chosen == option) for option in decision.options]
        assert columns.tolist() == (expected if chosen is not None else [0.0] * len(columns))
        start += len(columns)


@pytest.mark.parametrize("name", ["nas_bench_macro", "nas_bench_201"])
def test_every_spelling_of_a_network_has_the_same_features(name):
    space = SPACES[name]
    features = Features(SpaceCosts(space=space))
    rng = np.random.default_rng(3)
    codes = [[rng.integers(len(d.options)) for d in space.decisions] for _ in range(200)]
    spelled = [space.decode(code) for code in codes]
    assert any(network.choices != network.identity for network in spelled) or name == "nas_bench_macro"
    canonical = [space.canonical(network) for network in spelled]
    assert features.of(spelled).tobytes() == features.of(canonical).tobytes()


def test_paths_of_cells_known_by_heart():
    space = SPACES["nas_bench_201"].peak_equivalent()
    cell = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
    chain = space.parse(cell.format("nor_conv_3x3", "none", "nor_conv_1x1", "none", "none", "nor_conv_3x3"))
    # Stem, three cells, two reductions of which the shortcut has one convolution and the other way two, head.
    longest, shortest, ways = path_figures(space.lower(chain))
    assert (longest, shortest, ways) == (1 + 3 * 3 + 2 * 2 + 1, 1 + 3 * 3 + 2 * 1 + 1, np.log1p(4))
    cut = space.parse(cell.format(*["none"] * 6))
    assert path_figures(space.lower(cut)) == (-1.0, -1.0, 0.0)
    assert path_figures(space.lower(cut), [CONV_1, CONV_3]) == (-1.0, -1.0, 0.0, *[-1.0] * 4)


CONV_1, CONV_3 = (LayerKind.CONV, 1, False), (LayerKind.CONV, 3, False)
POOL_3 = (LayerKind.AVERAGE_POOL, 3, False)


def passed(operations: dict[tuple[int, int], str]) -> np.ndarray:
    """How often a cell is passed by 1 × 1, 3 × 3 and pools: on the mean, and by the signal; shape (2, 3)."""
    space = replace(SPACES["nas_bench_201"], stage_widths=(16,), cells_per_stage=1)
    edges = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    values = {f"edge{a}to{b}": operations.get((a, b), "none") for a, b in edges}
    figures = path_figures(space.lower(space.parse(values)), [CONV_1, CONV_3, POOL_3])
    # Before the cell lies the stem, a 3 × 3, and behind it neither.
    return np.array(figures[3:]).reshape(2, 3) - np.array([0.0, 1.0, 0.0])


def test_operations_on_the_paths_of_cells_known_by_heart():
    chain = passed({(0, 1): "nor_conv_3x3", (1, 2): "avg_pool_3x3", (2, 3): "nor_conv_1x1"})
    assert chain == pytest.approx(np.ones((2, 3)))
    mean, _ = passed({(0, 3): "nor_conv_1x1", (0, 1): "nor_conv_3x3", (1, 3): "nor_conv_3x3"})
    assert mean == pytest.approx([0.5, 1.0, 0.0])


def test_the_signal_takes_paths_by_the_variance_that_they_bring():
    # Both paths end in a batch norm, so both bring the same: as on the mean.
    mean, signal = passed({(0, 3): "nor_conv_1x1", (0, 1): "nor_conv_3x3", (1, 3): "nor_conv_3x3"})
    assert signal == pytest.approx(mean)
    # Two 3 × 3 of the input are summed; batch norm makes of the sum what a 1 × 1 beside it is too: both
    # bring the same, though the one has two paths.
    edges = {(0, 1): "nor_conv_3x3", (0, 2): "nor_conv_3x3", (1, 2): "skip_connect"}
    mean, signal = passed({**edges, (2, 3): "nor_conv_1x1", (0, 3): "nor_conv_1x1"})
    assert mean == pytest.approx([1.0, 2 / 3, 0.0])
    assert signal == pytest.approx([1.0, 1 / 2, 0.0])
    # Without one it brings the more for it.
    mean, signal = passed({**edges, (2, 3): "avg_pool_3x3", (0, 3): "nor_conv_1x1"})
    assert mean == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert signal == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_paths_are_the_same_in_whatever_order_branches_are_written():
    space = SPACES["nas_bench_201"].peak_equivalent()
    operations = operations_of(map(space.lower, space.covering()))
    rng = np.random.default_rng(8)
    for _ in range(50):
        edges = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
        chosen = {edge: str(rng.choice(space.decisions[0].options)) for edge in edges}
        # The two inner nodes change places.
        swapped = {(0, 1): (0, 2), (0, 2): (0, 1), (0, 3): (0, 3), (1, 3): (2, 3), (2, 3): (1, 3)}
        first, second = (
            path_figures(
                space.lower(space.parse({"edge1to2": "none", **{f"edge{a}to{b}": o for (a, b), o in e}})),
                operations,
            )
            for e in (chosen.items(), [(swapped[edge], o) for edge, o in chosen.items()])
        )
        assert first == pytest.approx(second)


@pytest.mark.parametrize("name", ["nas_bench_macro", "nas_bench_201", "micro_8"])
def test_figures_are_the_columns_of_costs_and_paths_or_all_where_paths_are_not_known(name):
    space = SPACES[name]
    costs = SpaceCosts(space=space)
    features = Features(costs, ["macs", "params"])
    networks = [space.canonical(space.sample(np.random.default_rng(seed))) for seed in range(5)]
    rows = features.of(networks)
    if name == "micro_8":
        assert features.figures.tolist() == [*range(rows.shape[1])]
        return
    known = costs.batch(space.encode(networks), ["macs", "params"])
    assert rows[:, features.figures[0]] == pytest.approx(np.log(known["macs"]))
    assert rows[:, features.figures[1]] == pytest.approx(np.log(known["params"]))
    graphs = space.peak_equivalent()
    operations = operations_of(map(graphs.lower, graphs.covering()))
    for network, row in zip(networks, rows[:, features.figures[2:]], strict=True):
        code = space.encode([network])[0]
        assert row.tolist() == [*path_figures(graphs.lower(graphs.decode(code)), operations)]
    assert features.figures[-1] == rows.shape[1] - 1


# What is learned


def test_networks_not_learned_from_are_ranked_and_the_better_the_more_were_learned_from():
    taus = [
        np.mean([held_out_tau(fitted(slice(num), seed=seed), slice(300, None)) for seed in range(2)])
        for num in (20, 60, 300)
    ]
    assert taus[0] < taus[1] < taus[2]
    assert taus[2] > 0.5


def test_shuffled_accuracies_teach_nothing():
    _, measured = known_networks()
    rng = np.random.default_rng(4)
    taus = [
        held_out_tau(fitted(slice(100), accuracies=rng.permutation(measured[:100])), slice(300, None))
        for _ in range(6)
    ]
    # Each has a standard error of about 0.05 by its 200 networks, and one by the shuffle.
    assert abs(np.mean(taus)) < 0.15


def test_the_same_draws_make_the_same_predictor():
    features, _ = known_networks()
    first, second, other = (fitted(slice(30), seed=seed).outlooks(features) for seed in (1, 1, 2))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


def test_of_the_two_models_the_one_that_errs_less_on_networks_held_out_counts_more():
    rng = np.random.default_rng(9)
    numbers = rng.uniform(-1, 1, (60, 1))
    smooth = 0.7 + 0.1 * np.sin(3 * numbers[:, 0])

    def ignorant(features, targets, seed):
        return lambda rows: np.full(len(rows), 10.0)

    assert Predictor.fit(numbers, smooth, ignorant, rng).share == pytest.approx(1.0, abs=0.01)
    # The process is shown noise alone; the members know the truth.
    shown = np.column_stack([rng.normal(size=60), smooth])

    def knowing(features, targets, seed):
        return lambda rows: merits_of(rows[:, 1])

    wise = Predictor.fit(shown, smooth, knowing, rng, figures=np.array([0]))
    assert wise.share == pytest.approx(0.0, abs=0.01)
    assert accuracies_at(wise.mean_and_spread(shown)[0]) == pytest.approx(smooth, abs=0.005)


def test_merits_and_accuracies_lead_to_each_other_and_errors_count_by_their_ratio():
    accuracies = np.array([0.0, 0.01, 0.5, 0.9, 1.0])
    assert accuracies_at(merits_of(accuracies)) == pytest.approx(accuracies)
    assert (np.diff(merits_of(accuracies)) > 0).all()
    steps = np.diff(merits_of(1.01 - np.array([0.8, 0.4, 0.2, 0.1])))
    assert steps == pytest.approx(np.log(2))
    assert accuracies_at(np.array([-9.0, 99.0])).tolist() == [0.0, 1.0]


def test_members_that_saw_a_network_have_no_say_in_its_held_out_prediction():
    """With members that know by heart, what is held out would have no error at all."""
    rng = np.random.default_rng(5)
    numbers, measured = np.arange(40.0)[:, None], rng.normal(size=40)

    def by_heart(features, targets, seed):
        known = dict(zip(features[:, 0].tolist(), targets.tolist(), strict=True))
        return lambda rows: np.array([known.get(number, 0.0) for number in rows[:, 0].tolist()])

    ensemble = Ensemble.fit(numbers, measured, by_heart, rng, num_members=20)
    assert ensemble.held_out.tolist() == [0.0] * 40


# Intervals


def test_intervals_reach_as_many_spreads_of_merit_as_the_factor_says_and_everywhere_if_that_is_infinite():
    measured = np.array([0.6, 0.8])
    means, spreads = merits_of(np.array([0.7, 0.7])), np.array([0.2, 0.2])
    factor = float(scores(measured[1:], means[1:], spreads[1:])[0])
    above, beyond = predictions(means, spreads, factor + 1e-9), predictions(means, spreads, factor - 1e-9)
    assert above[1].holds(0.8) and not beyond[1].holds(0.8)
    assert above[0].accuracy == pytest.approx(0.7)
    # A fraction of the errors to both sides is more points below than above.
    assert 0.7 - above[0].low > above[0].high - 0.7
    endless = predictions(means, spreads, np.inf)[0]
    assert (endless.low, endless.high) == (-np.inf, np.inf)


def test_the_factor_is_the_smallest_score_that_enough_do_not_exceed():
    calibration = np.arange(1.0, 20.0)
    assert conformal_factor(calibration, 0.9) == 18.0
    assert conformal_factor(np.arange(1.0, 10.0), 0.9) == 9.0
    assert conformal_factor(np.arange(1.0, 9.0), 0.9) == np.inf


@pytest.mark.parametrize("num", [19, 30, 99])
def test_exchangeable_scores_are_covered_as_often_as_the_theory_says(num):
    rng = np.random.default_rng(num)
    draws = rng.exponential(size=(4000, num + 1))
    covered = np.mean([row[-1] <= conformal_factor(row[:-1]) for row in draws])
    exact = np.ceil((num + 1) * 0.9) / (num + 1)
    assert covered == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_nine_in_ten_intervals_hold_random_networks_that_were_not_learned_from():
    features, measured = known_networks()
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(12):
        order = rng.permutation(len(measured))
        learned, calibrating, asked = order[:60], order[60:159], order[159:]
        predictor = Predictor.fit(features[learned], measured[learned], fit_trees, rng)
        calibration = scores(measured[calibrating], *predictor.mean_and_spread(features[calibrating]))
        made = predictions(*predictor.mean_and_spread(features[asked]), conformal_factor(calibration))
        covered.append(np.mean([p.holds(y) for p, y in zip(made, measured[asked], strict=True)]))
    # Each has a standard error of 3 points by its 99 calibrating networks.
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


# Reports


def test_bins_hold_equal_numbers_and_networks_of_like_cost():
    costs = np.array([5.0, 1.0, 3.0, 2.0, 6.0, 4.0])
    assert equal_bins(costs, 3).tolist() == [2, 0, 1, 0, 2, 1]


def test_within_bins_cost_alone_is_worth_nothing():
    rng = np.random.default_rng(7)
    cost = np.repeat(np.arange(10.0), 30)
    measured = cost + rng.normal(0, 0.1, 300)
    bins = equal_bins(cost, 10)
    assert kendalltau(cost, measured).statistic > 0.8
    assert within_bins(cost, measured, bins) == 0.0
    assert within_bins(measured, measured, bins) == pytest.approx(1.0)


def forecast(number, *, predicted=0.5, measured=0.5, low=0.4, high=0.6, macs=1.0, origin=Origin.PROPOSED):
    return SearchTrial(
        number=number,
        round=1,
        origin=origin,
        architecture=SPACES["micro_8"].smallest(),
        costs={"macs": macs},
        measurement=Measured(measured),
        prediction=Prediction(predicted, low, high),
    )


def test_only_what_the_proposer_chose_and_gave_an_interval_is_judged():
    inside = [forecast(number) for number in range(9)]
    outside = forecast(9, measured=0.7)
    left_out = [
        forecast(10, measured=0.7, origin=Origin.RANDOM),
        forecast(11, measured=0.7, low=-np.inf, high=np.inf),
    ]
    report = forecast_report([*inside, outside, *left_out], "macs")
    assert report is not None
    assert (report.num_selected, report.coverage) == (10, 0.9)
    assert forecast_report(left_out, "macs") is None


def test_of_fewer_than_ten_no_share_and_no_rank_is_told():
    trials = [forecast(n, predicted=n / 10, measured=n / 10) for n in range(10)]
    few, enough = (forecast_report(trials[:count], "macs") for count in (9, 10))
    assert few is not None and enough is not None
    assert (few.num_selected, few.num_ranked) == (9, 9)
    assert few.coverage is few.within_bin_tau is None
    # Of equal costs each third is a bin, ranked rightly.
    assert enough.within_bin_tau == pytest.approx(1.0)
    flat = forecast_report([forecast(n) for n in range(10)], "macs")
    assert flat is not None
    # Measured all equal, there is nothing to rank.
    assert (flat.num_ranked, flat.within_bin_tau) == (0, None)


def test_a_search_reports_on_what_it_predicted_before_measuring():
    outcome = search(region_of("nas_bench_macro"), settings_of(proposer=ProposerName.MODEL))
    selected = [t for t in outcome.trials if t.origin is Origin.PROPOSED]
    report = forecast_report(outcome.trials, "macs")
    assert report is not None
    assert report.num_selected == len(selected)
    held = [t.prediction.low <= t.measurement.accuracy <= t.prediction.high for t in selected]
    assert report.coverage == np.mean(held)
    assert all(t.prediction is None for t in outcome.trials if t.origin is Origin.SEED)
    # Predicted before it was measured: near, and never right to the last bit.
    errors = [abs(t.prediction.accuracy - t.measurement.accuracy) for t in selected]
    assert min(errors) > 0 and np.median(errors) < 0.02
    assert forecast_report(search(region_of("nas_bench_macro"), settings_of()).trials, "macs") is None
