"""Trainings that begin from other weights: with their accuracy, exactly resumed, refused with a reason."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load, load_file, save
from sqlalchemy import select

from nas.errors import ArtifactError
from nas.fields import InvalidFieldError
from nas.job import JobState
from nas.store import subnets, supernets
from nas.store.supernets import WarmStart
from nas.store.tables import EvaluationRow
from nas.trial import Split
from nas.weights_file import describe_weights
from supernet.training.checkpoint import latest_checkpoint, load_checkpoint
from supernet.training.collective import SingleProcess
from supernet.warm_start import Carried
from tests.workers.conftest import DIGITS, SPACE
from tests.workers.test_training_run import (
    Interruption,
    Watcher,
    assert_same_bits,
    final_state,
    plan_of,
    run,
)
from workers.training import train
from workers.training_job import CHECKPOINTS, JobObserver, checkpoint_folder
from workers.warm_start import WarmStarts
from workers.weights import SupernetDescription

SOURCE = {"name": "bignas", "epochs": 4, "batch_size": 64, "crop_fraction": 0.0}
SHORT = {"name": "bignas", "epochs": 2, "batch_size": 256}
DIGITS_10 = tuple("0123456789")


@pytest.fixture(scope="module")
def trained(lasting_site):
    """A supernet that has learned something, and the bundles of its ends."""
    site = lasting_site
    dataset = site.add_dataset(DIGITS)
    supernet = site.add_supernet(dataset.row.id, recipe=SOURCE)
    ends = [site.add_subnet(supernet.row.id, end) for end in (SPACE.largest(), SPACE.smallest())]
    site.work([r.job.id for r in (dataset, supernet, *ends)])
    with site.database.session() as session:
        row = supernets.get(session, supernet.row.id).row
        points = supernets.curve(session, supernet.row.id)
        zips = [subnets.artifact(session, end.row.id, "bundle.zip").uri for end in ends]
        query = select(EvaluationRow).where(
            EvaluationRow.supernet_id == row.id, EvaluationRow.split == Split.VAL
        )
        measured = {e.architecture_key: e.num_correct / e.num_images for e in session.scalars(query)}
    weights = b"".join(site.artifacts.open(row.weights_uri))
    bundles = [b"".join(site.artifacts.open(uri)) for uri in zips]
    return SimpleNamespace(
        site=site,
        dataset_id=dataset.row.id,
        row=row,
        weights=weights,
        bundles=bundles,
        last=points[-1],
        measured=measured,
    )


def warm_started(trained, warm_start, *, num_workers=1):
    """A supernet whose training began there, and what was told of its beginning."""
    site = trained.site
    supernet = site.add_supernet(
        trained.dataset_id, recipe=SHORT, warm_start=warm_start, seed=11, num_workers=num_workers
    )
    site.work([supernet.job.id])
    job = site.queue.get(supernet.job.id)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    (told,) = site.event_payloads(job.id, "warm_started")
    with site.database.session() as session:
        return supernets.get(session, supernet.row.id).row, told


def test_the_published_file_says_what_its_weights_are_of(trained, tmp_path):
    path = tmp_path / "supernet.safetensors"
    path.write_bytes(trained.weights)
    assert hashlib.sha256(trained.weights).hexdigest() == trained.row.checkpoint
    with path.open("rb") as file:
        found = describe_weights(file)
    assert (found.search_space, found.space_fingerprint) == (SPACE.name, SPACE.fingerprint)
    assert (found.class_names, found.in_channels) == (DIGITS_10, 1)
    assert (found.kernel_transform, found.recipe, found.architecture) == (False, "bignas", None)


def test_a_training_begins_with_the_accuracy_where_its_source_ended(trained):
    row, told = warm_started(trained, WarmStart(supernet_id=trained.row.id, sha256=trained.row.checkpoint))
    assert trained.last.accuracy_val_largest > 0.5  # of ten classes: it has learned what there is to keep
    assert told == {
        "sha256": trained.row.checkpoint,
        "classifier": "kept",
        "first_layer": "kept",
        "accuracy_val_largest": trained.last.accuracy_val_largest,
        "accuracy_val_smallest": trained.last.accuracy_val_smallest,
        "num_images_val": trained.last.num_images_val,
    }
    assert row.warm_start_sha256 == trained.row.checkpoint
    assert row.checkpoint != trained.row.checkpoint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_so_it_does_on_several_processes(trained, local_ray):
    source = WarmStart(supernet_id=trained.row.id, sha256=trained.row.checkpoint)
    _, told = warm_started(trained, source, num_workers=2)
    assert told["accuracy_val_largest"] == trained.last.accuracy_val_largest
    assert told["sha256"] == trained.row.checkpoint


@pytest.mark.slow
def test_a_training_begins_where_the_downloaded_file_s_supernet_ended(trained):
    upload = trained.site.add_upload(trained.weights)
    row, told = warm_started(trained, WarmStart(upload_id=upload.id, sha256=upload.sha256))
    assert told["accuracy_val_largest"] == trained.last.accuracy_val_largest
    assert (row.warm_start_upload_id, row.warm_start_sha256) == (upload.id, trained.row.checkpoint)


@pytest.mark.parametrize(
    ("which", "end"), [pytest.param(0, "largest", marks=pytest.mark.slow), (1, "smallest")]
)
def test_a_training_begins_with_the_accuracy_of_the_bundle_s_network(trained, which, end):
    upload = trained.site.add_upload(trained.bundles[which])
    _, told = warm_started(trained, WarmStart(upload_id=upload.id, sha256=upload.sha256))
    key = (SPACE.largest() if end == "largest" else SPACE.smallest()).key
    assert told[f"accuracy_val_{end}"] == trained.measured[key]


# Without a whole job: what is made of a source


@pytest.fixture
def starts(trained, tmp_path):
    return WarmStarts(trained.site.database, trained.site.artifacts, tmp_path)


def row_for(trained, *, supernet_id=None, upload=None, sha256=None, seed=3):
    return SimpleNamespace(
        id="sn_new",
        seed=seed,
        warm_start_supernet_id=supernet_id,
        warm_start_upload_id=upload and upload.id,
        warm_start_sha256=sha256,
    )


def described(**fields):
    standard = {"search_space": SPACE.name, "num_classes": 10, "in_channels": 1, "kernel_transform": False}
    return SupernetDescription(**{**standard, **fields})


def test_of_no_source_nothing_is_made(starts, trained):
    assert starts.prepare(row_for(trained), described(), DIGITS_10) is None


def test_other_classes_and_colours_are_told_and_the_rest_is_the_source_s(starts, trained):
    row = row_for(trained, supernet_id=trained.row.id)
    start = starts.prepare(row, described(num_classes=4, in_channels=3), tuple("abcd"))
    assert start.changes.classifier is Carried.REINITIALISED
    assert start.changes.first_layer is Carried.ADAPTED
    made, source = load_file(start.path), load(trained.weights)
    changed = {name for name in source if not torch.equal(made[name], source[name])}
    assert changed == {
        "slots.stem.weights.weight",
        "slots.head_classifier.weights.weight",
        "slots.head_classifier.weights.bias",
    }
    fresh = described(num_classes=4, in_channels=3).build(seed=3).state_dict()
    name = "slots.head_classifier.weights.weight"
    assert torch.equal(made[name], fresh[name])


def test_a_bundle_leaves_open_what_the_seed_then_fills(starts, trained):
    upload = trained.site.add_upload(trained.bundles[1])
    start = starts.prepare(row_for(trained, upload=upload), described(), DIGITS_10)
    made, fresh = load_file(start.path), described().build(seed=3).state_dict()
    unused = "slots.stage4_block3_depthwise.weights.weight"
    assert torch.equal(made[unused], fresh[unused])
    assert not torch.equal(made["slots.stem.weights.weight"], fresh["slots.stem.weights.weight"])


def test_what_was_made_once_is_not_made_again(starts, trained):
    sha256 = trained.row.checkpoint
    first = starts.prepare(row_for(trained, supernet_id=trained.row.id), described(), DIGITS_10)
    written = first.path.stat().st_mtime_ns
    # Nothing is read of a source that exists no more.
    again = starts.prepare(row_for(trained, supernet_id="sn_gone", sha256=sha256), described(), DIGITS_10)
    assert again == first
    assert first.path.stat().st_mtime_ns == written


def test_a_source_that_is_not_the_one_named_is_refused(starts, trained):
    row = row_for(trained, supernet_id=trained.row.id, sha256="0" * 64)
    with pytest.raises(ArtifactError, match=f"has changed .* 0000.* now it is {trained.row.checkpoint}"):
        starts.prepare(row, described(), DIGITS_10)


def test_weights_of_another_space_are_refused_whatever_they_were_asked_for(starts, trained):
    upload = trained.site.add_upload(trained.weights)
    for source in ({"upload": upload}, {"supernet_id": trained.row.id}):
        with pytest.raises(InvalidFieldError, match=r"of search space 'micro_8', .* in 'micro'"):
            starts.prepare(row_for(trained, **source), described(search_space="micro"), DIGITS_10)


def test_weights_that_lack_a_tensor_are_refused_by_its_name(starts, trained):
    tensors = load(trained.weights)
    del tensors["slots.stem.weights.weight"]
    length = int.from_bytes(trained.weights[:8], "little")
    metadata = json.loads(trained.weights[8 : 8 + length])["__metadata__"]
    upload = trained.site.add_upload(save(tensors, metadata=metadata))
    with pytest.raises(ArtifactError, match=r"the weights lack slots\.stem.weights.weight"):
        starts.prepare(row_for(trained, upload=upload), described(), DIGITS_10)
    assert not (starts._root / "sn_new").exists()


# A training that did not end well


@pytest.fixture
def room():
    """Lets the files of this process grow so far and no further, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Else the kernel kills the process at the first byte too many.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda num_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_the_job_fails_clearly_and_another_begins_from_its_checkpoint(
    trained, monkeypatch, room
):
    site = trained.site
    supernet = site.add_supernet(trained.dataset_id, recipe=SHORT)
    on_checkpoint = JobObserver.on_checkpoint

    def fill_the_disk(self, step):
        on_checkpoint(self, step)
        room(200_000)

    with monkeypatch.context() as patched:
        patched.setattr(JobObserver, "on_checkpoint", fill_the_disk)
        site.work([supernet.job.id])
    room(resource.RLIM_INFINITY)
    job = site.queue.get(supernet.job.id)
    assert job.state is JobState.FAILED
    assert job.error.startswith("the checkpoint of step 8 could not be written")
    assert job.error.endswith("make room there, then go on from step 4, which is intact")
    with site.database.session() as session:
        assert supernets.has_checkpoint(session, supernets.get(session, supernet.row.id))
    newest = latest_checkpoint(checkpoint_folder(site.home, supernet.row.id))
    assert newest.name == "step-0000000004"
    (probe,) = site.event_payloads(job.id, "epoch")[:1]
    row, told = warm_started(trained, WarmStart(supernet_id=supernet.row.id, sha256=None))
    assert told["accuracy_val_largest"] == probe["accuracy_val_largest"]
    assert told["sha256"] == row.warm_start_sha256
    content = (newest / "weights.safetensors").read_bytes()
    assert row.warm_start_sha256 == hashlib.sha256(content).hexdigest()


