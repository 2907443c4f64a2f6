"""Data sets on a worker: the copy is made again from the source, which must still be what it was."""

from __future__ import annotations

import io
import shutil
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sqlalchemy import text

from nas.errors import ArtifactError, DatasetError
from nas.job import JobState
from nas.store import datasets
from supernet.data import DataSource, SplitPlan, load_source, make_splits
from tests.workers.conftest import drained_when
from workers.datasets import CACHES, DatasetReference, dataset_reference
from workers.wiring import build_service

NUM_IMAGES = 60


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_images(path, *, first_seed: int = 0, reverse: bool = False, broken: tuple[int, ...] = ()) -> None:
    order = range(NUM_IMAGES)[::-1] if reverse else range(NUM_IMAGES)
    images = [{"bytes": b"?" if i in broken else png(first_seed + i), "path": None} for i in order]
    pq.write_table(pa.table({"image": images, "label": [i % 3 for i in order]}), path)


@pytest.fixture
def reference(tmp_path) -> DatasetReference:
    path = tmp_path / "train.parquet"
    write_images(path)
    source = {"kind": "parquet", "train": str(path)}
    split = SplitPlan().to_json()
    return DatasetReference(
        dataset_id="ds_images",
        source=source,
        split=split,
        fingerprint=load_source(DataSource.from_json(source)).fingerprint,
        caches=tmp_path / "caches",
    )


def test_a_machine_without_a_copy_makes_the_very_same_splits(reference, tmp_path):
    here, there = reference.load(), replace(reference, caches=tmp_path / "there").load()
    assert here.fingerprint == there.fingerprint == reference.fingerprint
    for split in ("train", "val", "test"):
        assert np.array_equal(getattr(here, split).images, getattr(there, split).images)
        assert np.array_equal(getattr(here, split).labels, getattr(there, split).labels)


def test_a_copy_outlives_its_source(reference):
    reference.load()
    (reference.caches.parent / "train.parquet").unlink()
    assert reference.load().fingerprint == reference.fingerprint


def test_changed_images_are_refused_until_they_are_restored(reference):
    path = reference.caches.parent / "train.parquet"
    write_images(path, first_seed=1000)
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"ds_images have changed .*restore them, or register them"):
            reference.load()
    write_images(path)
    assert reference.load().fingerprint == reference.fingerprint


@pytest.fixture
def imported(site, tmp_path):
    """A data set made from a file; the machine's own copy is lost."""
    path = tmp_path / "train.parquet"
    write_images(path)
    dataset = site.add_dataset({"kind": "parquet", "train": str(path)})
    site.work([dataset.job.id])
    assert site.queue.get(dataset.job.id).state is JobState.SUCCEEDED
    reference = dataset_reference(site.database, site.artifacts, site.home, dataset.row.id)
    # A second machine, or this one after its scratch was lost.
    shutil.rmtree(reference.cache)
    return dataset, reference, path


@pytest.mark.parametrize("fate", ["missing", "changed"])
def test_without_its_source_a_machine_takes_the_very_same_splits_from_those_published(imported, fate):
    _, reference, path = imported
    expected = make_splits(load_source(reference.data_source()), SplitPlan.from_json(reference.split))
    if fate == "missing":
        path.unlink()
    else:
        write_images(path, first_seed=1000)
    taken = reference.load()
    assert (taken.fingerprint, taken.plan) == (expected.fingerprint, expected.plan)
    assert (taken.mean, taken.std) == (expected.mean, expected.std)
    assert np.array_equal(taken.calibration, expected.calibration)
    for split in ("train", "val", "test"):
        assert np.array_equal(getattr(taken, split).images, getattr(expected, split).images)
        assert np.array_equal(getattr(taken, split).labels, getattr(expected, split).labels)
    assert [p.name for p in reference.cache.parent.iterdir()] == [reference.cache.name]


def test_published_splits_that_are_damaged_are_refused(imported):
    _, reference, _ = imported
    uri = reference.published.files[0].uri
    path = Path(unquote(urlsplit(uri).path))
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 0xFF]) + content[-8:])
    with pytest.raises(ArtifactError, match="are not those that were stored; restore the file, or register"):
        reference.load()
    assert list(reference.cache.parent.iterdir()) == []


def test_a_changed_source_fails_the_training_with_that_message(site, imported):
    dataset, reference, path = imported
    # As for a data set of a release that published none.
    for file in reference.published.files:
        site.artifacts.delete_folder(site.artifacts.key_of(file.uri))
    write_images(path, first_seed=1000)
    supernet = site.add_supernet(dataset.row.id)
    site.work([supernet.job.id])
    job = site.queue.get(supernet.job.id)
    assert job.state is JobState.FAILED
    assert f"the images of data set {dataset.row.id} have changed since it was registered" in job.error


class StoppedError(Exception):
    """In place of a cancel."""


def test_stopped_at_any_image_an_import_ends_there_and_leaves_nothing(reference, tmp_path):
    asked = []
    replace(reference, caches=tmp_path / "whole").load(lambda: asked.append(None))
    # Each image's header and its pixels; the file three times, the statistics.
    assert len(asked) == 2 * NUM_IMAGES + 4
    for last in (0, 1, NUM_IMAGES, 2 * NUM_IMAGES, len(asked) - 2):
        left = [None] * last

        def stop(left=left):
            if not left:
                raise StoppedError
            left.pop()

        with pytest.raises(StoppedError):
            replace(reference, caches=tmp_path / "cut").load(stop)
        assert list((tmp_path / "cut").glob("*")) == []


