"""Laws of the splits: disjoint, complete, stratified, repeatable, and no image on both sides."""

import json

import numpy as np
import pytest

from nas.errors import DatasetError
from supernet.data import ImageSet, SplitPlan, make_splits
from supernet.data.splits import channel_statistics


def pixel_keys(images):
    return [pixels.tobytes() for pixels in images.images]


def labelled_keys(images):
    return zip(pixel_keys(images), images.labels.tolist(), strict=True)


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
    source = data_kit.decoded(data_kit.random_set())
    again = make_splits(source, splits.plan)
    other = make_splits(source, SplitPlan(calibration_images=100, seed=4))
    assert equal_sets(again.val, splits.val)
    assert np.array_equal(again.calibration, splits.calibration)
    assert again.fingerprint == other.fingerprint == splits.fingerprint
    assert not np.array_equal(other.val.images, splits.val.images)


def test_given_splits_are_kept_whole_and_others_are_drawn_from_train(data_kit):
    test = data_kit.random_set(100, seed=1)
    val = data_kit.random_set(80, seed=2)
    made = make_splits(data_kit.decoded(data_kit.random_set(), test=test))
    assert sorted(labelled_keys(made.test)) == sorted(labelled_keys(test))
    assert made.counts["train"] + made.counts["val"] == 600
    made = make_splits(data_kit.decoded(data_kit.random_set(), val, test))
    for part, given in ((made.train, data_kit.random_set()), (made.val, val), (made.test, test)):
        assert sorted(labelled_keys(part)) == sorted(labelled_keys(given))
    made = make_splits(data_kit.decoded(data_kit.random_set(), val))
    assert sorted(labelled_keys(made.val)) == sorted(labelled_keys(val))
    assert made.counts["train"] + made.counts["test"] == 600


def distinct_set(labels, names=("a", "b")):
    """Images of 2x2 pixels that spell their own number."""
    images = np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 2)
    return ImageSet.whole(images, labels, names)


@pytest.mark.parametrize(
    ("num_images", "num_val"),
    [(400, 80), (6_000, 1_000), (20_000, 2_000)],
)
def test_val_is_a_tenth_or_as_many_more_as_an_interval_wants(data_kit, num_images, num_val):
    source = distinct_set(np.arange(num_images) % 2)
    assert make_splits(data_kit.decoded(source, test=source)).counts["val"] == num_val


@pytest.mark.parametrize("rare", [3, 4, 7])
def test_the_rarest_class_is_in_every_split(data_kit, rare):
    source = data_kit.decoded(distinct_set(np.array([0] * 500 + [1] * rare)))
    made = make_splits(source, SplitPlan(test_fraction=0.5, val_fraction=0.5))
    for part in (made.train, made.val, made.test):
        assert part.class_counts.min() >= 1


def test_statistics_are_those_of_the_training_pixels_alone(splits):
    pixels = splits.train.images / 255
    assert splits.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), abs=1e-12)
    assert splits.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), abs=1e-12)


def test_a_constant_channel_has_deviation_one():
    images = np.full((4, 1, 2, 2), 200, dtype=np.uint8)
    mean, std = channel_statistics(ImageSet.whole(images, np.zeros(4, np.int64), ("a",)))
    assert mean == pytest.approx((200 / 255,))
    assert std == (1.0,)


def two_classes(num_second, names=("many", "few")):
    return distinct_set(np.array([0] * 50 + [1] * num_second if names[1:] else [0] * 50), names)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (two_classes(2), None, "class 'few' has 2 of the source's train images, fewer than the 3"),
        (two_classes(1), two_classes(9), "class 'few' has 1 of the source's train images, fewer than the 2"),
        (two_classes(9), two_classes(0), "class 'few' has 0 of the source's test images"),
        (two_classes(0, names=("only",)), None, "fewer than 2"),
    ],
)
def test_classes_that_cannot_be_split_are_refused(data_kit, train, test, message):
    with pytest.raises(DatasetError, match=message):
        make_splits(data_kit.decoded(train, test=test))


def test_labels_out_of_range_and_wrong_arrays_are_refused():
    images = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"label 2 of image 1 is not in 0\.\.1"):
        ImageSet.whole(images, np.array([0, 2]), ("a", "b"))
    with pytest.raises(DatasetError, match="C-contiguous uint8"):
        ImageSet.whole(images.astype(np.float32), np.array([0, 1]), ("a", "b"))
    with pytest.raises(DatasetError, match="one for each of 2 images"):
        ImageSet.whole(images, np.array([0]), ("a", "b"))
    with pytest.raises(DatasetError, match="twice"):
        ImageSet.whole(images, np.array([0, 1]), ("a", "a"))


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


def with_copies(source, rng):
    """About half of the images again, some of them under another label."""
    again = rng.choice(len(source), len(source) // 2)
    labels = source.labels[again]
    is_mislabelled = rng.random(len(again)) < 0.2
    labels[is_mislabelled] = (labels[is_mislabelled] + 1) % source.num_classes
    return ImageSet.whole(
        np.concatenate([source.images, source.images[again]]),
        np.concatenate([source.labels, labels]),
        source.class_names,
    )


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_an_image_never_straddle_splits_that_are_drawn(data_kit, seed):
    source = with_copies(data_kit.random_set(400), np.random.default_rng(seed))
    made = make_splits(data_kit.decoded(source), SplitPlan(seed=seed))
    train, val, test = (set(pixel_keys(part)) for part in (made.train, made.val, made.test))
    assert not train & val
    assert not train & test
    assert not val & test
    assert made.counts["train"] + made.counts["val"] + made.counts["test"] == len(source)
    # A share is missed by less than the copies of one image.
    assert np.abs(made.test.class_counts - 0.2 * source.class_counts).max() < 6


def test_an_image_with_two_labels_is_never_measured_on(data_kit):
    source = data_kit.random_set(60)
    contradicted = np.arange(10)
    both = ImageSet.whole(
        np.concatenate([source.images, source.images[contradicted]]),
        np.concatenate([source.labels, (source.labels[contradicted] + 1) % 4]),
        source.class_names,
    )
    made = make_splits(data_kit.decoded(both))
    keys = set(pixel_keys(source.take(contradicted)))
    assert keys <= set(pixel_keys(made.train))
    assert not keys & {*pixel_keys(made.val), *pixel_keys(made.test)}


def test_a_class_of_copies_is_refused(data_kit):
    images = np.concatenate(
        [distinct_set(np.zeros(50, np.int64)).images, np.full((9, 1, 2, 2), 255, np.uint8)]
    )
    source = ImageSet.whole(images, np.array([0] * 50 + [1] * 9), ("many", "same"))
    with pytest.raises(DatasetError, match=r"class 'same' has 1 distinct images .*fewer than the 3"):
        make_splits(data_kit.decoded(source))


def test_the_order_of_the_source_decides_nothing(data_kit):
    source = with_copies(data_kit.random_set(300), np.random.default_rng(0))
    shuffled = source.take(np.random.default_rng(1).permutation(len(source)))
    one, other = (make_splits(data_kit.decoded(each)) for each in (source, shuffled))
    assert one.fingerprint == other.fingerprint
    assert (one.mean, one.std) == (other.mean, other.std)
    assert np.array_equal(one.calibration, other.calibration)
    for name in ("train", "val", "test"):
        assert equal_sets(getattr(one, name), getattr(other, name))
