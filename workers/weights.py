"""Supernet weights as files: safetensors, named by their SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save

from nas.errors import ArtifactError
from nas.single_network import SingleNetworkSpace
from nas.space import SearchSpace
from nas.store.artifacts import ArtifactStore, StoredArtifact
from nas.weights_file import WeightsDescription
from search_spaces import SPACES
from supernet.network import Supernet


@dataclass(frozen=True, kw_only=True)
class SupernetDescription:
    """What it takes to build the module that the weights fit."""

    search_space: str
    num_classes: int
    in_channels: int
    kernel_transform: bool
    network: dict[str, Any] | None = None
    """The one network of the space that the weights are of, as JSON; None: they are of the whole space."""

    @property
    def space(self) -> SearchSpace:
        """Whose networks the weights hold."""
        whole = SPACES[self.search_space]
        return whole if self.network is None else SingleNetworkSpace(whole, whole.parse(self.network))

    def build(self, *, seed: int = 0) -> Supernet:
        """The supernet with fresh weights, the same for the same seed."""
        return Supernet(
            self.space,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            kernel_transform=self.kernel_transform,
            generator=torch.Generator().manual_seed(seed),
        )


def publish_weights(
    artifacts: ArtifactStore, key: str, supernet: Supernet, description: WeightsDescription
) -> StoredArtifact:
    """Write the weights to the artefact store, with what they are of; the SHA-256 is the checkpoint's name.

    ArtifactError where there is no room for them.
    """
    tensors = {name: value.contiguous() for name, value in supernet.state_dict().items()}
    content = save(tensors, metadata=description.to_metadata())
    try:
        return artifacts.put(key, content)
    except OSError as error:
        raise ArtifactError(
            f"the weights ({len(content)} bytes) could not be stored ({error.strerror or error}); make room "
            "in the artefact store, then start from this supernet's newest checkpoint by warm_start"
        ) from error


def fetch_weights(
    artifacts: ArtifactStore, uri: str, sha256: str, *, remedy: str = "restore the file"
) -> bytes:
    """The weights file as bytes; ArtifactError with `remedy` unless they are those that were stored."""
    return b"".join(artifacts.open_checked(uri, sha256, remedy=remedy))


def load_weights(description: SupernetDescription, weights: bytes | Path) -> Supernet:
    """The supernet with these weights, in eval mode."""
    supernet = description.build()
    tensors = load(weights) if isinstance(weights, bytes) else load_file(weights)
    try:
        supernet.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(
            f"the weights do not fit space '{description.search_space}': {error}; "
            "they were made by another version of the space"
        ) from error
    return supernet.eval()
