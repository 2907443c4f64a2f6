"""Splits as .npz files: what was split comes back, in the same bytes each time, a piece at a time."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import DatasetError
from supernet.data import GivenSplit, ImageSet, Intake, SplitPlan, Storage, make_splits
from supernet.data.split_files import SPLIT_FILES, SplitFilesListing, write_split_file

PLAN = SplitPlan(calibration_images=50, seed=4)
ONLY_TRAIN = frozenset({GivenSplit.TRAIN})


def write_all(folder, splits):
    folder.mkdir()
    for name in SPLIT_FILES:
        write_split_file(folder / name, splits, name)
    return {name: (folder / name).read_bytes() for name in SPLIT_FILES}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_the_splits_come_back_as_they_were(data_kit, tmp_path, given, channels):
    sets = {
        name: data_kit.random_set(200, channels=channels, seed=seed)
        for seed, name in enumerate(("train", "val", "test"))
        if name in given
    }
    splits = make_splits(data_kit.decoded(**sets), PLAN)
    write_all(tmp_path / "a", splits)
    listing = SplitFilesListing.of(tmp_path / "a", frozenset(map(GivenSplit, given)))
    intake = Intake(lambda: listing, Storage(stored_size=listing.image_size), tmp_path / "caches")
    taken = intake.split(PLAN)
    for name in ("train", "val", "test"):
        ours, theirs = getattr(taken, name), getattr(splits, name)
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.class_names == theirs.class_names
    assert np.array_equal(taken.calibration, splits.calibration)
    for name in ("mean", "std", "fingerprint", "plan"):
        assert getattr(taken, name) == getattr(splits, name)


def test_numpy_reads_them_without_pickle(splits, tmp_path):
    content = write_all(tmp_path / "a", splits)["train.npz"]
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert (arrays["images"].dtype, arrays["labels"].dtype) == (np.uint8, np.int64)
        assert np.array_equal(arrays["images"], splits.train.images)
        assert arrays["class_names"].tolist() == list(splits.class_names)


def test_the_same_splits_are_the_same_bytes_and_others_are_not(data_kit, splits, tmp_path):
    first, again = write_all(tmp_path / "a", splits), write_all(tmp_path / "b", splits)
    assert first == again
    other = make_splits(data_kit.decoded(data_kit.random_set()), SplitPlan(seed=1))
    assert write_all(tmp_path / "c", other)["val.npz"] != first["val.npz"]


def test_files_of_two_data_sets_are_not_taken_for_one(splits, tmp_path):
    write_all(tmp_path / "a", splits)
    (tmp_path / "a" / "val.npz").unlink()
    write_split_file(tmp_path / "a" / "val.npz", replace(splits, fingerprint="f" * 64), "val.npz")
    with pytest.raises(DatasetError, match="are of different data sets"):
        SplitFilesListing.of(tmp_path / "a", ONLY_TRAIN)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_file_is_told(splits, tmp_path, damage):
    content = write_all(tmp_path / "a", splits)["test.npz"]
    path = tmp_path / "a" / "test.npz"
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:200] + bytes([content[200] ^ 0xFF]) + content[201:])
    with pytest.raises(DatasetError, match="cannot be read"):
        SplitFilesListing.of(tmp_path / "a", ONLY_TRAIN)


def test_images_on_disk_are_never_whole_in_memory(splits, tmp_path):
    shape = (100_000, 1, 32, 32)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    labels = np.zeros(shape[0], dtype=np.int64)
    large = replace(splits, train=ImageSet.whole(images, labels, ("a", "b")))
    asked = []
    tracemalloc.start()
    try:
        write_split_file(tmp_path / "train.npz", large, "train.npz", lambda: asked.append(None))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "train.npz").stat().st_size > images.nbytes > 2 * peak_bytes
    assert len(asked) >= 6
