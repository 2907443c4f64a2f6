"""kill -9 of the worker in mid-search: the search ends as one left alone, predictions and all."""

from __future__ import annotations

import numpy as np
import pytest

from tests.e2e.service import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_TRIALS = 30


def await_trials(client, search, count: int, *, attempt: int) -> None:
    """Until so many are measured, and the worker of this attempt is there."""

    def are_there() -> bool:
        current = search.refresh()
        assert not current.is_terminal, "the search was over before the worker could be killed"
        if client.jobs.get(search.job_id)["attempt"] < attempt:
            return False
        progress = current["progress"]
        return bool(progress) and progress["phase"] == "search" and progress["done"] >= count

    wait_until(are_there, timeout_s=300, what=f"{count} trials")


def told(search) -> dict:
    """All that a search came to, but for times."""
    trials = [
        (
            trial["number"], trial["round"], trial.origin, trial["architecture_key"],
            trial["accuracy_val"]["num_correct"], trial.predicted,
        )
        for trial in search.trials()
    ]  # fmt: skip
    rounds = [{k: v for k, v in found.items() if k != "created_at"} for found in search.rounds()]
    frontier = [(point["number"], point["frontier_probability"]) for point in search.pareto()]
    return {"trials": trials, "rounds": rounds, "frontier": frontier, "end": search.stop_reason}


@pytest.mark.parametrize("seed", [20261130])
def test_a_killed_search_ends_as_one_left_alone(home, seed):
    rng = np.random.default_rng(seed)
    serving = home.start()
    serving.wait_ready()
    with home.client() as client:
        dataset = client.datasets.create({"kind": "bundled", "name": "digits"})
        recipe = {"epochs": 2, "batch_size": 128}
        # Two that are alike: a search learns from what others measured of its supernet.
        harmed, left_alone = (
            client.supernets.create(dataset.id, "micro_8", recipe=recipe).wait(timeout=300) for _ in range(2)
        )
        assert harmed["checkpoint"] == left_alone["checkpoint"]
        attempts = []
        for number, proposer in enumerate(("model", "tpe")):
            # Bounds, so that the service has a process for certificates, which is to end with it.
            asked = {
                "num_trials": NUM_TRIALS,
                "constraints": {"max_macs": "90%"},
                "proposer": proposer,
                "seed": 5 + number,
            }
            search = client.searches.create(harmed.id, **asked)
            for attempt, count in enumerate(np.sort(rng.integers(1, NUM_TRIALS - 5, 2)).tolist(), start=1):
                print(f"{proposer}: killed after {count} trials")  # noqa: T201
                await_trials(client, search, count, attempt=attempt)
                home.kill_worker()
            killed = search.wait(timeout=300)
            attempts.append(client.jobs.get(killed.job_id)["attempt"])
            alone = client.searches.create(left_alone.id, **asked).wait(timeout=300)
            assert told(killed) == told(alone)
            predicted = [trial.predicted for trial in killed.trials() if trial.predicted]
            assert (len(predicted) > 0) == (proposer == "model")
    # A busy machine may let a lease run out besides.
    assert min(attempts) >= 3
    repeated = (
        "SELECT count(*) FROM evaluations GROUP BY supernet_id, architecture_key, split HAVING count(*) > 1"
    )
    assert home.query(repeated) == []
    serving.interrupt()
    assert serving.wait_exit(timeout_s=30) == 130
    home.wait_for_no_process()
