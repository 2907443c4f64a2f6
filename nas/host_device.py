"""This machine as a device of its own service, from the first start on; it is measured when somebody asks."""

from __future__ import annotations

import os
import platform

import httpx

NAME = "host"
_PATIENCE_S = 5.0


def add_host(url: str) -> None:
    """Add the device `host`, unless there is one. Serving does not depend on it, so nothing is raised."""
    notes = (
        f"{platform.node()}: {platform.machine()}, {os.cpu_count()} processors. Added at the first start; "
        f"measure it with: nas device probe {NAME} --supernet SUPERNET"
    )
    try:
        httpx.post(
            f"{url}/v1/devices", json={"name": NAME, "notes": notes}, timeout=_PATIENCE_S, trust_env=False
        )
    except httpx.HTTPError:
        return
