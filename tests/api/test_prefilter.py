"""Searches that ask for a pre-filter, and what is told of it."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from nas.store import searches
from tests.api.test_http_conventions import problem_of

SEARCHES = "/v1/searches"
REPORT = {
    "num_networks": 20,
    "spearman": {"value": 0.5, "interval_95": [0.1, 0.8]},
    "spearman_given_macs": None,
    "is_cut": False,
    "reason": "not cut: undefined",
    "log_size_before": None,
    "log_size_after": None,
}


def test_none_is_the_default_and_what_is_asked_for_is_echoed(http, supernet):
    plain = http.post(SEARCHES, json={"supernet_id": supernet.id, "num_trials": 5}).json()
    assert (plain["prefilter"], plain["prefilter_report"]) == ("none", None)
    body = {"supernet_id": supernet.id, "num_trials": 5, "prefilter": "deepmad"}
    search = http.post(SEARCHES, json=body).json()
    assert search["prefilter"] == search["spec"]["prefilter"] == "deepmad"
    assert search["prefilter_report"] is None


def test_the_report_is_shown_as_it_was_written_first(http, supernet, client, database):
    search = client.searches.create(supernet.id, 30, prefilter="deepmad")
    with database.begin() as session:
        searches.keep_prefilter_seeds(session, search.id, [{}, {}])
        assert searches.keep_prefilter_seeds(session, search.id, []) == [{}, {}]
        searches.keep_prefilter_report(session, search.id, REPORT)
        assert searches.keep_prefilter_report(session, search.id, {**REPORT, "is_cut": True}) == REPORT
    shown = http.get(f"{SEARCHES}/{search.id}").json()["prefilter_report"]
    assert shown == {**REPORT, "num_seeds": 2}
    with database.session() as session:
        query = text("SELECT prefilter_report IS NULL FROM searches WHERE id <> :id")
        assert all(session.scalars(query, {"id": search.id}))


@pytest.mark.parametrize("path", [SEARCHES, f"{SEARCHES}:validate"])
def test_a_space_that_it_does_not_score_is_refused_with_the_reason(http, client, worker, supernet, path):
    cells = client.supernets.create(supernet["dataset_id"], "nas_bench_201")
    worker.train()
    body = {"supernet_id": cells.id, "num_trials": 5, "prefilter": "deepmad"}
    problem = problem_of(http.post(path, json=body), 422, "invalid-request")
    assert problem["errors"][0]["field"] == "prefilter"
    assert "leave the pre-filter out" in problem["errors"][0]["message"]
