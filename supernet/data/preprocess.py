"""The preprocessing contract: how stored pixels become what a network sees.

Stored uint8 -> resized uint8 at the network's resolution -> ((pixel / 255) - mean) / std as float32.
A bundle's `verify.py` applies exactly this. Image tensors are (n, c, h, w) throughout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.trial import Split
from supernet.data.images import ImageSet
from supernet.data.splits import DataSplits
from supernet.device import CPU, room_bytes
from supernet.resize import resize

_RESIZE_CHUNK_IMAGES = 256
_CALIBRATION = "calibration"


def resize_uint8(images: Tensor, resolution: int) -> Tensor:
    """(n, c, resolution, resolution) uint8; the very same tensor if it has that size already.

    Bicubic without antialiasing, corners not aligned, clamped to 0..255 and rounded half to even.
    The aspect ratio is not kept.
    """
    if images.shape[-2:] == (resolution, resolution):
        return images
    resized = images.new_empty((*images.shape[:2], resolution, resolution))
    # In pieces: whole splits in float would take four times the memory of the result.
    pairs = zip(*(torch.split(whole, _RESIZE_CHUNK_IMAGES) for whole in (images, resized)), strict=True)
    for piece, place in pairs:
        place.copy_(resize(piece.to(torch.float32), resolution).clamp_(0, 255).round_())
    return resized


def _resized(images: ImageSet, resolution: int) -> Tensor:
    """The images of a set, of which only the resized ones are ever all in memory."""
    pixels = images.pixels
    resized = torch.empty((len(images), pixels.shape[1], resolution, resolution), dtype=torch.uint8)
    for place, piece in zip(
        resized.split(_RESIZE_CHUNK_IMAGES), images.pieces(_RESIZE_CHUNK_IMAGES), strict=True
    ):
        place.copy_(resize_uint8(torch.from_numpy(piece), resolution))
    return resized


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float32 images in channels_last memory, about 0 on average with deviation about 1."""
    return to_channels_last(standardise(images, mean, std))


def standardise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`normalise` with the memory still in (n, c, h, w) order.

    The three steps stay apart and in this order: folded into one scale and shift they would round
    differently from the plain formula that a bundle's reader writes.
    """
    mean_c11 = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1).to(images.device)
    std_c11 = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1).to(images.device)
    # A tensor of the device: CUDA multiplies by the inverse of a bare number, which rounds otherwise.
    white = torch.full((), 255.0, device=images.device)
    return images.to(torch.float32).div_(white).sub_(mean_c11).div_(std_c11)


def to_channels_last(images: Tensor) -> Tensor:
    """The images in channels_last memory.

    Written out because `contiguous(memory_format=...)` leaves a single channel's strides alone, and
    convolutions read the layout off the strides.
    """
    count, channels, height, width = images.shape
    nhwc = images.new_empty((count, height, width, channels))
    nhwc.copy_(images.permute(0, 2, 3, 1))
    return nhwc.permute(0, 3, 1, 2)


class ResizedSplits:
    """The calibration, val and test images at every resolution asked for: each is resized once.

    Past `max_bytes` of resized pixels the one longest unused is dropped. Not thread-safe.
    Resized by the processor whatever the device, so that networks are measured on the same pixels everywhere.
    """

    def __init__(self, splits: DataSplits, *, max_bytes: int = 2 * 2**30, device: torch.device = CPU) -> None:
        """Resized pixels are kept on `device`, where they find room there."""
        self.splits = splits
        self._max_bytes = max_bytes
        self._device = device
        self._resized: OrderedDict[tuple[str, int], Tensor] = OrderedDict()

    def images(self, split: Split, resolution: int) -> Tensor:
        """(n, c, resolution, resolution) uint8 images of `split`, in its order."""
        return self._at(split.value, resolution)

    def labels(self, split: Split) -> Tensor:
        """(n,) int64."""
        return torch.from_numpy(self._set(split.value).labels)

    def calibration_images(self, resolution: int) -> Tensor:
        """(n, c, resolution, resolution) uint8 calibration images, in the order of their use."""
        return self._at(_CALIBRATION, resolution)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 images as networks see them, on the device, by this data set's mean and deviation."""
        return normalise(pixels.to(self._device), self.splits.mean, self.splits.std)

    def _at(self, name: str, resolution: int) -> Tensor:
        key = (name, resolution)
        if key not in self._resized:
            resized = _resized(self._set(name), resolution)
            has_room = resized.nbytes <= room_bytes(self._device)
            self._resized[key] = resized.to(self._device) if has_room else resized
        self._resized.move_to_end(key)
        self._drop_unused()
        return self._resized[key]

    def _set(self, name: str) -> ImageSet:
        if name == _CALIBRATION:
            return self.splits.train.take(self.splits.calibration)
        return self.splits.val if name == Split.VAL else self.splits.test

    def _drop_unused(self) -> None:
        held_bytes = sum(images.nbytes for images in self._resized.values())
        while len(self._resized) > 1 and held_bytes > self._max_bytes:
            _, dropped = self._resized.popitem(last=False)
            held_bytes -= dropped.nbytes
