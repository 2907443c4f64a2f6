"""What a search knew while it ran: why each network, what was predicted before, how far each round got."""

from __future__ import annotations

import numpy as np
import pytest

from nas.pareto import hypervolume
from nas.search.rounds import Origin, StopReason
from nas.store import searches
from tests.api.worker import NUM_VAL, costs_of, measurement
from tests.workers.table import Killed, Table, run_with_table

NUM_TRIALS = 25
"""Of `model` five seeds and two rounds of ten."""


class Graded(Table):
    """Accuracies that can be learned: they rise with the costs, but for noise; they may turn at a number."""

    def __init__(self, before=lambda num_measured: None, *, turns_at: int | None = None) -> None:
        super().__init__(before)
        self._turns_at = turns_at

    def evaluate(self, architectures, on_result):
        results = []
        for architecture in architectures:
            self._before(len(self.measured))
            noise = int(architecture.key[:6], 16) % 9
            num_correct = int(10 * np.log(costs_of(architecture)["macs"])) + noise
            if self._turns_at is not None and len(self.measured) >= self._turns_at:
                num_correct = NUM_VAL - num_correct
            results.append(measurement(architecture, num_correct))
            self.measured.append(architecture.key)
            on_result(results[-1])
        return results


def search_with(site, supernet_id, table=None, **fields) -> str:
    """The id of a search that was run to its end."""
    search = site.add_search(supernet_id, **{"num_trials": NUM_TRIALS, "proposer": "model", **fields})
    run_with_table(site, search.job.id, table or Graded())
    return search.row.id


def trials_of(site, search_id):
    with site.database.session() as session:
        return searches.trials(session, search_id)


def rounds_of(site, search_id):
    with site.database.session() as session:
        return searches.rounds(session, search_id)


def predicted(row):
    return (row.predicted_accuracy, row.predicted_low, row.predicted_high, row.predicted_from)


def told(site, search_id) -> list[tuple]:
    """All that is kept of a search's trials and rounds, but for the times and the names of rows."""
    trials = [
        (t.trial.number, t.trial.round, t.trial.origin, t.trial.is_reused, *predicted(t.trial),
         t.evaluation.architecture_key, t.evaluation.num_correct)
        for t in trials_of(site, search_id)
    ]  # fmt: skip
    rounds = [
        (r.number, r.num_trials, r.num_measured, r.hypervolume, r.reference, r.num_forecasts, r.coverage,
         r.num_ranked, r.within_bin_tau)
        for r in rounds_of(site, search_id)
    ]  # fmt: skip
    return trials + rounds


def test_what_the_model_predicted_and_how_far_each_round_got_is_kept(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=35, proposer="model")
    run_with_table(site, search.job.id, Graded())
    trials, rounds = trials_of(site, search.row.id), rounds_of(site, search.row.id)
    check_predictions([found.trial for found in trials])
    check_rounds(trials, rounds)
    events = site.event_payloads(search.job.id, "round")
    assert [(e["round"], e["num_trials"], e["num_measured"], e["hypervolume"]) for e in events] == [
        (r.number, r.num_trials, r.num_measured, r.hypervolume) for r in rounds
    ]
    told = [dict(zip(("accuracy", "macs"), row.reference, strict=True)) for row in rounds]
    assert [event["reference"] for event in events] == told
    assert [e["predictor"] and e["predictor"]["coverage_90"] for e in events] == [r.coverage for r in rounds]


def test_what_other_searches_measured_teaches_a_search_from_its_first_round(site, supernet_id):
    search_with(site, supernet_id, proposer="random", num_trials=40)
    later = search_with(site, supernet_id, seed=5)
    rows = [found.trial for found in trials_of(site, later)]
    proposed = [row for row in rows if row.round == 1 and not row.is_reused]
    assert proposed
    # Without them five networks are known by then, and no interval is told.
    assert all(row.predicted_low is not None for row in proposed)
    assert all(row.predicted_accuracy is None for row in rows if row.is_reused)


def check_predictions(rows) -> None:
    """Seeds have none; what the model proposes is predicted from all that was measured before."""
    assert [row.origin for row in rows[:7]] == [Origin.SEED] * 7
    assert [predicted(row) for row in rows[:7]] == [(None, None, None, None)] * 7
    assert {row.origin for row in rows[7:]} == {Origin.PROPOSED, Origin.EXPLORED}
    assert [row.predicted_from for row in rows[7:]] == [7] * 10 + [17] * 10 + [27] * 8
    # Seven networks are too few for an interval that holds nine in ten.
    assert all(row.predicted_accuracy is not None and row.predicted_low is None for row in rows[7:17])
    assert all(row.predicted_low < row.predicted_accuracy < row.predicted_high for row in rows[17:])


