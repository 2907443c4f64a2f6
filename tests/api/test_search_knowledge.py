"""What a search knows, as answers show it; and the same search as Optuna itself reads it."""

from __future__ import annotations

import httpx
import optuna
import pytest

from nas.client import RequestRefusedError
from nas.job import JobState
from nas.search.rounds import ForecastReport
from nas.store import searches
from search_spaces import SPACES
from tests.api.conftest import ACCURACIES
from tests.api.worker import NUM_VAL, PREDICTIONS, ladder


def studied(path) -> optuna.Study:
    """The only study of the file."""
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage)


# Trials and rounds


def test_a_trial_says_why_it_was_tried_and_what_was_predicted_before(search):
    trials = [*search.trials()]
    assert [trial.origin for trial in trials] == ["seed"] * 3 + ["proposed"] * 2
    assert [trial.predicted for trial in trials[:3]] == [None] * 3
    unsure, sure = (trial.predicted for trial in trials[3:])
    assert (unsure["value"], unsure["interval_90"]) == (PREDICTIONS[0].accuracy, None)
    assert (sure["value"], sure["interval_90"]) == (0.875, [0.75, 1.0])
    assert (sure["by"], sure["num_learned_from"]) == (search["spec"]["proposer"], 3)


def test_what_was_predicted_is_never_shown_as_measured(search):
    for trial in [*search.trials(), *search.pareto()]:
        assert (trial["accuracy_val"]["measured"], trial["accuracy_val"]["provenance"]) == (True, "measured")
        assert trial.accuracy == ACCURACIES[trial["number"]] / NUM_VAL
        if trial.predicted is not None:
            assert (trial.predicted["measured"], trial.predicted["provenance"]) == (False, "predicted")
            assert "num_correct" not in trial.predicted
    # What the supernet has measured, whoever asked, knows of no prediction.
    assert [point.predicted for point in search_supernet(search).frontier()] == [None] * 4


def search_supernet(search):
    from nas.client import Supernet

    return Supernet({"links": {"self": search["links"]["supernet"]}}, search.transport)


def test_rounds_come_in_order_page_by_page_and_the_search_shows_the_last(search, http):
    rounds = [*search.rounds()]
    assert [(r["number"], r["num_trials"], r["hypervolume"]) for r in rounds] == [(0, 3, 0.0), (1, 5, 1e6)]
    assert rounds[0]["reference"] == {"accuracy": 100.0, "macs": 101.0}
    assert rounds[0]["predictor"] is None
    assert rounds[1]["predictor"] == {
        "num_forecasts": 1,
        "coverage_90": None,
        "num_ranked": 0,
        "within_bin_tau": None,
    }
    assert search["latest_round"] == rounds[1]
    assert http.get(search["links"]["pareto"]).json()["round"] == rounds[1]
    listed = http.get("/v1/searches").json()["items"]
    assert [item["latest_round"] for item in listed] == [rounds[1]]
    first = http.get(search["links"]["rounds"], params={"page_size": 1}).json()
    rest = {"page_size": 1, "page_token": first["next_page_token"]}
    assert first["items"] + http.get(search["links"]["rounds"], params=rest).json()["items"] == rounds
    # A token of this list is none of the trials'.
    assert http.get(search["links"]["trials"], params=rest).status_code == 422


def test_before_its_first_round_a_search_has_none(client, supernet, http):
    search = client.searches.create(supernet.id, 5)
    assert search["latest_round"] is None
    assert search.stop_reason is None
    assert [*search.rounds()] == []
    assert http.get(search["links"]["pareto"]).json()["round"] is None


def test_a_frontier_shows_the_round_that_its_trials_are_of(client, supernet, worker, database, http):
    search = client.searches.create(supernet.id, 5)
    worker.search(ladder(5), ACCURACIES)
    with database.begin() as session:
        # A round whose trials are still to come.
        searches.record_round(
            session,
            search.id,
            number=2,
            num_trials=6,
            num_measured=6,
            hypervolume=2e6,
            reference=[0.0, 1.0],
            forecasts=ForecastReport(num_selected=12, coverage=0.75, num_ranked=11, within_bin_tau=0.5),
        )
    assert http.get(search["links"]["pareto"]).json()["round"]["number"] == 1
    latest = search.refresh()["latest_round"]
    assert latest["number"] == 2
    assert (latest["predictor"]["coverage_90"], latest["predictor"]["within_bin_tau"]) == (0.75, 0.5)


