"""The comparison of proposers on tables: shares of a known front, and searches that stay inside."""

import numpy as np
import pytest

from bench.search import main, regrets_at_quartiles, search_table, share_of_volume
from bench.search_predictor import recall_of_the_best
from bench.search_tables import Table, cells, macro
from nas.costs import costs
from nas.pareto import pareto_front
from nas.search.settings import ProposerName
from search_spaces import SPACES
from tests.shared_data import shared_data

FRONT = np.array([[1.0, -0.2], [2.0, -0.4], [4.0, -0.6]])


def test_the_whole_front_is_all_of_its_volume_and_less_is_what_it_dominates():
    corner = np.array([4.0004, -0.2 + 0.00002])
    whole = (2 - 1) * (corner[1] + 0.2) + (4 - 2) * (corner[1] + 0.4) + (corner[0] - 4) * (corner[1] + 0.6)
    assert share_of_volume(FRONT, FRONT) == 1.0
    assert share_of_volume(FRONT[1:2], FRONT) == pytest.approx((corner[0] - 2) * (corner[1] + 0.4) / whole)
    assert share_of_volume(np.array([[5.0, -0.9]]), FRONT) == 0.0


def test_regret_is_what_the_best_found_under_a_limit_misses():
    found = np.array([[1.2, -0.3], [3.5, -0.5]])
    # Quartiles of the costs 1, 2, 4: 1.5, 2 and 3.
    assert regrets_at_quartiles(found, FRONT) == pytest.approx([-10.0, 10.0, 10.0])
    assert regrets_at_quartiles(FRONT, FRONT) == [0.0, 0.0, 0.0]
    assert regrets_at_quartiles(found[1:], FRONT) == pytest.approx([20.0, 40.0, 40.0])


def small_table() -> Table:
    """A part of NAS-Bench-Macro with accuracies that are made up."""
    space = SPACES["nas_bench_macro"]
    rng = np.random.default_rng(0)
    networks = tuple(dict.fromkeys(space.sample(rng) for _ in range(150)))
    macs = np.array([costs(space, network)["macs"] for network in networks])
    accuracies = 0.1 * np.log(macs / 1e6) + rng.normal(0, 0.02, len(networks))
    return Table(space, "macs", networks, accuracies, {"macs": macs, "params": macs})


def test_a_search_measures_networks_of_the_table_alone_and_each_once():
    table = small_table()
    for proposer in (ProposerName.MODEL, ProposerName.NSGA2, ProposerName.RANDOM):
        trials = search_table(table, proposer, 40, 0, 10)
        found = [trial.architecture for trial in trials]
        assert len({*found}) == len(found) == 40
        assert {*found} <= {*table.networks}
        assert all(t.measurement.accuracy == table.accuracy_of[t.architecture] for t in trials)


def test_the_front_of_a_table_dominates_every_network_of_it():
    table = small_table()
    assert len(table.front) == len(pareto_front(table.losses))
    for row in table.losses:
        assert (table.front <= row).all(axis=1).any()


def test_the_shared_table_holds_every_distinct_network_with_its_own_costs():
    table = macro(shared_data("."))
    assert len(table.networks) == 2778
    for row in np.random.default_rng(0).integers(2778, size=20):
        network = table.networks[row]
        assert table.costs["macs"][row] == costs(table.space, network)["macs"]
        code = table.space.encode([network])
        assert table.batch(code, ["absent"])["absent"].tolist() == [0]


@pytest.mark.slow
@pytest.mark.parametrize(("read", "budget"), [(macro, 55), (cells, 90)])
def test_the_model_finds_the_front_with_2_percent_measured_and_chance_does_not(read, budget):
    table = read(shared_data("."))

    def mean_share(proposer):
        found = [search_table(table, proposer, budget, seed, 10) for seed in (0, 1)]
        losses = [[[t.costs[table.cost], -t.measurement.accuracy] for t in trials] for trials in found]
        return np.mean([share_of_volume(np.array(rows), table.front) for rows in losses])

    assert mean_share(ProposerName.MODEL) >= 0.985 > mean_share(ProposerName.RANDOM)


def test_the_command_compares_seed_by_seed(monkeypatch, capsys):
    monkeypatch.setattr("bench.search.TABLES", {"macro": lambda _: small_table()})
    main(
        [
            "--tables",
            "macro",
            "--seeds",
            "2",
            "--proposers",
            "model",
            "random",
            "--budgets",
            "20",
            "--learned",
            "50",
            "200",
        ]
    )
    out = capsys.readouterr().out
    assert "20 measured, model:" in out
    assert "model less random:" in out
    assert "learned from 50 random networks: 90 % intervals hold" in out
    assert "predictor less " in out
    # There are fewer.
    assert "learned from 200" not in out


def test_recall_is_the_part_of_the_truly_best_that_is_predicted_to_be_among_the_best():
    accuracies = np.arange(200.0)
    assert recall_of_the_best(accuracies, accuracies) == 1.0
    assert recall_of_the_best(-accuracies, accuracies) == 0.0
    swapped = accuracies.copy()
    swapped[[198, 5]] = swapped[[5, 198]]
    assert recall_of_the_best(swapped, accuracies) == 0.5
    assert recall_of_the_best(accuracies[:30], accuracies[:30]) == 1.0
