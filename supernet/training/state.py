"""What a training run is at a moment, and what has to match before it goes on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CPU_FACTS = ("model name", "cpu family", "model", "stepping")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that a resumed run needs to end as it would have ended."""

    step: int
    """Steps done, and the number of the next."""
    identity: Mapping[str, Any]
    """What run this is: a state of another run is refused."""
    environment: Mapping[str, Any]
    """Where it ran: elsewhere the run may go on, but its last bits may differ."""
    weights: Mapping[str, Tensor]
    """The supernet's, by name."""
    optimizer: Mapping[str, Tensor]
    """Momentum and the like, as '<parameter>/<what>'."""
    strategies: Mapping[str, Mapping[str, Any]]
    """State of each strategy by its name; values are tensors or JSON."""


def environment_of(device: torch.device, *, world_size: int) -> dict[str, Any]:
    """Everything outside the run that decides the last bits of its arithmetic."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "memory_format": "channels_last",
        "cpu": _cpu_kind(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "world_size": world_size,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """One line for each entry that is not the same, such as 'threads: 2 before, 1 now'."""
    names = sorted(before.keys() | now.keys())
    return tuple(
        f"{name}: {before.get(name)} before, {now.get(name)} now"
        for name in names
        if before.get(name) != now.get(name)
    )


def _cpu_kind() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_cpu_model()}, {capability}"


def _cpu_model() -> str:
    """The kernel's description of the first core, or Python's where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    return " ".join(facts[name] for name in _CPU_FACTS if name in facts) or platform.machine()
