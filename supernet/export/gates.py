"""What must hold before a bundle is published. Each check raises ArtifactError."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas.errors import ArtifactError
from nas.trial import Split
from supernet.export.card import Card
from supernet.extract import PlainNetwork

EXTRACTED_TOLERANCE = 1e-5
"""Largest difference of a logit between the supernet and the extracted network, float32."""
ONNX_TOLERANCE = 1e-4
"""Largest difference of a logit between the extracted network and ONNX Runtime."""

CheckImages = Mapping[Split, tuple[Tensor, Tensor]]
"""For each split its uint8 images (N, C, H, W), resized, and their int64 labels (N,)."""


def check_agreement(*, supernet: Tensor, extracted: Tensor, onnx: Tensor) -> None:
    """The three gave the same logits for the same images."""
    _check_close("the extracted network", extracted, "the supernet", supernet, EXTRACTED_TOLERANCE)
    _check_close("ONNX Runtime", onnx, "the extracted network", extracted, ONNX_TOLERANCE)


def check_statistics(network: nn.Module) -> None:
    """Every batch norm holds measured statistics, not the mean 0 and variance 1 it was made with."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        mean, variance = module.running_mean, module.running_var
        if mean is None or variance is None or bool((mean == 0).all() and (variance == 1).all()):
            raise ArtifactError(f"batch norm '{name}' was never calibrated; pass statistics to extract()")
        if not bool(mean.isfinite().all() and variance.isfinite().all()):
            raise ArtifactError(f"batch norm '{name}' has statistics that are no numbers; recalibrate it")


def check_card(card: Card, network: PlainNetwork, check: CheckImages) -> None:
    """Card, network and images speak of the same thing."""
    first, last = network.layers[0], network.layers[-1]
    resolution_px = card.preprocessing.resolution_px
    _check_equal("resolution", card=resolution_px, network=first.in_height)
    _check_equal("number of channels", card=len(card.preprocessing.mean), network=first.in_channels)
    _check_equal("number of classes", card=len(card.class_names), network=last.out_channels)
    _check_equal("splits", card={e.split for e in card.evaluations}, images=set(check))
    for split, (images, labels) in check.items():
        num_images = card.evaluation(split).num_images
        _check_equal(f"number of {split} labels", card=num_images, images=len(labels))
        expected = (num_images, first.in_channels, resolution_px, resolution_px)
        _check_equal(f"shape of the {split} images", card=expected, images=tuple(images.shape))
        _check_equal(f"type of the {split} images", card=torch.uint8, images=images.dtype)


def _check_equal(what: str, **sides: object) -> None:
    (one, left), (other, right) = sides.items()
    if left != right:
        raise ArtifactError(
            f"{what}: {left} by the {one}, {right} by the {other}; publish what belongs together"
        )


def _check_close(one: str, logits: Tensor, other: str, reference: Tensor, tolerance: float) -> None:
    difference = float((logits - reference).abs().max())
    # Written so that a NaN, which compares as false, is refused.
    if not difference <= tolerance:
        raise ArtifactError(
            f"logits of {one} differ from those of {other} by up to {difference:.1e}, more than "
            f"{tolerance:.0e}; the bundle is not published"
        )
