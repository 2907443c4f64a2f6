"""Random crops and flips of a whole batch at once, as one gather by index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import InvalidRequestError
from nas.recipe_choices import FlipKind
from supernet.data.sources import DataSource, SourceKind

# Mirrored, a digit is another digit or none.
_UNFLIPPABLE = ("digits",)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are varied; `Augmentation(crop_padding=0, horizontal_flip=False)` is none."""

    crop_padding: int
    """Pixels of mean colour put around an image before a crop of its old size is drawn."""
    horizontal_flip: bool
    """Whether half of the images are mirrored left to right."""

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise InvalidRequestError(f"crop_padding {self.crop_padding} is below 0; choose 0 or more pixels")


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """What is done to each image of one batch; every field holds one value an image."""

    top: Tensor
    """First row of the crop within the padded image, 0 to twice the padding."""
    left: Tensor
    """First column of the crop within the padded image, 0 to twice the padding."""
    flipped: Tensor
    """Whether the crop is mirrored."""

    def part(self, chosen: slice) -> Shifts:
        """Those of some of the images."""
        return Shifts(top=self.top[chosen], left=self.left[chosen], flipped=self.flipped[chosen])

    def to(self, device: torch.device) -> Shifts:
        """The same on the device: drawn by the processor, so that every device varies images alike."""
        return Shifts(top=self.top.to(device), left=self.left.to(device), flipped=self.flipped.to(device))


def augmentation_for(
    source: DataSource, image_size: tuple[int, int], *, crop_fraction: float, horizontal_flip: FlipKind
) -> Augmentation:
    """What a recipe's two fields mean for images (height, width) of this source."""
    padding = max(1, int(crop_fraction * min(image_size))) if crop_fraction else 0
    if horizontal_flip is FlipKind.AUTO:
        is_digits = source.kind == SourceKind.BUNDLED and source.name in _UNFLIPPABLE
        horizontal_flip = FlipKind.NONE if is_digits else FlipKind.HALF
    return Augmentation(crop_padding=padding, horizontal_flip=horizontal_flip is FlipKind.HALF)


def draw_shifts(augmentation: Augmentation, num_images: int, rng: np.random.Generator) -> Shifts:
    """One shift for each image, uniform over all crops; flips with probability one half."""
    places = rng.integers(0, 2 * augmentation.crop_padding + 1, size=(2, num_images))
    flips = rng.random(num_images) < 0.5 if augmentation.horizontal_flip else np.zeros(num_images, dtype=bool)
    return Shifts(
        top=torch.from_numpy(places[0]),
        left=torch.from_numpy(places[1]),
        flipped=torch.from_numpy(flips),
    )


def crop_and_flip(images: Tensor, shifts: Shifts, padding: int) -> Tensor:
    """(n, c, h, w) standardised images, shifted and mirrored; what slides in is 0, the mean colour."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding)).flatten(2)
    columns = torch.arange(width, device=images.device)
    crop_columns = torch.where(shifts.flipped[:, None], width - 1 - columns, columns) + shifts.left[:, None]
    rows = torch.arange(height, device=images.device) + shifts.top[:, None]
    pixels = rows[:, :, None] * (width + 2 * padding) + crop_columns[:, None, :]
    index = pixels.view(count, 1, height * width).expand(-1, channels, -1)
    return padded.gather(2, index).view(count, channels, height, width)
