"""Processor, memory and shared memory, as the limits of a container leave them."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from nas.doctor.check import Check, ok, problem, warning

_GIB = 1 << 30
_LEAST_MEMORY = 2 * _GIB
_GOOD_MEMORY = 4 * _GIB
_GOOD_SHARED_MEMORY = 1 * _GIB
_CGROUP = Path("/sys/fs/cgroup")


def processor() -> Check:
    """Kind and cores."""
    cores = _usable_cores()
    finding = f"{_processor_name()}; {cores:g} cores to use"
    if cores < 2:
        return warning(
            "processor", finding, "with less than 2 cores, training and the API wait for each other"
        )
    return ok("processor", finding)


def memory() -> Check:
    """What there is, and what is free of it."""
    total = _total_memory()
    free = _available_memory()
    left = "" if free is None else f", {free / _GIB:.1f} GiB free"
    finding = f"{total / _GIB:.1f} GiB{left}"
    if total < _LEAST_MEMORY:
        return problem("memory", finding, "the service with its worker needs 2 GiB; give it more")
    if total < _GOOD_MEMORY or (free is not None and free < _LEAST_MEMORY):
        return warning("memory", finding, "end other programs, or train with smaller batches")
    return ok("memory", finding)


def shared_memory() -> Check:
    """Where Ray keeps what its processes share."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return ok("shared memory", "this system has no /dev/shm; Ray uses files instead")
    total = shutil.disk_usage(folder).total
    finding = f"{total / _GIB:.1f} GiB in {folder}"
    if not os.access(folder, os.W_OK):
        return problem("shared memory", f"{finding}, not writable", f"let this account write to {folder}")
    if total < _GOOD_SHARED_MEMORY:
        return warning("shared memory", finding, "Ray uses slow files instead; in a container: --shm-size=2g")
    return ok("shared memory", finding)


def _usable_cores() -> float:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return min(float(count), int(quota) / int(period))
    except (OSError, ValueError):
        return float(count)


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or 'unknown kind'} ({platform.machine()})"


def _total_memory() -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int((_CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):
        return physical


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kib is None else 1024 * int(kib)
