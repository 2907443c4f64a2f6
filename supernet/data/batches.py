"""Batches for training, for batch-norm calibration and for evaluation.

A training batch is a pure function of (seed, step): a run resumed at any step sees what it would
have seen, and nothing about the data order has to be checkpointed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import InvalidRequestError
from nas.trial import Split
from supernet.data.augmentation import Augmentation, crop_and_flip, draw_shifts
from supernet.data.images import ImageSet
from supernet.data.preprocess import ResizedSplits, standardise, to_channels_last
from supernet.data.splits import DataSplits
from supernet.device import CPU, room_bytes

# Streams of randomness that must not repeat each other under one seed.
_ORDER_STREAM, _SHIFT_STREAM, _HELD_OUT_STREAM = 0, 1, 2

_PIECE_IMAGES = 1024
"""Copied to a device at a time."""


class TrainingBatches:
    """The training images in a new random order each epoch; the last, partial batch is dropped.

    On a device other than the processor batches are made there, by the same draws: from all images, kept
    there as uint8, or, where they find no room, from those of the batch.
    """

    def __init__(
        self,
        splits: DataSplits,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        *,
        held_out_fraction: float = 0.0,
        device: torch.device = CPU,
    ) -> None:
        """`held_out_fraction` of the images is kept for `held_out`, drawn by the seed."""
        self._learned, self._kept = _divide(len(splits.train), held_out_fraction, seed)
        self.num_images = len(self._learned)
        _check_batch_size(batch_size, self.num_images)
        if held_out_fraction > 0 and len(self._kept) == 0:
            raise InvalidRequestError(
                f"held_out_fraction {held_out_fraction:g} of {self.num_images} training images is none of "
                f"them; choose at least {1 / self.num_images:.2g}, or 0"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.steps_per_epoch = self.num_images // batch_size
        self._device = device
        self._pixels, self._rows = _placed(splits.train, device)
        self._labels = torch.from_numpy(splits.train.labels)
        self._mean, self._std = splits.mean, splits.std
        self._order = (-1, np.empty(0, dtype=np.int64))

    def batch(
        self,
        step: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(normalised float32 images in channels_last, int64 labels) of `step`.

        `positions`, one for each image of the batch, are among the `num_images`; None: the next of this
        epoch's order. With several ranks, rank r gets the r-th contiguous part of what one process would
        get, with the same crops and flips.
        """
        part = self._part(rank, world_size)
        chosen = torch.from_numpy(
            self._learned[self._order_at(step) if positions is None else positions][part]
        )
        images = self._standardised(chosen)
        # Drawn for the whole batch and then cut, so that they do not depend on the number of ranks.
        rng = np.random.default_rng([self.seed, _SHIFT_STREAM, step])
        shifts = draw_shifts(self.augmentation, self.batch_size, rng).part(part)
        images = crop_and_flip(images, shifts.to(self._device), self.augmentation.crop_padding)
        return to_channels_last(images), self._labels[chosen].to(self._device)

    def held_out(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """As `batch` gives them, but of the images held out, as they are: the batch of this number.

        They come in one order, again and again. InvalidRequestError where none are held out.
        """
        if len(self._kept) == 0:
            raise InvalidRequestError(
                "no training images are held out; choose a held_out_fraction above 0 that leaves one at least"
            )
        part = self._part(rank, world_size)
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size) % len(self._kept)
        chosen = torch.from_numpy(self._kept[places][part])
        return to_channels_last(self._standardised(chosen)), self._labels[chosen].to(self._device)

    def _standardised(self, chosen: Tensor) -> Tensor:
        """The training images of these positions, on the device."""
        pixels = self._pixels[self._rows[chosen].to(self._pixels.device)]
        return standardise(pixels.to(self._device), self._mean, self._std)

    def _order_at(self, step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.batch_size
        return self._order_of(epoch)[start : start + self.batch_size]

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, _ORDER_STREAM, epoch])
            self._order = (epoch, rng.permutation(self.num_images))
        return self._order[1]

    def _part(self, rank: int, world_size: int) -> slice:
        if self.batch_size % world_size:
            raise InvalidRequestError(
                f"a batch of {self.batch_size} cannot be shared evenly by {world_size} workers; "
                "choose a batch size that is a multiple of the number of workers"
            )
        if not 0 <= rank < world_size:
            raise InvalidRequestError(f"rank {rank} is not in 0..{world_size - 1}; number the workers from 0")
        share = self.batch_size // world_size
        return slice(rank * share, (rank + 1) * share)


def calibration_batches(resized: ResizedSplits, resolution: int, batch_size: int) -> Iterator[Tensor]:
    """Normalised float32 calibration images in channels_last, not augmented, always in one order."""
    for pixels in calibration_pixels(resized, resolution, batch_size):
        yield resized.normalise(pixels)


def calibration_pixels(resized: ResizedSplits, resolution: int, batch_size: int) -> Sequence[Tensor]:
    """The uint8 images of each calibration batch.

    As few batches as `batch_size` allows, their sizes differing by at most one: recalibration is a
    plain mean over batches, in which the images of a small last batch would weigh more.
    """
    images = resized.calibration_images(resolution)
    return images.tensor_split(ceil(len(images) / batch_size))


def calibration_id(splits: DataSplits, batch_size: int) -> str:
    """Names the calibration images and their batches, such as 'train[2000]@seed=0,batch=200'."""
    return f"train[{len(splits.calibration)}]@seed={splits.plan.seed},batch={batch_size}"


def evaluation_batches(
    resized: ResizedSplits, split: Split, resolution: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(normalised float32 images in channels_last, int64 labels) of `split`, all of it, in its order."""
    pixels = evaluation_pixels(resized, split, resolution, batch_size)
    for piece, labels in zip(pixels, resized.labels(split).split(batch_size), strict=True):
        yield resized.normalise(piece), labels


def evaluation_pixels(
    resized: ResizedSplits, split: Split, resolution: int, batch_size: int
) -> Sequence[Tensor]:
    """The uint8 images of each batch of `split`, in its order."""
    return resized.images(split, resolution).split(batch_size)


def _placed(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels, and where among them each image lies: a copy on the device, or those there are."""
    num_bytes = len(images) * images.pixels[0].nbytes
    if num_bytes > room_bytes(device):
        return torch.from_numpy(images.pixels), torch.from_numpy(images.rows)
    pixels = torch.empty((len(images), *images.pixels.shape[1:]), dtype=torch.uint8, device=device)
    for place, piece in zip(pixels.split(_PIECE_IMAGES), images.pieces(_PIECE_IMAGES), strict=True):
        place.copy_(torch.from_numpy(piece))
    return pixels, torch.arange(len(images))


def _divide(num_images: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the images that are learned from, in order, and of those held out."""
    positions = np.arange(num_images)
    if fraction == 0:
        return positions, positions[:0]
    kept = np.random.default_rng([seed, _HELD_OUT_STREAM]).permutation(num_images)[
        : round(fraction * num_images)
    ]
    return np.setdiff1d(positions, kept), kept


def _check_batch_size(batch_size: int, num_images: int) -> None:
    if not 1 <= batch_size <= num_images:
        raise InvalidRequestError(
            f"batch size {batch_size} is not in 1..{num_images}, the number of training images; "
            "choose one that is"
        )
