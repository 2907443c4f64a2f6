"""Processes that tests start."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def heed_interrupts() -> None:
    """For `preexec_fn`: what a shell starts in its background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_descendant(pid: int) -> bool:
    """Whether the process comes of this one; other tests may run beside this, with processes alike."""
    while pid > 1:
        try:
            # The name, in brackets, may hold anything; then state and parent.
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == os.getpid():
            return True
    return False
