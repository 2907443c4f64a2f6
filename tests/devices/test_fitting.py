"""Latency models: what they find again, how they are chosen, and that they read back as they were written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from nas.costs import batch_costs
from nas.devices.accuracy import compare
from nas.devices.basis import Basis
from nas.devices.boosting import grow_trees
from nas.devices.device import Device
from nas.devices.fitting import MeasuredNetworks, fit_and_judge, fit_latency, judged
from nas.devices.latency_costs import DeviceCosts
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.devices.residual import Interactions, ResidualInputs, chosen_options
from nas.devices.table import LatencyTable
from nas.errors import InvalidRequestError, UnknownNameError
from nas.search.branches import Branches, OptionLayout
from nas.search.cost_model import CostParts, PartKind, ScaledParts, SpaceCosts
from search_spaces import SPACES
from tests.devices.laws import DEVICE, block_ms, drawn_codes, measured
from tests.prefilter.parted_costs import cost_of
from tests.shared_data import shared_data

SPACE = SPACES["micro_8"]


def _interacting(codes):
    """Some choices make everything else slower, which no sum over blocks can say."""
    return np.where(codes[:, 0] == 1, 1.4, 1.0) * np.where(codes[:, 1] == 0, 0.8, 1.0)


def _table(ms=block_ms):
    blocks = NetworkBlocks.of(SPACE).distinct()
    times = ms(blocks)[:, 0]
    return LatencyTable(device=DEVICE, base_ms=0.0, rows=dict(zip(blocks, times.tolist(), strict=True)))


@pytest.mark.parametrize("table", [None, _table()], ids=["work", "table"])
def test_a_sum_over_blocks_is_found_again_and_stays_additive(table):
    grow = None if table else grow_trees
    model = fit_latency(measured(SPACE, 80, noise=0.01), table=table, grow_trees=grow)
    assert model.is_additive
    exact = measured(SPACE, 300, seed=7)
    found = compare(model.predict_ms(exact.networks, exact.codes), exact.latency_ms)
    assert found.mape < 0.01 and found.hit_rate == 1 and found.spearman > 0.999


def test_a_device_scaled_table_is_found_with_its_scale_and_base():
    table = _table(lambda blocks: block_ms(blocks) / 1.7)
    networks = measured(SPACE, 60)
    model = fit_latency(networks, table=table)
    predicted = model.predict_ms(networks.networks, networks.codes)
    assert predicted == pytest.approx(networks.latency_ms, rel=1e-6)
    if model.basis is Basis.TABLE:
        assert model.factors["p50_ms"] == pytest.approx(1.7) and model.base_ms == pytest.approx(0.3)


@pytest.mark.parametrize("grow", [None, grow_trees], ids=["interactions", "trees"])
def test_what_no_sum_can_say_is_found_by_a_residual(grow):
    networks = measured(SPACE, 250, factor=_interacting)
    test = measured(SPACE, 300, factor=_interacting, seed=9)
    model = judged(fit_latency(networks, grow_trees=grow), test)
    assert not model.is_additive
    alone = replace(model, residual=None)
    assert model.accuracy.mape < 0.6 * judged(alone, test).accuracy.mape


def test_the_choice_and_the_fit_see_no_network_that_judges():
    networks = measured(SPACE, 120, noise=0.02, factor=_interacting)
    rng = np.random.default_rng(0)
    model = fit_and_judge(networks, held_out_share=0.25, seed=3)
    held_out = np.random.default_rng(3).permutation(len(networks))[:30]
    spoilt = networks.latency_ms.copy()
    spoilt[held_out] *= rng.uniform(0.1, 10, 30)
    other = fit_and_judge(replace(networks, latency_ms=spoilt), held_out_share=0.25, seed=3)
    # Whatever the judges' times, the model is the same, and its accuracy is not.
    assert _without_accuracy(other) == _without_accuracy(model)
    assert model.accuracy.num_networks == 30
    assert other.accuracy.mape > 2 * model.accuracy.mape


def _without_accuracy(model):
    return json.dumps({**model.to_json(), "accuracy": None})


def test_a_shuffled_table_makes_the_correlation_collapse():
    table, test = _table(), measured(SPACE, 300)

    def rank(rows):
        model = LatencyModel.of_table(replace(table, rows=rows))
        return judged(model, test).accuracy.spearman  # fmt: skip

    assert rank(table.rows) > 0.9999
    shuffled = [
        rank(dict(zip(table.rows, np.random.default_rng(s).permutation([*table.rows.values()]), strict=True)))
        for s in range(10)
    ]
    assert np.mean(shuffled) < 0.6


@pytest.mark.parametrize("kind", ["additive", "table", "interactions", "trees"])
def test_models_read_back_from_json_to_the_same_bits(kind):
    factor = _interacting if kind in ("interactions", "trees") else None
    networks = measured(SPACE, 100, noise=0.005, factor=factor)
    table = _table() if kind == "table" else None
    model = fit_and_judge(networks, table=table, grow_trees=grow_trees if kind == "trees" else None)
    text = json.dumps(model.to_json(), allow_nan=False)
    again = LatencyModel.from_json(json.loads(text))
    codes = drawn_codes(SPACE, 200, seed=4)
    assert np.array_equal(
        again.predict_ms(networks.networks, codes), model.predict_ms(networks.networks, codes)
    )
    assert json.dumps(again.to_json()) == text
    with pytest.raises(InvalidRequestError, match="schema"):
        LatencyModel.from_json({**model.to_json(), "schema": 2})


@pytest.mark.parametrize("kind", ["additive", "interactions", "trees"])
def test_batches_of_a_search_equal_the_model_and_lie_above_its_floor(kind):
    factor = None if kind == "additive" else _interacting
    networks = measured(SPACE, 100, noise=0.01, factor=factor)
    model = fit_latency(networks, grow_trees=grow_trees if kind == "trees" else None)
    assert model.is_additive == (kind == "additive")
    costs = DeviceCosts(exact=SpaceCosts(space=SPACE), model=model)
    codes = drawn_codes(SPACE, 400, seed=5)
    found = costs.batch(codes, ["macs", "latency_ms"])
    assert found["latency_ms"] == pytest.approx(model.predict_ms(networks.networks, codes), rel=1e-12)
    assert np.array_equal(found["macs"], batch_costs(SPACE, codes)["macs"])
    known = costs.parts("latency_ms")
    assert isinstance(known, CostParts if kind == "additive" else ScaledParts)
    if kind != "additive":
        _check_factor(known, codes, found["latency_ms"])
    # What stands in columns of inactive decisions changes no network.
    canonical = SPACE.encode([SPACE.canonical(SPACE.decode(code)) for code in codes])
    assert (canonical != codes).any()
    assert costs.batch(canonical, ["latency_ms"])["latency_ms"] == pytest.approx(
        found["latency_ms"], rel=1e-12
    )


def _check_factor(known, codes, latency_ms):
    """The parts times the factor, which lies above its floor, on it where nothing else may be chosen."""
    chosen = chosen_options(SPACE, codes)
    branches = Branches(OptionLayout.of(SPACE), chosen)
    figures = [cost_of(figure, codes) for figure in known.log_factor.figures]
    between = np.array(figures).T.reshape(len(codes), -1)
    floor = known.log_factor.floor(branches, between, between)
    total_ms = cost_of(CostParts(PartKind.SUM, known.parts), codes)
    assert total_ms * np.exp(floor.least(branches)) == pytest.approx(latency_ms, rel=1e-9)
    whole = Branches.whole(branches.layout)
    ends = (end(between, axis=0, keepdims=True) for end in (np.min, np.max))
    lowest = known.log_factor.floor(whole, *ends).least(whole)[0]
    assert lowest <= np.log(latency_ms / total_ms).min()


def test_grown_trees_say_what_scikit_learn_says():
    from sklearn.ensemble import GradientBoostingRegressor

    rng = np.random.default_rng(0)
    inputs = ResidualInputs(rng.random((120, 5)) * 1e6, rng.random((120, 7)) < 0.4)
    target = np.sin(inputs.sums[:, 0] / 1e5) + inputs.choices[:, 1]
    columns = np.concatenate([inputs.sums, inputs.choices], axis=1)
    booster = GradientBoostingRegressor(
        n_estimators=300, max_depth=3, learning_rate=0.05, subsample=0.7, loss="huber", random_state=6
    ).fit(columns, target)  # fmt: skip
    trees = grow_trees(inputs, target, seed=6)
    assert trees.log_factor(inputs) == pytest.approx(booster.predict(columns), abs=1e-9)
    # As many as are gone through tree by tree, and few, which are gone through all trees at once.
    many = ResidualInputs(np.tile(inputs.sums, (9, 1)), np.tile(inputs.choices, (9, 1)))
    assert np.array_equal(trees.log_factor(many), np.tile(trees.log_factor(inputs), 9))


def test_the_lowest_factor_of_interactions_lies_below_every_choice_and_meets_it_where_pairs_agree():
    layout = OptionLayout(num_options=(3, 2, 4), parents=(None,) * 3, counts_at=((),) * 3)
    every = np.array([[*np.eye(3)[a], *np.eye(2)[b], *np.eye(4)[c]] for a, b, c in np.ndindex(3, 2, 4)])
    inputs = ResidualInputs(np.zeros((len(every), 0)), every > 0)
    whole, nothing = Branches.whole(layout), np.zeros((1, 0))
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.standard_normal((9, 9))
        random = Interactions(0.3, weights + weights.T)
        lowest = random.floor(whole, nothing, nothing).least(whole)[0]
        assert lowest <= random.log_factor(inputs).min() + 1e-12
    diagonal = Interactions(0.3, -np.diag(rng.random(9)))
    lowest = diagonal.floor(whole, nothing, nothing).least(whole)[0]
    assert lowest == pytest.approx(diagonal.log_factor(inputs).min())


def test_chosen_options_are_one_for_each_active_decision():
    codes = drawn_codes(SPACE, 100)
    chosen = chosen_options(SPACE, codes)
    for code, row in zip(codes, chosen, strict=True):
        assert row.sum() == len(SPACE.decode(code).choices)


def test_accuracy_is_what_its_names_say():
    found = compare(np.array([1.0, 2.1, 2.4]), np.array([1.0, 2.0, 3.0]))
    assert (found.mape, found.hit_rate, found.spearman) == pytest.approx((0.25 / 3, 2 / 3, 1.0))
    assert np.isnan(compare(np.ones(3), np.arange(1.0, 4)).spearman)


def test_what_cannot_be_fitted_or_predicted_is_refused():
    networks = measured(SPACE, 60)
    for times in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InvalidRequestError, match="network 3 is not"):
            replace(networks, latency_ms=np.where(np.arange(60) == 3, times, networks.latency_ms))
    with pytest.raises(InvalidRequestError, match="do not fit"):
        replace(networks, codes=networks.codes[1:])
    with pytest.raises(InvalidRequestError, match="more than once"):
        networks.rows(np.array([0, 1, 2, 1]))
    with pytest.raises(InvalidRequestError, match="too few"):
        fit_latency(networks.rows(np.arange(19)))
    with pytest.raises(InvalidRequestError, match="measure both alike"):
        fit_latency(networks, table=replace(_table(), device=Device(name="other", runtime="law")))
    model = fit_latency(networks)
    with pytest.raises(InvalidRequestError, match="another space"):
        model.predict_ms(NetworkBlocks.of(SPACES["micro"]), drawn_codes(SPACES["micro"], 1))
    with pytest.raises(UnknownNameError, match="operation 'depthwise'"):
        known = tuple(op for op in model.operations if op != "depthwise")
        replace(model, operations=known).predict_ms(networks.networks, networks.codes)


def test_a_few_networks_measured_on_a_pi_predict_the_others():
    path = shared_data("latency/nas_bench_201_devices_train.parquet")
    table = pq.read_table(
        path, filters=[("device", "=", "raspberry_pi_5"), ("framework", "=", "onnx"),
                       ("task", "=", "cifar100"), ("degenerate", "=", False)],
    )  # fmt: skip
    space = SPACES["nas_bench_201"]
    rows = np.random.default_rng(0).choice(len(table), 350, replace=False)
    networks = MeasuredNetworks(
        device=Device(name="raspberry_pi_5", runtime="onnx"),
        networks=NetworkBlocks.of(space, num_classes=100),
        codes=space.encode([space.parse(table["arch"][int(i)].as_py()) for i in rows]),
        latency_ms=table["latency_ms"].to_numpy()[rows],
    )
    model = judged(fit_latency(networks.rows(np.arange(150))), networks.rows(np.arange(150, 350)))
    assert model.accuracy.mape < 0.04 and model.accuracy.spearman > 0.97
