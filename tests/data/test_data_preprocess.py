"""The preprocessing contract: resize and normalise, on tensors and against plain formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.trial import Split
from supernet.data import (
    ResizedSplits,
    calibration_batches,
    calibration_id,
    evaluation_batches,
    normalise,
    resize_uint8,
)
from supernet.resize import resize


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (300, 3, 9, 9), dtype=np.uint8))


def is_channels_last(images):
    """By the strides themselves: `is_contiguous` calls one channel anything."""
    _, channels, _, width = images.shape
    return images.stride()[1:] == (1, width * channels, channels)


def test_resize_to_the_same_size_is_the_same_tensor(images):
    assert resize_uint8(images, 9) is images


@pytest.mark.parametrize("resolution", [6, 14])
def test_resize_follows_the_stated_rule(images, resolution):
    floats = F.interpolate(images.float(), size=resolution, mode="bicubic", align_corners=False)
    expected = np.clip(np.rint(floats.clamp(0, 255).numpy()), 0, 255).astype(np.uint8)
    resized = resize_uint8(images, resolution)
    assert resized.dtype == torch.uint8
    assert np.array_equal(resized.numpy(), expected)


def test_resize_treats_every_image_alone(images):
    whole = resize_uint8(images, 7)
    assert torch.equal(torch.cat([resize_uint8(each[None], 7) for each in images]), whole)


def test_constant_images_stay_constant_through_resize():
    white = torch.full((2, 1, 5, 7), 255, dtype=torch.uint8)
    assert torch.equal(resize_uint8(white, 6), torch.full((2, 1, 6, 6), 255, dtype=torch.uint8))


def test_the_supernets_own_resize_agrees_within_rounding(images):
    smooth = resize_uint8(images[:, :, :3, :3].contiguous(), 9) // 2 + 64  # keeps clear of both ends
    one = normalise(resize_uint8(smooth, 7), (0.5,) * 3, (0.25,) * 3)
    other = resize(normalise(smooth, (0.5,) * 3, (0.25,) * 3), 7)
    assert (one - other).abs().max() < 0.51 / 255 / 0.25


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_the_plain_formula_to_the_last_bit(images, channels):
    mean, std = (0.48, 0.5, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels]
    normalised = normalise(images[:, :channels], mean, std)
    column = [np.array(values, dtype=np.float32)[:, None, None] for values in (mean, std)]
    expected = (images[:, :channels].numpy().astype(np.float32) / np.float32(255) - column[0]) / column[1]
    assert np.array_equal(normalised.numpy(), expected)
    assert normalised.dtype == torch.float32
    assert is_channels_last(normalised)


def test_normalised_training_images_have_mean_zero_and_deviation_one(splits):
    normalised = normalise(torch.from_numpy(splits.train.images), splits.mean, splits.std)
    assert normalised.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (normalised.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_each_resolution_is_resized_once(splits):
    resized = ResizedSplits(splits)
    for split, stored in ((Split.VAL, splits.val), (Split.TEST, splits.test)):
        expected = resize_uint8(torch.from_numpy(stored.images), 6)
        assert torch.equal(resized.images(split, 6), expected)
        assert resized.images(split, 6) is resized.images(split, 6)
        assert np.array_equal(resized.labels(split).numpy(), stored.labels)


def test_past_its_limit_the_longest_unused_resolution_is_dropped(splits):
    kept = [ResizedSplits(splits).images(Split.VAL, size).nbytes for size in (6, 10)]
    resized = ResizedSplits(splits, max_bytes=sum(kept))
    six, ten = resized.images(Split.VAL, 6), resized.images(Split.VAL, 10)
    assert resized.images(Split.VAL, 6) is six
    resized.images(Split.VAL, 7)
    assert resized.images(Split.VAL, 6) is six
    assert resized.images(Split.VAL, 10) is not ten


def test_calibration_batches_are_the_calibration_images_in_order(splits):
    batches = list(calibration_batches(ResizedSplits(splits), 6, 32))
    pixels = torch.from_numpy(splits.train.images[splits.calibration])
    expected = normalise(resize_uint8(pixels, 6), splits.mean, splits.std)
    assert torch.equal(torch.cat(batches), expected)
    assert [len(batch) for batch in batches] == [25, 25, 25, 25]
    assert all(is_channels_last(batch) for batch in batches)
    again = list(calibration_batches(ResizedSplits(splits), 6, 32))
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))


def test_calibration_id_names_images_and_batches(splits):
    assert calibration_id(splits, 20) == "train[100]@seed=3,batch=20"


def test_evaluation_batches_cover_a_split_to_the_last_image(splits):
    batches = list(evaluation_batches(ResizedSplits(splits), Split.TEST, 8, 50))
    assert [len(labels) for _, labels in batches] == [50, 50, 20]
    assert np.array_equal(torch.cat([labels for _, labels in batches]).numpy(), splits.test.labels)
    expected = normalise(torch.from_numpy(splits.test.images), splits.mean, splits.std)
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
