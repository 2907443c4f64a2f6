"""The first pass over a source: what its images are, by their headers alone, and so how they are stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decode import Fit, ImageShape, UnreadableImageError, read_header
from supernet.data.listing import GivenSplit, ImageListing, SourceImage
from supernet.data.sources import DataSource

MAX_STORED_SIDE_UNASKED = 256
"""Pixels of the longer side, unless the source asks for a size.

No search space reads more than 224; from 256 that is the customary margin, and the reduction that a
network's own resize makes, which does not smooth, stays within a factor of two down to 128.
"""
MAX_LISTED_UNREADABLE = 1000
_NUM_TOLD = 3
KeyT = TypeVar("KeyT")
_UNSETTLED = ImageShape(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How the images of a source are to be stored."""

    stored_size: tuple[int, int] | None = None
    """(height, width) in pixels; None: the most common size, within `MAX_STORED_SIDE_UNASKED`."""
    fit: Fit = Fit.STRETCH
    skip_unreadable: bool = False
    """Whether images that cannot be read are left out; else one of them refuses the source."""

    @classmethod
    def of(cls, source: DataSource) -> Storage:
        """As `source` asks for it."""
        return cls(stored_size=source.stored_size, fit=source.fit, skip_unreadable=source.skip_unreadable)


class UnreadableImagesError(DatasetError):
    """A source with images that cannot be read, which it does not allow to be left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """One image that cannot be used."""

    where: str
    reason: str


@dataclass(kw_only=True)
class UnreadableImages:
    """Those of a source, as they are met."""

    listed: list[Unreadable] = field(default_factory=list)
    """The first `MAX_LISTED_UNREADABLE`."""
    places: set[int] = field(default_factory=set)
    """Where in the order of the listing each of them lies."""

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: int, error: UnreadableImageError) -> None:
        """The image at `place` of the listing cannot be used."""
        self.places.add(place)
        if len(self.listed) < MAX_LISTED_UNREADABLE:
            self.listed.append(Unreadable(where=error.where, reason=error.reason))

    def refusal(self, num_images: int) -> UnreadableImagesError:
        """The error that tells how many of a source's `num_images`, and the first of them."""
        told = "; ".join(f"{image.where} ({image.reason})" for image in self.listed[:_NUM_TOLD])
        more = f"; and {len(self) - _NUM_TOLD} more, listed in the report" if len(self) > _NUM_TOLD else ""
        remedy = (
            "replace or remove them, or register the images with skip_unreadable to have them left out"
            if len(self) < num_images
            else "replace them: with all of them left out nothing would remain"
        )
        return UnreadableImagesError(
            f"{len(self)} of {num_images} images cannot be read: {told}{more}; {remedy}"
        )


@dataclass(kw_only=True)
class Survey:
    """What the passes over a source have found."""

    class_names: tuple[str, ...]
    class_counts: dict[GivenSplit, NDArray[np.int64]]
    """(num_classes,) readable images of each class, in each split that the source itself has."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Images of each (width, height)."""
    modes: Counter[str] = field(default_factory=Counter)
    """Images of each of Pillow's modes."""
    num_channels: int = 1
    unreadable: UnreadableImages = field(default_factory=UnreadableImages)
    shape: ImageShape = _UNSETTLED
    """That every image is brought to; settled once all headers are read."""
    rule: str = ""
    """How it is brought to it, in words."""

    @classmethod
    def of(cls, listing: ImageListing) -> Survey:
        """Before the first image is looked at."""
        num_classes = len(listing.class_names)
        return cls(
            class_names=tuple(listing.class_names),
            class_counts={split: np.zeros(num_classes, dtype=np.int64) for split in listing.splits},
        )

    @property
    def num_readable(self) -> int:
        """Images that can be used, as far as is known."""
        return int(sum(counts.sum() for counts in self.class_counts.values()))

    @property
    def num_images(self) -> int:
        """Images of the source, whether or not they can be read."""
        return self.num_readable + len(self.unreadable)

    def lose(self, place: int, image: SourceImage, error: UnreadableImageError) -> None:
        """An image whose header was well turns out to be unreadable."""
        self.class_counts[image.split][image.label] -= 1
        header = read_header(image)
        _take_one(self.sizes, (header.width, header.height))
        _take_one(self.modes, header.mode)
        self.unreadable.add(place, error)


def survey_images(
    survey: Survey, listing: ImageListing, storage: Storage, stop_check: StopCheck = never_stop
) -> None:
    """Look at all headers; unreadable images are collected, and refuse nothing while others can be read."""
    for place, image in enumerate(listing.images()):
        stop_check()
        try:
            header = read_header(image)
        except UnreadableImageError as error:
            survey.unreadable.add(place, error)
            continue
        survey.class_counts[image.split][image.label] += 1
        survey.sizes[header.width, header.height] += 1
        survey.modes[header.mode] += 1
        survey.num_channels = max(survey.num_channels, header.num_channels)
    if not survey.num_images:
        raise DatasetError("the data set has no images; give a source with at least one image a class")
    if not survey.num_readable:
        raise survey.unreadable.refusal(survey.num_images)
    _settle_shape(survey, storage)


def _take_one(counts: Counter[KeyT], key: KeyT) -> None:
    """Count one less of what was counted; what has none left is not listed with 0."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _settle_shape(survey: Survey, storage: Storage) -> None:
    if storage.stored_size is not None:
        height, width = storage.stored_size
        chosen = "as asked for"
    else:
        common = _most_common_size(survey.sizes)
        width, height = _limited(*common)
        chosen = "the most common size"
        if (width, height) != common:
            chosen += (
                f", {common[1]} x {common[0]}, with its longer side brought to {MAX_STORED_SIDE_UNASKED}"
            )
    survey.shape = ImageShape(survey.num_channels, height, width)
    channels = "one channel" if survey.num_channels == 1 else "RGB"
    survey.rule = f"{channels}, {height} x {width} pixels (height x width), {chosen}; {_FITTED[storage.fit]}"


_FITTED = {
    Fit.STRETCH: "an image of another size is resized to it (Pillow, bicubic), its aspect ratio not kept",
    Fit.CENTRE_CROP: "an image of another size is resized until it just covers it (Pillow, bicubic), "
    "and what stands out is cut off evenly",
}


def _most_common_size(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """(width, height); where two are equally common, the larger area."""
    return max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))


def _limited(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, MAX_STORED_SIDE_UNASKED / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
