"""What the service returns: read-only mappings of its JSON, with what can be done next as methods."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from nas.client.asynchronous.concurrency import sleep
from nas.client.asynchronous.download import fetch
from nas.client.asynchronous.events import job_events
from nas.client.asynchronous.transport import AsyncTransport
from nas.client.errors import DownloadError, JobCancelledError, JobFailedError, WaitTimeoutError
from nas.client.event import Event
from nas.client.frontier import Frontier
from nas.job import JobState
from nas.trial import Provenance

_FIRST_POLL_S = 0.1
_LONGEST_POLL_S = 2.0


@dataclass(frozen=True, eq=False)
class AsyncJsonObject(Mapping[str, Any]):
    """The service's JSON, read like a mapping."""

    data: Mapping[str, Any]
    transport: AsyncTransport = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class AsyncResource(AsyncJsonObject):
    """Something that a job makes, as it was when it was read."""

    @property
    def id(self) -> str:
        """Its name in the service."""
        return str(self["id"])

    @property
    def state(self) -> JobState:
        """Where its job stood."""
        return JobState(self["state"])

    @property
    def is_terminal(self) -> bool:
        """Whether its job has ended, well or not."""
        return self.state.is_terminal

    @property
    def job_id(self) -> str:
        """The job that makes it."""
        return str(self["job_id"])

    async def refresh(self) -> Self:
        """The same resource, read again."""
        return type(self)(await self.transport.get(self["links"]["self"]), self.transport)

    async def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[Self], None] | None = None,
    ) -> Self:
        """The resource once its job has succeeded; `on_progress` is given it whenever it has moved.

        `timeout` is in seconds. Raises JobFailedError, JobCancelledError or WaitTimeoutError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        current, shown, poll_s = await self.refresh(), None, _FIRST_POLL_S
        while True:
            if on_progress is not None and (current.state, current["progress"]) != shown:
                shown = (current.state, current["progress"])
                on_progress(current)
            if current.is_terminal:
                return _succeeded(current)
            left_s = _LONGEST_POLL_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise WaitTimeoutError(f"{self.id} is still {current.state} after {timeout} s; it goes on")
            await sleep(min(poll_s, left_s))
            poll_s = min(1.5 * poll_s, _LONGEST_POLL_S)
            current = await current.refresh()

    def events(self, after_id: int = 0) -> AsyncGenerator[Event, None]:
        """Its job's events as they happen, until the job has ended."""
        return job_events(self.transport, self.job_id, after_id=after_id)

    async def cancel(self) -> Self:
        """Ask its job to stop; the resource read again."""
        await self.transport.post(f"/v1/jobs/{self.job_id}/cancel")
        return await self.refresh()


class AsyncJob(AsyncResource):
    """The work behind a resource."""

    @property
    def job_id(self) -> str:
        """Itself."""
        return self.id