def test_a_cancelled_training_leaves_the_weights_at_which_it_was_stopped(trained, monkeypatch):
    site = trained.site
    supernet = site.add_supernet(trained.dataset_id, recipe=SHORT)
    on_step = JobObserver.on_step

    def cancel_at_two(self, done, total):
        if done == 2:
            site.queue.request_cancel(supernet.job.id)
            while not self._context._is_cancelled.wait(0.05):
                pass
        on_step(self, done, total)

    with monkeypatch.context() as patched:
        patched.setattr(JobObserver, "on_step", cancel_at_two)
        site.work([supernet.job.id])
    assert site.queue.get(supernet.job.id).state is JobState.CANCELLED
    with site.database.session() as session:
        assert supernets.has_checkpoint(session, supernets.get(session, supernet.row.id))
    kept = latest_checkpoint(checkpoint_folder(site.home, supernet.row.id))
    assert kept.name == "step-0000000002"
    starts = WarmStarts(site.database, site.artifacts, site.home / CHECKPOINTS)
    row = row_for(trained, supernet_id=supernet.row.id)
    start = starts.prepare(row, described(), DIGITS_10)
    stopped = load_checkpoint(kept).weights
    made = load_file(start.path)
    assert all(torch.equal(made[name], value) for name, value in stopped.items())


