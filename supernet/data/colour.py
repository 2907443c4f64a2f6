"""Any picture to 8 bits of grey or of red, green and blue.

The rules, which every data set's card rests on: what is transparent shows white, as on a page; of 16 bits
the upper 8 are kept; of an animation the first picture is.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

NUM_CHANNELS = {
    **dict.fromkeys(("1", "L", "LA", "I;16", "I;16L", "I;16B"), 1),
    **dict.fromkeys(("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"), 3),
}
"""Pillow's modes that are read, and the channels that each is worth: a palette counts as colour."""
_WHITE = (255, 255, 255, 255)


def flattened(picture: Image.Image, num_channels: int) -> Image.Image:
    """`picture` in mode L (1 channel) or RGB (3), without alpha."""
    return _opaque(picture).convert("L" if num_channels == 1 else "RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _upper_bits(picture)
    if picture.mode == "CMYK" and picture.format == "JPEG" and "adobe" not in picture.info:
        # Pillow takes every CMYK JPEG for an inverted one, as Adobe writes them; only those it marks are.
        return ImageChops.invert(picture)
    if picture.has_transparency_data:
        coloured = _with_alpha(picture)
        return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), coloured)
    return picture


def _with_alpha(picture: Image.Image) -> Image.Image:
    key = picture.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        # The transparent colour of a 16-bit picture, whose pixels have come down to 8 bits.
        picture = picture.copy()
        picture.info["transparency"] = tuple(level >> 8 for level in key)
    return picture.convert("RGBA")


def _upper_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits as 8; its transparent level, if it has one, as white."""
    deep = np.asarray(picture)
    grey = (deep >> 8).astype(np.uint8)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        grey[deep == key] = 255
    return Image.fromarray(grey)
