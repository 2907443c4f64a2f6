"""Laws of taking a source in: one cache for one content, all or nothing, a true report."""

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nas.errors import DatasetError
from supernet.data import (
    ArrayListing,
    GivenSplit,
    Intake,
    LabelledArrays,
    SplitPlan,
    Storage,
    TrainingBatches,
    load_cache,
    load_splits,
    make_splits,
)
from supernet.data import cache as cache_module
from supernet.data.augmentation import Augmentation
from supernet.data.survey import MAX_LISTED_UNREADABLE, MAX_STORED_SIDE_UNASKED

PLAN = SplitPlan(calibration_images=100, seed=3)
PLAIN = Augmentation(crop_padding=0, horizontal_flip=False)


@pytest.fixture
def write(tmp_path, data_kit):
    """Writes image files into a Parquet source; an `Intake` of it, all with the same caches."""

    def made(files, labels, name="a", **fields):
        path = data_kit.write_parquet(tmp_path / name / "train.parquet", files, labels)
        source = data_kit.source(kind="parquet", path=str(path), **fields)
        return data_kit.intake(source, tmp_path / "caches")

    return made


def equal_sets(one, other):
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


def test_shuffled_rows_give_the_same_cache_the_same_splits_and_the_same_first_batch(tmp_path, data_kit):
    images = data_kit.random_set()
    shuffled = images.take(np.random.default_rng(5).permutation(len(images)))
    one, other = (data_kit.taken_in(tmp_path / name, each) for name, each in (("a", images), ("b", shuffled)))
    assert one.decode().fingerprint == other.decode().fingerprint
    splits = [intake.split(PLAN) for intake in (one, other)]
    for name in ("train", "val", "test"):
        assert equal_sets(*(getattr(each, name) for each in splits))
    batches = [TrainingBatches(each, 32, 5, PLAIN).batch(0) for each in splits]
    assert all((a == b).all() for a, b in zip(*batches, strict=True))


def test_two_sources_of_the_same_content_share_one_cache(tmp_path, data_kit):
    images = data_kit.random_set()
    for name, order in (("a", np.arange(len(images))), ("b", np.arange(len(images))[::-1])):
        path = data_kit.write_set(tmp_path / name / "train.parquet", images.take(order))
        data_kit.intake(data_kit.source(kind="parquet", path=str(path)), tmp_path / "caches").decode()
    folders = list((tmp_path / "caches").iterdir())
    assert [folder.name for folder in folders] == [data_kit.decoded(images).fingerprint]


def test_images_stay_on_disk_and_writing_to_them_never_reaches_the_file(tmp_path, data_kit):
    intake = data_kit.taken_in(tmp_path, data_kit.random_set())
    splits = intake.split(PLAN)
    for part in (splits.train, splits.val, splits.test):
        assert isinstance(part.pixels, np.memmap)
    before = splits.train.images
    splits.train.pixels[:] = 0
    assert np.array_equal(intake.split(PLAN).train.images, before)


def test_a_plan_is_drawn_once_and_a_damaged_draw_again(tmp_path, data_kit):
    intake = data_kit.taken_in(tmp_path, data_kit.random_set())
    folder = tmp_path / "caches" / intake.decode().fingerprint
    first = load_splits(folder, PLAN)
    load_splits(folder, SplitPlan(seed=4))
    draws = sorted((folder / "draws").iterdir())
    assert len(draws) == 2

    def refuse():
        raise AssertionError("drawn again")

    assert equal_sets(load_splits(folder, PLAN, refuse).val, first.val)
    for draw in draws:
        draw.write_bytes(draw.read_bytes()[:100])
    assert equal_sets(load_splits(folder, PLAN).val, first.val)
    assert equal_sets(load_splits(folder, PLAN, refuse).val, first.val)


@pytest.mark.parametrize("spoiled", ["pixels.npy", "labels.npy", "digests.npy", "contents.json"])
def test_a_damaged_cache_is_refused_and_replaced_by_the_next_import(tmp_path, data_kit, spoiled):
    intake = data_kit.taken_in(tmp_path, data_kit.random_set())
    folder = tmp_path / "caches" / intake.decode().fingerprint
    file = folder / spoiled
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DatasetError, match="delete it and prepare the data again"):
        load_cache(folder)
    file.unlink()
    with pytest.raises(DatasetError, match="no readable cache"):
        load_cache(folder)
    intake.decode()
    assert load_cache(folder).fingerprint == folder.name


def test_a_cache_of_an_older_format_is_not_taken_for_one(tmp_path, data_kit):
    intake = data_kit.taken_in(tmp_path, data_kit.random_set())
    folder = tmp_path / "caches" / intake.decode().fingerprint
    description = json.loads((folder / "contents.json").read_text())
    (folder / "contents.json").write_text(json.dumps({**description, "format": 1}))
    with pytest.raises(DatasetError, match="format 1, not 2"):
        load_cache(folder)


