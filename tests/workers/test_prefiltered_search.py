"""Searches that DeepMAD looks at first: cut or not, told, killed and run again."""

from __future__ import annotations

import pytest

from nas.prefilter.deepmad import score
from nas.store import searches
from tests.api.worker import NUM_VAL, measurement
from tests.workers.conftest import SPACE
from tests.workers.table import Killed, Table, run_with_table
from tests.workers.test_search_job import trials_of

NUM_TRIALS = 45
NUM_SEEDS = 15


class Agreeing(Table):
    """Accuracies that follow DeepMAD's objective."""

    def evaluate(self, architectures, on_result):
        results = []
        for architecture in architectures:
            self._before(len(self.measured))
            layers = SPACE.lower(architecture, num_classes=10, in_channels=1)
            num_correct = round(NUM_VAL * score(layers).objective / 5000)
            results.append(measurement(architecture, min(max(num_correct, 0), NUM_VAL)))
            self.measured.append(architecture.key)
            on_result(results[-1])
        return results


def report_of(site, search):
    with site.database.session() as session:
        return searches.get(session, search.row.id).row.prefilter_report


def add(site, supernet_id, **fields):
    return site.add_search(supernet_id, num_trials=NUM_TRIALS, prefilter="deepmad", max_macs="60%", **fields)


def test_where_the_objective_goes_with_accuracy_the_search_is_cut_and_tells_so(site, supernet_id):
    search = add(site, supernet_id)
    run_with_table(site, search.job.id, Agreeing())
    report = report_of(site, search)
    assert report["is_cut"], report["reason"]
    assert report["num_networks"] == NUM_SEEDS
    assert report["spearman_given_macs"]["interval_95"][0] > 0
    assert report["log_size_after"] < report["log_size_before"]
    assert site.event_payloads(search.job.id, "prefiltered") == [report]
    with site.database.session() as session:
        row = searches.get(session, search.row.id).row
        seeds = {SPACE.parse(seed).key for seed in row.prefilter_seeds}
    first = {key for _, round_, _, key, _ in trials_of(site, search.row.id) if round_ == 0}
    assert len(seeds) == 5 and seeds <= first
    assert len(trials_of(site, search.row.id)) == NUM_TRIALS


def test_where_it_does_not_the_search_goes_on_uncut_with_the_reason(site, supernet_id):
    search = add(site, supernet_id)
    # Accuracies by chance.
    run_with_table(site, search.job.id, Table())
    report = report_of(site, search)
    assert not report["is_cut"]
    assert "not surely above 0" in report["reason"]
    assert len(trials_of(site, search.row.id)) == NUM_TRIALS


def test_what_was_measured_before_the_search_is_judged_by_as_well(site, supernet_id):
    earlier = site.add_search(supernet_id, num_trials=8, seed=9)
    run_with_table(site, earlier.job.id, Agreeing())
    search = add(site, supernet_id)
    run_with_table(site, search.job.id, Agreeing())
    keys = {trial[3] for trial in trials_of(site, earlier.row.id)}
    keys |= {trial[3] for trial in trials_of(site, search.row.id) if trial[1] == 0}
    assert report_of(site, search)["num_networks"] == len(keys) > NUM_SEEDS


@pytest.mark.parametrize("num_measured", [pytest.param(4, marks=pytest.mark.slow), 20])
def test_a_killed_search_run_again_is_cut_alike_and_gives_the_same_trials(site, add_trained, num_measured):
    def die(num_done):
        if num_done == num_measured:
            raise Killed

    killed, alone = add(site, add_trained()), add(site, add_trained())
    with pytest.raises(Killed):
        run_with_table(site, killed.job.id, Agreeing(die))
    run_with_table(site, killed.job.id, Agreeing())
    run_with_table(site, alone.job.id, Agreeing())
    assert report_of(site, killed) == report_of(site, alone)
    assert trials_of(site, killed.row.id) == trials_of(site, alone.row.id)
    assert len(site.event_payloads(killed.job.id, "prefiltered")) == 1
