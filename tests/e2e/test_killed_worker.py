"""kill -9 of the worker in mid-training, mid-search and mid-bundle: nothing is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from tests.e2e.service import Poller, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DIGITS = {"kind": "bundled", "name": "digits"}
EPOCHS, NUM_TRIALS = 6, 30


def await_phase(resource, phase: str, share: float) -> None:
    """Until the job has done that share of the phase."""

    def is_there() -> bool:
        current = resource.refresh()
        assert not current.is_terminal, f"{phase} was over before the worker could be killed"
        progress = current["progress"]
        if not progress or progress["phase"] != phase:
            return False
        return progress["done"] >= share * progress["total"]

    wait_until(is_there, timeout_s=120, what=f"{share:.0%} of {phase}")


@pytest.mark.parametrize("seed", [20240229])
def test_the_run_completes_and_the_api_never_stops_answering(home, tmp_path, seed):
    rng = np.random.default_rng(seed)
    shares = [float(share) for share in rng.uniform(0.1, 0.8, 2)]
    pause_s = float(rng.uniform(0.0, 0.5))
    print(f"seed {seed}: killed at {shares[0]:.0%} of training, {shares[1]:.0%} of the search,")  # noqa: T201
    print(f"and {pause_s:.2f} s after the specialisation began")  # noqa: T201
    serving = home.start()
    serving.wait_ready()
    with home.client() as client, Poller(home.url).polling() as poller:
        dataset = client.datasets.create(DIGITS)
        supernet = client.supernets.create(
            dataset.id, "micro_8", recipe={"epochs": EPOCHS, "batch_size": 128}
        )
        poller.paths += [resource["links"]["self"] for resource in (dataset, supernet)]
        await_phase(supernet, "train", shares[0])
        home.kill_worker()
        supernet = supernet.wait(timeout=200)
        assert [point["epoch"] for point in supernet.curves()] == list(range(EPOCHS))
        search = client.searches.create(supernet.id, NUM_TRIALS)
        poller.paths.append(search["links"]["self"])
        await_phase(search, "search", shares[1])
        home.kill_worker()
        search = search.wait(timeout=200)
        subnet = search.pareto()[-1].specialise()
        poller.paths.append(subnet["links"]["self"])
        wait_until(lambda: subnet.refresh()["state"] == "running", timeout_s=60, what="specialising")
        time.sleep(pause_s)
        home.kill_worker()
        subnet = subnet.wait(timeout=200)
        numbers = [point["number"] for point in search.trials()]
        attempts = {r.id: client.jobs.get(r.job_id)["attempt"] for r in (supernet, search, subnet)}
        subnet.download(tmp_path / "bundle")
    assert poller.failures == []
    assert poller.num_answers > 100
    assert serving.output.count("the worker process ended with status -9") == 3
    assert list(attempts.values()) == [2, 2, 2]
    assert numbers == list(range(NUM_TRIALS))
    doubled = "SELECT architecture_key, split, count(*) FROM evaluations GROUP BY 1, 2 HAVING count(*) > 1"
    assert home.query(doubled) == []
    assert home.query("SELECT count(DISTINCT evaluation_id) FROM trials") == [(NUM_TRIALS,)]
    assert home.query("SELECT count(*) FROM evaluations WHERE split = 'val'") == [(NUM_TRIALS,)]
    assert home.query("SELECT count(*) FROM evaluations WHERE split = 'test'") == [(1,)]
    assert_bundle_verifies(tmp_path / "bundle")
    serving.interrupt()
    assert serving.wait_exit(timeout_s=30) == 130
    home.wait_for_no_process()


def assert_bundle_verifies(folder) -> None:
    """What was downloaded reproduces its card, on its own and out of the zip."""
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(folder / "bundle.zip") as bundle:
        bundle.extractall(unpacked)
    verify = [sys.executable, "verify.py"]
    done = subprocess.run(verify, cwd=unpacked, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads((folder / "card.json").read_text())
    assert str(card["accuracy"]["test"]["num_correct"]) in done.stdout
