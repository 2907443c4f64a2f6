"""Laws of the training batches: pure in (seed, step), the same for one process and for several."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.errors import InvalidRequestError
from nas.recipes import recipe_from_json
from supernet.data import (
    Augmentation,
    DataSource,
    SourceKind,
    TrainingBatches,
    augmentation_for,
    normalise,
)
from supernet.data.augmentation import crop_and_flip, draw_shifts

PLAIN = Augmentation(crop_padding=0, horizontal_flip=False)
VARIED = Augmentation(crop_padding=2, horizontal_flip=True)


def equal_batches(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_batch_depends_on_seed_and_step_alone(splits):
    forward = TrainingBatches(splits, 32, 5, VARIED)
    steps = range(3 * forward.steps_per_epoch)
    in_order = [forward.batch(step) for step in steps]
    for step in reversed(steps):
        assert equal_batches(forward.batch(step), in_order[step])
        assert equal_batches(TrainingBatches(splits, 32, 5, VARIED).batch(step), in_order[step])
    assert not equal_batches(TrainingBatches(splits, 32, 6, VARIED).batch(0), in_order[0])


def test_batches_ignore_the_global_random_state(splits):
    batches = TrainingBatches(splits, 32, 5, VARIED)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = batches.batch(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal_batches(batches.batch(7), first)


def epoch_keys(batches, splits, epoch):
    """The index in train of each image of an epoch, found by its pixels."""
    train = normalise(torch.from_numpy(splits.train.images), splits.mean, splits.std)
    index_of = {image.numpy().tobytes(): index for index, image in enumerate(train)}
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    found = [[index_of[image.numpy().tobytes()] for image in batches.batch(step)[0]] for step in steps]
    return np.concatenate(found)


def test_an_epoch_shows_no_image_twice_and_the_next_another_order(splits):
    batches = TrainingBatches(splits, 32, 0, PLAIN)
    first, second = (epoch_keys(batches, splits, epoch) for epoch in (0, 1))
    assert len(first) == len(np.unique(first)) == 32 * batches.steps_per_epoch
    assert len(splits.train) - len(first) < 32
    assert not np.array_equal(first, second)


def test_without_augmentation_images_come_normalised_with_their_labels(splits):
    batches = TrainingBatches(splits, 32, 0, PLAIN)
    images, labels = batches.batch(0)
    keys = epoch_keys(batches, splits, 0)[:32]
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.stride()[1] == 1
    assert torch.equal(labels, torch.from_numpy(splits.train.labels[keys]))


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_ranks_together_are_one_process(splits, world_size):
    batches = TrainingBatches(splits, 32, 5, VARIED)
    for step in (0, 3, batches.steps_per_epoch + 1):
        images, labels = batches.batch(step)
        shares = [batches.batch(step, rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat([share[0] for share in shares]), images)
        assert torch.equal(torch.cat([share[1] for share in shares]), labels)


# Positions


def test_positions_choose_the_images_and_say_nothing_of_the_crops(splits):
    batches = TrainingBatches(splits, 32, 5, VARIED)
    own_order = np.random.default_rng([5, 0, 0]).permutation(batches.num_images)
    assert equal_batches(batches.batch(2, positions=own_order[64:96]), batches.batch(2))
    again = np.full(32, own_order[64])
    images, labels = batches.batch(2, positions=again)
    assert (labels == labels[0]).all()
    assert torch.equal(images[0], batches.batch(2)[0][0])
    assert not torch.equal(images[0], images[1])  # one image, each time cropped anew


def test_positions_are_shared_among_ranks_as_one_process_sees_them(splits):
    batches = TrainingBatches(splits, 32, 5, VARIED)
    positions = np.random.default_rng(0).integers(batches.num_images, size=32)
    images, labels = batches.batch(3, positions=positions)
    shares = [batches.batch(3, rank, 4, positions=positions) for rank in range(4)]
    assert torch.equal(torch.cat([share[0] for share in shares]), images)
    assert torch.equal(torch.cat([share[1] for share in shares]), labels)


# Held-out images


def keys_of(images):
    return [image.numpy().tobytes() for image in images]


def held_out_numbers(batches):
    """Batches of held-out images that hold each of them once at least."""
    return range(-(-len(batches._kept) // batches.batch_size))


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_no_image_that_is_held_out_is_ever_learned_from(splits, fraction):
    batches = TrainingBatches(splits, 16, 5, PLAIN, held_out_fraction=fraction)
    learned = {
        key for epoch in (0, 1) for step in range(batches.steps_per_epoch)
        for key in keys_of(batches.batch(epoch * batches.steps_per_epoch + step)[0])
    }  # fmt: skip
    every = {
        key
        for first in range(0, batches.num_images, 16)
        for key in keys_of(batches.batch(0, positions=np.arange(first, first + 16) % batches.num_images)[0])
    }
    held = {key for number in held_out_numbers(batches) for key in keys_of(batches.held_out(number)[0])}
    assert learned <= every
    assert not every & held
    assert len(held) == round(fraction * len(splits.train))
    assert len(every) == batches.num_images == len(splits.train) - len(held)
    assert every | held == set(
        keys_of(normalise(torch.from_numpy(splits.train.images), splits.mean, splits.std))
    )


def test_held_out_images_come_round_in_one_order_as_they_are_with_their_labels(splits):
    batches = TrainingBatches(splits, 16, 5, VARIED, held_out_fraction=0.1)
    kept = len(batches._kept)
    assert kept % 16 != 0
    images, labels = (
        torch.cat(parts) for parts in zip(*(batches.held_out(n) for n in range(kept)), strict=True)
    )
    for start in range(0, 16 * kept - kept, kept):
        assert torch.equal(images[start : start + kept], images[:kept])
        assert torch.equal(labels[start : start + kept], labels[:kept])
    whole = normalise(torch.from_numpy(splits.train.images), splits.mean, splits.std)
    label_of = dict(zip(keys_of(whole), splits.train.labels.tolist(), strict=True))
    assert [label_of[key] for key in keys_of(images[:kept])] == labels[:kept].tolist()


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_parts_of_held_out_images_are_those_of_one_process(splits, world_size):
    batches = TrainingBatches(splits, 16, 5, VARIED, held_out_fraction=0.1)
    for number in (0, 3, 50):
        shares = [batches.held_out(number, rank, world_size) for rank in range(world_size)]
        images, labels = batches.held_out(number)
        assert torch.equal(torch.cat([share[0] for share in shares]), images)
        assert torch.equal(torch.cat([share[1] for share in shares]), labels)


def test_which_images_are_held_out_depends_on_the_seed(splits):
    def held(seed):
        return TrainingBatches(splits, 16, seed, PLAIN, held_out_fraction=0.1).held_out(0)

    assert equal_batches(held(5), held(5))
    assert not equal_batches(held(5), held(6))


def test_where_no_image_is_held_out_none_is_given_and_the_remedy_told(splits):
    batches = TrainingBatches(splits, 16, 5, PLAIN, held_out_fraction=0.0)
    assert batches.num_images == len(splits.train)
    with pytest.raises(InvalidRequestError, match="held_out_fraction above 0 that leaves one at least"):
        batches.held_out(0)


def test_a_part_that_is_no_image_is_refused_at_once(splits):
    """Not at the first step that asks for one, which may be hours away."""
    with pytest.raises(InvalidRequestError, match=r"fraction 1e-06 of \d+ .* is none of them; choose"):
        TrainingBatches(splits, 16, 5, PLAIN, held_out_fraction=1e-6)


def naive_crop_and_flip(images, shifts, padding):
    """One image at a time, with nothing but slices."""
    size = images.shape[-1]
    done = []
    for image, top, left, flipped in zip(images, shifts.top, shifts.left, shifts.flipped, strict=True):
        padded = F.pad(image, (padding,) * 4)
        crop = padded[:, top : top + images.shape[-2], left : left + size]
        done.append(crop.flip(2) if flipped else crop)
    return torch.stack(done)


@pytest.mark.parametrize("shape", [(40, 3, 8, 8), (40, 1, 5, 9)])
@pytest.mark.parametrize("augmentation", [VARIED, PLAIN, Augmentation(crop_padding=3, horizontal_flip=False)])
def test_crops_and_flips_equal_the_image_by_image_reference(shape, augmentation):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    shifts = draw_shifts(augmentation, len(images), rng)
    padding = augmentation.crop_padding
    expected = naive_crop_and_flip(images, shifts, padding)
    assert torch.equal(crop_and_flip(images, shifts, padding), expected)


def test_a_batch_is_the_reference_applied_to_its_plain_images(splits):
    plain, _ = TrainingBatches(splits, 32, 5, PLAIN).batch(4)
    varied, _ = TrainingBatches(splits, 32, 5, VARIED).batch(4)
    shifts = draw_shifts(VARIED, 32, np.random.default_rng([5, 1, 4]))
    assert torch.equal(varied, naive_crop_and_flip(plain, shifts, 2))


def test_every_crop_happens_equally_often_and_half_are_flipped():
    shifts = draw_shifts(VARIED, 5000, np.random.default_rng(0))
    places = torch.bincount(shifts.top * 5 + shifts.left, minlength=25)
    assert places.shape == (25,)
    assert (places - 200).abs().max() < 70  # five standard deviations
    assert abs(shifts.flipped.float().mean() - 0.5) < 0.036
    assert not draw_shifts(PLAIN, 100, np.random.default_rng(0)).flipped.any()


def test_what_slides_in_is_the_mean_colour(splits):
    images, _ = TrainingBatches(splits, 32, 5, VARIED).batch(0)
    assert (images[:, :, 0, :] == 0).all(dim=(1, 2)).any()


DIGITS = DataSource(kind=SourceKind.BUNDLED, name="digits")
PHOTOS = DataSource(kind=SourceKind.PARQUET, path="photos")


@pytest.mark.parametrize(
    ("source", "size", "fields", "expected"),
    [
        (DIGITS, (8, 8), {}, Augmentation(crop_padding=1, horizontal_flip=False)),
        (DIGITS, (8, 8), {"horizontal_flip": "half"}, Augmentation(crop_padding=1, horizontal_flip=True)),
        (PHOTOS, (32, 32), {}, Augmentation(crop_padding=4, horizontal_flip=True)),
        (PHOTOS, (4, 6), {}, Augmentation(crop_padding=1, horizontal_flip=True)),
        (PHOTOS, (32, 32), {"horizontal_flip": "none"}, Augmentation(crop_padding=4, horizontal_flip=False)),
        (PHOTOS, (48, 32), {"crop_fraction": 0.25}, Augmentation(crop_padding=8, horizontal_flip=True)),
        (PHOTOS, (32, 32), {"crop_fraction": 0.0}, Augmentation(crop_padding=0, horizontal_flip=True)),
    ],
)
def test_the_recipe_says_how_images_are_varied_and_digits_are_not_mirrored_unasked(
    source, size, fields, expected
):
    recipe = recipe_from_json(fields)
    varied = augmentation_for(
        source, size, crop_fraction=recipe.crop_fraction, horizontal_flip=recipe.horizontal_flip
    )
    assert varied == expected


@pytest.mark.parametrize("batch_size", [0, 10_000])
def test_an_impossible_batch_size_is_refused(splits, batch_size):
    with pytest.raises(InvalidRequestError, match=f"batch size {batch_size} is not in"):
        TrainingBatches(splits, batch_size, 0, PLAIN)


def test_a_batch_that_cannot_be_shared_is_refused(splits):
    batches = TrainingBatches(splits, 32, 0, PLAIN)
    with pytest.raises(InvalidRequestError, match="multiple of the number of workers"):
        batches.batch(0, 0, 3)
    with pytest.raises(InvalidRequestError, match=r"rank 2 is not in 0\.\.1"):
        batches.batch(0, 2, 2)
    with pytest.raises(InvalidRequestError, match="crop_padding -1"):
        Augmentation(crop_padding=-1, horizontal_flip=False)


def test_cached_splits_give_the_very_same_batches(splits, data_kit, tmp_path):
    cached = data_kit.taken_in(tmp_path, data_kit.random_set()).split(splits.plan)
    batches = TrainingBatches(cached, 32, 5, VARIED)
    assert equal_batches(batches.batch(3), TrainingBatches(splits, 32, 5, VARIED).batch(3))
