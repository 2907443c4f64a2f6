"""Devices: machines to find networks for, what is known of their latencies, and how that is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nas.client.asynchronous.collection import AsyncNamedCollection, AsyncProducts
from nas.client.asynchronous.download import fetch
from nas.client.asynchronous.resource import AsyncJsonObject, AsyncProduct
from nas.client.asynchronous.transport import AsyncTransport
from nas.client.errors import DownloadError

_PATH = "/v1/devices"


class AsyncMeasurements(AsyncProduct):
    """What was measured on a device; its job fits a latency model."""


class AsyncWorkFile(AsyncProduct):
    """What a probe is to measure."""

    async def download(self, folder: str | Path) -> Path:
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
        return await fetch(self.transport, file, target)


class AsyncDevice(AsyncJsonObject):
    """A machine, and the way that networks run on it."""

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return str(self["name"])

    async def refresh(self) -> AsyncDevice:
        """The same device, read again."""
        return AsyncDevice(await self.transport.get(self._path), self.transport)

    async def put_table(self, lines: str, *, fills_gaps: bool | None = None) -> dict[str, Any]:
        """Give it a latency table, as JSON lines; RequestRefusedError names the lines that are wrong."""
        params = {"fills_gaps": fills_gaps}
        return dict(await self.transport.put_lines(f"{self._path}/latency-table", lines, params))

    async def table(self) -> str:
        """The latency table that it was given, as JSON lines."""
        return await self.transport.text(f"{self._path}/latency-table")

    async def gaps(
        self, search_space: str, *, num_classes: int | None = None, in_channels: int | None = None
    ) -> dict[str, Any]:
        """What its table lacks for a space: `num_missing`, and the first of them as lines to fill in."""
        params = {"search_space": search_space, "num_classes": num_classes, "in_channels": in_channels}
        return dict(await self.transport.get(f"{self._path}/latency-table/gaps", params))

    async def measure(self, lines: str, *, display_name: str | None = None) -> AsyncMeasurements:
        """Send what the probe wrote on it, or times of your own; the fit of a model to it is queued."""
        params = {"display_name": display_name}
        path = f"{self._path}/measurements"
        return AsyncMeasurements(await self.transport.create_from_lines(path, lines, params), self.transport)

    async def measurements(self) -> AsyncIterator[AsyncMeasurements]:
        """What was measured on it, newest first."""
        async for data in self.transport.pages("/v1/measurements", {"device": self.name}):
            yield AsyncMeasurements(data, self.transport)

    async def delete(self) -> None:
        """Delete it with its tables and measurements; StateConflictError while searches are of it."""
        await self.transport.delete(self._path)

    @property
    def _path(self) -> str:
        return f"{_PATH}/{quote(self.name, safe='')}"


class AsyncDevices:
    """Machines to find networks for, by their names."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        batch: int | None = None,
        dtype: str | None = None,
        notes: str | None = None,
    ) -> AsyncDevice:
        """Name a machine and the way that networks run on it; see `docs/latency.md`."""
        settings = {"runtime": runtime, "threads": threads, "batch": batch, "dtype": dtype}
        return await self.create_from({"name": name, **settings, "notes": notes})

    async def create_from(self, body: Mapping[str, Any]) -> AsyncDevice:
        """The same from a whole request body."""
        return AsyncDevice(await self._transport.create(_PATH, body), self._transport)

    async def get(self, name: str) -> AsyncDevice:
        """One device with the models that predict on it; ResourceNotFoundError lists those there are."""
        return await self._unread(name).refresh()

    async def list(self) -> AsyncIterator[AsyncDevice]:
        """Every device, newest first, read page by page."""
        async for data in self._transport.pages(_PATH):
            yield AsyncDevice(data, self._transport)

    async def put_table(self, name: str, lines: str, *, fills_gaps: bool | None = None) -> dict[str, Any]:
        """See `Device.put_table`."""
        return await self._unread(name).put_table(lines, fills_gaps=fills_gaps)

    async def table(self, name: str) -> str:
        """See `Device.table`."""
        return await self._unread(name).table()

    async def gaps(
        self,
        name: str,
        search_space: str,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
    ) -> dict[str, Any]:
        """See `Device.gaps`."""
        return await self._unread(name).gaps(search_space, num_classes=num_classes, in_channels=in_channels)

    async def measure(self, name: str, lines: str, *, display_name: str | None = None) -> AsyncMeasurements:
        """See `Device.measure`."""
        return await self._unread(name).measure(lines, display_name=display_name)

    def measurements(self, name: str) -> AsyncIterator[AsyncMeasurements]:
        """See `Device.measurements`."""
        return self._unread(name).measurements()

    async def probe_source(self) -> str:
        """`probe.py`: one file for any machine with Python 3.9, NumPy and ONNX Runtime."""
        return await self._transport.text(f"{_PATH}/probe.py")

    async def delete(self, name: str) -> None:
        """See `Device.delete`."""
        await self._unread(name).delete()

    def _unread(self, name: str) -> AsyncDevice:
        """Enough of the device to ask for what lies below it, without a request of its own."""
        return AsyncDevice({"name": name}, self._transport)


class AsyncMeasured(AsyncNamedCollection[AsyncMeasurements]):
    """What was measured on devices; `devices.measure` creates them."""

    path = "/v1/measurements"
    kind = AsyncMeasurements


class AsyncWorkFiles(AsyncProducts[AsyncWorkFile]):
    """What probes are to measure."""

    path = "/v1/work-files"
    kind = AsyncWorkFile

    async def create(
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
    ) -> AsyncWorkFile:
        """Have one made for a space, as its networks are with a data set's classes and channels.

        Of `architectures` alone, unless networks are to be drawn too (`num_networks`).
        """
        return await self.create_from(
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
