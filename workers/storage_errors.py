"""What an error of the system about files means to whoever keeps the machine: which file, and the remedy."""

from __future__ import annotations

import errno
from collections.abc import Mapping

_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the quota of the worker's user is used up: make room or raise it",
    errno.EROFS: "the disk is mounted read-only: mount it writable",
    errno.EACCES: "the worker's user lacks the right: grant it",
    errno.EPERM: "the worker's user lacks the right: grant it",
    errno.EIO: "the disk cannot be read or written: check it",
    errno.ENOENT: "a file was removed while it was in use: restore it, or leave the worker's home alone",
    errno.ENOTDIR: "a file lies where a folder is wanted: move it away",
}


def storage_message(error: OSError) -> str | None:
    """For the job's `error`; None for an error that storage has no part in."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    where = f" at {error.filename}" if error.filename else ""
    return f"the worker's storage failed{where} ({error.strerror}); {remedy}, then start the work again"