@pytest.mark.slow
def test_an_import_that_is_cancelled_ends_within_seconds(site, tmp_path):
    """Half the images are tiny and so decide the size; the others take long to decode."""
    file = io.BytesIO()
    Image.effect_noise((2048, 2048), 50).save(file, format="JPEG")
    images = [{"bytes": data, "path": None} for data in (png(0), png(1), file.getvalue()) for _ in range(500)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": images, "label": [i % 3 for i in range(len(images))]}), path)
    dataset = site.add_dataset({"kind": "parquet", "train": str(path)})
    told = []

    def cancel_once_it_runs() -> bool:
        job = site.queue.get(dataset.job.id)
        if not told and job.progress is not None:
            told.append(time.monotonic())
            site.queue.request_cancel(dataset.job.id)
        return job.state.is_terminal

    service = build_service(site.settings(), site.database)
    with drained_when(service, cancel_once_it_runs, timeout_s=60):
        service.run()
    assert site.queue.get(dataset.job.id).state is JobState.CANCELLED
    # The import itself takes several times as long.
    assert time.monotonic() - told[0] < 20
    assert list((site.home / CACHES).glob("*")) == []


def test_a_missing_source_fails_the_import_with_its_path(site, tmp_path):
    dataset = site.add_dataset({"kind": "parquet", "train": str(tmp_path / "nowhere.parquet")})
    supernet = site.add_supernet(dataset.row.id)
    site.work([dataset.job.id, supernet.job.id])
    job, training = (site.queue.get(r.job.id) for r in (dataset, supernet))
    assert job.state is JobState.FAILED
    assert "nowhere.parquet" in job.error
    assert not job.error.startswith("internal error")
    # What waits for it is told why.
    assert training.state is JobState.FAILED
    assert dataset.job.id in training.error


def test_data_sets_of_the_same_images_share_one_copy(site, tmp_path):
    write_images(tmp_path / "a.parquet")
    write_images(tmp_path / "b.parquet", reverse=True)
    added = [
        site.add_dataset({"kind": "parquet", "path": str(tmp_path / name)})
        for name in ("a.parquet", "b.parquet")
    ]
    site.work([dataset.job.id for dataset in added])
    one, other = (
        dataset_reference(site.database, site.artifacts, site.home, dataset.row.id) for dataset in added
    )
    assert one.cache == other.cache
    assert [folder.name for folder in (site.home / CACHES).iterdir()] == [one.fingerprint]


def test_a_data_set_of_an_earlier_version_is_to_be_registered_again_and_not_called_changed(site):
    dataset = site.add_dataset()
    site.work([dataset.job.id])
    with site.database.begin() as session:
        session.execute(text("UPDATE datasets SET fingerprint_format = 1"))
    with pytest.raises(DatasetError, match=r"earlier version, .*register the same source as a new data set"):
        dataset_reference(site.database, site.artifacts, site.home, dataset.row.id)


def stored(site, dataset):
    """(the job, the row's columns, the report)."""
    with site.database.session() as session:
        found = datasets.get(session, dataset.row.id)
        return found.job, found.row, found.row.report


def test_a_source_with_broken_images_is_refused_with_their_list_and_taken_in_without_them(site, tmp_path):
    path = tmp_path / "train.parquet"
    write_images(path, broken=(4, 9))
    strict, lenient = (
        site.add_dataset({"kind": "parquet", "path": str(path), "skip_unreadable": skip})
        for skip in (False, True)
    )
    site.work([strict.job.id, lenient.job.id])
    job, row, report = stored(site, strict)
    assert job.state is JobState.FAILED
    assert "2 of 60 images cannot be read: row 4 of train.parquet" in job.error
    assert row.fingerprint is None
    assert [each["where"] for each in report["unreadable"]["images"]] == [
        "row 4 of train.parquet",
        "row 9 of train.parquet",
    ]
    job, row, report = stored(site, lenient)
    assert job.state is JobState.SUCCEEDED
    assert row.given_splits == ["train"]
    assert row.num_unreadable == report["unreadable"]["count"] == 2
    assert row.num_train + row.num_val + row.num_test == NUM_IMAGES - 2
    reference = dataset_reference(site.database, site.artifacts, site.home, lenient.row.id)
    assert (reference.num_unreadable, reference.stored_rule) == (2, report["stored"]["rule"])
    assert len(reference.load().train) == row.num_train


def test_classes_that_cannot_be_split_are_refused_with_their_counts_in_the_report(site, tmp_path):
    path = tmp_path / "train.parquet"
    images = [{"bytes": png(i), "path": None} for i in range(20)]
    pq.write_table(pa.table({"image": images, "label": [0] * 18 + [1] * 2}), path)
    dataset = site.add_dataset({"kind": "parquet", "path": str(path)})
    site.work([dataset.job.id])
    job, _, report = stored(site, dataset)
    assert job.state is JobState.FAILED
    assert "class '1' has 2 of the source's train images" in job.error
    assert [each["images"] for each in report["classes"]] == [{"train": 18}, {"train": 2}]
