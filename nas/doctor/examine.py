"""Everything that is looked at, in the order it is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nas.doctor import machine, packages, probes, storage
from nas.doctor.check import Check
from nas.doctor.database import database
from nas.doctor.service import service


def examine(*, home: Path, url: str, key: str | None) -> Iterator[Check]:
    """The checks, each as soon as it and those before it are done."""
    looks: list[Callable[[], Check | Iterable[Check]]] = [
        packages.python,
        packages.packages,
        machine.processor,
        machine.memory,
        machine.shared_memory,
        partial(storage.home_folder, home),
        partial(storage.artifact_store, home, os.environ.get("NAS_ARTIFACT_URL")),
        probes.torch,
        probes.onnx_runtime,
        probes.ray,
        partial(database, home, os.environ.get("NAS_DATABASE_URL")),
        partial(service, url, key, home),
    ]
    # Two at a time: most of it is waiting for imports in processes of their own.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for found in pool.map(_all, looks):
            yield from found


def _all(look: Callable[[], Check | Iterable[Check]]) -> list[Check]:
    found = look()
    return [found] if isinstance(found, Check) else list(found)
