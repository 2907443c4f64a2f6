"""The client: one collection for each kind of resource."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from nas.client.asynchronous.collection import AsyncCollection, AsyncNamedCollection, AsyncProducts
from nas.client.asynchronous.devices import AsyncDevices, AsyncMeasured, AsyncWorkFiles
from nas.client.asynchronous.events import job_events
from nas.client.asynchronous.resource import AsyncJob
from nas.client.asynchronous.resources import (
    AsyncDataset,
    AsyncEvaluationBatch,
    AsyncEvaluationItem,
    AsyncPoint,
    AsyncSearch,
    AsyncSubnet,
    AsyncSupernet,
    AsyncVerification,
)
from nas.client.asynchronous.transport import AsyncTransport
from nas.client.asynchronous.uploads import AsyncUploads
from nas.client.asynchronous.verifications import AsyncVerifications
from nas.client.event import Event
from nas.client.frontier import Frontier


class AsyncClient:
    """A connection to the service at `url`. Close it, or use it as a context manager."""

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = 30.0) -> None:
        self._transport = AsyncTransport(url, key=key, timeout_s=timeout_s)
        self.uploads = AsyncUploads(self._transport)
        self.datasets = AsyncDatasets(self._transport)
        self.search_spaces = AsyncSearchSpaces(self._transport)
        self.supernets = AsyncSupernets(self._transport)
        self.searches = AsyncSearches(self._transport)
        self.evaluation_batches = AsyncEvaluationBatches(self._transport)
        self.subnets = AsyncSubnets(self._transport)
        self.verifications = AsyncVerifications(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.devices = AsyncDevices(self._transport)
        self.measurements = AsyncMeasured(self._transport)
        self.work_files = AsyncWorkFiles(self._transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def version(self) -> dict[str, str]:
        """Which release the service is."""
        return dict(await self._transport.get("/version"))


class AsyncDatasets(AsyncProducts[AsyncDataset]):
    """Images to train on."""

    path = "/v1/datasets"
    kind = AsyncDataset

    async def create(
        self,
        source: Mapping[str, Any],
        *,
        split: Mapping[str, Any] | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncDataset:
        """Register images; a worker imports them, so paths are those of the workers' machine.

        `source` is one of, by its kind:
        {"kind": "bundled", "name": "digits"};
        {"kind": "folder", "path": …}: class folders, or train, val and test of class folders;
        {"kind": "parquet", "path": …}, or "train" with or without "val" and "test";
        {"kind": "npz", "path": …}: arrays `images` and `labels`, or `train_images`, `x_train` and so on;
        {"kind": "huggingface", "path": …}: `save_to_disk`, a repository's Parquet, or image files;
        {"kind": "archive", "path": …} or {"kind": "archive", "upload_id": "up_…"}: a zip or tar of these.
        All take "skip_unreadable": True, which leaves out images that cannot be read and counts them.
        """
        return await self.create_from(
            {"source": source, "split": split, "display_name": display_name, "labels": labels}
        )


class AsyncSearchSpaces:
    """What can be trained and searched."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> list[dict[str, Any]]:
        """Every search space."""
        answer = await self._transport.get("/v1/search-spaces")
        return list(answer["items"])

    async def get(
        self, name: str, *, num_classes: int | None = None, in_channels: int | None = None
    ) -> dict[str, Any]:
        """One search space, decision by decision, with costs for these classes and channels."""
        params = {"num_classes": num_classes, "in_channels": in_channels}
        return dict(await self._transport.get(f"/v1/search-spaces/{quote(name, safe='')}", params))


