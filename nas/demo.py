"""The demo of `make run`: the whole path on scikit-learn's digits, told step by step."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nas.client import Client
from nas.client.resource import Resource
from nas.client.resources import Point, Subnet, Supernet
from nas.costs import costs
from nas.errors import NasError
from search_spaces import SPACES

SPACE = "micro_8"
SPLIT = {"val_fraction": 0.5}
"""Few images and many networks: with a tenth on val, most networks would tie."""
RECIPE = {
    "name": "deps",
    "epochs": 40,
    "batch_size": 16,
    "base_learning_rate": 0.3,
    "weight_decay": 0.0005,
    "dropout": 0.0,
    "delay_fraction": 0.8,
}
"""Digits are so easy that, trained alike, a lucky small network beats a large one on val. Four fifths of this
training are the largest network's alone, which is also the shortest way to a good one; the others come after
and are the less like it the smaller they are."""
NUM_TRIALS = 30
BUDGET_PERCENT = (20, 40, 60, 80, 100)
"""Of the largest network's MACs."""

_LEAST_WORTH_TELLING = 10
"""Jobs of fewer steps are over before a line about them is read."""

Say = Callable[[str], None]
ResourceT = TypeVar("ResourceT", bound=Resource)


class Demo:
    """Callable as `nas.serve.Work`."""

    def __init__(self, say: Say, home: Path, *, ends_service: bool) -> None:
        """Downloads go to `home`; `ends_service` stops the service once the demo is over."""
        self._say = say
        self._home = home
        self._ends_service = ends_service

    def __call__(self, url: str, ended: threading.Event) -> int:
        """Run against the service at `url`; 0 if every step succeeded."""
        status = 1
        try:
            with Client(url) as client:
                self._run(client, url)
            status = 0
        except NasError as error:
            self._say(f"the demo failed: {error}")
        finally:
            # After a defect of ours too: nobody would end the service otherwise.
            if self._ends_service or status:
                ended.set()
        if not self._ends_service:
            self._say(f"\nThe service goes on at {url}/docs; Ctrl-C stops it.")
        return status

    def _run(self, client: Client, url: str) -> None:
        supernet = self._train(client)
        self._search(client, supernet)
        chosen = self._show_best(client, supernet, url)
        subnets = self._specialise(chosen)
        self._run_download(subnets[max(subnets)])

    def _train(self, client: Client) -> Supernet:
        self._say("\n1. Images in: scikit-learn's 1,797 handwritten digits")
        dataset = client.datasets.create(
            {"kind": "bundled", "name": "digits"}, split=SPLIT, display_name="digits"
        )
        dataset = self._wait(dataset)
        counts = ", ".join(f"{dataset['counts'][split]} {split}" for split in ("train", "val", "test"))
        self._say(f"   {counts}; fingerprint {dataset['fingerprint'][:12]}")
        size = SPACES[SPACE].size()
        self._say(
            f"\n2. One weight-shared supernet: space {SPACE}, {size:.1e} networks, {RECIPE['epochs']} epochs"
        )
        supernet = client.supernets.create(dataset.id, SPACE, recipe=RECIPE, display_name="digits demo")
        supernet = self._wait(supernet)
        last = supernet.curves()[-1]
        self._say(
            f"   largest network {last['accuracy_val_largest']:.1%}, smallest "
            f"{last['accuracy_val_smallest']:.1%} on val, {last['elapsed_s']:.0f} s"
        )
        return supernet

    def _search(self, client: Client, supernet: Supernet) -> None:
        self._say(f"\n3. Search: {NUM_TRIALS} networks measured, batch norm recalibrated for each")
        search = client.searches.create(
            supernet.id,
            num_trials=NUM_TRIALS,
            objectives=["accuracy", "macs"],
            display_name="digits demo",
        )
        search = self._wait(search)
        self._say(f"   {len(search.pareto())} networks on the frontier")

    def _show_best(self, client: Client, supernet: Supernet, url: str) -> list[Point]:
        in_channels, num_classes = 1, 10
        largest = costs(
            SPACES[SPACE], SPACES[SPACE].largest(), num_classes=num_classes, in_channels=in_channels
        )
        self._say(f"\n4. The best measured network under five budgets (100 % = {largest['macs']:,} MACs)")
        self._say("   budget       MACs    params   size     accuracy on val (95 % interval)")
        chosen: dict[str, Point] = {}
        for percent in BUDGET_PERCENT:
            started = time.perf_counter()
            point = client.supernets.best(supernet.id, max_macs=largest["macs"] * percent // 100)
            answered_ms = 1000 * (time.perf_counter() - started)
            self._say(f"   {percent:4d} %  {_row(point)}   answered in {answered_ms:.0f} ms")
            chosen[point["architecture_key"]] = point
        bound = largest["macs"] // 2
        self._say(f"   ask yourself: curl '{url}/v1/supernets/{supernet.id}/best?max_macs={bound}'")
        self._say(
            f"   in milliseconds: nas device probe --supernet {supernet.id} measures this machine; then "
            f"nas best {supernet.id} --device host --max-latency-ms 0.1"
        )
        return list(chosen.values())

    def _specialise(self, chosen: Sequence[Point]) -> dict[int, Subnet]:
        """The chosen networks as bundles, by their MACs; each is measured once on the test split."""
        self._say(f"\n5. Ready weights: {len(chosen)} distinct networks cut out, no retraining")
        started = [(point.costs["macs"], point.specialise()) for point in chosen]
        subnets = {macs: subnet.wait() for macs, subnet in started}
        for macs, subnet in sorted(subnets.items()):
            test = subnet["accuracy_test"]
            low, high = test["interval_95"]
            interval = f"{low:.1%} to {high:.1%}"
            self._say(f"   {macs:9,} MACs: {test['value']:.1%} on test ({interval})  {subnet.id}")
        return subnets

    def _run_download(self, subnet: Subnet) -> None:
        folder = self._home / "downloads" / subnet.id
        names = [path.name for path in subnet.download(folder)]
        with zipfile.ZipFile(folder / "bundle.zip") as bundle:
            bundle.extractall(folder)
        self._say(f"\n6. Downloaded to {folder}: {', '.join(sorted(names))}")
        num_correct, num_images = run_in_onnx_runtime(folder)
        promised = json.loads((folder / "card.json").read_text())["accuracy"]["test"]["num_correct"]
        self._say(f"   ONNX Runtime: {num_correct} of {num_images} test images; the card says {promised}")
        self._say(f"   check it anywhere: cd {folder} && python verify.py")
        if abs(num_correct - promised) > max(1, num_images // 1000):
            raise NasError("ONNX Runtime does not reproduce the card")

    def _wait(self, resource: ResourceT) -> ResourceT:
        told: set[tuple[str, int]] = set()

        def show(current: Resource) -> None:
            progress = current["progress"]
            if not progress or progress["total"] < _LEAST_WORTH_TELLING:
                return
            moment = (progress["phase"], 10 * progress["done"] // progress["total"])
            if moment not in told:
                told.add(moment)
                self._say(f"   {_progress_line(progress)}")

        return resource.wait(on_progress=show)


def run_in_onnx_runtime(folder: Path) -> tuple[int, int]:
    """How many of the bundle's test images `model.onnx` classifies rightly, and of how many."""
    import onnxruntime  # only here: a machine that only serves may lack it

    card = json.loads((folder / "card.json").read_text())
    arrays = np.load(folder / "check.npz", allow_pickle=False)
    images, labels = arrays["test_images"], arrays["test_labels"]
    mean, std = (np.array(card["input"][name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = (images.astype(np.float32) / np.float32(255) - mean) / std
    (logits,) = session.run(None, {card["input"]["name"]: pixels})
    return int((logits.argmax(axis=1) == labels).sum()), len(labels)


def _row(point: Point) -> str:
    low, high = point.interval_95
    figures = point.costs
    return (
        f"{figures['macs']:9,} {figures['params']:9,} {figures['size_bytes'] / 1e6:5.2f} MB   "
        f"{point.accuracy:6.1%} ({low:.1%} to {high:.1%})"
    )


def _progress_line(progress: Mapping[str, Any]) -> str:
    share = progress["done"] / progress["total"]
    eta = progress["eta_seconds"]
    left = f", about {eta:.0f} s left" if eta else ""
    return f"{progress['phase']}: {share:.0%}{left}"
