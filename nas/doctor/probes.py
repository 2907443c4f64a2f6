"""Heavy packages, imported in a process of their own: a broken build may end the process that imports it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nas.doctor.check import Check, absent, ok, problem

_TIMEOUT_S = 120.0
_CONNECT_S = 5.0
_REINSTALL = "install it again, in the build for this machine: pip install --force-reinstall"
_RAY_PORTS = {"ray": 10001}
_RAY_PORT = 6379

_TORCH = """
import torch
cuda = torch.cuda.is_available()
found = dict(
    version=torch.__version__, cuda=torch.version.cuda, threads=torch.get_num_threads(),
    capability=torch.backends.cpu.get_cpu_capability(),
    gpus=[torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if cuda else [],
)
"""
_ONNX_RUNTIME = """
import onnxruntime
found = dict(version=onnxruntime.__version__, providers=onnxruntime.get_available_providers())
"""
_RAY = """
import ray
found = dict(version=ray.__version__)
"""


def torch() -> Iterator[Check]:
    """The build, its threads, and the GPUs it sees."""
    check, found = _probe("torch", _TORCH, _torch_finding)
    yield check
    if found is None:
        return
    if found["gpus"]:
        yield ok("gpu", ", ".join(found["gpus"]))
    elif _has_nvidia() and found["cuda"] is None:
        yield ok("gpu", "there is one, which this CPU build of torch does not use")
    elif _has_nvidia():
        finding = f"there is one, and torch for CUDA {found['cuda']} cannot use it"
        yield problem("gpu", finding, "update its driver, or install a CPU build of torch")
    else:
        yield ok("gpu", "none; training runs on the processor")


def onnx_runtime() -> Check:
    """What runs exported networks."""
    return _probe(
        "onnxruntime", _ONNX_RUNTIME, lambda found: f"{found['version']} with {', '.join(found['providers'])}"
    )[0]


def ray() -> Iterator[Check]:
    """The package, and the cluster where one is named."""
    yield _probe("ray", _RAY, lambda found: f"{found['version']} can be imported")[0]
    if address := os.environ.get("RAY_ADDRESS"):
        yield ray_cluster(address)


def _torch_finding(found: dict[str, Any]) -> str:
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU"
    return f"{found['version']}, {build} build, {found['capability']}, {found['threads']} threads"


def _probe(
    package: str, code: str, finding: Callable[[dict[str, Any]], str]
) -> tuple[Check, dict[str, Any] | None]:
    """The check, and what the code found if it ran."""
    if find_spec(package) is None:
        return absent(package, "worker"), None
    script = f"{code}\nimport json, sys\nsys.stdout.write('\\n' + json.dumps(found))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        told = f"its import does not end within {_TIMEOUT_S:.0f} s"
        return problem(package, told, "this machine is overloaded, or its disk is: end other programs"), None
    if done.returncode != 0:
        return problem(package, f"its import fails: {_why(done)}", f"{_REINSTALL} {package}"), None
    found = json.loads(done.stdout.splitlines()[-1])
    return ok(package, finding(found)), found


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the process is ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def ray_cluster(address: str) -> Check:
    """Whether something listens at RAY_ADDRESS."""
    name = "ray cluster"
    if address in ("auto", "local"):
        return ok(name, f"RAY_ADDRESS={address}: found, or started, when a worker starts")
    parsed = urlsplit(address if "://" in address else f"//{address}")
    remedy = "start the cluster (ray start --head), or unset RAY_ADDRESS for a local one"
    try:
        port = parsed.port or _RAY_PORTS.get(parsed.scheme, _RAY_PORT)
        socket.create_connection((parsed.hostname or "", port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        return problem(name, f"RAY_ADDRESS={address} does not answer: {error}", remedy)
    return ok(name, f"{address} answers")


def _has_nvidia() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))