class AsyncSupernets(AsyncProducts[AsyncSupernet]):
    """Weight-shared networks."""

    path = "/v1/supernets"
    kind = AsyncSupernet

    async def create(
        self,
        dataset_id: str,
        search_space: str,
        *,
        recipe: Mapping[str, Any] | None = None,
        seed: int | None = None,
        num_workers: int | None = None,
        num_probes: int | None = None,
        warm_start: Mapping[str, str] | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncSupernet:
        """Train a supernet; what is left out, of the recipe (see `nas.recipe`) too, takes its default.

        `num_probes` networks are measured after every epoch, beside the ends of the space (`probes`).
        `warm_start` begins from weights: {"supernet_id": "sn_…"}, or {"upload_id": "up_…"} of a file.
        """
        body = {
            "dataset_id": dataset_id,
            "search_space": search_space,
            "recipe": recipe,
            "seed": seed,
            "num_workers": num_workers,
            "num_probes": num_probes,
            "warm_start": warm_start,
            "display_name": display_name,
            "labels": labels,
        }
        return await self.create_from(body)

    async def best(self, supernet_id: str, **bounds: float | str) -> AsyncPoint:
        """See `Supernet.best`."""
        return await self._unread(supernet_id).best(**bounds)

    async def frontier(
        self, supernet_id: str, objectives: list[str] | None = None, **bounds: float | str
    ) -> Frontier[AsyncPoint]:
        """See `Supernet.frontier`."""
        return await self._unread(supernet_id).frontier(objectives, **bounds)

    async def evaluate(
        self,
        supernet_id: str,
        architectures: Iterable[Mapping[str, Any] | str],
        *,
        constraints: Mapping[str, float | str] | None = None,
        device: str | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncEvaluationBatch:
        """See `Supernet.evaluate`."""
        return await self._unread(supernet_id).evaluate(
            architectures,
            constraints=constraints,
            device=device,
            display_name=display_name,
            labels=labels,
        )

    async def evaluate_from(self, supernet_id: str, body: Mapping[str, Any]) -> AsyncEvaluationBatch:
        """See `Supernet.evaluate_from`."""
        return await self._unread(supernet_id).evaluate_from(body)

    def evaluations(self, supernet_id: str, device: str | None = None) -> AsyncIterator[AsyncPoint]:
        """See `Supernet.evaluations`."""
        return self._unread(supernet_id).evaluations(device)

    async def curves(self, supernet_id: str) -> list[dict[str, Any]]:
        """See `Supernet.curves`."""
        return await self._unread(supernet_id).curves()

    async def probes(self, supernet_id: str) -> dict[str, Any]:
        """See `Supernet.probes`."""
        return await self._unread(supernet_id).probes()


class AsyncSearches(AsyncProducts[AsyncSearch]):
    """Questions put to supernets."""

    path = "/v1/searches"
    kind = AsyncSearch

    async def create(
        self,
        supernet_id: str | None = None,
        num_trials: int | None = None,
        *,
        extends: str | None = None,
        device: str | None = None,
        constraints: Mapping[str, float | str] | None = None,
        objectives: list[str] | None = None,
        proposer: str | None = None,
        prefilter: str | None = None,
        seed: int | None = None,
        flat_rounds: int | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncSearch:
        """Search a trained supernet under constraints such as {"max_macs": "60%"}.

        With `device`, "latency_ms" may be an objective, and "max_latency_ms" a constraint.

        With `extends`, go on from a search that has ended: what is left out is taken from it. With
        `flat_rounds`, end once so many rounds together gained next to no hypervolume.
        """
        body = {
            "supernet_id": supernet_id,
            "num_trials": num_trials,
            "extends": extends,
            "device": device,
            "constraints": constraints,
            "objectives": objectives,
            "proposer": proposer,
            "prefilter": prefilter,
            "seed": seed,
            "flat_rounds": flat_rounds,
            "display_name": display_name,
            "labels": labels,
        }
        return await self.create_from(body)

    async def validate(
        self,
        supernet_id: str | None = None,
        num_trials: int = 1,
        *,
        extends: str | None = None,
        device: str | None = None,
        constraints: Mapping[str, float | str] | None = None,
    ) -> dict[str, Any]:
        """The dry run of a search: its `verdict`, and what the search would cost.

        With a feasible verdict comes a `witness`, with an infeasible one `nearest`, `relax`, `relax_alone`.
        """
        asked = {"supernet_id": supernet_id, "extends": extends, "num_trials": num_trials}
        return await self.validate_from({**asked, "device": device, "constraints": constraints})

    async def validate_from(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The same from a whole request body, as `create_from` takes it."""
        return dict(await self._transport.post(f"{self.path}:validate", body))

    def trials(self, search_id: str) -> AsyncIterator[AsyncPoint]:
        """See `Search.trials`."""
        return self._unread(search_id).trials()

    def rounds(self, search_id: str) -> AsyncIterator[Mapping[str, Any]]:
        """See `Search.rounds`."""
        return self._unread(search_id).rounds()

    async def pareto(self, search_id: str) -> Frontier[AsyncPoint]:
        """See `Search.pareto`."""
        return await self._unread(search_id).pareto()

    async def export_optuna(self, search_id: str, path: str | Path) -> Path:
        """See `Search.export_optuna`."""
        return await self._unread(search_id).export_optuna(path)

    async def finalise(self, search_id: str, trial_numbers: Iterable[int] | None = None) -> AsyncVerification:
        """See `Search.finalise`."""
        return await self._unread(search_id).finalise(trial_numbers)

    async def finalists(self, search_id: str) -> list[AsyncPoint]:
        """See `Search.finalists`."""
        return await self._unread(search_id).finalists()


class AsyncEvaluationBatches(AsyncNamedCollection[AsyncEvaluationBatch]):
    """Networks chosen outside; `supernets.evaluate` creates a batch."""

    path = "/v1/evaluation-batches"
    kind = AsyncEvaluationBatch

    def networks(self, batch_id: str) -> AsyncIterator[AsyncEvaluationItem]:
        """See `EvaluationBatch.networks`."""
        return self._unread(batch_id).networks()


class AsyncSubnets(AsyncProducts[AsyncSubnet]):
    """Networks taken out of supernets."""

    path = "/v1/subnets"
    kind = AsyncSubnet

    async def create(
        self,
        *,
        supernet_id: str | None = None,
        architecture: Mapping[str, Any] | str | None = None,
        constraints: Mapping[str, float | str] | None = None,
        device: str | None = None,
        search_id: str | None = None,
        trial_number: int | None = None,
        verification_id: str | None = None,
        network_number: int | None = None,
        training: str | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncSubnet:
        """Take out a network: of a supernet by architecture or constraints, or a search's trial.

        With the weights that it inherits; or a network of a verification with those that it was trained to.
        """
        body = {
            "supernet_id": supernet_id,
            "architecture": architecture,
            "constraints": constraints,
            "device": device,
            "search_id": search_id,
            "trial_number": trial_number,
            "verification_id": verification_id,
            "network_number": network_number,
            "training": training,
            "display_name": display_name,
            "labels": labels,
        }
        return await self.create_from(body)

    async def artifacts(self, subnet_id: str) -> list[dict[str, Any]]:
        """See `Subnet.artifacts`."""
        return await self._unread(subnet_id).artifacts()

    async def download(self, subnet_id: str, folder: str | Path) -> list[Path]:
        """See `Subnet.download`."""
        return await self._unread(subnet_id).download(folder)


class AsyncJobs(AsyncCollection[AsyncJob]):
    """The work behind the resources."""

    path = "/v1/jobs"
    kind = AsyncJob

    async def cancel(self, job_id: str) -> AsyncJob:
        """Ask the job to stop; asking again changes nothing."""
        job = await self.get(job_id)
        return await job.cancel()

    def events(self, job_id: str, after_id: int = 0) -> AsyncGenerator[Event, None]:
        """The job's events as they happen, until it has ended."""
        return job_events(self._transport, job_id, after_id=after_id)
