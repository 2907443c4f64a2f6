"""Networks measured to the end: test is touched once whoever asks, and own trainings are Ray Tune's."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from secrets import token_hex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from nas.job import JobKind, JobState
from nas.paired import paired_difference
from nas.recipes import recipe_from_json
from nas.single_network import SingleNetworkSpace
from nas.store import evaluations, subnets, supernets, verifications
from nas.store.subnets import OwnWeights
from nas.trial import Split
from nas.verification import PlannedRun, RunState, Training, alone_recipe
from nas.weights_file import WeightsDescription
from supernet.data import TrainingBatches, augmentation_for, calibration_id
from supernet.evaluate import CALIBRATION_BATCH_SIZE, SubnetEvaluator
from supernet.network import Supernet
from supernet.training import Trainer, build_stack
from tests.workers import conftest
from tests.workers.conftest import DIGITS, SPACE, drained_when, expire_leases
from tests.workers.test_divergence import diverge_at
from workers import chosen, verify_job
from workers.datasets import dataset_reference
from workers.observer import SilentObserver
from workers.single_run import SingleRun, train_and_measure
from workers.trained import describe_supernet
from workers.training import TrainingPlan
from workers.tuning import _measured, _to_json
from workers.verify_job import verification_folder
from workers.weights import SupernetDescription, publish_weights
from workers.wiring import build_service

RECIPE = {**conftest.RECIPE, "batch_size": 256}
"""All the digits, in four steps an epoch."""


class Killed(BaseException):
    """In place of kill -9."""


@pytest.fixture(scope="session")
def fresh(lasting_site):
    """A supernet whose weights nothing has trained: what holds of them holds of others."""
    site = lasting_site
    dataset = site.add_dataset(DIGITS)
    site.work([dataset.job.id])
    supernet = site.add_supernet(dataset.row.id)
    splits = dataset_reference(site.database, site.artifacts, site.home, dataset.row.id).load()
    description = SupernetDescription(
        search_space=SPACE.name,
        num_classes=splits.num_classes,
        in_channels=splits.num_channels,
        kernel_transform=False,
    )
    told = WeightsDescription(
        search_space=SPACE.name,
        space_fingerprint=SPACE.fingerprint,
        in_channels=splits.num_channels,
        class_names=tuple(splits.class_names),
        kernel_transform=False,
        data_fingerprint=splits.fingerprint,
        recipe="bignas",
    )
    key = f"supernets/{supernet.row.id}/{token_hex(8)}/supernet.safetensors"
    stored = publish_weights(site.artifacts, key, description.build(seed=3), told)
    lease = site.queue.claim("played", lease_s=60, kinds=[JobKind.TRAIN])
    with site.queue.leased(lease) as session:
        supernets.set_recipe(session, supernet.row.id, recipe_from_json(RECIPE).to_json())
        supernets.set_weights(
            session,
            supernet.row.id,
            checkpoint=stored.sha256,
            weights_uri=stored.uri,
            calibration=calibration_id(splits, CALIBRATION_BATCH_SIZE),
        )
        site.queue.succeed(lease, session)
    return SimpleNamespace(site=site, supernet_id=supernet.row.id, dataset_id=dataset.row.id, splits=splits)


@pytest.fixture
def network(request):
    """A network of this test's own: what is recorded of one would reach into other tests."""
    rng = np.random.default_rng(sum(request.node.name.encode()))
    return SPACE.canonical(SPACE.sample(rng))


@pytest.fixture
def touched(monkeypatch):
    """(architecture, split) of everything that is measured, as it is."""
    seen = []
    measure = SubnetEvaluator.measure

    def counting(self, logits_of, architecture, split, **fields):
        seen.append((architecture.key, split))
        return measure(self, logits_of, architecture, split, **fields)

    monkeypatch.setattr(SubnetEvaluator, "measure", counting)
    return seen