def test_where_the_checkpoint_lies_on_another_machine_the_training_says_so(trained, tmp_path):
    site = trained.site
    supernet = site.add_supernet(trained.dataset_id)
    site.queue.request_cancel(supernet.job.id)
    starts = WarmStarts(site.database, site.artifacts, tmp_path)
    with pytest.raises(ArtifactError, match="has no checkpoint on this machine; put NAS_HOME on storage"):
        starts.prepare(row_for(trained, supernet_id=supernet.row.id), described(), DIGITS_10)


# Exact resume


@pytest.fixture
def warm_plan(starts, trained, digits, tmp_path):
    """Makes the plan of the one run that begins from the trained supernet; `name` is a folder of its own."""
    start = starts.prepare(row_for(trained, supernet_id=trained.row.id), described(), DIGITS_10)

    def make(name, *, start=start):
        plan = plan_of(digits, tmp_path / name)
        return plan.__class__(**{**plan.__dict__, "start": start})

    return make


@pytest.mark.slow
def test_interrupted_and_run_again_a_warm_started_run_ends_with_the_same_bits(warm_plan):
    alone = warm_plan("alone")
    assert [point.sha256 for point in run(alone, Starting()).starts] == [alone.start.sha256]
    expected = final_state(alone)
    for at_step in (1, 5):
        plan = warm_plan(f"killed at {at_step}")
        with pytest.raises(Interruption):
            run(plan, Starting(at_step=at_step))
        has_checkpoint = latest_checkpoint(plan.checkpoints) is not None
        again = run(plan, Starting())
        # Told once more only where nothing was done yet.
        assert len(again.starts) == (0 if has_checkpoint else 1)
        assert_same_bits(final_state(plan), expected)


def test_what_a_run_began_from_is_part_of_which_run_it_is(warm_plan):
    plan = warm_plan("run")
    with pytest.raises(Interruption):
        run(plan, Starting(at_step=5))
    with pytest.raises(Exception, match=r"belongs to another run .*warm_start: "):
        train(warm_plan("run", start=None), collective=SingleProcess(), observer=Starting())


class Starting(Watcher):
    """Also notes from what the run began."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.starts = []

    def on_warm_start(self, start):
        self.starts.append(start)
