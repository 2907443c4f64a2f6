"""Images in, a trained supernet, two searches, a published network: each step read back from the store."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select

from nas.job import JobState
from nas.pareto import pareto_front
from nas.store import datasets, searches, subnets, supernets
from nas.store.tables import EvaluationRow
from nas.trial import Split
from tests.workers.conftest import NUM_FEW, RECIPE, SPACE

NUM_TRIALS = 8
NUM_ROUNDS = 2


@pytest.fixture(scope="session")
def path(lasting_site, local_ray):
    """Everything queued at once, and worked off by one worker."""
    site = lasting_site
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id)
    first = site.add_search(supernet.row.id, num_trials=NUM_TRIALS, seed=1)
    second = site.add_search(supernet.row.id, num_trials=NUM_TRIALS, seed=2)
    subnet = site.add_subnet(supernet.row.id, SPACE.largest())
    resources = [dataset, supernet, first, second, subnet]
    site.work([resource.job.id for resource in resources])
    return SimpleNamespace(
        site=site, dataset=dataset, supernet=supernet, first=first, second=second, subnet=subnet
    )


def trials_of(path, search):
    with path.site.database.session() as session:
        return searches.trials(session, search.row.id)


def evaluations_of(path, split=None):
    query = select(EvaluationRow).where(EvaluationRow.supernet_id == path.supernet.row.id)
    with path.site.database.session() as session:
        rows = session.scalars(query.order_by(EvaluationRow.id)).all()
    return [row for row in rows if split in (None, row.split)]


def files_of(path):
    with path.site.database.session() as session:
        listed = subnets.artifacts(session, path.subnet.row.id)
    return {file.name: (file, b"".join(path.site.artifacts.open(file.uri))) for file in listed}


@pytest.mark.parametrize("name", ["dataset", "supernet", "first", "second", "subnet"])
def test_every_job_succeeds_at_its_first_attempt(path, name):
    job = path.site.queue.get(getattr(path, name).job.id)
    assert (job.state, job.error, job.attempt) == (JobState.SUCCEEDED, None, 1)


def test_the_data_set_is_described(path):
    with path.site.database.session() as session:
        row = datasets.get(session, path.dataset.row.id).row
    assert row.num_train + row.num_val + row.num_test == NUM_FEW
    assert (row.num_classes, row.in_channels, row.image_height, row.image_width) == (10, 1, 8, 8)


def test_the_curves_have_a_point_an_epoch(path):
    with path.site.database.session() as session:
        points = supernets.curve(session, path.supernet.row.id)
    assert [point.epoch for point in points] == list(range(RECIPE["epochs"]))
    steps = points[0].step
    assert [point.step for point in points] == [steps, 2 * steps]
    assert [point.images_seen for point in points] == [p.step * RECIPE["batch_size"] for p in points]
    assert points[1].train_loss < points[0].train_loss
    assert points[1].elapsed_s > points[0].elapsed_s > 0
    told = path.site.event_payloads(path.supernet.job.id, "epoch")
    assert [payload["accuracy_val_largest"] for payload in told] == [p.accuracy_val_largest for p in points]


def test_the_recipe_is_recorded_whole(path):
    with path.site.database.session() as session:
        recipe = supernets.get(session, path.supernet.row.id).row.recipe
    assert recipe.items() >= RECIPE.items()
    assert recipe["distillation"] == "soft"


def test_the_checkpoint_is_the_sha256_of_the_published_weights(path):
    with path.site.database.session() as session:
        row = supernets.get(session, path.supernet.row.id).row
    content = b"".join(path.site.artifacts.open(row.weights_uri))
    assert hashlib.sha256(content).hexdigest() == row.checkpoint
    assert {evaluation.checkpoint for evaluation in evaluations_of(path)} == {row.checkpoint}


def test_published_weights_need_no_checkpoints_any_more(path):
    assert not (path.site.home / "checkpoints" / path.supernet.row.id).exists()


@pytest.mark.parametrize("name", ["first", "second"])
def test_trials_are_numbered_from_zero_without_a_gap_and_distinct(path, name):
    found = trials_of(path, getattr(path, name))
    assert [item.trial.number for item in found] == list(range(NUM_TRIALS))
    assert len({item.evaluation.architecture_key for item in found}) == NUM_TRIALS
    rounds = [item.trial.round for item in found]
    assert rounds == sorted(rounds)
    assert {item.evaluation.split for item in found} == {Split.VAL}


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_frontier_told_last_is_that_of_the_trials(path, name):
    search = getattr(path, name)
    rounds = path.site.event_payloads(search.job.id, "round")
    assert [payload["round"] for payload in rounds] == list(range(NUM_ROUNDS))
    evaluations = [item.evaluation for item in trials_of(path, search)]
    losses = np.array([[-e.num_correct / e.num_images, e.macs] for e in evaluations], dtype=float)
    assert sorted(rounds[-1]["frontier"]) == sorted(int(i) for i in pareto_front(losses))
    (end,) = path.site.event_payloads(search.job.id, "search_ended")
    assert end == {"stop_reason": "budget_spent", "num_trials": NUM_TRIALS}


def test_every_network_is_measured_once(path):
    counted = Counter((row.architecture_key, row.split) for row in evaluations_of(path))
    assert set(counted.values()) == {1}


def test_a_second_search_reuses_what_the_first_measured(path):
    first, second = trials_of(path, path.first), trials_of(path, path.second)
    assert not any(item.trial.is_reused for item in first)
    known = {item.evaluation.id for item in first}
    reused = {item.evaluation.id for item in second if item.trial.is_reused}
    # The seeds of every search begin with the two ends of the space.
    assert len(reused) >= 2
    assert reused == known & {item.evaluation.id for item in second}


def test_trials_and_their_networks_add_up_to_the_evaluations(path):
    keys = {
        item.evaluation.architecture_key for s in (path.first, path.second) for item in trials_of(path, s)
    }
    assert {row.architecture_key for row in evaluations_of(path, Split.VAL)} == keys | {SPACE.largest().key}


def test_the_test_split_is_measured_for_the_specialised_network_alone(path):
    (measured,) = evaluations_of(path, Split.TEST)
    assert measured.architecture_key == SPACE.largest().key
    with path.site.database.session() as session:
        row = subnets.get(session, path.subnet.row.id).row
    assert row.evaluation_test_id == measured.id


def test_artefacts_are_listed_with_the_sha256_of_their_bytes(path):
    files = files_of(path)
    assert files.keys() >= {
        "model.py", "model.safetensors", "model.onnx", "card.json", "verify.py", "check.npz", "bundle.zip"
    }  # fmt: skip
    for file, content in files.values():
        assert (file.sha256, file.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_the_zip_holds_the_files_that_are_listed_singly(path):
    files = files_of(path)
    with zipfile.ZipFile(io.BytesIO(files["bundle.zip"][1])) as bundle:
        packed = {name: bundle.read(name) for name in bundle.namelist()}
    assert packed == {name: content for name, (_, content) in files.items() if name != "bundle.zip"}


def test_the_card_counts_what_the_evaluations_count(path):
    card = json.loads(files_of(path)["card.json"][1])
    with path.site.database.session() as session:
        row = subnets.get(session, path.subnet.row.id).row
        found = {
            "val": session.get(EvaluationRow, row.evaluation_val_id),
            "test": session.get(EvaluationRow, row.evaluation_test_id),
        }
    for split, evaluation in found.items():
        told = card["accuracy"][split]
        assert (told["num_correct"], told["num_images"]) == (evaluation.num_correct, evaluation.num_images)
        assert sum(evaluation.per_class_correct) == evaluation.num_correct
    assert card["costs"]["macs"]["value"] == found["val"].macs
    assert card["costs"]["params"]["value"] == found["val"].params
