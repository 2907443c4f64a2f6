"""What a training run is at a moment, and what has to match before it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.training.collective import Collective

_CPU_FACTS = ("model name", "cpu family", "model", "stepping")

_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "OMP_DYNAMIC",
    "OMP_THREAD_LIMIT",
    "ONEDNN_MAX_CPU_ISA",
)
"""Of the process's environment: they choose instructions, or how many threads there really are."""


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
    departures: tuple[str, ...] = ()
    """What differed in the environment each time the run went on, such as 'step 40: threads: 2 before,
    1 now'; empty for a run that is bit for bit the undisturbed one."""


def environment_of(
    device: torch.device, *, world_size: int, num_lanes: int = 1, rank_kinds: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything outside the run that decides its draws and the last bits of its arithmetic.

    `rank_kinds` is what `kinds_of_ranks` gave, where there are several.
    """
    return {
        **machine_of(device),
        "threads": torch.get_num_threads(),
        "lanes": num_lanes,
        "memory_format": "channels_last",
        "world_size": world_size,
        "ranks": list(rank_kinds),
    }


def kinds_of_ranks(collective: Collective, device: torch.device) -> tuple[str, ...]:
    """For each rank, in order, a short digest of the machine it runs on; all ranks call this together."""
    if collective.world_size == 1:
        return ()
    digest = hashlib.sha256(json.dumps(machine_of(device), sort_keys=True).encode()).digest()
    kinds = torch.zeros(collective.world_size, dtype=torch.float64)
    # 48 bits: a float64 holds and adds them to zeros without loss.
    kinds[collective.rank] = float(int.from_bytes(digest[:6], "big"))
    collective.all_reduce_sum(kinds)
    return tuple(f"{int(kind):012x}" for kind in kinds.tolist())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """One line for each entry that is not the same, such as 'threads: 2 before, 1 now'."""
    names = sorted(before.keys() | now.keys())
    return tuple(
        f"{name}: {before.get(name)} before, {now.get(name)} now"
        for name in names
        if before.get(name) != now.get(name)
    )


def machine_of(device: torch.device) -> dict[str, Any]:
    """What of the environment belongs to the machine and its installation, not to the run."""
    return {
        "torch": torch.__version__,
        # Its generators give the order of the images and the networks of each step.
        "numpy": np.__version__,
        "cpu": _cpu_kind(),
        "device": _cuda_kind(device) if device.type == "cuda" else device.type,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def repeats_bits(device: torch.device) -> bool:
    """Whether the same step comes to the same bits each time: CUDA adds some numbers up in any order."""
    return device.type == "cpu"


def _cuda_kind(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device)
    return f"{name}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


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
