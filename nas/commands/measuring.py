"""The probe on the command line: fetched, run on this machine apart from all else, its figures sent back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nas.client import Client, Device, Measurements, WorkFile
from nas.client.errors import ResourceNotFoundError, StateConflictError
from nas.commands.exits import UsageError
from nas.commands.session import Session
from nas.errors import NasError

RUNTIME, DTYPE = "onnxruntime", "fp32"
"""What the probe measures."""
_NOISY = 3
"""The probe's exit status where its figures do not repeat."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The networks whose latencies are asked about."""

    search_space: str
    num_classes: int | None = None
    in_channels: int | None = None
    """None: the space's own."""

    @classmethod
    def asked(cls, client: Client, supernet_id: str | None, search_space: str | None) -> Subject:
        """Those of a supernet, or of a space; UsageError unless it is one of the two."""
        if (supernet_id is None) == (search_space is None):
            raise UsageError("say whose networks: --supernet, with its classes and channels, or --space")
        if search_space is not None:
            return cls(search_space=search_space)
        return cls.of_supernet(client, str(supernet_id))

    @classmethod
    def of_supernet(cls, client: Client, supernet_id: str) -> Subject:
        """As the supernet has them, with the classes and channels of its data set."""
        supernet = client.supernets.get(supernet_id)
        dataset = client.datasets.get(supernet["dataset_id"])
        return cls(
            search_space=supernet["search_space"],
            num_classes=dataset["num_classes"],
            in_channels=dataset["in_channels"],
        )

    def fields(self) -> dict[str, Any]:
        """As requests have them."""
        return {
            "search_space": self.search_space,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
        }


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """What is to be measured, and how."""

    device: str
    subject: Subject
    architectures: Sequence[Mapping[str, Any]]
    """To measure these alone, unless networks are drawn too."""
    num_networks: int | None
    max_blocks: int | None
    cores: str
    timeout_s: float | None
    """Of waiting for the service."""


def measure_here(session: Session, client: Client, plan: ProbePlan) -> Measurements:
    """What was measured on this machine, with the model that was fitted to it."""
    if find_spec("onnxruntime") is None:
        raise NasError(
            "the probe needs onnxruntime, which is not installed here; install it (pip install onnxruntime), "
            "or measure elsewhere with --pack"
        )
    device = _device(session, client, plan.device)
    _refuse_other_runtime(device)
    with tempfile.TemporaryDirectory(prefix="nas-probe-") as name:
        folder = Path(name)
        with _work_file(session, client, plan, device) as work_file:
            work = work_file.download(folder)
        probe, out = folder / "probe.py", folder / "out.jsonl"
        probe.write_text(client.devices.probe_source(), encoding="utf-8")
        session.say("measuring; this takes minutes, and wants the machine for itself")
        # Isolated: nothing of this process, its folder or its settings is in the way of the figures.
        command = [sys.executable, "-I", str(probe), *_arguments(plan, device, work.name, out.name)]
        _check(subprocess.run(command, cwd=folder, check=False).returncode)
        lines = out.read_text(encoding="utf-8")
    return session.wait(client.devices.measure(device.name, lines), "job", plan.timeout_s)


def pack(session: Session, client: Client, plan: ProbePlan, folder: Path) -> None:
    """The probe and its work file in the folder, and what to do with them.

    A work file of whole networks alone for a device that the probe cannot measure: for its own runtime.
    """
    device = _device(session, client, plan.device)
    if not _is_the_probes(device) and plan.max_blocks is None:
        plan = replace(plan, max_blocks=0)
    with _work_file(session, client, plan, device) as work_file:
        work = work_file.download(folder)
    if not _is_the_probes(device):
        session.show({"name": device.name, "work_file": str(work)})
        session.say(
            f"time the networks in it with {device['runtime']}, and write a line for each as docs/latency.md "
            f"says (Another runtime); then send them: nas device upload {device.name} out.jsonl --wait"
        )
        return
    probe = folder / "probe.py"
    probe.write_text(client.devices.probe_source(), encoding="utf-8")
    session.show({"name": device.name, "probe": str(probe), "work_file": str(work)})
    arguments = " ".join(_arguments(plan, device, work.name, "out.jsonl"))
    session.say(
        f"copy {folder} to the device and run there: python {probe.name} {arguments}\n"
        f"then send what it wrote: nas device upload {device.name} out.jsonl --wait"
    )


def _arguments(plan: ProbePlan, device: Device, work: str, out: str) -> list[str]:
    cores = ["--cores", plan.cores] if plan.cores else []
    return [work, out, "--device", device.name, "--threads", str(device["threads"]), *cores]


def _device(session: Session, client: Client, name: str) -> Device:
    """The device; it is added where there is none of that name."""
    try:
        found = client.devices.get(name)
    except ResourceNotFoundError:
        try:
            found = client.devices.create(name)
            session.say(f"device {name} is added: {RUNTIME}, one thread, one image at a time")
        except StateConflictError:
            found = client.devices.get(name)
    return found


def _is_the_probes(device: Device) -> bool:
    return (device["runtime"], device["dtype"]) == (RUNTIME, DTYPE)


def _refuse_other_runtime(device: Device) -> None:
    if not _is_the_probes(device):
        raise UsageError(
            f"device {device.name} is of {device['runtime']} and {device['dtype']}; the probe measures "
            f"{RUNTIME} and {DTYPE}: add a device of these; or time whole networks yourself, which --pack "
            "FOLDER gives, or give this one a latency table"
        )


@contextmanager
def _work_file(session: Session, client: Client, plan: ProbePlan, device: Device) -> Iterator[WorkFile]:
    """Made for this once: the service keeps nothing of it."""
    made = client.work_files.create(
        **plan.subject.fields(),
        batch=device["batch"],
        architectures=plan.architectures or None,
        num_networks=plan.num_networks,
        max_blocks=plan.max_blocks,
    )
    ready = session.wait(made, "job", plan.timeout_s)
    yield ready
    ready.delete()


def _check(returncode: int) -> None:
    if returncode == _NOISY:
        raise NasError(
            "nothing was sent: the figures do not repeat. Stop other programs, trainings and searches of the "
            "service on this machine too, and run it again; --cores keeps it to some processors"
        )
    if returncode:
        raise NasError(f"the probe ended with status {returncode}; what it said stands above")
