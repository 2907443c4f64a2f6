"""What the service returns: read-only mappings of its JSON, with what can be done next as methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from nas.client.asynchronous.download import fetch, save
from nas.client.asynchronous.resource import AsyncJsonObject, AsyncProduct
from nas.client.asynchronous.transport import AsyncTransport
from nas.client.errors import DownloadError, NotMeasuredError
from nas.client.frontier import Frontier
from nas.trial import Provenance


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
        """The most accurate measured network within bounds such as max_macs=5e6 or max_params='60%'.

        With device='pi5', its latency there is predicted, and max_latency_ms=5 bounds it.
        """
        return AsyncPoint(await self.transport.get(f"{self['links']['self']}/best", bounds), self.transport)

    async def frontier(
        self, objectives: list[str] | None = None, **bounds: float | str
    ) -> Frontier[AsyncPoint]:
        """The frontier over everything measured with the final weights, by rising cost."""
        params = {**bounds, "objectives": objectives or ["macs"]}
        answer = await self.transport.get(f"{self['links']['self']}/frontier", params)
        return Frontier(AsyncPoint(item, self.transport) for item in answer["items"])

    async def evaluate(
        self,
        architectures: Iterable[Mapping[str, Any] | str],
        *,
        constraints: Mapping[str, float | str] | None = None,
        device: str | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncEvaluationBatch:
        """Have these networks measured, queued: as answers show them, or in the space's native notation.

        One that breaks a constraint such as {"max_macs": "60%"} is told as infeasible, and not measured.
        """
        return await self.evaluate_from(
            {
                "architectures": list(architectures),
                "constraints": constraints,
                "device": device,
                "display_name": display_name,
                "labels": labels,
            }
        )

    async def evaluate_from(self, body: Mapping[str, Any]) -> AsyncEvaluationBatch:
        """As `evaluate`, from a whole request body; the service checks it."""
        answer = await self.transport.create(f"{self['links']['self']}/evaluations", body)
        return AsyncEvaluationBatch(answer, self.transport)

    async def evaluations(self, device: str | None = None) -> AsyncIterator[AsyncPoint]:
        """Everything measured with the final weights, whatever chose it, newest first.

        With the latency of each on a device, where one is named.
        """
        params = {"device": device}
        async for item in self.transport.pages(f"{self['links']['self']}/evaluations", params):
            yield AsyncPoint(item, self.transport)

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

    async def rounds(self) -> AsyncIterator[Mapping[str, Any]]:
        """Its rounds so far: `hypervolume` below `reference`, and how well was predicted (`predictor`)."""
        async for item in self.transport.pages(f"{self['links']['self']}/rounds"):
            yield item

    async def pareto(self) -> Frontier[AsyncPoint]:
        """The frontier of its trials so far, by rising cost."""
        answer = await self.transport.get(f"{self['links']['self']}/pareto")
        return Frontier(AsyncPoint(item, self.transport) for item in answer["items"])

    async def export_optuna(self, path: str | Path) -> Path:
        """Its trials so far as a study in a new file for Optuna's JournalStorage; Optuna is not needed.

        To be read by `optuna.storages.journal.JournalFileBackend(path)`; the study's name is the search's id.
        """
        return await save(self.transport, f"{self['links']['self']}/optuna-journal", Path(path))

    @property
    def stop_reason(self) -> str | None:
        """Why it ended, such as 'budget_spent' or 'flat'; None until it has succeeded."""
        reason: str | None = self["stop_reason"]
        return reason

    async def finalise(
        self,
        trial_numbers: Iterable[int] | None = None,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncVerification:
        """Have its finalists, by default its frontier, measured on all of val, and once on test."""
        numbers = None if trial_numbers is None else list(trial_numbers)
        body = {"trial_numbers": numbers, "display_name": display_name, "labels": labels}
        answer = await self.transport.create(f"{self['links']['self']}/finalists", body)
        return AsyncVerification(answer, self.transport)

    async def finalists(self) -> list[AsyncPoint]:
        """Its trials that are measured on test, cheapest first; `accuracy_test` is for reporting alone."""
        answer = await self.transport.get(f"{self['links']['self']}/finalists")
        return [AsyncPoint(item, self.transport) for item in answer["items"]]


class AsyncVerification(AsyncProduct):
    """Chosen networks, measured to the end and trained on their own."""

    async def networks(self) -> AsyncIterator[AsyncVerifiedNetwork]:
        """Each network: what it inherits, what it learned on its own, and the difference."""
        async for item in self.transport.pages(f"{self['links']['self']}/networks"):
            yield AsyncVerifiedNetwork(item, self.transport)

    async def runs(self) -> AsyncIterator[dict[str, Any]]:
        """Every training, by network, training and learning rate, with what came of it so far."""
        async for item in self.transport.pages(f"{self['links']['self']}/runs"):
            yield dict(item)

    async def results(self, timeout: float | None = None) -> list[AsyncVerifiedNetwork]:
        """Its networks once its job has succeeded; see `wait`."""
        verification = await self.wait(timeout=timeout)
        found = self.transport.pages(f"{verification['links']['self']}/networks")
        return [AsyncVerifiedNetwork(item, self.transport) async for item in found]


class AsyncEvaluationBatch(AsyncProduct):
    """Networks chosen outside, to be measured."""

    async def networks(self) -> AsyncIterator[AsyncEvaluationItem]:
        """Its networks in the order they were given, with what is known of each so far."""
        async for item in self.transport.pages(f"{self['links']['self']}/networks"):
            yield AsyncEvaluationItem(item, self.transport)

    async def results(self, timeout: float | None = None) -> list[AsyncEvaluationItem]:
        """Its networks in the order they were given, once all are measured; see `wait`."""
        batch = await self.wait(timeout=timeout)
        found = self.transport.pages(f"{batch['links']['self']}/networks")
        return [AsyncEvaluationItem(item, self.transport) async for item in found]


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
    def latency_ms(self) -> float | None:
        """Predicted for the device that was named; None where none was. How well: `self["latency_ms"]`."""
        figure = self.get("latency_ms")
        return None if figure is None else float(figure["value"])

    @property
    def accuracy_provenance(self) -> Provenance:
        """What the accuracy is: measured."""
        return Provenance(self._measured["provenance"])

    @property
    def accuracy(self) -> float:
        """Measured on val, 0 to 1."""
        return float(self._measured["value"])

    @property
    def interval_95(self) -> tuple[float, float]:
        """Of the accuracy."""
        low, high = self._measured["interval_95"]
        return float(low), float(high)

    @property
    def origin(self) -> str | None:
        """Why a search tried it, such as 'seed' or 'proposed'; None where none did, or did not keep it."""
        name: str | None = self.get("origin")
        return name

    @property
    def predicted(self) -> Mapping[str, Any] | None:
        """What a search expected before it knew the accuracy: `value`, `interval_90`, `by` and more."""
        figure: Mapping[str, Any] | None = self.get("predicted_accuracy_val")
        return figure

    @property
    def _measured(self) -> Mapping[str, Any]:
        figure: Mapping[str, Any] | None = self["accuracy_val"]
        if figure is None:
            raise NotMeasuredError(f"network {self['number']} is {self['state']} and has no accuracy")
        return figure

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


class AsyncEvaluationItem(AsyncPoint):
    """A network that was given to be measured; without an accuracy where it was not."""

    @property
    def number(self) -> int:
        """Its place among those given, from 0."""
        return int(self["number"])

    @property
    def is_measured(self) -> bool:
        """Whether it has an accuracy; else asking for it raises NotMeasuredError."""
        return self["accuracy_val"] is not None

    @property
    def is_infeasible(self) -> bool:
        """Whether it breaks a constraint, so that it is never measured; `breaks` names which."""
        return bool(self["state"] == "infeasible")


class AsyncVerifiedNetwork(AsyncPoint):
    """A network of a verification: its accuracies are of the weights that it inherits."""

    @property
    def number(self) -> int:
        """Its place among those of the verification, from 0."""
        return int(self["number"])

    @property
    def accuracy_test(self) -> float | None:
        """Measured once, for reporting, 0 to 1; None until it is."""
        figure: Mapping[str, Any] | None = self["accuracy_test"]
        return None if figure is None else float(figure["value"])

    @property
    def trained(self) -> dict[str, dict[str, Any]]:
        """By training, `alone` or `fine_tuned`: its rate, accuracies, differences from what is inherited."""
        return {str(found["training"]): dict(found) for found in self["trained"]}

    @property
    def _measured(self) -> Mapping[str, Any]:
        figure: Mapping[str, Any] | None = self["accuracy_val"]
        if figure is None:
            raise NotMeasuredError(f"network {self['number']} is not measured yet and has no accuracy")
        return figure


async def _fetch_all(
    transport: AsyncTransport, files: Iterable[Mapping[str, Any]], folder: str | Path
) -> list[Path]:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    return [await fetch(transport, file, target) for file in files]
