"""Laws of the search loop, by each proposer, on accuracies that cost nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from nas.costs import costs
from nas.errors import InvalidRequestError
from nas.pareto import hypervolume, normalise
from nas.search import loop as loop_module
from nas.search.loop import SearchLoop
from nas.search.model import ModelProposer
from nas.search.proposers import make_proposer
from nas.search.rounds import Origin, Scored, StopReason
from nas.search.sampling import stratified_seeds
from nas.search.settings import ProposerName, SearchSettings, parse_objectives
from nas.search.trees import fit_trees
from nas.space import SearchSpace
from tests.search.synthetic import Evaluator, Measured, all_networks, region_of, search, settings_of
from tests.shared_data import shared_data

PROPOSERS = [name for name in ProposerName if name is not ProposerName.GP]
"""Gaussian processes take a second a network: they have tests of their own."""
REGIONS = [("micro_8", {"max_macs": "40%", "max_params": "50%"}), ("nas_bench_macro", {"max_macs": "30%"})]


def described(outcome):
    return [(t.number, t.round, t.origin, t.architecture.key, t.measurement.accuracy) for t in outcome.trials]


@pytest.mark.parametrize("proposer", PROPOSERS)
@pytest.mark.parametrize(("space", "fields"), REGIONS)
def test_only_feasible_and_never_the_same_network_twice(space, fields, proposer):
    region = region_of(space, **fields)
    evaluator = Evaluator()
    outcome = search(region, settings_of(proposer=proposer), evaluator)
    assert outcome.stop_reason is StopReason.BUDGET_SPENT
    assert evaluator.numbers == [t.number for t in outcome.trials] == [*range(45)]
    assert len(evaluator.measured) == 45
    assert all(region.contains(t.architecture) for t in outcome.trials)
    assert all(region.space.contains(t.architecture) for t in outcome.trials)
    for trial in outcome.trials:
        assert trial.costs.items() <= costs(region.space, trial.architecture).items()


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_seeds_take_a_share_of_the_budget_and_the_proposer_most_of_the_rest(proposer):
    outcome = search(region_of("micro_8"), settings_of(proposer=proposer))
    origins = [t.origin for t in outcome.trials]
    num_seeds = 9 if proposer is ProposerName.MODEL else 15
    assert origins[:num_seeds] == [Origin.SEED] * num_seeds
    assert Origin.SEED not in origins[num_seeds:]
    assert origins.count(Origin.PROPOSED) >= 15
    sizes = [num_seeds, 10, 10, 10, 45 - num_seeds - 30]
    assert [t.round for t in outcome.trials] == [r for r, size in enumerate(sizes) for _ in range(size)]


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_same_seed_same_trials_and_another_seed_others(proposer):
    region = region_of("micro_8", max_macs="60%")
    first, second, other = (search(region, settings_of(proposer=proposer, seed=seed)) for seed in (5, 5, 6))
    assert described(first) == described(second)
    assert described(first) != described(other)


@pytest.mark.parametrize("proposer", PROPOSERS)
@pytest.mark.parametrize("dies_at_call", [0, 1, 3])
def test_a_search_that_died_resumes_to_the_same_trials_measuring_nothing_twice(proposer, dies_at_call):
    region = region_of("nas_bench_macro", max_macs="50%")
    settings = settings_of(proposer=proposer)
    undisturbed = search(region, settings)
    killed = Evaluator(dies_at_call=dies_at_call)
    with pytest.raises(ConnectionError):
        search(region, settings, killed)
    resumed = Evaluator(known=killed.measured)
    outcome = search(region, settings, resumed)
    assert described(outcome) == described(undisturbed)
    assert [t.number for t in outcome.frontier] == [t.number for t in undisturbed.frontier]
    assert not killed.measured.keys() & resumed.measured.keys()
    assert len(killed.measured) + len(resumed.measured) == 45


@pytest.mark.parametrize("objectives", [("accuracy",), ("macs", "accuracy"), ("accuracy", "params", "macs")])
@pytest.mark.parametrize("proposer", PROPOSERS)
def test_no_trial_dominates_one_of_the_frontier_in_any_number_of_objectives(proposer, objectives):
    settings = settings_of(objectives, proposer=proposer, num_trials=15)
    rounds = []
    outcome = search(region_of("nas_bench_macro"), settings, on_round=rounds.append)

    def losses(trials):
        rows = [[{"accuracy": t.measurement.accuracy, **t.costs}[o] for o in objectives] for t in trials]
        return normalise(rows, settings.objectives)

    every, front = losses(outcome.trials), losses(outcome.frontier)
    assert not ((every[:, None] <= front).all(axis=2) & (every[:, None] < front).any(axis=2)).any()
    assert (front[:, None] <= every).all(axis=2).any(axis=0).all()
    assert rounds[-1].frontier == outcome.frontier
    assert sum((r.trials for r in rounds), ()) == outcome.trials


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_a_search_stops_when_every_feasible_network_is_measured(proposer):
    region = region_of("nas_bench_macro", max_macs="8%")
    outcome = search(region, settings_of(proposer=proposer, num_trials=1000))
    every = all_networks(region.space)
    assert outcome.stop_reason is StopReason.EXHAUSTED
    assert {t.architecture for t in outcome.trials} == {a for a in every if region.contains(a)}


def test_a_large_space_with_few_feasible_networks_ends_without_claiming_proof():
    region = region_of("micro_8")
    least = costs(region.space, region.space.smallest())
    region = region_of("micro_8", max_macs=least["macs"] + 1, max_params=least["params"] + 1)
    outcome = search(region, settings_of())
    assert outcome.stop_reason is StopReason.NOTHING_NEW_FOUND
    assert [t.architecture for t in outcome.trials] == [region.space.smallest()]


def never(numbered):
    raise AssertionError("asked to measure")


def test_an_impossible_search_asks_for_no_measurement():
    outcome = search(region_of("micro_8", max_macs=1), settings_of(), never)
    assert outcome.trials == outcome.frontier == ()
    assert outcome.stop_reason is StopReason.NOTHING_NEW_FOUND


def test_where_chance_finds_nothing_the_last_resort_is_asked_and_its_networks_are_the_first(monkeypatch):
    region = region_of("micro_8", max_macs="50%")
    small, large = region.space.smallest(), region.space.largest()
    known = [(small, 0.5), (large, 0.9)]
    asked = []

    def last_resort(told):
        asked.append(told)
        return [large, small]

    monkeypatch.setattr(loop_module, "stratified_seeds", lambda *_, **__: [])
    settings = settings_of()
    loop: SearchLoop[Measured] = SearchLoop(
        region=region, settings=settings, proposer=make_proposer(region, settings), last_resort=last_resort
    )
    outcome = loop.run(Evaluator(), known=known)
    assert asked == [known]
    # The large one exceeds the bound, whoever says otherwise.
    assert [t.architecture for t in outcome.trials if t.round == 0] == [small]
    assert outcome.stop_reason is StopReason.BUDGET_SPENT


def test_what_the_last_resort_raises_goes_through_before_anything_is_measured():
    def none_is_found(known):
        raise InvalidRequestError("nothing there")

    region, settings = region_of("micro_8", max_macs=1), settings_of()
    loop: SearchLoop[Measured] = SearchLoop(
        region=region, settings=settings, proposer=make_proposer(region, settings), last_resort=none_is_found
    )
    with pytest.raises(InvalidRequestError, match="nothing there"):
        loop.run(never)


def test_a_search_is_stopped_between_rounds():
    rounds = []
    outcome = search(
        region_of("micro_8"), settings_of(), on_round=rounds.append, should_stop=lambda: len(rounds) == 2
    )
    assert outcome.stop_reason is StopReason.STOPPED
    assert len(outcome.trials) == 25


class StubbornProposer:
    """Knows one network, and one beyond the bounds."""

    def __init__(self, space: SearchSpace) -> None:
        self.known = [space.smallest(), space.largest()]
        self.told: list[Scored] = []

    def ask(self, count):
        return self.known[:count]

    def tell(self, results):
        self.told += results


def test_neighbours_of_the_frontier_stand_in_for_a_proposer_that_repeats_itself():
    region = region_of("micro_8", max_macs="50%")
    proposer = StubbornProposer(region.space)
    loop: SearchLoop[Measured] = SearchLoop(region=region, settings=settings_of(), proposer=proposer)
    outcome = loop.run(Evaluator())
    assert len(outcome.trials) == 45
    assert {t.origin for t in outcome.trials[15:]} == {Origin.MUTATED}
    # Every result is told, in the order of trial numbers, with what is maximised turned.
    assert [r.architecture for r in proposer.told] == [t.architecture for t in outcome.trials]
    assert [r.losses for r in proposer.told] == [
        (-t.measurement.accuracy, t.costs["macs"]) for t in outcome.trials
    ]


@pytest.mark.parametrize("proposer", [ProposerName.NSGA2, ProposerName.TPE])
def test_proposers_learn_from_networks_that_others_chose(proposer):
    """Told that the smallest networks are best in everything, they propose small ones."""
    region = region_of("micro_8")
    space = region.space
    settings = settings_of(proposer=proposer, num_trials=90)
    rng = np.random.default_rng(0)
    seeds = [space.sample(rng) for _ in range(30)]
    sizes = space.encode(seeds).sum(axis=1)
    learner, naive = make_proposer(region, settings), make_proposer(region, settings)
    learner.tell([Scored(a, (float(s), float(s))) for a, s in zip(seeds, sizes, strict=True)])
    learned = space.encode(learner.ask(20)).sum(axis=1).mean()
    assert learned < space.encode(naive.ask(20)).sum(axis=1).mean() - 2


def test_evaluations_must_match_what_was_asked():
    with pytest.raises(ValueError, match="asked to measure 15 networks, evaluate gave 0"):
        search(region_of("micro_8"), settings_of(), lambda numbered: [])
    with pytest.raises(ValueError, match="NaN"):
        search(region_of("micro_8"), settings_of(), lambda numbered: [Measured(float("nan"))] * len(numbered))


def test_settings_refuse_impossible_values_by_name():
    for fields, expected in (
        ({"num_trials": 0}, "num_trials 0"),
        ({"round_size": 0}, "round_size 0"),
        ({"seed": -1}, "seed -1"),
        (
            {"proposer": "bayes"},
            "proposer 'bayes' is unknown; allowed: nsga2, tpe, gp, model, coarse_to_fine, random",
        ),
    ):
        with pytest.raises(InvalidRequestError, match=expected):
            settings_of(**fields)
    for names, expected in (
        (["macs"], "include 'accuracy'"),
        (["accuracy", "macs", "macs"], "distinct"),
        (["accuracy", "flops"], "'flops' is unknown; allowed: accuracy, macs"),
    ):
        with pytest.raises(InvalidRequestError, match=expected):
            parse_objectives(names)


def test_an_objective_the_cost_model_does_not_know_is_refused_before_measuring():
    objectives = parse_objectives(["accuracy", "latency_ms"], ["latency_ms"])
    settings = SearchSettings(num_trials=5, seed=0, objectives=objectives)
    region = region_of("micro_8")
    with pytest.raises(InvalidRequestError, match="latency_ms"):
        SearchLoop(region=region, settings=settings, proposer=make_proposer(region, settings))


def test_a_search_says_nothing_on_its_own(capfd):
    search(region_of("nas_bench_macro"), settings_of(num_trials=12))
    assert capfd.readouterr() == ("", "")


def test_everything_but_the_proposers_comes_without_optuna():
    modules = "constraints, loop, region, rounds, sampling, settings"
    program = f"import sys; from nas.search import {modules}; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nsga2_is_no_worse_than_random_on_the_macro_benchmark():
    """A sanity check on trained accuracies, not evidence: few seeds, no interval."""
    table = pq.read_table(shared_data("nas_bench_macro/train.parquet"), columns=["arch", "mean_acc"])
    region = region_of("nas_bench_macro")
    accuracy = {
        region.space.parse(arch).key: mean / 100
        for arch, mean in zip(*(table[c].to_pylist() for c in ("arch", "mean_acc")), strict=True)
    }
    # The table holds part of the space: a network without a row counts as always wrong.
    reference = [-min(accuracy.values()), costs(region.space, region.space.largest())["macs"] * 1.0001]

    def mean_volume(proposer: ProposerName) -> float:
        volumes = []
        for seed in range(5):
            outcome = search(
                region,
                settings_of(proposer=proposer, seed=seed, num_trials=90),
                lambda numbered: [Measured(accuracy.get(a.key, 0.0)) for _, a in numbered],
            )
            points = [[-t.measurement.accuracy, t.costs["macs"]] for t in outcome.frontier]
            volumes.append(hypervolume(points, reference))
        return float(np.mean(volumes))

    assert mean_volume(ProposerName.NSGA2) > 0.98 * mean_volume(ProposerName.RANDOM)


def test_what_the_model_draws_at_random_is_told_apart_from_what_it_chose():
    settings = settings_of(proposer=ProposerName.MODEL, num_trials=54)
    trials = search(region_of("micro_8"), settings).trials
    rounds = [[t.origin for t in trials if t.round == index] for index in range(1, trials[-1].round + 1)]
    assert [len(origins) for origins in rounds] == [10, 10, 10, 10, 4]
    # A tenth of each full round, and at most one of four.
    assert [origins.count(Origin.EXPLORED) for origins in rounds[:-1]] == [1, 1, 1, 1]
    assert rounds[-1].count(Origin.EXPLORED) <= 1
    others = {origin for origins in rounds for origin in origins} - {Origin.EXPLORED}
    assert others == {Origin.PROPOSED}


def test_seeds_are_spread_over_the_first_cost_that_is_sought():
    settings = settings_of(("accuracy", "params"), proposer=ProposerName.RANDOM, num_trials=36)
    region = region_of("micro_8")
    seeds = [t.architecture for t in search(region, settings).trials if t.origin is Origin.SEED]
    rng = np.random.default_rng((settings.seed, 0))
    assert seeds == stratified_seeds(region, settings.num_seeds, rng, cost="params")


def test_exploration_is_a_tenth_of_rounds_of_any_size():
    """Of a round of four it would be none if it were rounded."""
    region = region_of("micro_8")
    num_drawn = 0
    for seed in range(300):
        model = ModelProposer(region, settings_of(seed=seed), fit_trees)
        num_drawn += model._num_explored(4)
    assert pytest.approx(num_drawn, abs=3 * np.sqrt(300 * 0.4 * 0.6)) == 300 * 0.4


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_inherited_networks_come_first_instead_of_seeds_and_beside_the_budget(proposer):
    region = region_of("micro_8", max_macs="60%")
    settings = settings_of(proposer=proposer, num_trials=20)
    inherited = [trial.architecture for trial in search(region_of("micro_8"), settings).trials]
    kept = [network for network in inherited if region.contains(network)]
    assert 0 < len(kept) < len(inherited)
    loop = SearchLoop(
        region=region, settings=settings, proposer=make_proposer(region, settings), inherited=inherited
    )
    outcome = loop.run(Evaluator())
    assert [trial.architecture for trial in outcome.trials[: len(kept)]] == kept
    assert len(outcome.trials) == loop.num_trials == len(kept) + 20
    origins = [trial.origin for trial in outcome.trials]
    assert origins.count(Origin.INHERITED) == len(kept)
    assert Origin.SEED not in origins
    assert Origin.PROPOSED in origins