class AsyncProduct(AsyncResource):
    """What a job makes: it has a name, and can be deleted once its job has ended."""

    async def update(
        self, *, display_name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Self:
        """Another name or other labels; StateConflictError once its job has ended."""
        body = {"display_name": display_name, "labels": labels}
        return type(self)(await self.transport.patch(self["links"]["self"], body), self.transport)

    async def delete(self) -> None:
        """Delete it; StateConflictError before its job has ended, or while something is built on it."""
        await self.transport.delete(self["links"]["self"])


class AsyncDataset(AsyncProduct):
    """Labelled images."""

    async def splits(self) -> list[dict[str, Any]]:
        """Its splits as files: name, size_bytes, sha256, media_type, links; none before the import."""
        answer = await self.transport.get(f"{self['links']['self']}/splits")
        return list(answer["items"])

    async def download(self, split: str, folder: str | Path) -> Path:
        """The images of 'train', 'val' or 'test' as an .npz file in `folder`, checked.

        Arrays `images` (uint8, (n, c, h, w)), `labels` (int64) and `class_names`.
        """
        files = {str(file["name"]).removesuffix(".npz"): file for file in await self.splits()}
        if split not in files:
            allowed = ", ".join(map(repr, files)) or "none, for its import has not succeeded"
            raise DownloadError(f"{self.id} has no split {split!r} to download; it has: {allowed}")
        (path,) = await _fetch_all(self.transport, [files[split]], folder)
        return path


class AsyncSupernet(AsyncProduct):
    """A weight-shared network."""

    async def best(self, **bounds: float | str) -> AsyncPoint:
        """The most accurate measured network within bounds such as max_macs=5e6 or max_params='60%'."""
        return AsyncPoint(await self.transport.get(f"{self['links']['self']}/best", bounds), self.transport)

    async def frontier(
        self, objectives: list[str] | None = None, **bounds: float | str
    ) -> Frontier[AsyncPoint]:
        """The frontier over everything measured with the final weights, by rising cost."""
        params = {**bounds, "objectives": objectives or ["macs"]}
        answer = await self.transport.get(f"{self['links']['self']}/frontier", params)
        return Frontier(AsyncPoint(item, self.transport) for item in answer["items"])

    async def curves(self) -> list[dict[str, Any]]:
        """The training curves, one point an epoch."""
        answer = await self.transport.get(f"{self['links']['self']}/curves")
        return list(answer["items"])

    async def probes(self) -> dict[str, Any]:
        """What a fixed set of networks got right on val after every epoch so far: `networks`, `epochs`."""
        return dict(await self.transport.get(f"{self['links']['self']}/probes"))

    async def artifacts(self) -> list[dict[str, Any]]:
        """Its weights as a file: name, size_bytes, sha256, media_type, links; none before training ended."""
        answer = await self.transport.get(f"{self['links']['self']}/artifacts")
        return list(answer["items"])

    async def download(self, folder: str | Path) -> list[Path]:
        """Its weights in `folder`, checked; a later training can begin with the file (`warm_start`)."""
        return await _fetch_all(self.transport, await self.artifacts(), folder)


class AsyncSearch(AsyncProduct):
    """A question put to a supernet."""

    async def trials(self) -> AsyncIterator[AsyncPoint]:
        """Its trials so far, in the order of their numbers."""
        async for item in self.transport.pages(f"{self['links']['self']}/trials"):
            yield AsyncPoint(item, self.transport)

    async def pareto(self) -> Frontier[AsyncPoint]:
        """The frontier of its trials so far, by rising cost."""
        answer = await self.transport.get(f"{self['links']['self']}/pareto")
        return Frontier(AsyncPoint(item, self.transport) for item in answer["items"])


class AsyncSubnet(AsyncProduct):
    """A network taken out of a supernet."""

    async def artifacts(self) -> list[dict[str, Any]]:
        """The files of its bundle: name, size_bytes, sha256, media_type, links."""
        answer = await self.transport.get(f"{self['links']['self']}/artifacts")
        return list(answer["items"])

    async def download(self, folder: str | Path) -> list[Path]:
        """Every file of the bundle in `folder`, checked; what is there already is not fetched again."""
        return await _fetch_all(self.transport, await self.artifacts(), folder)


class AsyncPoint(AsyncJsonObject):
    """A measured network."""

    @property
    def architecture(self) -> dict[str, Any]:
        """Its choices, readable."""
        return dict(self["architecture"])

    @property
    def costs(self) -> dict[str, int]:
        """macs, params, size_bytes, peak_activation_bytes."""
        return dict(self["costs"])

    @property
    def costs_provenance(self) -> Provenance:
        """What the costs are: counted."""
        return Provenance(self["costs_provenance"])

    @property
    def accuracy_provenance(self) -> Provenance:
        """What the accuracy is: measured."""
        return Provenance(self["accuracy_val"]["provenance"])

    @property
    def accuracy(self) -> float:
        """Measured on val, 0 to 1."""
        return float(self["accuracy_val"]["value"])

    @property
    def interval_95(self) -> tuple[float, float]:
        """Of the accuracy."""
        low, high = self["accuracy_val"]["interval_95"]
        return float(low), float(high)

    async def specialise(self, **names: Any) -> AsyncSubnet:
        """A subnet of this network, queued; `names` may be display_name and labels."""
        supernet_id = str(self["links"]["supernet"]).rpartition("/")[2]
        body = {"supernet_id": supernet_id, "architecture": self.architecture, **names}
        return AsyncSubnet(await self.transport.create("/v1/subnets", body), self.transport)

    async def download(self, folder: str | Path, timeout: float | None = None) -> list[Path]:
        """The network's bundle in `folder`, made now and waited for."""
        subnet = await self.specialise()
        subnet = await subnet.wait(timeout=timeout)
        return await subnet.download(folder)


ResourceT = TypeVar("ResourceT", bound=AsyncResource)


def _succeeded(resource: ResourceT) -> ResourceT:
    if resource.state is JobState.FAILED:
        raise JobFailedError(f"{resource.id} failed: {resource['error'] or resource['state_reason']}")
    if resource.state is JobState.CANCELLED:
        raise JobCancelledError(f"{resource.id} was cancelled: {resource['state_reason']}")
    return resource


async def _fetch_all(
    transport: AsyncTransport, files: Iterable[Mapping[str, Any]], folder: str | Path
) -> list[Path]:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    return [await fetch(transport, file, target) for file in files]
