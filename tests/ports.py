"""Ports for what tests start."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A port nobody listens on, and that no connection is given before a service is started there.

    It lies below those that systems choose from themselves: tests run beside this one, and connect.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("100 ports are taken")
