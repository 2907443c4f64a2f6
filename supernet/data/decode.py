"""One image of a source to pixels: first its header, then, once the common shape is settled, the pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from nas.errors import DatasetError
from supernet.data.listing import SourceImage

# A closed list: some of Pillow's other readers start external programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
MAX_IMAGE_PIXELS = 4096 * 4096
# Exif orientations in which the stored picture lies on its side.
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
    with _open(image) as picture:
        width, height = picture.size
        if width * height > MAX_IMAGE_PIXELS:
            raise UnreadableImageError(
                image.where, f"it has {width}x{height} pixels, more than {MAX_IMAGE_PIXELS} in all"
            )
        if picture.mode not in MODES:
            raise UnreadableImageError(image.where, f"it has mode {picture.mode}, none of {', '.join(MODES)}")
        if _orientation(picture) in _SIDEWAYS:
            width, height = height, width
        num_channels = 1 if picture.mode == "L" else 3
        return Header(num_channels=num_channels, width=width, height=height, mode=picture.mode)


def decode_image(image: SourceImage, shape: ImageShape, fit: Fit = Fit.STRETCH) -> NDArray[np.uint8]:
    """(c, h, w) pixels, C-contiguous, in `shape`; `UnreadableImageError` for what cannot be used."""
    with _open(image) as picture:
        try:
            upright = ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture
            flat = _without_palette(upright).convert("L" if shape.channels == 1 else "RGB")
        except Exception as error:  # on damaged bytes Pillow's readers raise a dozen unrelated kinds
            raise _unreadable(image, error) from error
    pixels = np.asarray(_fitted(flat, (shape.width, shape.height), fit))
    return np.ascontiguousarray(pixels[None] if shape.channels == 1 else pixels.transpose(2, 0, 1))


def _fitted(picture: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    if picture.size == size:
        return picture
    if fit is Fit.CENTRE_CROP:
        return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _open(image: SourceImage) -> Image.Image:
    if image.content is None:
        raise UnreadableImageError(
            image.where, "it has no bytes, only a path; embed the files when writing the source"
        )
    try:
        if isinstance(image.content, np.ndarray):
            return _picture_of(image.content)
        return Image.open(io.BytesIO(image.content), formats=FORMATS)
    except Exception as error:  # as in decode_image
        raise _unreadable(image, error) from error


def _picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels (h, w), (h, w, 1) or (h, w, 3)."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def _unreadable(image: SourceImage, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(
        image.where, f"it is no whole image of {', '.join(FORMATS)} ({type(error).__name__}: {error})"
    )


def _orientation(picture: Image.Image) -> int:
    """The Exif orientation, 1 (upright) where none is given."""
    if "exif" not in picture.info:
        return 1
    return int(picture.getexif().get(ExifTags.Base.Orientation, 1))


def _without_palette(picture: Image.Image) -> Image.Image:
    # A palette with transparent entries has to pass through RGBA, or Pillow warns.
    return picture.convert("RGBA") if "transparency" in picture.info else picture
