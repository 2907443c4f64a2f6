"""The one resize rule: bicubic to a square, corners not aligned, no antialiasing, aspect ratio not kept."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, resolution_px: int) -> Tensor:
    """(N, C, resolution_px, resolution_px) of float images; the very same tensor if it has that size."""
    size = (resolution_px, resolution_px)
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", align_corners=False)
