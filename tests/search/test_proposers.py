"""Laws of single proposers: what each learns, and in which order it looks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nas.search.coarse_to_fine import CoarseToFineProposer
from nas.search.loop import SearchLoop
from nas.search.model import ModelProposer
from nas.search.proposers import make_proposer
from nas.search.rounds import Scored, StopReason
from nas.search.settings import ProposerName
from tests.search.synthetic import (
    Evaluator,
    Measured,
    region_of,
    search,
    settings_of,
    synthetic_accuracy,
)


def scored(region, networks):
    macs = region.costs.batch(region.space.encode(networks), ["macs"])["macs"].tolist()
    return [Scored(n, (-synthetic_accuracy(n), float(m))) for n, m in zip(networks, macs, strict=True)]


def stub_fit(features, targets, seed):
    """A member that expects the mean, and a little more of whatever has the greater first features."""
    return lambda rows: targets.mean() + 1e-3 * rows[:, 0]


# The model


def test_the_model_asks_for_new_feasible_networks_however_often_it_is_asked():
    region = region_of("nas_bench_macro", max_macs="50%")
    proposer = ModelProposer(region, settings_of(), stub_fit)
    rng = np.random.default_rng(0)
    told = [n for n in (region.space.sample(rng) for _ in range(60)) if region.contains(n)]
    told = [*dict.fromkeys(told)]
    proposer.tell(scored(region, told))
    asked = [network for _ in range(3) for network in proposer.ask(7)]
    assert len({*asked, *told}) == 21 + len(told)
    assert all(region.contains(network) for network in asked)
    assert all(region.space.canonical(network) == network for network in asked)


def test_before_enough_is_told_nothing_is_predicted_and_networks_are_drawn():
    region = region_of("nas_bench_macro")
    proposer = ModelProposer(region, settings_of(), stub_fit)
    first = [*proposer.ask(3)]
    assert len({*first}) == 3
    assert proposer.predict(first) == [None] * 3
    proposer.tell(scored(region, first))
    assert proposer.predict(first) == [None] * 3
    proposer.tell(scored(region, [region.space.largest()]))
    predicted = proposer.predict(first)
    assert all(p is not None and (p.low, p.high) == (-np.inf, np.inf) for p in predicted)


def test_the_model_chooses_better_networks_than_chance():
    region = region_of("nas_bench_macro", max_macs="60%")
    weights = np.random.default_rng(2).normal(size=len(region.space.decisions))

    def measure(numbered):
        codes = region.space.encode([network for _, network in numbered])
        return [Measured(float(a)) for a in 0.5 + 0.05 * codes @ weights]

    def mean_of_last(proposer: ProposerName) -> float:
        settings = settings_of(("accuracy",), proposer=proposer, num_trials=40)
        trials = search(region, settings, measure).trials
        return float(np.mean([t.measurement.accuracy for t in trials[-20:]]))

    # Accuracies of feasible networks have a standard deviation of about 0.1.
    assert mean_of_last(ProposerName.MODEL) > mean_of_last(ProposerName.RANDOM) + 0.05


def test_the_model_learns_from_what_was_measured_before_its_search():
    region = region_of("nas_bench_macro", max_macs="60%")
    rng = np.random.default_rng(2)
    weights = rng.normal(size=len(region.space.decisions))

    def accuracies(networks):
        return 0.5 + 0.05 * region.space.encode(networks) @ weights

    networks = [*dict.fromkeys(region.space.sample(rng) for _ in range(150))]
    known = [*zip(networks, accuracies(networks).tolist(), strict=True)]
    # Those beyond the bounds teach as well.
    assert not all(region.contains(network) for network in networks)
    settings = settings_of(("accuracy",), proposer=ProposerName.MODEL)
    seeds = [network for network in networks if region.contains(network)][:3]
    means = []
    for taught in (known, []):
        proposer = make_proposer(region, settings)
        proposer.learn(taught)
        proposer.tell([Scored(n, (-a,)) for n, a in zip(seeds, accuracies(seeds).tolist(), strict=True)])
        asked = proposer.ask(10)
        assert len({*asked, *seeds}) == 13 and all(region.contains(network) for network in asked)
        means.append(accuracies(asked).mean())
    # Accuracies of feasible networks have a standard deviation of about 0.1.
    assert means[0] > means[1] + 0.1


def test_networks_measured_before_may_be_chosen_and_are_not_predicted():
    region = region_of("nas_bench_macro")
    rng = np.random.default_rng(1)
    networks = [*dict.fromkeys(region.space.sample(rng) for _ in range(60))]
    best = networks[7]
    proposer = ModelProposer(region, settings_of(("accuracy",)), stub_fit)
    # Nothing that the stub predicts comes near.
    proposer.learn([(network, 0.9 if network == best else 0.1) for network in networks])
    proposer.tell([Scored(network, (-0.1,)) for network in networks[:3]])
    assert best in proposer.ask(5)
    told = proposer.predict([best, *(region.space.sample(rng) for _ in range(3))])
    assert told[0] is None and None not in told[1:]


def test_errors_on_networks_measured_before_say_nothing_of_predictions_made_ahead():
    region = region_of("nas_bench_macro")
    rng = np.random.default_rng(1)
    networks = [*dict.fromkeys(region.space.sample(rng) for _ in range(60))]
    new = region.space.sample(rng)
    widths = []
    for told_again in ([], networks[30:]):
        proposer = ModelProposer(region, settings_of(), stub_fit)
        proposer.learn([(s.architecture, -s.losses[0]) for s in scored(region, networks)])
        proposer.tell(scored(region, networks[:30]))
        proposer.predict(networks)
        proposer.tell(scored(region, told_again))
        [prediction] = proposer.predict([new])
        widths.append(prediction.high - prediction.low)
    # The stub is far off on each of them, so that counting them would show.
    assert widths[0] == pytest.approx(widths[1], rel=0.2)


def test_errors_made_ahead_widen_the_intervals():
    region = region_of("nas_bench_macro")
    rng = np.random.default_rng(1)
    networks = [*dict.fromkeys(region.space.sample(rng) for _ in range(60))]
    widths = []
    for error in (0.0, 0.5):
        proposer = ModelProposer(region, settings_of(), stub_fit)
        proposer.tell(scored(region, networks[:30]))
        proposer.predict(networks[30:])
        ahead = [
            Scored(s.architecture, (s.losses[0] + error, s.losses[1])) for s in scored(region, networks[30:])
        ]
        proposer.tell(ahead)
        [prediction] = proposer.predict(networks[:1])
        assert prediction is not None
        widths.append(prediction.high - prediction.low)
    assert widths[1] > 2 * widths[0]


# Coarse to fine


def test_the_grid_comes_first_with_all_decisions_of_a_kind_at_one_level():
    region = region_of("micro_8")
    proposer = CoarseToFineProposer(region, settings_of(num_trials=60))
    grid = [*proposer.ask(20)]
    assert len({*grid}) == 20
    for network in grid:
        levels: dict[str, set[float]] = {}
        for decision in region.space.decisions:
            if (chosen := network.get(decision.name)) is not None:
                kind = decision.name.rpartition(".")[2]
                levels.setdefault(kind, set()).add(
                    decision.options.index(chosen) / (len(decision.options) - 1)
                )
        # Halfway between two options is one of them.
        assert all(len(found) == 1 or found <= {0.0, 0.5, 1.0} for found in levels.values())
        assert all(len(levels[kind]) == 1 for kind in ("depth", "kernel", "expansion"))
    # Nothing was told, so that there is nothing to mutate.
    assert proposer.ask(5) == []


def test_after_the_grid_come_neighbours_of_the_best_in_each_budget():
    region = region_of("nas_bench_macro")
    proposer = CoarseToFineProposer(region, settings_of(num_trials=60))
    grid = [*proposer.ask(60)]
    assert [*proposer.ask(5)] == []
    results = scored(region, grid)
    proposer.tell(results)
    asked = proposer.ask(40)
    assert len({*asked}) == 40
    best = region.space.encode(grid)
    nearest = [(region.space.encode([a]) != best).sum(axis=1).min() for a in asked]
    assert np.mean(nearest) < 2.5
    assert not {*asked} & {*grid}


# Gaussian processes


@pytest.mark.slow
def test_gaussian_processes_keep_the_bounds():
    region = region_of("nas_bench_macro", max_macs="50%")
    # Optuna draws the first ten by chance, so that the processes propose the last two.
    outcome = search(region, settings_of(proposer=ProposerName.GP, num_trials=12, round_size=1))
    assert all(region.contains(t.architecture) for t in outcome.trials)
    assert len({t.architecture for t in outcome.trials}) == 12


def test_other_proposers_come_without_torch():
    program = "import sys; from nas.search.proposers import make_proposer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# The end of a search


@pytest.mark.parametrize("flat_rounds", [1, 3])
def test_a_flat_search_ends_and_one_that_gains_goes_on(flat_rounds):
    region = region_of("nas_bench_macro")
    settings = settings_of(num_trials=200, flat_rounds=flat_rounds, proposer=ProposerName.RANDOM)
    rounds = []

    def measure_rising(numbered):
        return [Measured(0.1 + 0.001 * number) for number, _ in numbered]

    outcome = search(region, settings, measure_rising, on_round=rounds.append)
    assert outcome.stop_reason is StopReason.BUDGET_SPENT
    volumes = [r.hypervolume for r in rounds]
    assert volumes == sorted(volumes)

    rounds.clear()
    outcome = search(region, settings, lambda n: [Measured(0.5)] * len(n), on_round=rounds.append)
    assert outcome.stop_reason is StopReason.FLAT
    # Round 0 holds the cheapest network, and of equal accuracy none is better.
    assert len(rounds) == 1 + flat_rounds
    fixed = settings_of(num_trials=80, proposer=ProposerName.RANDOM)
    assert search(region, fixed, lambda n: [Measured(0.5)] * len(n)).stop_reason is StopReason.BUDGET_SPENT


def test_a_search_of_one_network_has_a_volume_of_nothing():
    rounds = []
    settings = settings_of(num_trials=1)
    region = region_of("micro_8")
    loop: SearchLoop[Measured] = SearchLoop(
        region=region, settings=settings, proposer=make_proposer(region, settings)
    )
    loop.run(Evaluator(), on_round=rounds.append)
    assert [r.hypervolume for r in rounds] == [0.0]