def photos(data_kit, sizes):
    rng = np.random.default_rng(0)
    return [data_kit.encode(rng.integers(0, 256, (3, *size), dtype=np.uint8)) for size in sizes]


def test_big_photographs_are_stored_with_a_limited_longer_side(write, data_kit):
    intake = write(photos(data_kit, [(600, 1200)] * 3 + [(300, 300)]), [0, 1, 2, 3])
    assert intake.decode().pixels.shape == (4, 3, MAX_STORED_SIDE_UNASKED // 2, MAX_STORED_SIDE_UNASKED)
    stored = intake.report()["stored"]
    assert stored["rule"] == (
        "RGB, 128 x 256 pixels (height x width), the most common size, 600 x 1200, with its longer side "
        "brought to 256; an image of another size is resized to it (Pillow, bicubic), its aspect ratio "
        "not kept"
    )


def test_a_stored_size_and_a_centre_crop_are_taken_as_asked(write, data_kit):
    pixels = np.zeros((3, 10, 30), dtype=np.uint8)
    pixels[:, :, 10:20] = 255
    file = data_kit.encode(pixels)
    squeezed = write([file] * 3, [0, 1, 2], stored_size=[10, 10]).decode().pixels
    cropped = write([file] * 3, [0, 1, 2], stored_size=[10, 10], fit="centre_crop").decode().pixels
    assert squeezed.shape == cropped.shape == (3, 3, 10, 10)
    assert (cropped == 255).all()
    assert squeezed[:, :, :, 0].max() < 10


def broken_kit(data_kit):
    """Twelve files: one with no header, one cut short, and good ones."""
    files = photos(data_kit, [(8, 8)] * 12)
    files[3] = b"no image"
    noise = np.random.default_rng(1).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    files[7] = data_kit.encode(noise, "JPEG")[:-500]
    return files, [i % 2 for i in range(12)]


def test_unreadable_images_of_both_passes_are_told_together_and_listed(write, data_kit):
    intake = write(*broken_kit(data_kit))
    with pytest.raises(
        DatasetError, match=r"2 of 12 images .*row 3 of train.*row 7 of train.*skip_unreadable"
    ):
        intake.decode()
    report = intake.report()
    assert report["unreadable"]["count"] == 2
    assert [each["where"] for each in report["unreadable"]["images"]] == [
        "row 3 of train.parquet",
        "row 7 of train.parquet",
    ]
    assert all(each["reason"] for each in report["unreadable"]["images"])
    assert report["num_images"] == 10
    assert [each["images"] for each in report["classes"][:2]] == [{"train": 6}, {"train": 4}]
    assert sum(each["images"] for each in report["sizes"]["most_common"]) == 10
    assert sum(report["modes"].values()) == 10
    assert report["duplicates"] is None


def test_left_out_on_request_the_readable_images_are_as_if_alone(tmp_path, write, data_kit):
    files, labels = broken_kit(data_kit)
    intake = write(files, labels, skip_unreadable=True)
    good = [i for i in range(12) if i not in (3, 7)]
    alone = write([files[i] for i in good], [labels[i] for i in good], name="b")
    assert intake.decode().fingerprint == alone.decode().fingerprint
    assert len(intake.decode().pixels) == 10
    assert intake.report()["unreadable"]["count"] == 2


def test_a_source_of_nothing_readable_is_refused_even_on_request(write):
    intake = write([b"a", b"b", b"c"], [0, 1, 0], skip_unreadable=True)
    with pytest.raises(DatasetError, match="3 of 3 images cannot be read") as refused:
        intake.decode()
    assert "skip_unreadable" not in str(refused.value)  # no remedy here: nothing would remain
    assert intake.report()["unreadable"]["count"] == 3
    assert intake.report()["sizes"] is None


def test_the_list_of_unreadable_images_ends_where_it_says(write):
    num_broken = MAX_LISTED_UNREADABLE + 5
    intake = write([b"x"] * num_broken, [0] * num_broken)
    with pytest.raises(DatasetError, match=f"{num_broken} of {num_broken} .*{num_broken - 3} more"):
        intake.decode()
    unreadable = intake.report()["unreadable"]
    assert (unreadable["count"], len(unreadable["images"])) == (num_broken, MAX_LISTED_UNREADABLE)
    assert unreadable["listed_at_most"] == MAX_LISTED_UNREADABLE


def test_the_report_tells_what_is_in_the_images(tmp_path, data_kit):
    rng = np.random.default_rng(0)
    grey = [data_kit.encode(rng.integers(0, 256, (1, 8, 8), dtype=np.uint8)) for _ in range(60)]
    large = [data_kit.encode(rng.integers(0, 256, (3, 20, 16), dtype=np.uint8)) for _ in range(5)]
    files = [*grey, *large, grey[0], grey[1]]
    # 50 cats, 5 dogs, 5 eels, 5 foxes, a cat again, and a cat that is a dog as well.
    labels = [0] * 45 + [1] * 5 + [2] * 5 + [3] * 5 + [0] * 5 + [0, 1]
    data_kit.write_parquet(tmp_path / "train.parquet", files, labels)
    data_kit.write_parquet(tmp_path / "test.parquet", [*grey[44:], grey[2]], [*labels[44:60], 0])
    intake = data_kit.intake(data_kit.source(kind="parquet", path=str(tmp_path)), tmp_path / "caches")
    splits = intake.split(PLAN)
    report = intake.report()
    assert report["num_images"] == 84
    assert report["given_splits"] == {"train": 67, "test": 17}
    images = [each["images"] for each in report["classes"]]
    assert [each["train"] + each["val"] for each in images] == [51, 6, 5, 5]
    assert [each["test"] for each in images] == [2, 5, 5, 5]
    assert {split: sum(each[split] for each in images) for split in ("train", "val", "test")} == {
        split: splits.counts[split] for split in ("train", "val", "test")
    }
    assert report["imbalance"] == 5.3
    assert report["modes"] == {"L": 79, "RGB": 5}
    assert report["sizes"]["num_distinct"] == 2
    assert (report["sizes"]["max_width"], report["sizes"]["max_height"]) == (16, 20)
    assert report["sizes"]["most_common"][0] == {"width": 8, "height": 8, "images": 79}
    assert report["duplicates"] == {
        "within": {"train": 2, "test": 0},
        "across": {"train_test": 17},
        "contradictory": 2,
    }
    told = " ".join(report["warnings"])
    for part in ("'fox' (", "17 of the test images are also among the train images", "differ in size"):
        assert part in told
    assert "times as many" not in told
    json.dumps(report)


def test_too_full_a_disk_is_told_before_anything_is_written(write, data_kit, monkeypatch):
    intake = write(photos(data_kit, [(8, 8)] * 4), [0, 1, 2, 3])
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DatasetError, match=r"4 images of 8x8 pixels need 0.3 GiB .*stored_size"):
        intake.decode()
    assert list((intake._caches).iterdir()) == []


