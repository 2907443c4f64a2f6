"""What of the cluster's GPUs the processes of a job ask for."""

from __future__ import annotations

import ray

from nas.errors import NasError
from supernet.device import AUTO, CPU


def gpus_each(wanted: str, num_processes: int) -> float:
    """GPUs for each of so many processes to reserve, at most one: `wanted` is the worker's device.

    0: they compute on the processor. NasError where a GPU is wanted and Ray has none.
    """
    if wanted == CPU.type:
        return 0.0
    num_gpus = float(ray.cluster_resources().get("GPU", 0))
    if num_gpus == 0 and wanted != AUTO:
        raise NasError(
            f"NAS_DEVICE is '{wanted}' and Ray has no GPU; set it to auto or cpu, or add machines with GPUs "
            "to the cluster"
        )
    return min(1.0, num_gpus / num_processes)


def device_on_ray(num_gpus: float) -> str:
    """The device of a process that reserved so much: Ray shows it no other GPU than its own."""
    return "cuda" if num_gpus else CPU.type
