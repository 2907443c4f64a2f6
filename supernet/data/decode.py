"""Encoded image files to one array of pixels.

Two passes: headers first, which settles the common shape and refuses oversized images before a
pixel of them is decoded, then the pixels, straight into the array.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from nas.errors import DatasetError
from nas.ports import StopCheck, never_stop

# A closed list: some of Pillow's other readers start external programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
MAX_IMAGE_PIXELS = 4096 * 4096
MAX_TOTAL_BYTES = 16 * 2**30
# Exif orientations in which the stored picture lies on its side.
_SIDEWAYS = (5, 6, 7, 8)


class ImageShape(NamedTuple):
    """The shape that every image of a data set is brought to."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """The bytes of one image file, and where they came from."""

    data: bytes | None
    file: str
    row: int

    def refusal(self, reason: object, remedy: str) -> DatasetError:
        """The error that names this image."""
        return DatasetError(f"the image at row {self.row} of {self.file} {reason}; {remedy}")


def survey_images(images: Sequence[EncodedImage], stop_check: StopCheck = never_stop) -> ImageShape:
    """The common shape: one channel if all are mode L, else three; the most common size.

    Where two sizes are equally common the larger area is taken.
    """
    if not images:
        raise DatasetError("the data set has no images; give a file with at least one row")
    headers = []
    for image in images:
        stop_check()
        headers.append(_read_header(image))
    sizes = Counter(size for _, size in headers)
    width, height = max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))
    channels = 1 if all(mode == "L" for mode, _ in headers) else 3
    _check_total(len(images), ImageShape(channels, height, width))
    return ImageShape(channels, height, width)


def decode_images(
    images: Sequence[EncodedImage], shape: ImageShape, stop_check: StopCheck = never_stop
) -> NDArray[np.uint8]:
    """(n, c, h, w) pixels, in order; `stop_check` is called before each image."""
    pixels = np.empty((len(images), *shape), dtype=np.uint8)
    for place, image in zip(pixels, images, strict=True):
        stop_check()
        decoded = np.asarray(_decode(image, shape))
        place[...] = decoded[None] if shape.channels == 1 else decoded.transpose(2, 0, 1)
    return pixels


def _read_header(image: EncodedImage) -> tuple[str, tuple[int, int]]:
    """(mode, (width, height) as seen) without decoding the pixels."""
    with _open(image) as picture:
        width, height = picture.size
        if width * height > MAX_IMAGE_PIXELS:
            raise image.refusal(
                f"has {width}x{height} pixels, more than {MAX_IMAGE_PIXELS} in all", "make it smaller"
            )
        if picture.mode not in MODES:
            raise image.refusal(f"has mode {picture.mode}, none of {', '.join(MODES)}", "convert it to RGB")
        sideways = _orientation(picture) in _SIDEWAYS
        return picture.mode, (height, width) if sideways else (width, height)


def _decode(image: EncodedImage, shape: ImageShape) -> Image.Image:
    with _open(image) as picture:
        try:
            upright = ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture
            flat = _without_palette(upright).convert("L" if shape.channels == 1 else "RGB")
        except Exception as error:  # on damaged bytes Pillow's readers raise a dozen unrelated kinds
            raise _unreadable(image, error) from error
    size = (shape.width, shape.height)
    return flat if flat.size == size else flat.resize(size, Image.Resampling.BICUBIC)


def _open(image: EncodedImage) -> Image.Image:
    if image.data is None:
        raise image.refusal(
            "has no bytes, only a path", "embed the files when writing the Parquet (`embed_external_files`)"
        )
    try:
        return Image.open(io.BytesIO(image.data), formats=FORMATS)
    except Exception as error:  # as in _decode
        raise _unreadable(image, error) from error


def _unreadable(image: EncodedImage, error: Exception) -> DatasetError:
    return image.refusal(
        f"cannot be read as one of {', '.join(FORMATS)} ({type(error).__name__}: {error})",
        "replace the image or drop the row",
    )


def _orientation(picture: Image.Image) -> int:
    """The Exif orientation, 1 (upright) where none is given."""
    if "exif" not in picture.info:
        return 1
    return int(picture.getexif().get(ExifTags.Base.Orientation, 1))


def _without_palette(picture: Image.Image) -> Image.Image:
    # A palette with transparent entries has to pass through RGBA, or Pillow warns.
    return picture.convert("RGBA") if "transparency" in picture.info else picture


def _check_total(num_images: int, shape: ImageShape) -> None:
    total_bytes = num_images * shape.channels * shape.height * shape.width
    if total_bytes > MAX_TOTAL_BYTES:
        raise DatasetError(
            f"{num_images} images of {shape.height}x{shape.width} decode to {total_bytes / 2**30:.1f} GiB, "
            f"more than {MAX_TOTAL_BYTES / 2**30:.0f} GiB; write the images smaller or give fewer"
        )
