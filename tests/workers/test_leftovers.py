"""What lost attempts leave is removed, and nothing that a row points to or a live attempt may want."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from nas.job import JobKind, JobState
from nas.scratch import ScratchFolder
from nas.store import supernets
from nas.store.artifacts import Artifact, ArtifactStore
from nas.store.deletion import SUPERNET, delete_resource
from supernet.training import load_checkpoint, save_checkpoint
from tests.training.checkpoint_fixture import tiny_trainer
from tests.workers.conftest import SPACE, drained_when, expire_leases
from workers.datasets import CACHES, dataset_reference
from workers.leftovers import Leftovers
from workers.training_job import checkpoint_folder
from workers.wiring import build_service


@pytest.fixture
def leftovers(site) -> Leftovers:
    return Leftovers(site.queue, site.database, site.artifacts, site.home)


@pytest.fixture
def supernet(site):
    """Its data set counts as imported, its training waits."""
    dataset = site.add_dataset()
    site.queue.succeed(site.queue.claim("w", lease_s=60, kinds=[JobKind.IMPORT_DATASET]))
    return site.add_supernet(dataset.row.id)


@pytest.fixture
def subnet(site, supernet):
    """Its supernet counts as trained, its job waits."""
    site.queue.succeed(site.queue.claim("w", lease_s=60, kinds=[JobKind.TRAIN]))
    return site.add_subnet(supernet.row.id, SPACE.smallest())


def claim(site, kind):
    return site.queue.claim("w", lease_s=60, kinds=[kind])


def lose(site):
    """The worker of whatever runs dies."""
    expire_leases(site.database)
    site.queue.sweep()


def put(site, resource, place, attempt, name):
    """A file that an attempt writes."""
    return site.artifacts.put(f"{place}/{resource.row.id}/{attempt}/{name}", attempt.encode())


def publish_bundle(site, subnet, lease, stored):
    artifact = Artifact(
        name="model.py",
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        media_type="text/x-python",
        uri=stored.uri,
    )
    with site.queue.leased(lease) as session:
        session.execute(
            text(
                "INSERT INTO artifacts (subnet_id, name, size_bytes, sha256, media_type, uri)"
                " VALUES (:s, :n, 1, :h, 'x', :u)"
            ),
            {"s": subnet.row.id, "n": artifact.name, "h": artifact.sha256, "u": artifact.uri},
        )
        site.queue.succeed(lease, session)


def test_files_of_a_lost_attempt_go_once_the_job_has_ended_and_the_published_stay(site, subnet, leftovers):
    claim(site, JobKind.SPECIALISE)
    lost = put(site, subnet, "subnets", "first", "model.py")
    lose(site)
    leftovers.remove()
    assert site.artifacts.exists(lost.uri)
    lease = claim(site, JobKind.SPECIALISE)
    kept = put(site, subnet, "subnets", "second", "model.py")
    leftovers.remove()
    # The second attempt is at work, and nobody can tell from outside which folder is its own.
    assert site.artifacts.exists(lost.uri)
    publish_bundle(site, subnet, lease, kept)
    leftovers.remove()
    assert not site.artifacts.exists(lost.uri)
    assert b"".join(site.artifacts.open(kept.uri)) == b"second"
    # A worker back from the dead finishes its file: a later look meets it.
    late = put(site, subnet, "subnets", "first", "card.json")
    leftovers.remove()
    assert site.artifacts.folders(f"subnets/{subnet.row.id}") == [f"subnets/{subnet.row.id}/second"]
    assert not site.artifacts.exists(late.uri)


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_nothing_is_left_of_a_job_that_published_nothing(site, subnet, leftovers, end):
    lease = claim(site, JobKind.SPECIALISE)
    put(site, subnet, "subnets", "only", "model.py")
    if end == "fail":
        site.queue.fail(lease, "does not reproduce its card")
    else:
        site.queue.request_cancel(subnet.job.id)
        site.queue.cancelled(lease)
    leftovers.remove()
    assert site.artifacts.folders(f"subnets/{subnet.row.id}") == []


def test_weights_of_a_lost_attempt_go_and_the_published_stay(site, supernet, leftovers):
    claim(site, JobKind.TRAIN)
    lost = put(site, supernet, "supernets", "first", "weights.safetensors")
    lose(site)
    lease = claim(site, JobKind.TRAIN)
    kept = put(site, supernet, "supernets", "second", "weights.safetensors")
    with site.queue.leased(lease) as session:
        supernets.set_weights(
            session, supernet.row.id, checkpoint=kept.sha256, weights_uri=kept.uri, calibration="c"
        )
        site.queue.succeed(lease, session)
    leftovers.remove()
    assert [site.artifacts.exists(file.uri) for file in (lost, kept)] == [False, True]


def test_where_the_files_were_published_to_another_store_nothing_is_removed(
    site, subnet, leftovers, tmp_path
):
    claim(site, JobKind.SPECIALISE)
    lose(site)
    lease = claim(site, JobKind.SPECIALISE)
    copied = put(site, subnet, "subnets", "second", "model.py")
    before = ArtifactStore(str(tmp_path / "before")).put(f"subnets/{subnet.row.id}/second/model.py", b"2")
    publish_bundle(site, subnet, lease, before)
    leftovers.remove()
    assert site.artifacts.exists(copied.uri)


def test_files_of_a_subnet_that_this_database_does_not_know_are_not_ours_to_remove(site, leftovers):
    stored = site.artifacts.put("subnets/sub_of_another/t/model.py", b"1")
    leftovers.remove()
    assert site.artifacts.exists(stored.uri)


def train_a_little(folder):
    """Two checkpoints of a run, what Ray keeps beside them, and the weights it began from."""
    trainer = tiny_trainer()
    for _ in range(2):
        trainer.run(1)
        save_checkpoint(trainer.state(), folder)
    (folder / "ray" / "TorchTrainer_x").mkdir(parents=True)
    (folder / "start.safetensors").write_bytes(b"weights")
    return sorted(path.name for path in folder.iterdir())


def end_training(site, supernet, end):
    lease = claim(site, JobKind.TRAIN)
    if end is JobState.CANCELLED:
        site.queue.request_cancel(supernet.job.id)
    if end is JobState.FAILED:
        site.queue.fail(lease, "diverged")
    else:
        site.queue.succeed(lease)
    assert site.queue.get(supernet.job.id).state is end


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        (JobState.SUCCEEDED, None),
        (JobState.FAILED, ["step-0000000002"]),
        (JobState.CANCELLED, ["step-0000000002"]),
    ],
)
def test_checkpoints_stay_while_the_training_may_go_on_and_the_newest_of_one_that_did_not_succeed(
    site, supernet, leftovers, end, kept
):
    folder = checkpoint_folder(site.home, supernet.row.id)
    files = train_a_little(folder)
    strange = checkpoint_folder(site.home, "sn_of_another")
    strange.mkdir()
    leftovers.remove()
    claim(site, JobKind.TRAIN)
    leftovers.remove()
    lose(site)
    leftovers.remove()
    assert sorted(path.name for path in folder.iterdir()) == files
    end_training(site, supernet, end)
    for _ in range(2):
        leftovers.remove()
        assert strange.is_dir()
        if kept is None:
            assert not folder.exists()
        else:
            assert [path.name for path in folder.iterdir()] == kept
            assert load_checkpoint(folder / kept[0]).step == 2


def test_checkpoints_that_cannot_be_read_for_now_all_stay(site, supernet, leftovers, monkeypatch):
    folder = checkpoint_folder(site.home, supernet.row.id)
    files = train_a_little(folder)
    end_training(site, supernet, JobState.FAILED)

    def refuse(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", refuse)
        leftovers.remove()
    assert sorted(path.name for path in folder.iterdir()) == files
    leftovers.remove()
    assert [path.name for path in folder.iterdir()] == ["step-0000000002"]


def test_where_the_newest_checkpoint_is_damaged_the_one_before_it_stays(site, supernet, leftovers):
    folder = checkpoint_folder(site.home, supernet.row.id)
    train_a_little(folder)
    (folder / "step-0000000002" / "weights.safetensors").write_bytes(b"damaged")
    end_training(site, supernet, JobState.FAILED)
    leftovers.remove()
    assert [path.name for path in folder.iterdir()] == ["step-0000000001"]


def test_of_a_deleted_supernet_neither_weights_nor_checkpoints_stay(site, supernet, leftovers):
    folder, strange = (checkpoint_folder(site.home, name) for name in (supernet.row.id, "sn_of_another"))
    (folder / "step-0000000004").mkdir(parents=True)
    strange.mkdir()
    site.queue.fail(claim(site, JobKind.TRAIN), "diverged")
    weights = put(site, supernet, "supernets", "only", "weights.safetensors")
    with site.database.begin() as session:
        delete_resource(session, SUPERNET, supernet.row.id)
    # No job is left to say that the training has ended.
    leftovers.remove()
    assert not folder.exists()
    assert not site.artifacts.exists(weights.uri)
    assert strange.is_dir()
    late = put(site, supernet, "supernets", "late", "weights.safetensors")
    leftovers.remove()
    assert not site.artifacts.exists(late.uri)


def test_a_worker_with_nothing_to_do_tidies_up(site, supernet):
    folder = checkpoint_folder(site.home, supernet.row.id)
    folder.mkdir(parents=True)
    site.queue.fail(claim(site, JobKind.TRAIN), "diverged")
    service = build_service(site.settings(), site.database)
    with drained_when(service, lambda: not folder.exists(), timeout_s=20):
        service.run()


def killed_at_work(place) -> Path:
    """What a process leaves that packs splits, and is killed."""
    script = (
        "import os, pathlib, signal, sys; from nas.scratch import ScratchFolder; "
        "held = ScratchFolder(pathlib.Path(sys.argv[1])); (held.path / 'train.npz').write_bytes(b'half'); "
        "print(held.path, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(place)]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    return Path(killed.stdout.strip())


def test_scratch_of_a_killed_worker_goes_and_of_one_at_work_stays_however_long(
    site, leftovers, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places = (tmp_path, site.home / CACHES)
    held = [ScratchFolder(place) for place in places]
    long_ago = time.time() - 2 * 24 * 3600
    for folder in held:
        (folder.path / "train.npz").write_bytes(b"half")
        for path in (folder.path / "train.npz", folder.path, folder.path.parent):
            os.utime(path, (long_ago, long_ago))
    left = [killed_at_work(place) for place in places]
    assert all((folder / "train.npz").exists() for folder in left)
    leftovers.remove()
    assert not any(folder.parent.exists() for folder in left)
    assert all((folder.path / "train.npz").exists() for folder in held)


def test_decoded_images_of_no_data_set_go_once_they_lie_untouched(site, leftovers):
    dataset = site.add_dataset()
    site.work([dataset.job.id])
    wanted = dataset_reference(site.database, site.artifacts, site.home, dataset.row.id).cache
    unused, killed = wanted.with_name("0" * 64), wanted.with_name(".killed")
    for folder in (unused, killed):
        folder.mkdir()
        (folder / "pixels.npy").write_bytes(b"1")
    leftovers.remove()
    # An import may be at work in them.
    assert unused.is_dir()
    assert killed.is_dir()
    long_ago = time.time() - 2 * 3600
    for path in (unused, unused / "pixels.npy", killed, wanted, *wanted.iterdir()):
        os.utime(path, (long_ago, long_ago))
    leftovers.remove()
    assert not unused.exists()
    assert killed.is_dir()
    os.utime(killed / "pixels.npy", (long_ago, long_ago))
    leftovers.remove()
    assert [folder.name for folder in wanted.parent.iterdir()] == [wanted.name]


def test_decoded_images_in_use_by_somebody_lie_not_untouched(site, leftovers, digits):
    digits = replace(digits, caches=site.home / CACHES)
    digits.load()
    long_ago = time.time() - 2 * 3600
    for path in (digits.cache, *digits.cache.iterdir()):
        os.utime(path, (long_ago, long_ago))
    digits.load()
    leftovers.remove()
    assert digits.cache.is_dir()
