"""Splits as .npz files: what was split comes back, in the same bytes each time, a piece at a time."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import DatasetError
from supernet.data import DataSplits, SplitPlan, make_splits
from supernet.data.images import ImageSet
from supernet.data.sources import SourceImages
from supernet.data.split_files import SPLIT_FILES, read_split_files, write_split_file


@pytest.fixture
def splits(data_kit) -> DataSplits:
    return make_splits(SourceImages(train=data_kit.random_set(), test=None))


def write_all(folder, splits):
    folder.mkdir()
    for name in SPLIT_FILES:
        write_split_file(folder / name, splits, name)
    return {name: (folder / name).read_bytes() for name in SPLIT_FILES}


def test_the_splits_come_back_as_they_were(splits, tmp_path):
    write_all(tmp_path / "a", splits)
    read = read_split_files(tmp_path / "a", splits.plan)
    for name in ("train", "val", "test"):
        ours, theirs = getattr(read, name), getattr(splits, name)
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.class_names == theirs.class_names
    assert np.array_equal(read.calibration, splits.calibration)
    for name in ("mean", "std", "fingerprint", "plan"):
        assert getattr(read, name) == getattr(splits, name)


def test_numpy_reads_them_without_pickle(splits, tmp_path):
    content = write_all(tmp_path / "a", splits)["train.npz"]
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert (arrays["images"].dtype, arrays["labels"].dtype) == (np.uint8, np.int64)
        assert np.array_equal(arrays["images"], splits.train.images)
        assert arrays["class_names"].tolist() == list(splits.class_names)


def test_the_same_splits_are_the_same_bytes_and_others_are_not(data_kit, splits, tmp_path):
    first, again = write_all(tmp_path / "a", splits), write_all(tmp_path / "b", splits)
    assert first == again
    other = make_splits(SourceImages(train=data_kit.random_set(), test=None), SplitPlan(seed=1))
    assert write_all(tmp_path / "c", other)["val.npz"] != first["val.npz"]


def test_files_of_two_data_sets_are_not_taken_for_one(splits, tmp_path):
    write_all(tmp_path / "a", splits)
    (tmp_path / "a" / "val.npz").unlink()
    write_split_file(tmp_path / "a" / "val.npz", replace(splits, fingerprint="f" * 64), "val.npz")
    with pytest.raises(DatasetError, match="are of different data sets"):
        read_split_files(tmp_path / "a", splits.plan)


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
        read_split_files(tmp_path / "a", splits.plan)


def test_images_on_disk_are_never_whole_in_memory(splits, tmp_path):
    shape = (100_000, 1, 32, 32)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    labels = np.zeros(shape[0], dtype=np.int64)
    large = replace(splits, train=ImageSet(images=images, labels=labels, class_names=("a", "b")))
    asked = []
    tracemalloc.start()
    try:
        write_split_file(tmp_path / "train.npz", large, "train.npz", lambda: asked.append(None))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "train.npz").stat().st_size > images.nbytes > 2 * peak_bytes
    assert len(asked) >= 6
