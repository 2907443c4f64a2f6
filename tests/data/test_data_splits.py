"""Laws of the splits: disjoint, complete, stratified, repeatable; and of their cache."""

import json

import numpy as np
import pytest

from nas.errors import DatasetError
from supernet.data import ImageSet, SourceImages, SplitPlan, load_cache, make_splits, save_cache
from supernet.data.splits import channel_statistics


def pixel_keys(images):
    return [pixels.tobytes() for pixels in images.images]


def equal_sets(one, other):
    return (
        np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)
        and one.class_names == other.class_names
    )


def test_splits_are_disjoint_and_lose_no_image(splits, data_kit):
    parts = [pixel_keys(part) for part in (splits.train, splits.val, splits.test)]
    together = [key for part in parts for key in part]
    assert len(set(together)) == len(together)
    assert set(together) == set(pixel_keys(data_kit.random_set()))


def test_each_image_keeps_its_label(splits, data_kit):
    whole = data_kit.random_set()
    label_of = dict(zip(pixel_keys(whole), whole.labels.tolist(), strict=True))
    for part in (splits.train, splits.val, splits.test):
        assert [label_of[key] for key in pixel_keys(part)] == part.labels.tolist()


def test_every_split_has_the_class_shares_of_the_whole(splits, data_kit):
    shares = data_kit.random_set().class_counts / 600
    calibration = splits.train.take(splits.calibration)
    for part in (splits.train, splits.val, splits.test, calibration):
        assert np.abs(part.class_counts - shares * len(part)).max() < 2


def test_calibration_is_a_mixed_subset_of_train(splits):
    assert len(np.unique(splits.calibration)) == 100
    assert splits.calibration.max() < len(splits.train)
    first_half = splits.train.labels[splits.calibration[:50]]
    assert set(first_half.tolist()) == {0, 1, 2, 3}


def test_same_plan_same_splits_and_another_seed_others(splits, data_kit):
    source = SourceImages(train=data_kit.random_set(), test=None)
    again = make_splits(source, splits.plan)
    other = make_splits(source, SplitPlan(calibration_images=100, seed=4))
    assert equal_sets(again.val, splits.val)
    assert np.array_equal(again.calibration, splits.calibration)
    assert again.fingerprint == other.fingerprint == splits.fingerprint
    assert not np.array_equal(other.val.images, splits.val.images)


def test_a_given_test_split_is_kept_whole(data_kit):
    test = data_kit.random_set(100, seed=1)
    made = make_splits(SourceImages(train=data_kit.random_set(), test=test))
    assert equal_sets(made.test, test)
    assert made.counts["train"] + made.counts["val"] == 600


@pytest.mark.parametrize(
    ("num_images", "num_val"),
    [(400, 80), (6_000, 1_000), (20_000, 2_000)],
)
def test_val_is_a_tenth_or_as_many_more_as_an_interval_wants(num_images, num_val):
    labels = np.arange(num_images) % 2
    images = np.zeros((num_images, 1, 2, 2), dtype=np.uint8)
    source = ImageSet(images=images, labels=labels, class_names=("a", "b"))
    assert make_splits(SourceImages(train=source, test=source)).counts["val"] == num_val


@pytest.mark.parametrize("rare", [3, 4, 7])
def test_the_rarest_class_is_in_every_split(rare):
    labels = np.array([0] * 500 + [1] * rare)
    images = np.zeros((len(labels), 1, 2, 2), dtype=np.uint8)
    made = make_splits(
        SourceImages(train=ImageSet(images=images, labels=labels, class_names=("a", "b")), test=None),
        SplitPlan(test_fraction=0.5, val_fraction=0.5),
    )
    for part in (made.train, made.val, made.test):
        assert part.class_counts.min() >= 1


def test_statistics_are_those_of_the_training_pixels_alone(splits):
    pixels = splits.train.images / 255
    assert splits.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), abs=1e-12)
    assert splits.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), abs=1e-12)


def test_a_constant_channel_has_deviation_one():
    images = np.full((4, 1, 2, 2), 200, dtype=np.uint8)
    mean, std = channel_statistics(ImageSet(images=images, labels=np.zeros(4, np.int64), class_names=("a",)))
    assert mean == pytest.approx((200 / 255,))
    assert std == (1.0,)


