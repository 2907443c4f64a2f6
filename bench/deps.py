"""Whether DεpS pays: how soon it is as good as BigNAS is in the end, at the full and at 0.625 of the length.

For each seed three runs on the same images, epoch by epoch in turn, so that a machine whose speed drifts
slows all alike: `bignas`, `deps` of as many epochs, `deps` of 0.625 as many. After every epoch the largest
and the smallest network are measured on validation images, recalibrated; measuring is not timed. A run has
arrived with the first epoch after which both are within 0.3 point of where the `bignas` run ends, or above;
`bignas` itself may arrive before its end. Told is the wall-clock till then, as a part of the whole `bignas`
run's, and the same in multiply-adds of forward passes, which no other load on the machine can change.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.dataset import DataSet
from bench.intervals import ratio_interval
from nas.architecture import Architecture
from nas.costs import costs
from nas.recipe import Recipe
from nas.recipes import RECIPES
from nas.space import SearchSpace
from search_spaces import SPACES
from supernet.training import StepStats, tune_malloc

ALLOWED_POINTS = 0.3
"""How far below its goal a network may be."""
SHORTER = 0.625
"""The part of the epochs that the shorter run has."""


def main(arguments: Sequence[str]) -> None:
    """Train, then say when each run arrived; `--out` keeps curves, and seeds found there are not rerun."""
    options = _parser().parse_args(arguments)
    tune_malloc()
    torch.set_num_threads(options.threads)
    kept = _read(options)
    data, space = DataSet(options.data), SPACES[options.space]
    for seed in options.seeds:
        if str(seed) not in kept["seeds"]:
            kept["seeds"][str(seed)] = _run_seed(data, space, options.epochs, seed)
            if options.out:
                options.out.write_text(json.dumps(kept, indent=1))
    _tell([kept["seeds"][str(seed)] for seed in options.seeds])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench deps")
    parser.add_argument("--data", type=Path, help="folder with train.parquet; by default the bundled digits")
    parser.add_argument("--space", default="micro_8", choices=SPACES)
    parser.add_argument("--epochs", type=int, default=40, help="of bignas and of the longer deps run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser


def _read(options: argparse.Namespace) -> dict[str, Any]:
    """What `--out` holds of the same measurement, or its beginning."""
    asked = {"data": str(options.data), "space": options.space, "epochs": options.epochs}
    asked["threads"] = options.threads
    if options.out is None or not options.out.exists():
        return {**asked, "seeds": {}}
    kept = json.loads(options.out.read_text())
    found = {name: kept[name] for name in asked}
    if found != asked:
        raise SystemExit(f"{options.out} holds another measurement, {found}; choose another --out")
    return kept


# Training


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run after an epoch."""

    seconds: float
    """Of training alone, since the beginning."""
    gmacs: float
    """Forward passes, each image once for every network that it went through; in units of 10⁹."""
    largest: float
    """Accuracy in percent."""
    smallest: float


class _Run:
    def __init__(self, data: DataSet, space: SearchSpace, recipe: Recipe, seed: int) -> None:
        self._data = data
        self._space = space
        self._trainer = data.trainer(space, recipe, seed)
        self._images_per_step = recipe.batch_size
        self._steps_per_epoch = self._trainer.stack.num_steps // recipe.epochs
        self._seconds = 0.0
        self._gmacs = 0.0
        self.points: list[Point] = []

    def epoch(self) -> None:
        """One more, and its point; nothing past the end of the run."""
        if self._trainer.step == self._trainer.stack.num_steps:
            return
        steps: list[StepStats] = []
        started = time.perf_counter()
        self._trainer.run(self._steps_per_epoch, on_step=steps.append)
        self._seconds += time.perf_counter() - started
        self._gmacs += sum(self._gmacs_of(slot.architecture) for step in steps for slot in step.slots)
        evaluator = self._data.evaluator(self._trainer.supernet)
        accuracies = [
            100 * evaluator.evaluate(network).accuracy
            for network in (self._space.largest(), self._space.smallest())
        ]
        self.points.append(
            Point(seconds=self._seconds, gmacs=self._gmacs, largest=accuracies[0], smallest=accuracies[1])
        )

    def _gmacs_of(self, architecture: Architecture) -> float:
        supernet = self._trainer.supernet
        one = costs(
            self._space,
            architecture,
            num_classes=supernet.num_classes,
            in_channels=supernet.in_channels,
        )
        return one["macs"] * self._images_per_step / 1e9


def _run_seed(data: DataSet, space: SearchSpace, epochs: int, seed: int) -> dict[str, list[dict[str, float]]]:
    deps = RECIPES["deps"]
    runs = {
        "bignas": _Run(data, space, replace(RECIPES["bignas"], epochs=epochs), seed),
        "deps": _Run(data, space, replace(deps, epochs=epochs), seed),
        f"deps {SHORTER}": _Run(data, space, replace(deps, epochs=max(1, round(SHORTER * epochs))), seed),
    }
    for _ in range(epochs):
        for run in runs.values():
            run.epoch()
    return {name: [asdict(point) for point in run.points] for name, run in runs.items()}


# Telling


def _tell(seeds: Sequence[dict[str, list[dict[str, float]]]]) -> None:
    curves = [{name: [Point(**p) for p in points] for name, points in seed.items()} for seed in seeds]
    for name in curves[0]:
        ends = [seed[name][-1] for seed in curves]
        print(
            f"{name}, {len(curves[0][name])} epochs: at the end largest {_mean(e.largest for e in ends)}, "
            f"smallest {_mean(e.smallest for e in ends)} %, {_mean(e.seconds for e in ends)} s"
        )
    for name in curves[0]:
        arrivals = [arrival(seed[name], seed["bignas"][-1]) for seed in curves]
        ends = [seed["bignas"][-1] for seed in curves]
        reached = [(a, e) for a, e in zip(arrivals, ends, strict=True) if a is not None]
        print(f"{name}: {len(reached)} of {len(arrivals)} seeds arrive", end="")
        if reached:
            clock = ratio_interval([a.seconds / e.seconds for a, e in reached])
            work = ratio_interval([a.gmacs / e.gmacs for a, e in reached])
            print(
                f", in {clock} of the wall-clock and {work} of the multiply-adds of the whole bignas run",
                end="",
            )
        print()
    for name in curves[0]:
        if name != "bignas":
            clock, work = zip(*(epoch_ratio(seed[name]) for seed in curves), strict=True)
            print(
                f"{name}: its last epoch takes {ratio_interval(clock)} times as long as its first, and "
                f"{ratio_interval(work)} times the multiply-adds (DεpS's law (f): about 3)"
            )


def epoch_ratio(points: Sequence[Point]) -> tuple[float, float]:
    """What the last epoch took, of what the first did: in seconds, and in multiply-adds of forward passes."""
    first, before, last = points[0], points[-2], points[-1]
    return (last.seconds - before.seconds) / first.seconds, (last.gmacs - before.gmacs) / first.gmacs


def arrival(points: Sequence[Point], goal: Point) -> Point | None:
    """The first at which both networks are as good as the goal, less what is allowed; None: there is none."""
    for point in points:
        short = max(goal.largest - point.largest, goal.smallest - point.smallest)
        if short <= ALLOWED_POINTS:
            return point
    return None


def _mean(values) -> str:
    return f"{np.mean(list(values)):.1f}"