def verify(fresh, networks, runs=(), **more):
    """Verify to the end; (its id, the ended job)."""
    made = fresh.site.add_verification(fresh.supernet_id, networks, runs, **more)
    fresh.site.work([made.job.id], timeout_s=600)
    return made.row.id, fresh.site.queue.get(made.job.id)


def results(fresh, verification_id):
    with fresh.site.database.session() as session:
        return verifications.networks(session, verification_id)


def specialise(fresh, network):
    subnet = fresh.site.add_subnet(fresh.supernet_id, network)
    fresh.site.work([subnet.job.id])
    assert fresh.site.queue.get(subnet.job.id).state is JobState.SUCCEEDED
    with fresh.site.database.session() as session:
        return subnets.get(session, subnet.row.id).row


# What is inherited


def test_finalists_are_measured_on_all_of_val_and_once_on_test_whoever_asks(fresh, network, touched):
    first, job = verify(fresh, [network])
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    (found,) = results(fresh, first)
    assert (found.val.split, found.val.num_images) == (Split.VAL, len(fresh.splits.val))
    assert (found.test.split, found.test.num_images) == (Split.TEST, len(fresh.splits.test))
    assert touched == [(network.key, Split.VAL), (network.key, Split.TEST)]

    second, _ = verify(fresh, [network])
    published = specialise(fresh, network)
    assert [key for key, split in touched if split is Split.TEST] == [network.key]
    (again,) = results(fresh, second)
    assert again.test.id == found.test.id == published.evaluation_test_id


def test_what_a_subnet_has_measured_on_test_its_finalist_takes_over(fresh, network, touched):
    published = specialise(fresh, network)
    verification, _ = verify(fresh, [network])
    assert [split for _, split in touched] == [Split.VAL, Split.TEST, Split.VAL]
    (found,) = results(fresh, verification)
    assert found.test.id == published.evaluation_test_id


def test_two_jobs_that_ask_at_once_touch_test_once(fresh, network, touched, monkeypatch):
    site, asking = fresh.site, []
    hold, measure = chosen.exclusively, SubnetEvaluator.measure

    def noted(*arguments):
        asking.append(threading.get_ident())
        return hold(*arguments)

    def late(self, logits_of, architecture, split, **fields):
        """Not before both have asked, and longer on test than to look whether it is recorded."""
        while len(asking) < 2:
            time.sleep(0.02)
        if split is Split.TEST:
            time.sleep(1)
        return measure(self, logits_of, architecture, split, **fields)

    monkeypatch.setattr(chosen, "exclusively", noted)
    monkeypatch.setattr(SubnetEvaluator, "measure", late)
    verification = site.add_verification(fresh.supernet_id, [network])
    subnet = site.add_subnet(fresh.supernet_id, network)
    jobs = [verification.job.id, subnet.job.id]
    # Each worker takes up one of the two.
    other = threading.Thread(target=site.work, args=(jobs,))
    other.start()
    site.work(jobs)
    other.join()
    assert [site.queue.get(job_id).state for job_id in jobs] == [JobState.SUCCEEDED] * 2
    assert [key for key, split in touched if split is Split.TEST] == [network.key]


