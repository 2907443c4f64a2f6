# Made by `python -m nas.client.derive` from nas/client/asynchronous/devices.py: change that one.
"""Devices: machines to find networks for, what is known of their latencies, and how that is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nas.client.collection import NamedCollection, Products
from nas.client.download import fetch
from nas.client.errors import DownloadError
from nas.client.resource import JsonObject, Product
from nas.client.transport import Transport

_PATH = "/v1/devices"


class Measurements(Product):
    """What was measured on a device; its job fits a latency model."""


class WorkFile(Product):
    """What a probe is to measure."""

    def download(self, folder: str | Path) -> Path:
        """The file in `folder`, checked, as `work.zip`; DownloadError before it is made."""
        if self["sha256"] is None:
            raise DownloadError(f"{self.id} is {self.state} and has no bytes; wait for its job to succeed")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        file = {
            "name": "work.zip",
            "size_bytes": self["size_bytes"],
            "sha256": self["sha256"],
            "links": {"self": self["links"]["content"]},
        }
        return fetch(self.transport, file, target)


class Device(JsonObject):
    """A machine, and the way that networks run on it."""

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return str(self["name"])

    def refresh(self) -> Device:
        """The same device, read again."""
        return Device(self.transport.get(self._path), self.transport)

    def put_table(self, lines: str, *, fills_gaps: bool | None = None) -> dict[str, Any]:
        """Give it a latency table, as JSON lines; RequestRefusedError names the lines that are wrong."""
        params = {"fills_gaps": fills_gaps}
        return dict(self.transport.put_lines(f"{self._path}/latency-table", lines, params))

    def table(self) -> str:
        """The latency table that it was given, as JSON lines."""
        return self.transport.text(f"{self._path}/latency-table")

    def gaps(
        self, search_space: str, *, num_classes: int | None = None, in_channels: int | None = None
    ) -> dict[str, Any]:
        """What its table lacks for a space: `num_missing`, and the first of them as lines to fill in."""
        params = {"search_space": search_space, "num_classes": num_classes, "in_channels": in_channels}
        return dict(self.transport.get(f"{self._path}/latency-table/gaps", params))

    def measure(self, lines: str, *, display_name: str | None = None) -> Measurements:
        """Send what the probe wrote on it, or times of your own; the fit of a model to it is queued."""
        params = {"display_name": display_name}
        path = f"{self._path}/measurements"
        return Measurements(self.transport.create_from_lines(path, lines, params), self.transport)

    def measurements(self) -> Iterator[Measurements]:
        """What was measured on it, newest first."""
        for data in self.transport.pages("/v1/measurements", {"device": self.name}):
            yield Measurements(data, self.transport)

    def delete(self) -> None:
        """Delete it with its tables and measurements; StateConflictError while searches are of it."""
        self.transport.delete(self._path)

    @property
    def _path(self) -> str:
        return f"{_PATH}/{quote(self.name, safe='')}"


class Devices:
    """Machines to find networks for, by their names."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        batch: int | None = None,
        dtype: str | None = None,
        notes: str | None = None,
    ) -> Device:
        """Name a machine and the way that networks run on it; see `docs/latency.md`."""
        settings = {"runtime": runtime, "threads": threads, "batch": batch, "dtype": dtype}
        return self.create_from({"name": name, **settings, "notes": notes})

    def create_from(self, body: Mapping[str, Any]) -> Device:
        """The same from a whole request body."""
        return Device(self._transport.create(_PATH, body), self._transport)

    def get(self, name: str) -> Device:
        """One device with the models that predict on it; ResourceNotFoundError lists those there are."""
        return self._unread(name).refresh()

    def list(self) -> Iterator[Device]:
        """Every device, newest first, read page by page."""
        for data in self._transport.pages(_PATH):
            yield Device(data, self._transport)

    def put_table(self, name: str, lines: str, *, fills_gaps: bool | None = None) -> dict[str, Any]:
        """See `Device.put_table`."""
        return self._unread(name).put_table(lines, fills_gaps=fills_gaps)

    def table(self, name: str) -> str:
        """See `Device.table`."""
        return self._unread(name).table()

    def gaps(
        self,
        name: str,
        search_space: str,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
    ) -> dict[str, Any]:
        """See `Device.gaps`."""
        return self._unread(name).gaps(search_space, num_classes=num_classes, in_channels=in_channels)

    def measure(self, name: str, lines: str, *, display_name: str | None = None) -> Measurements:
        """See `Device.measure`."""
        return self._unread(name).measure(lines, display_name=display_name)

    def measurements(self, name: str) -> Iterator[Measurements]:
        """See `Device.measurements`."""
        return self._unread(name).measurements()

    def probe_source(self) -> str:
        """`probe.py`: one file for any machine with Python 3.9, NumPy and ONNX Runtime."""
        return self._transport.text(f"{_PATH}/probe.py")

    def delete(self, name: str) -> None:
        """See `Device.delete`."""
        self._unread(name).delete()

    def _unread(self, name: str) -> Device:
        """Enough of the device to ask for what lies below it, without a request of its own."""
        return Device({"name": name}, self._transport)


class Measured(NamedCollection[Measurements]):
    """What was measured on devices; `devices.measure` creates them."""

    path = "/v1/measurements"
    kind = Measurements


class WorkFiles(Products[WorkFile]):
    """What probes are to measure."""

    path = "/v1/work-files"
    kind = WorkFile

    def create(
        self,
        search_space: str,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
        batch: int | None = None,
        architectures: Sequence[Mapping[str, Any] | str] | None = None,
        num_networks: int | None = None,
        max_blocks: int | None = None,
        seed: int | None = None,
    ) -> WorkFile:
        """Have one made for a space, as its networks are with a data set's classes and channels.

        Of `architectures` alone, unless networks are to be drawn too (`num_networks`).
        """
        return self.create_from(
            {
                "search_space": search_space,
                "num_classes": num_classes,
                "in_channels": in_channels,
                "batch": batch,
                "architectures": None if architectures is None else [*architectures],
                "num_networks": num_networks,
                "max_blocks": max_blocks,
                "seed": seed,
            }
        )
