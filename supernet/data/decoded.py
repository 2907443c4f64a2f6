"""The second pass over a source: every image decoded, in an order that the content decides."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.ports import StopCheck, never_stop
from supernet.data.decode import UnreadableImageError, decode_image
from supernet.data.images import ImageSet
from supernet.data.listing import GivenSplit, ImageListing
from supernet.data.sources import DataSource, open_listing
from supernet.data.survey import Storage, Survey, survey_images

DIGEST_BYTES = 32
FINGERPRINT_FORMAT = 2
"""Raised whenever the same images get another fingerprint, order or splits than before."""

ImageProgress = Callable[[int, int], None]
"""Told (images done, images in all)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CanonicalOrder:
    """A source's images without their pixels, in the order that their content alone decides.

    Split after split, and in each by the digest of the pixels, then by label: the order in which the
    source lists them does not matter, and duplicates lie side by side.
    """

    class_names: tuple[str, ...]
    counts: dict[GivenSplit, int]
    """Images of each split that the source itself has, in the order of `GivenSplit`."""
    rows: NDArray[np.int64]
    """(n,), where each image lies among the decoded ones."""
    labels: NDArray[np.int64]
    """(n,)"""
    digests: NDArray[np.uint8]
    """(n, 32), SHA-256 of each image's shape and pixels; equal where two images are the same."""

    def bounds(self, split: GivenSplit) -> slice:
        """Where the images of `split` lie in this order; empty where the source does not have it."""
        order = [held for held in GivenSplit if held in self.counts]
        before = sum(self.counts[held] for held in order[: order.index(split)]) if split in order else 0
        return slice(before, before + self.counts.get(split, 0))

    def fingerprint(self) -> str:
        """SHA-256 of the class names and, for each given split, of its images' digests and labels.

        Decoded content only: file names, compression, the number of files and the order of the images do
        not matter; the bounds between the given splits do.
        """
        whole = hashlib.sha256(json.dumps([FINGERPRINT_FORMAT, self.class_names]).encode())
        labels = self.labels.astype("<i8").view(np.uint8).reshape(-1, 8)
        for split in self.counts:
            where = self.bounds(split)
            whole.update(f"{split} of {self.counts[split]}".encode())
            whole.update(np.concatenate([self.digests[where], labels[where]], axis=1))
        return whole.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedImages:
    """What a source holds, decoded."""

    pixels: NDArray[np.uint8]
    """(n, c, h, w), in the order in which they were decoded; may be a memory map."""
    order: CanonicalOrder
    fingerprint: str

    def all(self) -> ImageSet:
        """Every image, in canonical order."""
        order = self.order
        return ImageSet(
            pixels=self.pixels, rows=order.rows, labels=order.labels, class_names=order.class_names
        )

    def given(self, split: GivenSplit) -> ImageSet:
        """The images of a split that the source itself has, in canonical order."""
        where = self.order.bounds(split)
        return self.all().take(np.arange(where.start, where.stop))


def decode_listing(
    listing: ImageListing,
    storage: Storage,
    survey: Survey,
    keep: Callable[[NDArray[np.uint8]], None],
    *,
    stop_check: StopCheck = never_stop,
    progress: ImageProgress = lambda done, total: None,
) -> CanonicalOrder:
    """Decode every readable image and give it to `keep`, (c, h, w), one after another.

    Images found unreadable only now are added to the survey. Where the source does not allow them to be left
    out they are refused, though only at the end, so that all of them are told at once.
    """
    splits, labels, digests = array("b"), array("q"), bytearray()
    codes = {split: code for code, split in enumerate(GivenSplit)}
    total = survey.num_images
    for place, image in enumerate(listing.images()):
        stop_check()
        progress(place, total)
        if place in survey.unreadable.places:
            continue
        try:
            pixels = decode_image(image, survey.shape, storage.fit)
        except UnreadableImageError as error:
            survey.lose(place, image, error)
            continue
        keep(pixels)
        splits.append(codes[image.split])
        labels.append(image.label)
        digests += pixel_digest(pixels)
    progress(total, total)
    if len(survey.unreadable) and not (storage.skip_unreadable and survey.num_readable):
        raise survey.unreadable.refusal(survey.num_images)
    return _in_canonical_order(
        listing,
        np.frombuffer(splits, dtype=np.int8),
        np.frombuffer(labels, dtype=np.int64),
        np.frombuffer(digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES),
    )


def load_source(source: DataSource, stop_check: StopCheck = never_stop) -> DecodedImages:
    """The images of `source` in memory: for sources that fit into it."""
    listing = open_listing(source, stop_check)
    return load_listing(listing, Storage.of(source), stop_check)


def load_listing(
    listing: ImageListing, storage: Storage, stop_check: StopCheck = never_stop
) -> DecodedImages:
    """The images of a listing in memory."""
    survey = Survey.of(listing)
    survey_images(survey, listing, storage, stop_check)
    decoded: list[NDArray[np.uint8]] = []
    order = decode_listing(listing, storage, survey, decoded.append, stop_check=stop_check)
    return DecodedImages(pixels=np.stack(decoded), order=order, fingerprint=order.fingerprint())


def pixel_digest(pixels: NDArray[np.uint8]) -> bytes:
    """SHA-256 of one image's shape and pixels."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    return digest.digest()


def _in_canonical_order(
    listing: ImageListing,
    splits: NDArray[np.int8],
    labels: NDArray[np.int64],
    digests: NDArray[np.uint8],
) -> CanonicalOrder:
    # Eight bytes at a time, most significant first, so that numbers sort as the bytes do.
    words = digests.view(">u8").astype(np.uint64)
    rows = np.lexsort([labels, *words.T[::-1], splits]).astype(np.int64)
    sizes = np.bincount(splits, minlength=len(GivenSplit)).tolist()
    given = {split: size for split, size in zip(GivenSplit, sizes, strict=True) if split in listing.splits}
    return CanonicalOrder(
        class_names=tuple(listing.class_names),
        counts=given,
        rows=rows,
        labels=labels[rows],
        digests=digests[rows],
    )