def two_classes(num_second, names=("many", "few")):
    labels = np.array([0] * 50 + [1] * num_second)
    images = np.zeros((len(labels), 1, 2, 2), dtype=np.uint8)
    return ImageSet(images=images, labels=labels, class_names=names)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (two_classes(2), None, "class 'few' has 2 images .*fewer than the 3"),
        (two_classes(1), two_classes(9), "class 'few' has 1 images .*fewer than the 2"),
        (two_classes(9), two_classes(0), "class 'few' has 0 images in the source's test"),
        (two_classes(0, names=("only",)), None, "fewer than 2"),
        (two_classes(9), two_classes(9, names=("few", "many")), "list of classes"),
    ],
)
def test_classes_that_cannot_be_split_are_refused(train, test, message):
    with pytest.raises(DatasetError, match=message):
        make_splits(SourceImages(train=train, test=test))


def test_labels_out_of_range_and_wrong_arrays_are_refused():
    images = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"label 2 of image 1 is not in 0\.\.1"):
        ImageSet(images=images, labels=np.array([0, 2]), class_names=("a", "b"))
    with pytest.raises(DatasetError, match="C-contiguous uint8"):
        ImageSet(images=images.astype(np.float32), labels=np.array([0, 1]), class_names=("a", "b"))
    with pytest.raises(DatasetError, match="one for each of 2 images"):
        ImageSet(images=images, labels=np.array([0]), class_names=("a", "b"))
    with pytest.raises(DatasetError, match="twice"):
        ImageSet(images=images, labels=np.array([0, 1]), class_names=("a", "a"))


@pytest.mark.parametrize(
    "value",
    [
        {"test_fraction": 0.0},
        {"val_fraction": 0.6},
        {"val_fraction": "0.1"},
        {"seed": -1},
        {"calibration_images": 0},
        {"folds": 5},
    ],
)
def test_an_impossible_plan_is_refused(value):
    with pytest.raises(DatasetError, match=next(iter(value))):
        SplitPlan.from_json(value)


def test_a_plan_survives_json():
    plan = SplitPlan(seed=9, val_fraction=0.3)
    assert SplitPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_the_cache_gives_back_the_same_bits(splits, tmp_path):
    save_cache(splits, tmp_path / "deep" / "cache")
    read = load_cache(tmp_path / "deep" / "cache")
    for name in ("train", "val", "test"):
        assert equal_sets(getattr(read, name), getattr(splits, name))
    assert np.array_equal(read.calibration, splits.calibration)
    for name in ("plan", "mean", "std", "fingerprint", "class_names", "counts"):
        assert getattr(read, name) == getattr(splits, name)
    assert isinstance(read.train.images, np.memmap)


def test_writing_to_cached_images_never_reaches_the_file(splits, tmp_path):
    save_cache(splits, tmp_path / "cache")
    load_cache(tmp_path / "cache").train.images[:] = 0
    assert equal_sets(load_cache(tmp_path / "cache").train, splits.train)


def test_saving_twice_leaves_one_cache_and_no_temporary_folder(splits, data_kit, tmp_path):
    save_cache(splits, tmp_path / "cache")
    save_cache(splits, tmp_path / "cache")
    other = make_splits(SourceImages(train=data_kit.random_set(seed=1), test=None))
    with pytest.raises(DatasetError, match="already holds the splits of other images"):
        save_cache(other, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert load_cache(tmp_path / "cache").fingerprint == splits.fingerprint


@pytest.mark.parametrize("spoiled", ["train_images.npy", "val_labels.npy", "splits.json"])
def test_a_damaged_cache_is_refused(splits, tmp_path, spoiled):
    save_cache(splits, tmp_path / "cache")
    file = tmp_path / "cache" / spoiled
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DatasetError, match="delete it and prepare the data again"):
        load_cache(tmp_path / "cache")
    file.unlink()
    with pytest.raises(DatasetError, match="no readable cache"):
        load_cache(tmp_path / "cache")
