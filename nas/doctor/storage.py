"""Where data, checkpoints and artefacts lie: room and permission. Nothing is written to find out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fsspec

from nas.doctor.check import Check, ok, problem, warning

_GIB = 1 << 30
_LEAST_DISK = 1 * _GIB
_GOOD_DISK = 5 * _GIB


def home_folder(home: Path) -> Check:
    """NAS_HOME: may it be written, and is there room."""
    name = "home"
    place = _nearest(home)
    made = "" if home.exists() else ", to be made by `nas serve`"
    if not place.is_dir():
        return problem(name, f"{place} is no folder", "choose another with --home or NAS_HOME")
    if not os.access(place, os.W_OK | os.X_OK):
        return problem(name, f"{place} is not writable", "choose another with --home or NAS_HOME")
    free = shutil.disk_usage(place).free
    finding = f"{home}{made}, {free / _GIB:.1f} GiB free"
    if free < _LEAST_DISK:
        return problem(name, finding, "free some, or choose another disk with --home or NAS_HOME")
    if free < _GOOD_DISK:
        return warning(name, finding, "large data sets need more: they are kept decoded, as checkpoints are")
    return ok(name, finding)


def artifact_store(home: Path, url: str | None) -> Check:
    """Where weights and bundles go."""
    name = "artefact store"
    remedy = "correct NAS_ARTIFACT_URL, or unset it for a folder under NAS_HOME"
    try:
        fs, root = fsspec.url_to_fs(url or str(home / "artifacts"))
    except (ImportError, ValueError) as error:
        return problem(name, f"{url} cannot be used: {error}", remedy)
    if fs.protocol == "file" or "file" in fs.protocol:
        place = _nearest(Path(root))
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            return problem(name, f"{place} is not a folder that can be written to", remedy)
        return ok(name, f"{root} is writable")
    try:
        is_there = fs.exists(root)
    except Exception as error:  # Every store has errors of its own.
        return problem(name, f"{url} cannot be read: {type(error).__name__}: {error}", remedy)
    finding = (
        f"{url} {'can be read' if is_there else 'answers, and has nothing there yet'}; writing was not tried"
    )
    return ok(name, finding)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
