"""One image of a source to pixels: first its header, then, once the common shape is settled, the pixels.

What its bytes hold decides, not what a file is called. Whatever is wrong with them becomes an
`UnreadableImageError`; Pillow's warnings (of a damaged Exif block, say) are about what is not used here.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from nas.errors import DatasetError
from supernet.data.colour import NUM_CHANNELS, flattened
from supernet.data.listing import SourceImage

# A closed list: some of Pillow's other readers start external programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_IMAGE_PIXELS = 4096 * 4096
MAX_FILE_BYTES = 1 << 28
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture of each Exif orientation upright."""
_SIDEWAYS = (5, 6, 7, 8)


class Fit(StrEnum):
    """How an image of another aspect ratio than the common shape's is brought to it."""

    STRETCH = "stretch"
    """Resized to the shape; the aspect ratio is not kept."""
    CENTRE_CROP = "centre_crop"
    """Resized until it just covers the shape; what then stands out is cut off evenly on both sides."""


class ImageShape(NamedTuple):
    """The shape that every image of a data set is brought to."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of an image before its pixels are decoded."""

    num_channels: int
    """1 where one channel says all, else 3."""
    width: int
    """As seen, that is after an Exif orientation."""
    height: int
    mode: str
    """Pillow's name of how its pixels are stored, such as 'RGB' or 'P'."""


class UnreadableImageError(DatasetError):
    """One image of a source that cannot be used, by its place and with the reason."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"{where} cannot be read: {reason}; replace or remove it, or have unreadable images left out "
            "(skip_unreadable)"
        )
        self.where = where
        self.reason = reason


def read_header(image: SourceImage) -> Header:
    """Channels and size, without decoding the pixels; `UnreadableImageError` for what cannot be used."""
    with _opened(image) as picture:
        width, height = picture.size
        if _orientation(picture) in _SIDEWAYS:
            width, height = height, width
        channels = NUM_CHANNELS[picture.mode]
        return Header(num_channels=channels, width=width, height=height, mode=picture.mode)


def decode_image(image: SourceImage, shape: ImageShape, fit: Fit = Fit.STRETCH) -> NDArray[np.uint8]:
    """(c, h, w) pixels, C-contiguous, in `shape`; `UnreadableImageError` for what cannot be used.

    Upright and without alpha, as `colour` says; of another size, resized bicubically with antialiasing.
    """
    with _opened(image) as picture:
        turn = _TURNS.get(_orientation(picture))
        if picture.format == "PNG":
            _check_sums(image)
        flat = flattened(picture, shape.channels)
        upright = flat if turn is None else flat.transpose(turn)
    pixels = np.asarray(_fitted(upright, (shape.width, shape.height), fit))
    return np.ascontiguousarray(pixels[None] if shape.channels == 1 else pixels.transpose(2, 0, 1))


def _fitted(picture: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    if picture.size == size:
        return picture
    if fit is Fit.CENTRE_CROP:
        return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
    return picture.resize(size, Image.Resampling.BICUBIC)


@contextmanager
def _opened(image: SourceImage) -> Iterator[Image.Image]:
    """The picture, checked and not decoded yet; an error of reading it, here or within, names the image."""
    try:
        # Filters are the whole process's, but nothing else in it warns while one image is read.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _picture(image) as picture:
                _check_picture(image, picture)
                yield picture
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            image.where, f"it is none of {', '.join(FORMATS)}, or its first bytes are damaged"
        ) from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+ pixels", str(error))  # Pillow counts them and tells no size
        count = found[0] if found else "many pixels"
        raise UnreadableImageError(
            image.where, f"it has {count}, more than {MAX_IMAGE_PIXELS} in all; resize it"
        ) from error
    except Exception as error:  # on damaged bytes Pillow's readers raise a dozen unrelated kinds
        raise UnreadableImageError(
            image.where, f"it is damaged or cut off ({type(error).__name__}: {error})"
        ) from error


def _picture(image: SourceImage) -> Image.Image:
    content = image.content
    if content is None:
        raise UnreadableImageError(
            image.where, "it has no bytes, only a path; put the file there, or embed it in the source"
        )
    if isinstance(content, np.ndarray):
        return _picture_of(image, content)
    if len(content) == 0:
        raise UnreadableImageError(image.where, "it is empty, 0 bytes")
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableImageError(image.where, f"its file has more than {MAX_FILE_BYTES >> 20} MiB")
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _picture_of(image: SourceImage, pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels (h, w), (h, w, 1) or (h, w, 3)."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise UnreadableImageError(
            image.where,
            f"it is {pixels.dtype} of shape {pixels.shape}, not uint8 (h, w), (h, w, 1) or (h, w, 3)",
        )
    _check_size(image, pixels.shape[1], pixels.shape[0])
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels))


def _check_picture(image: SourceImage, picture: Image.Image) -> None:
    _check_size(image, *picture.size)
    if picture.mode not in NUM_CHANNELS:
        raise UnreadableImageError(
            image.where,
            f"it has mode {picture.mode}, none of {', '.join(NUM_CHANNELS)}; convert it to 8 bits",
        )


def _check_size(image: SourceImage, width: int, height: int) -> None:
    if not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise UnreadableImageError(
            image.where, f"it has {width}x{height} pixels, not 1 to {MAX_IMAGE_PIXELS} in all; resize it"
        )


def _check_sums(image: SourceImage) -> None:
    """Pillow passes over the check sums of a PNG's pixels unless asked."""
    assert isinstance(image.content, bytes)  # a format is what files have
    with Image.open(io.BytesIO(image.content), formats=FORMATS) as picture:
        picture.verify()


def _orientation(picture: Image.Image) -> int:
    """The Exif orientation, 1 (upright) where none is given, or none that is known."""
    if "exif" not in picture.info:
        return 1  # a TIFF sets itself upright
    value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in _TURNS else 1
