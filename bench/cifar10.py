"""The whole path over HTTP on CIFAR-10: train, search, specialise; optionally with a killed worker.

The service must run (`nas serve`). With `--kills` the worker process is killed with -9 at random moments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from math import sqrt
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from bench.recipe_changes import add_set_option, recipe_changes
from nas.client import Client
from nas.client.resource import Resource
from nas.client.resources import Point

Z_95 = 1.959963984540054


def main(arguments: Sequence[str]) -> None:
    """Run and print what docs/results.md reports; `--out` keeps it as JSON with the frontier."""
    options = _parser().parse_args(arguments)
    serve = _pid_of_serve(options.home) if options.kills else None
    watcher = _Watcher(options.url, serve, _kill_moments(options))
    watcher.start()
    with Client(options.url) as client:
        result = _run(client, options)
    watcher.stop()
    result["watch"] = watcher.report()
    print(json.dumps({k: v for k, v in result.items() if k != "frontier"}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench cifar10")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--images", type=int, help="only so many of each file, its first")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--space", default="micro")
    parser.add_argument("--epochs", type=int, default=2)
    add_set_option(parser)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0, help="kill -9 the worker so often, at random moments")
    parser.add_argument("--kill-seed", type=int, default=0)
    parser.add_argument("--expected-s", type=float, default=360.0, help="the kills fall within so long")
    parser.add_argument("--home", type=Path, default=Path(".nas"), help="of the service to harm")
    parser.add_argument("--out", type=Path)
    return parser


def _run(client: Client, options: argparse.Namespace) -> dict[str, Any]:
    source = {"kind": "parquet"} | {name: str(path) for name, path in _files(options).items()}
    dataset = client.datasets.create(source, display_name="CIFAR-10").wait(on_progress=_tell)
    recipe = {"name": "bignas", "epochs": options.epochs, **recipe_changes(options.set)}
    supernet = client.supernets.create(dataset.id, options.space, recipe=recipe, seed=options.seed)
    supernet = supernet.wait(on_progress=_tell)
    search = client.searches.create(supernet.id, num_trials=options.trials, seed=options.seed)
    search = search.wait(on_progress=_tell)
    frontier = supernet.frontier()
    chosen = [frontier[0], frontier[-1]]
    subnets = [point.specialise().wait(on_progress=_tell) for point in chosen]
    trials = list(search.trials())
    keys = [trial["architecture_key"] for trial in trials]
    return {
        "supernet": supernet.id,
        "train_s": _duration_s(supernet),
        "search_s": _duration_s(search),
        "num_trials": len(trials),
        "num_distinct_networks": len(set(keys)),
        "curves": supernet.curves(),
        "chosen": [_figures(point, subnet) for point, subnet in zip(chosen, subnets, strict=True)],
        "difference_on_test": _difference(subnets),
        "frontier": [_point(point) for point in frontier],
    }


def _files(options: argparse.Namespace) -> dict[str, Path]:
    """By split; beginnings of the files are kept beside the service's data, which has to read them again."""
    files = {split: options.data.resolve() / f"{split}.parquet" for split in ("train", "test")}
    if options.images is None:
        return files
    folder = options.home.resolve() / f"cifar10-{options.images}"
    folder.mkdir(parents=True, exist_ok=True)
    for split, path in files.items():
        # Reads the whole file: its row groups are larger than any beginning that is of use.
        pq.write_table(pq.read_table(path).slice(0, options.images), folder / path.name)
        files[split] = folder / path.name
    return files


def _figures(point: Point, subnet: Resource) -> dict[str, Any]:
    return {
        "subnet": subnet.id,
        "costs": point.costs,
        "accuracy_val": subnet["accuracy_val"],
        "accuracy_test": subnet["accuracy_test"],
    }


def _point(point: Point) -> dict[str, Any]:
    return {"macs": point.costs["macs"], "accuracy": point.accuracy, "interval_95": list(point.interval_95)}


def _difference(subnets: Sequence[Resource]) -> dict[str, float]:
    """Largest less smallest on test, with a 95 % interval that treats the two as independent.

    They were measured on the same images, so the true interval is narrower.
    """
    small, large = (subnet["accuracy_test"] for subnet in subnets)
    spread = sqrt(sum(a["value"] * (1 - a["value"]) / a["num_images"] for a in (small, large)))
    difference = large["value"] - small["value"]
    return {"value": difference, "low": difference - Z_95 * spread, "high": difference + Z_95 * spread}


def _duration_s(resource: Resource) -> float:
    job = resource.refresh()
    started, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "ended_at"))
    return (ended - started).total_seconds()


def _tell(resource: Resource) -> None:
    progress = resource["progress"] or {}
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {resource.id} {resource.state} {progress}\n")


class _Watcher(threading.Thread):
    """Asks the API twice a second whether it answers, and kills the worker when it is time."""

    def __init__(self, url: str, serve: int | None, kill_at: Sequence[float]) -> None:
        """`serve` is the process whose worker is killed `kill_at` seconds after the start."""
        super().__init__(daemon=True)
        self._url = url
        self._serve = serve
        self._kill_at = [*kill_at]
        self._killed: list[float] = []
        self._num_asked = 0
        self._failed: list[str] = []
        self._slowest_s = 0.0
        # One client: each makes a TLS context anew, which would take a tenth of a core from the training.
        self._client = httpx.Client(timeout=10)
        self._ended = threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(0.5):
            self._ask()
            now = time.monotonic() - started
            if self._kill_at and now >= self._kill_at[0]:
                self._kill_at.pop(0)
                if self._serve and _kill_worker_of(self._serve):
                    self._killed.append(round(now, 1))

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self._client.close()

    def report(self) -> dict[str, Any]:
        return {
            "killed_at_s": self._killed,
            "asked": self._num_asked,
            "not_answered": self._failed,
            "slowest_answer_s": round(self._slowest_s, 3),
        }

    def _ask(self) -> None:
        self._num_asked += 1
        asked = time.monotonic()
        try:
            answer = self._client.get(f"{self._url}/v1/jobs?page_size=5")
            if answer.status_code != httpx.codes.OK:
                self._failed.append(f"status {answer.status_code}")
        except httpx.HTTPError as error:
            self._failed.append(repr(error))
        self._slowest_s = max(self._slowest_s, time.monotonic() - asked)


def _kill_moments(options: argparse.Namespace) -> list[float]:
    moments = random.Random(options.kill_seed)
    return sorted(moments.uniform(0.05, 0.95) * options.expected_s for _ in range(options.kills))


def _pid_of_serve(home: Path) -> int:
    """The `nas serve` that holds this home folder."""
    return int(json.loads((home / "serve.lock").read_text())["pid"])


def _kill_worker_of(serve: int) -> bool:
    # Of this service alone: another on the machine is none of ours.
    ask = ["pgrep", "-P", str(serve), "-f", "python -m workers$"]
    found = subprocess.run(ask, capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    return bool(found.stdout.split())