def test_killed_between_two_networks_it_measures_the_second_alone(fresh, network, touched, monkeypatch):
    networks = [network, SPACE.canonical(SPACE.sample(np.random.default_rng(99)))]
    made = fresh.site.add_verification(fresh.supernet_id, networks)
    record = verifications.record_inherited

    death, report = SimpleNamespace(is_due=False), verify_job.JobContext.report

    def die_after(*arguments, **fields):
        record(*arguments, **fields)
        death.is_due = True

    def dying(self, *arguments):
        if death.is_due:
            raise Killed
        report(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(verify_job.verifications, "record_inherited", die_after)
        patched.setattr(verify_job.JobContext, "report", dying)
        with pytest.raises(Killed):
            fresh.site.work([made.job.id], timeout_s=600)
    expire_leases(fresh.site.database)
    fresh.site.work([made.job.id], timeout_s=600)
    job = fresh.site.queue.get(made.job.id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert touched == [(each.key, split) for each in networks for split in (Split.VAL, Split.TEST)]


# What is learned


def single_run(fresh, network, folder, *, rate=0.1, number=0, epochs=1) -> SingleRun:
    recipe = replace(alone_recipe(recipe_from_json(RECIPE), rate), epochs=epochs)
    plan = TrainingPlan(
        supernet=SupernetDescription(
            search_space=SPACE.name,
            num_classes=fresh.splits.num_classes,
            in_channels=fresh.splits.num_channels,
            kernel_transform=False,
            network=network.to_json(),
        ),
        data=dataset_reference(fresh.site.database, fresh.site.artifacts, fresh.site.home, fresh.dataset_id),
        recipe=recipe.to_json(),
        seed=5,
        checkpoints=folder / "run",
        num_threads=1,
    )
    return SingleRun(number=number, plan=plan, weights_key=f"verifications/{folder.name}/w.safetensors")


def test_a_network_trained_alone_is_the_trainer_on_a_space_of_one(fresh, network, tmp_path):
    run = single_run(fresh, network, tmp_path)
    measured = train_and_measure(run, fresh.site.artifacts, SilentObserver())
    recipe = recipe_from_json(run.plan.recipe)
    space = SingleNetworkSpace(SPACE, network)
    splits = fresh.splits
    augmentation = augmentation_for(
        run.plan.data.data_source(),
        splits.image_size,
        crop_fraction=recipe.crop_fraction,
        horizontal_flip=recipe.horizontal_flip,
    )
    batches = TrainingBatches(splits, recipe.batch_size, 5, augmentation)
    supernet = Supernet(
        space,
        num_classes=splits.num_classes,
        in_channels=splits.num_channels,
        generator=torch.Generator().manual_seed(5),
    )
    stack = build_stack(
        recipe, space, steps_per_epoch=batches.steps_per_epoch, seed=5, num_images=batches.num_images
    )
    Trainer(supernet, batches, stack).run()
    kept = load(b"".join(fresh.site.artifacts.open(measured.weights_uri)))
    trained = supernet.state_dict()
    assert kept.keys() == trained.keys()
    assert all(torch.equal(kept[name], trained[name]) for name in trained)
    assert measured.evaluation.architecture == network
    assert measured.evaluation.num_images == len(splits.val)


def test_a_training_that_diverged_tells_at_what_part_of_its_rate_it_ended(
    fresh, network, tmp_path, monkeypatch
):
    diverge_at(monkeypatch, 2)
    run = single_run(fresh, network, tmp_path)
    measured = train_and_measure(run, fresh.site.artifacts, SilentObserver())
    assert measured.rate_factor == 0.5
    assert _measured(run, json.loads(json.dumps(_to_json(measured)))) == measured


def test_weights_that_a_training_made_are_published_as_they_were_measured(fresh, network, tmp_path, touched):
    site, rate = fresh.site, 0.1
    made = site.add_verification(
        fresh.supernet_id,
        [network],
        [PlannedRun(training=Training.ALONE, learning_rate=rate, epochs=1)],
        seed=5,
    )
    measured = train_and_measure(
        single_run(fresh, network, tmp_path, rate=rate), site.artifacts, SilentObserver()
    )
    with site.database.begin() as session:
        trained = describe_supernet(session, supernets.get(session, fresh.supernet_id).row)
        evaluation_id, _ = evaluations.record(
            session, trained.row.id, measured.evaluation, trained.costs(network), code=trained.code(network)
        )
        verifications.record_run(
            session, made.row.id, 0, evaluation_val_id=evaluation_id, weights_uri=measured.weights_uri
        )
    # What is left of the verification needs no Ray.
    site.work([made.job.id])
    (found,) = results(fresh, made.row.id)
    (chosen_run,) = found.chosen
    own = OwnWeights(
        verification_id=made.row.id,
        run_number=0,
        training=Training.ALONE,
        learning_rate=rate,
        epochs=1,
        seed=5,
    )
    subnet = site.add_subnet(fresh.supernet_id, network, own)
    site.work([subnet.job.id])
    job = site.queue.get(subnet.job.id)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    with site.database.session() as session:
        published = subnets.get(session, subnet.row.id).row
        files = {file.name: file for file in subnets.artifacts(session, subnet.row.id)}
    # The figures are those of the verification, and test was touched once for each set of weights.
    assert published.evaluation_val_id == chosen_run.val.id != found.val.id
    assert published.evaluation_test_id == chosen_run.test.id != found.test.id
    assert [split for _, split in touched].count(Split.TEST) == 2

    card = json.loads(b"".join(site.artifacts.open(files["card.json"].uri)))
    assert card["accuracy"]["test"]["num_correct"] == chosen_run.test.num_correct
    # An epoch of digits teaches more than weights that nothing has trained.
    assert chosen_run.test.num_correct > 2 * found.test.num_correct
    provenance = card["provenance"]
    assert provenance["weights"] == {
        "origin": "trained on its own",
        "began_from": "alone",
        "checkpoint_sha256": chosen_run.val.checkpoint,
    }
    assert provenance["supernet"] == {
        "id": fresh.supernet_id,
        "checkpoint_sha256": trained.row.checkpoint,
    }
    assert (provenance["recipe"]["base_learning_rate"], provenance["recipe"]["epochs"]) == (rate, 1)
    assert provenance["recipe"]["distillation"] == "none"
    assert provenance["seeds"]["training"] == 5
    assert provenance["training"] == {"is_exact": None, "resume_departures": None}
    inherited = specialise(fresh, network)
    assert inherited.evaluation_test_id == found.test.id


def test_weights_of_a_rate_that_was_not_chosen_are_told_to_be_gone(fresh, network):
    made = fresh.site.add_verification(
        fresh.supernet_id, [network], [PlannedRun(training=Training.ALONE, learning_rate=0.1, epochs=1)]
    )
    fresh.site.queue.request_cancel(made.job.id)
    own = OwnWeights(
        verification_id=made.row.id,
        run_number=0,
        training=Training.ALONE,
        learning_rate=0.1,
        epochs=1,
        seed=0,
    )
    subnet = fresh.site.add_subnet(fresh.supernet_id, network, own)
    fresh.site.work([subnet.job.id])
    job = fresh.site.queue.get(subnet.job.id)
    assert job.state is JobState.FAILED
    assert "has left no weights" in job.error


GRID = [
    PlannedRun(training=Training.ALONE, learning_rate=0.05, epochs=2),
    PlannedRun(training=Training.ALONE, learning_rate=0.2, epochs=2),
    PlannedRun(training=Training.FINE_TUNED, learning_rate=0.1, epochs=1),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_verification_trains_chooses_on_val_and_measures_the_chosen_once(
    fresh, local_ray, touched, network
):
    verification_id, job = verify(fresh, [network], GRID)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    (found,) = results(fresh, verification_id)
    with fresh.site.database.session() as session:
        runs = verifications.runs(session, verification_id)
    assert [run.run.state for run in runs] == [RunState.MEASURED] * 3
    # Weights of their own, so that no answer about the supernet has them.
    names = {run.val.checkpoint for run in runs}
    assert len(names) == 3
    assert found.val.checkpoint not in names
    alone = [run for run in runs if run.run.training == Training.ALONE]
    best = max(alone, key=lambda run: (run.val.num_correct, -run.run.learning_rate))
    assert [run.run.number for run in found.chosen] == [best.run.number, 2]
    assert [run.test is not None for run in runs] == [run.run.is_chosen for run in runs]
    assert [split for _, split in touched].count(Split.TEST) == 3
    # Two epochs of digits teach more than weights that nothing has trained.
    best_alone = found.chosen[0]
    gain = paired_difference(
        best_alone.test.correct_bitmap, found.test.correct_bitmap, num_images=found.test.num_images
    )
    assert gain.interval_95[0] > 0
    kept = [run.run.weights_uri is not None for run in runs]
    assert kept == [run.run.is_chosen for run in runs]
    assert not verification_folder(fresh.site.home, verification_id).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_verification_killed_between_runs_repeats_none_that_has_ended(
    fresh, local_ray, network, monkeypatch
):
    made = fresh.site.add_verification(fresh.supernet_id, [network], GRID)
    given = []
    tune_runs = verify_job.tune_runs

    def noted(runs, *arguments, **fields):
        given.append([run.number for run in runs])
        return tune_runs(runs, *arguments, **fields)

    monkeypatch.setattr(verify_job, "tune_runs", noted)
    with monkeypatch.context() as patched:
        record = verify_job.RunLedger.on_measured

        def die_after(self, *arguments):
            record(self, *arguments)
            raise Killed

        patched.setattr(verify_job.RunLedger, "on_measured", die_after)
        with pytest.raises(Killed):
            fresh.site.work([made.job.id], timeout_s=600)
    with fresh.site.database.session() as session:
        before = {
            run.run.number: run.val.id
            for run in verifications.runs(session, made.row.id)
            if run.val is not None
        }
    assert len(before) == 1
    expire_leases(fresh.site.database)
    fresh.site.work([made.job.id], timeout_s=600)
    assert fresh.site.queue.get(made.job.id).state is JobState.SUCCEEDED
    assert given == [[0, 1, 2], sorted({0, 1, 2} - before.keys())]
    with fresh.site.database.session() as session:
        after = {run.run.number: run.val.id for run in verifications.runs(session, made.row.id)}
    assert before.items() <= after.items()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cancelled_it_ends_within_seconds(fresh, local_ray, network):
    endless = [PlannedRun(training=Training.ALONE, learning_rate=0.1, epochs=10_000)]
    made, told = fresh.site.add_verification(fresh.supernet_id, [network], endless), SimpleNamespace(at=None)

    def has_ended() -> bool:
        job = fresh.site.queue.get(made.job.id)
        is_training = job.progress is not None and job.progress.phase == "train" and job.progress.done > 0
        if told.at is None and is_training:
            fresh.site.queue.request_cancel(made.job.id)
            told.at = time.monotonic()
        return job.state.is_terminal

    service = build_service(fresh.site.settings(), fresh.site.database)
    with drained_when(service, has_ended, timeout_s=600):
        service.run()
    assert time.monotonic() - told.at < 30
    assert fresh.site.queue.get(made.job.id).state is JobState.CANCELLED


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_where_every_training_fails_the_reason_is_told_and_what_is_inherited_stays(fresh, local_ray, network):
    recipe = recipe_from_json(RECIPE)
    with fresh.site.database.begin() as session:
        too_large = replace(recipe, batch_size=1_000_000)
        supernets.set_recipe(session, fresh.supernet_id, too_large.to_json())
    try:
        verification_id, job = verify(fresh, [network], GRID[:1])
    finally:
        with fresh.site.database.begin() as session:
            supernets.set_recipe(session, fresh.supernet_id, recipe.to_json())
    assert job.state is JobState.FAILED
    assert "none of the 1 trainings came to anything" in job.error
    assert "batch size 1000000 is not in 1.." in job.error
    (found,) = results(fresh, verification_id)
    assert found.test is not None
    with fresh.site.database.session() as session:
        (run,) = verifications.runs(session, verification_id)
    assert (run.run.state, run.val) == (RunState.FAILED, None)
    assert run.run.error in job.error