def check_rounds(trials, rounds) -> None:
    """Every figure, found again from the trials."""
    losses = np.array([[-t.evaluation.num_correct / NUM_VAL, t.evaluation.macs] for t in trials])
    worst = losses[:7].max(axis=0)
    assert [(r.number, r.num_trials, r.num_measured) for r in rounds] == [
        (0, 7, 7),
        (1, 17, 17),
        (2, 27, 27),
        (3, 35, 35),
    ]
    for row in rounds:
        assert row.reference == [-worst[0], worst[1]]
        assert row.hypervolume == pytest.approx(hypervolume(losses[: row.num_trials], worst))
    held = [
        t.trial.predicted_low <= t.evaluation.num_correct / NUM_VAL <= t.trial.predicted_high
        for t in trials[17:]
        if t.trial.origin == Origin.PROPOSED
    ]
    # Of the ten networks of the second round one is drawn at random, and of nine no share is told.
    assert [(r.num_forecasts, r.coverage) for r in rounds] == [
        (0, None),
        (0, None),
        (9, None),
        (len(held), np.mean(held)),
    ]
    assert rounds[3].num_ranked <= len(held)
    assert rounds[3].within_bin_tau is None or -1 <= rounds[3].within_bin_tau <= 1


@pytest.mark.slow
def test_a_prediction_knows_nothing_of_what_is_measured_with_it(site, add_trained):
    """Whatever the last round measures, its predictions are the same: they were made before."""
    plain, turned = (search_with(site, add_trained(), Graded(turns_at=n)) for n in (None, 15))
    plain, turned = trials_of(site, plain), trials_of(site, turned)
    assert [t.evaluation.num_correct for t in plain[15:]] != [t.evaluation.num_correct for t in turned[15:]]
    assert [predicted(t.trial) for t in plain] == [predicted(t.trial) for t in turned]


def test_proposers_that_predict_nothing_say_so(site, supernet_id):
    search_id = search_with(site, supernet_id, proposer="random", num_trials=12)
    assert {predicted(t.trial) for t in trials_of(site, search_id)} == {(None, None, None, None)}
    assert [(r.num_forecasts, r.coverage, r.num_ranked) for r in rounds_of(site, search_id)] == [
        (0, None, 0)
    ] * 2


@pytest.mark.slow
def test_with_accuracy_alone_predictions_are_compared_among_networks_of_like_macs(site, supernet_id):
    search_id = search_with(site, supernet_id, objectives=("accuracy",), num_trials=40)
    last = rounds_of(site, search_id)[-1]
    assert last.num_ranked >= 10
    assert last.within_bin_tau is not None
    assert len(last.reference) == 1


def test_what_another_search_measured_before_counts_as_a_trial_and_not_as_measured(site, supernet_id):
    first = search_with(site, supernet_id, proposer="random", num_trials=12)
    second = search_with(site, supernet_id, proposer="random", num_trials=12)
    assert [(r.num_trials, r.num_measured) for r in rounds_of(site, first)] == [(4, 4), (12, 12)]
    assert [(r.num_trials, r.num_measured) for r in rounds_of(site, second)] == [(4, 0), (12, 0)]


def test_an_extending_search_says_which_trials_it_took_over(site, supernet_id):
    first = search_with(site, supernet_id, proposer="random", num_trials=8)
    second = search_with(site, supernet_id, proposer="random", num_trials=4, extends=first)
    origins = [found.trial.origin for found in trials_of(site, second)]
    assert origins == [Origin.INHERITED] * 8 + [Origin.PROPOSED] * 4


@pytest.mark.parametrize("flat_rounds", [1, 2])
def test_a_search_whose_rounds_gain_nothing_ends_and_says_so(site, supernet_id, flat_rounds):
    class Equal(Table):
        def evaluate(self, architectures, on_result):
            results = [measurement(architecture, 100) for architecture in architectures]
            for result in results:
                on_result(result)
            return results

    search = site.add_search(supernet_id, num_trials=90, flat_rounds=flat_rounds, proposer="random")
    run_with_table(site, search.job.id, Equal())
    with site.database.session() as session:
        assert searches.get(session, search.row.id).row.stop_reason == StopReason.FLAT
    # The cheapest network is a seed, and of equal accuracy none is better.
    assert len(rounds_of(site, search.row.id)) == 1 + flat_rounds
    assert site.event_payloads(search.job.id, "search_ended")[0]["stop_reason"] == "flat"


def test_a_search_that_spends_its_trials_says_so(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=5)
    run_with_table(site, search.job.id, Graded())
    with site.database.session() as session:
        assert searches.get(session, search.row.id).row.stop_reason == StopReason.BUDGET_SPENT


@pytest.mark.slow
@pytest.mark.parametrize("proposer", ["model", "tpe", "coarse_to_fine"])
@pytest.mark.parametrize("num_measured", [2, 5, 9, 24])
def test_a_killed_search_run_again_keeps_the_predictions_and_rounds_of_one_left_alone(
    site, add_trained, proposer, num_measured
):
    def die(num_done):
        if num_done == num_measured:
            raise Killed

    search = site.add_search(add_trained(), num_trials=NUM_TRIALS, proposer=proposer)
    with pytest.raises(Killed):
        run_with_table(site, search.job.id, Graded(die))
    run_with_table(site, search.job.id, Graded())
    alone = search_with(site, add_trained(), proposer=proposer)
    assert told(site, search.row.id) == told(site, alone)
    assert any(row.predicted_accuracy is not None for row in (t.trial for t in trials_of(site, alone))) == (
        proposer == "model"
    )