def test_a_search_may_end_when_it_is_flat_and_says_why_it_ended(client, supernet, search):
    assert (search.state, search.stop_reason, search["flat_rounds"]) == (
        JobState.SUCCEEDED,
        "budget_spent",
        None,
    )
    flat = client.searches.create(supernet.id, 500, flat_rounds=3)
    assert (flat["flat_rounds"], flat["spec"]["flat_rounds"]) == (3, 3)
    longer = client.searches.create(extends=search.id, num_trials=5)
    assert longer["flat_rounds"] is None


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_rounds_that_cannot_be_counted_are_refused(client, supernet, value):
    with pytest.raises(RequestRefusedError, match="flat_rounds"):
        client.searches.create(supernet.id, 5, flat_rounds=value)


# As a study


@pytest.mark.parametrize(
    ("objectives", "constraints"),
    [
        (["accuracy", "macs"], {"max_macs": "100%", "max_params": 10**9}),
        (["params", "accuracy", "macs"], {}),
        (["accuracy"], {"max_macs": "100%"}),
    ],
)
def test_optuna_reads_the_same_trials_and_the_same_frontier(
    client, supernet, worker, tmp_path, objectives, constraints
):
    search = client.searches.create(supernet.id, 5, objectives=objectives, constraints=constraints)
    worker.search(ladder(5), ACCURACIES)
    search = search.refresh()
    study = studied(search.export_optuna(tmp_path / "study.log"))
    trials = [*search.trials()]
    assert study.study_name == search.id
    assert study.metric_names == objectives
    assert [d.name for d in study.directions] == [
        "MAXIMIZE" if name == "accuracy" else "MINIMIZE" for name in objectives
    ]
    figures = [{"accuracy": trial.accuracy, **trial.costs} for trial in trials]
    assert [t.values for t in study.trials] == [[f[name] for name in objectives] for f in figures]
    assert [t.constraints for t in study.trials] == [
        {field: f[field.removeprefix("max_")] - limit for field, limit in search["constraints"].items()}
        for f in figures
    ]
    assert [t.params for t in study.trials] == [trial.architecture for trial in trials]
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    # No two of these are equal in every objective.
    assert {t.number for t in study.best_trials} == {point["number"] for point in search.pareto()}


def test_a_study_keeps_what_was_predicted_apart_from_its_values(search, tmp_path):
    study = studied(search.export_optuna(tmp_path / "study.log"))
    assert study.user_attrs["search_id"] == search.id
    last = study.trials[-1]
    assert last.values[0] == ACCURACIES[-1] / NUM_VAL
    assert last.user_attrs["predicted_accuracy_val"]["value"] == PREDICTIONS[1].accuracy
    assert last.user_attrs["predicted_accuracy_val"]["provenance"] == "predicted"
    assert last.user_attrs["origin"] == "proposed"
    assert last.duration.total_seconds() == pytest.approx(0.1)


def test_optuna_goes_on_with_a_study_that_was_exported(search, tmp_path):
    """Its own samplers take the distributions for theirs."""
    study = studied(search.export_optuna(tmp_path / "study.log"))
    space = SPACES["micro_8"]
    trial = study.ask()
    for decision in space.decisions:
        assert trial.suggest_categorical(decision.name, decision.options) in decision.options
    study.tell(trial, [0.99, 1.0])
    assert study.best_trials[-1].number == 5


def test_an_export_replaces_the_file_and_leaves_no_part_of_one(search, tmp_path):
    path = tmp_path / "study.log"
    path.write_text("of before\n")
    assert search.export_optuna(path) == path
    assert [found.name for found in tmp_path.iterdir()] == ["study.log"]
    assert len(studied(path).trials) == 5


def test_a_running_search_is_exported_so_far_and_none_is_not_found(
    client, supernet, http: httpx.Client, tmp_path
):
    search = client.searches.create(supernet.id, 5)
    study = studied(search.export_optuna(tmp_path / "study.log"))
    assert (study.study_name, study.trials) == (search.id, [])
    assert http.get("/v1/searches/se_aaaaaaaaaaaaaaaa/optuna-journal").status_code == 404
