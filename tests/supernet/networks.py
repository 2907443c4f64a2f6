"""Supernets and architectures that the tests of this folder share."""

import numpy as np
import torch

from supernet.network import Supernet
from tests.small_spaces import SMALL_SPACES

SMALL_BATCH = 3
SUPERNET_SPACES = sorted(SMALL_SPACES)


def make_supernet(name, *, seed=0, kernel_transform=False, dtype=torch.float32):
    """A supernet whose batch norms are not at their initial values, so that every layer shows."""
    generator = torch.Generator().manual_seed(seed)
    supernet = Supernet(
        SMALL_SPACES[name], num_classes=10, kernel_transform=kernel_transform, generator=generator
    ).to(dtype)
    with torch.no_grad():
        for parameter_name, parameter in supernet.named_parameters():
            if ".bn." in parameter_name or "transforms" in parameter_name:
                noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
                parameter.add_(0.2 * noise)
            if parameter_name.endswith("bn.weight"):
                parameter.add_(0.5)
    return supernet


def make_images(space, architecture=None, *, count=SMALL_BATCH, seed=0, dtype=torch.float32):
    """Random images at the architecture's resolution, or the space's largest."""
    resolution = space.resolutions_px()[-1] if architecture is None else space.resolution_px(architecture)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, resolution, resolution, generator=generator, dtype=dtype)


def sample_architectures(space, count, seed=0):
    """Distinct random networks with the two ends first."""
    rng = np.random.default_rng(seed)
    sampled = [space.largest(), space.smallest()] + [space.sample(rng) for _ in range(count)]
    return list(dict.fromkeys(sampled))
