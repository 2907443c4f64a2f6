"""A source's images, decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop
from supernet.data.decode import Header, ImageShape, decode_image, read_header
from supernet.data.images import ImageSet
from supernet.data.listing import GivenSplit
from supernet.data.sources import DataSource, open_listing


@dataclass(frozen=True, kw_only=True)
class SourceImages:
    """What a source holds, decoded; both sets share size, channels and class names."""

    train: ImageSet
    test: ImageSet | None
    """None where the source has no test split."""


def load_source(source: DataSource, stop_check: StopCheck = never_stop) -> SourceImages:
    """The decoded images of `source`, in the order of its files and rows."""
    listing = open_listing(source, stop_check)
    headers = []
    for image in listing.images():
        stop_check()
        headers.append(read_header(image))
    shape = _common_shape(headers)
    pixels = np.empty((len(headers), *shape), dtype=np.uint8)
    labels = np.empty(len(headers), dtype=np.int64)
    is_test = np.empty(len(headers), dtype=bool)
    for place, image in enumerate(listing.images()):
        stop_check()
        pixels[place] = decode_image(image, shape, source.fit)
        labels[place] = image.label
        is_test[place] = image.split is GivenSplit.TEST
    whole = ImageSet(images=pixels, labels=labels, class_names=listing.class_names)
    if GivenSplit.TEST not in listing.splits:
        return SourceImages(train=whole, test=None)
    return SourceImages(train=whole.take(np.flatnonzero(~is_test)), test=whole.take(np.flatnonzero(is_test)))


def _common_shape(headers: list[Header]) -> ImageShape:
    """One channel if all images have one, else three; the most common size, the larger area on a tie."""
    if not headers:
        raise DatasetError("the data set has no images; give a file with at least one row")
    sizes = Counter((header.width, header.height) for header in headers)
    width, height = max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))
    return ImageShape(max(header.num_channels for header in headers), height, width)