IMPORT = """
import json, sys
from pathlib import Path
from supernet.data import DataSource, Intake

def peak_kib():  # not getrusage: its maximum is inherited from the parent
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

before = peak_kib()
intake = Intake.of(DataSource.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]))
decoded = intake.decode()
print(json.dumps({"grown": (peak_kib() - before) * 1024, "decoded": decoded.pixels.nbytes}))
"""


@pytest.fixture
def roomy_import(tmp_path, data_kit):
    """The command that imports files of few bytes each, which decode to 375 MiB in all."""
    colours = np.random.default_rng(0).integers(0, 256, (2000, 3), dtype=np.uint8)
    files = [data_kit.encode(np.broadcast_to(colour[:, None, None], (3, 256, 256))) for colour in colours]
    path = data_kit.write_parquet(tmp_path / "a.parquet", files, [i % 4 for i in range(len(files))])
    source = json.dumps({"kind": "parquet", "path": str(path)})
    return [sys.executable, "-c", IMPORT, source, str(tmp_path / "caches")]


def test_an_import_holds_a_fraction_of_what_it_decodes(roomy_import):
    found = json.loads(subprocess.run(roomy_import, check=True, capture_output=True, text=True).stdout)
    assert found["decoded"] == 2000 * 3 * 256 * 256
    assert found["grown"] < found["decoded"] / 4


def test_an_import_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path, roomy_import):
    process = subprocess.Popen(roomy_import, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size > 1 << 22 for file in (tmp_path / "caches").glob(".*/pixels.npy")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (left,) = (tmp_path / "caches").iterdir()
    assert left.name.startswith(".")
    with pytest.raises(DatasetError, match="no readable cache"):
        load_cache(left)


@pytest.mark.parametrize("given", [(), ("test",), ("val",), ("val", "test")])
def test_splits_that_were_drawn_elsewhere_give_the_same_cache_and_the_same_splits(tmp_path, data_kit, given):
    sets = {"val": data_kit.random_set(80, seed=1), "test": data_kit.random_set(90, seed=2)}
    source = data_kit.decoded(data_kit.random_set(), **{name: sets[name] for name in given})
    splits = make_splits(source, PLAN)
    arrays = {
        split: LabelledArrays(
            images=getattr(splits, split).images.transpose(0, 2, 3, 1), labels=getattr(splits, split).labels
        )
        for split in GivenSplit
    }
    listing = ArrayListing(
        class_names=splits.class_names,
        arrays=arrays,
        drawn_from_train=frozenset(GivenSplit) - {GivenSplit.TRAIN, *map(GivenSplit, given)},
    )
    intake = Intake(lambda: listing, Storage(stored_size=splits.image_size), tmp_path)
    assert intake.decode().fingerprint == splits.fingerprint
    again = intake.split(PLAN)
    assert np.array_equal(again.calibration, splits.calibration)
    for name in ("train", "val", "test"):
        assert equal_sets(getattr(again, name), getattr(splits, name))
