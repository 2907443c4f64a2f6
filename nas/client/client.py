# Made by `python -m nas.client.derive` from nas/client/asynchronous/client.py: change that one.
"""The client: one collection for each kind of resource."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from nas.client.collection import Collection, NamedCollection, Products
from nas.client.devices import Devices, Measured, WorkFiles
from nas.client.event import Event
from nas.client.events import job_events
from nas.client.frontier import Frontier
from nas.client.resource import Job
from nas.client.resources import (
    Dataset,
    EvaluationBatch,
    EvaluationItem,
    Point,
    Search,
    Subnet,
    Supernet,
    Verification,
)
from nas.client.transport import Transport
from nas.client.uploads import Uploads
from nas.client.verifications import Verifications


class Client:
    """A connection to the service at `url`. Close it, or use it as a context manager."""

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = 30.0) -> None:
        self._transport = Transport(url, key=key, timeout_s=timeout_s)
        self.uploads = Uploads(self._transport)
        self.datasets = Datasets(self._transport)
        self.search_spaces = SearchSpaces(self._transport)
        self.supernets = Supernets(self._transport)
        self.searches = Searches(self._transport)
        self.evaluation_batches = EvaluationBatches(self._transport)
        self.subnets = Subnets(self._transport)
        self.verifications = Verifications(self._transport)
        self.jobs = Jobs(self._transport)
        self.devices = Devices(self._transport)
        self.measurements = Measured(self._transport)
        self.work_files = WorkFiles(self._transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def version(self) -> dict[str, str]:
        """Which release the service is."""
        return dict(self._transport.get("/version"))


class Datasets(Products[Dataset]):
    """Images to train on."""

    path = "/v1/datasets"
    kind = Dataset

    def create(
        self,
        source: Mapping[str, Any],
        *,
        split: Mapping[str, Any] | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Dataset:
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
        return self.create_from(
            {"source": source, "split": split, "display_name": display_name, "labels": labels}
        )


class SearchSpaces:
    """What can be trained and searched."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[dict[str, Any]]:
        """Every search space."""
        answer = self._transport.get("/v1/search-spaces")
        return list(answer["items"])

    def get(
        self, name: str, *, num_classes: int | None = None, in_channels: int | None = None
    ) -> dict[str, Any]:
        """One search space, decision by decision, with costs for these classes and channels."""
        params = {"num_classes": num_classes, "in_channels": in_channels}
        return dict(self._transport.get(f"/v1/search-spaces/{quote(name, safe='')}", params))


class Supernets(Products[Supernet]):
    """Weight-shared networks."""

    path = "/v1/supernets"
    kind = Supernet

    def create(
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
    ) -> Supernet:
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
        return self.create_from(body)

    def best(self, supernet_id: str, **bounds: float | str) -> Point:
        """See `Supernet.best`."""
        return self._unread(supernet_id).best(**bounds)

    def frontier(
        self, supernet_id: str, objectives: list[str] | None = None, **bounds: float | str
    ) -> Frontier[Point]:
        """See `Supernet.frontier`."""
        return self._unread(supernet_id).frontier(objectives, **bounds)

    def evaluate(
        self,
        supernet_id: str,
        architectures: Iterable[Mapping[str, Any] | str],
        *,
        constraints: Mapping[str, float | str] | None = None,
        device: str | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> EvaluationBatch:
        """See `Supernet.evaluate`."""
        return self._unread(supernet_id).evaluate(
            architectures,
            constraints=constraints,
            device=device,
            display_name=display_name,
            labels=labels,
        )

    def evaluate_from(self, supernet_id: str, body: Mapping[str, Any]) -> EvaluationBatch:
        """See `Supernet.evaluate_from`."""
        return self._unread(supernet_id).evaluate_from(body)

    def evaluations(self, supernet_id: str, device: str | None = None) -> Iterator[Point]:
        """See `Supernet.evaluations`."""
        return self._unread(supernet_id).evaluations(device)

    def curves(self, supernet_id: str) -> list[dict[str, Any]]:
        """See `Supernet.curves`."""
        return self._unread(supernet_id).curves()

    def probes(self, supernet_id: str) -> dict[str, Any]:
        """See `Supernet.probes`."""
        return self._unread(supernet_id).probes()


class Searches(Products[Search]):
    """Questions put to supernets."""

    path = "/v1/searches"
    kind = Search

    def create(
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
    ) -> Search:
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
        return self.create_from(body)

    def validate(
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
        return self.validate_from({**asked, "device": device, "constraints": constraints})

    def validate_from(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The same from a whole request body, as `create_from` takes it."""
        return dict(self._transport.post(f"{self.path}:validate", body))

    def trials(self, search_id: str) -> Iterator[Point]:
        """See `Search.trials`."""
        return self._unread(search_id).trials()

    def rounds(self, search_id: str) -> Iterator[Mapping[str, Any]]:
        """See `Search.rounds`."""
        return self._unread(search_id).rounds()

    def pareto(self, search_id: str) -> Frontier[Point]:
        """See `Search.pareto`."""
        return self._unread(search_id).pareto()

    def export_optuna(self, search_id: str, path: str | Path) -> Path:
        """See `Search.export_optuna`."""
        return self._unread(search_id).export_optuna(path)

    def finalise(self, search_id: str, trial_numbers: Iterable[int] | None = None) -> Verification:
        """See `Search.finalise`."""
        return self._unread(search_id).finalise(trial_numbers)

    def finalists(self, search_id: str) -> list[Point]:
        """See `Search.finalists`."""
        return self._unread(search_id).finalists()


class EvaluationBatches(NamedCollection[EvaluationBatch]):
    """Networks chosen outside; `supernets.evaluate` creates a batch."""

    path = "/v1/evaluation-batches"
    kind = EvaluationBatch

    def networks(self, batch_id: str) -> Iterator[EvaluationItem]:
        """See `EvaluationBatch.networks`."""
        return self._unread(batch_id).networks()


class Subnets(Products[Subnet]):
    """Networks taken out of supernets."""

    path = "/v1/subnets"
    kind = Subnet

    def create(
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
    ) -> Subnet:
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
        return self.create_from(body)

    def artifacts(self, subnet_id: str) -> list[dict[str, Any]]:
        """See `Subnet.artifacts`."""
        return self._unread(subnet_id).artifacts()

    def download(self, subnet_id: str, folder: str | Path) -> list[Path]:
        """See `Subnet.download`."""
        return self._unread(subnet_id).download(folder)


class Jobs(Collection[Job]):
    """The work behind the resources."""

    path = "/v1/jobs"
    kind = Job

    def cancel(self, job_id: str) -> Job:
        """Ask the job to stop; asking again changes nothing."""
        job = self.get(job_id)
        return job.cancel()

    def events(self, job_id: str, after_id: int = 0) -> Generator[Event, None]:
        """The job's events as they happen, until it has ended."""
        return job_events(self._transport, job_id, after_id=after_id)
