"""The formats in which releases wrote checkpoints, and the way from each to the next.

A checkpoint says its format by a number. What an older release wrote is read by going through the
upgrades one after the other, each a small pure function; what a newer release wrote is refused, for
nobody knows what it means. `docs/formats.md` tells what each format holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from torch import Tensor

from nas.errors import NasError

FORMAT = 2
"""What this release writes."""


class CheckpointError(NasError, ValueError):
    """A checkpoint that cannot be read or written, or that belongs to another run."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose files are not as they were written: no later try will read it."""


class NewerFormatError(CheckpointError):
    """A checkpoint of a newer release: whole, perhaps, and not ours to judge."""


@dataclass(frozen=True, kw_only=True)
class StoredState:
    """What the files of a checkpoint hold, as far as every format has it."""

    description: Mapping[str, Any]
    """`state.json`."""
    tensors: Mapping[str, Mapping[str, Tensor]]
    """Of each safetensors file, by the file's name."""


Upgrade = Callable[[StoredState], StoredState]


def release() -> str:
    """The release that is running."""
    return version("nas-service")


def check_format(description: Any) -> int:
    """The format that `state.json` states; CheckpointError where this release cannot read it."""
    stated = description.get("format") if isinstance(description, dict) else None
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < min(UPGRADES):
        raise CheckpointError(f"state.json states format {stated!r}, which no release has written")
    if stated > FORMAT:
        writer = description.get("release", "a newer one")
        raise NewerFormatError(
            f"it has format {stated}, written by release {writer}; this release, {release()}, reads formats "
            f"{min(UPGRADES)} to {FORMAT}; go on with release {writer}"
        )
    return stated


def upgrade(state: StoredState) -> StoredState:
    """The state as this release would have written it."""
    for number in range(check_format(state.description), FORMAT):
        state = UPGRADES[number](state)
        state = replace(state, description={**state.description, "format": number + 1})
    return state


def _from_1(state: StoredState) -> StoredState:
    """Before there were warm starts, every run began from fresh weights; and no release named itself."""
    identity = {**state.description["identity"], "warm_start": None}
    return replace(state, description={**state.description, "identity": identity, "release": None})


UPGRADES: Mapping[int, Upgrade] = MappingProxyType({1: _from_1})
"""From each older format to the one after it."""
