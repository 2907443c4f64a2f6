"""Measures how long the models of a work file take on this machine: `python probe.py work.zip out.jsonl`.

One file that needs Python 3.9 or later, NumPy and ONNX Runtime, and nothing of the service that made the work
file. That holds the fused blocks of a search space and some of its whole networks as ONNX models.

Models take turns, each in several visits at random moments, and a sentinel model runs before and after each
visit. Where that is off by more than 5 % from what it took lately, something came between, and the visit is
repeated. Where it has become slower for good, as when the clock is lowered, times are scaled back by as much.
A second pass over the whole networks and some blocks tells how well figures repeat. Where fewer than 80 % of
them come within 10 % of the first, nothing is written: such figures would be noise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import sys
import time
import zipfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

SCHEMA = 1
AGREEMENT = 0.10
"""Two figures of one model agree within this part of the first."""
LEAST_AGREEING = 0.80
DRIFT = 0.05
"""Of the sentinel: beyond it a visit does not count."""
VISITS = 5
MAX_VISITS = 40
"""Of a model whose visits were disturbed."""
GLANCES = 40
"""At the sentinel while waiting for a calm moment; without one the visit is put off."""
PAUSE_S = 0.001
"""Between them."""
WARM_UP_RUNS = 10
"""At a model's first visit; half of them at others."""
RUNS = 20
MIN_RUNS = 3
VISIT_S = 0.3
"""After this long a visit ends, if it has had the fewest runs."""
SENTINEL_RUNS = 5
REMEMBERED = 60
"""Last glances at the sentinel that say what is usual."""
TOGETHER = 48
"""Models held at once; they take turns with each other."""
BLOCKS_REPEATED = 100
EXIT_NOISY = 3


class NoisyError(Exception):
    """Figures that do not repeat."""


@dataclass
class Item:
    """One model of the work file."""

    id: str
    kind: str
    """block, network, sentinel or empty."""
    model: str
    """Its file within the zip."""
    inputs: dict[str, list[int]]
    """Shapes by name."""
    describes: dict[str, Any]
    """What the reader of the figures knows it by."""
    visits: list[list[float]] = field(default_factory=list)
    """Milliseconds of the runs of each visit that counts."""
    num_disturbed: int = 0

    def figures(self) -> dict[str, Any]:
        """Median and spread over all runs that count, and the lowest and highest median of a visit.

        Deviation: no bootstrap interval of the median. Runs of one visit have their moment in common, so that
        the visits are the sample, and of five a bootstrap knows too little: what it calls 95 % holds the true
        median in some 88 of 100 simulated cases. The lowest and highest of k independent visits hold it in
        all but 2 of 2^k, whatever the distribution: 94 of 100 for five. `visits` says of how many they are.
        """
        runs = sorted(run for visit in self.visits for run in visit)
        medians = [statistics.median(visit) for visit in self.visits]
        return {
            "p50_ms": statistics.median(runs),
            "mean_ms": statistics.fmean(runs),
            "p90_ms": runs[int(0.9 * (len(runs) - 1))],
            "low_ms": min(medians),
            "high_ms": max(medians),
            "visits": len(medians),
            "n": len(runs),
            "warmup": WARM_UP_RUNS,
            "disturbed": self.num_disturbed,
        }


class Runner:
    """One model, ready to run."""

    def __init__(self, model: bytes, inputs: dict[str, list[int]], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        rng = numpy.random.default_rng(0)
        self._feeds = {
            name: rng.standard_normal(shape).astype(numpy.float32) for name, shape in inputs.items()
        }
        self._is_warm = False

    def visit(self, runs: int = RUNS) -> list[float]:
        """Milliseconds of each run, warm-ups left out."""
        for _ in range(WARM_UP_RUNS // (2 if self._is_warm else 1)):
            self._session.run(None, self._feeds)
        self._is_warm = True
        return self.timed(runs)

    def timed(self, runs: int) -> list[float]:
        """Milliseconds of each run."""
        taken: list[float] = []
        end = time.perf_counter() + VISIT_S
        while len(taken) < runs and (len(taken) < MIN_RUNS or time.perf_counter() < end):
            started = time.perf_counter()
            self._session.run(None, self._feeds)
            taken.append(1e3 * (time.perf_counter() - started))
        return taken


class Sentinel:
    """The model by which the others' moments are judged."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        runner.visit()
        self._seen = deque((self._glance() for _ in range(REMEMBERED)), REMEMBERED)
        self.first_ms = self.usual_ms()
        """What it took when the probe began: all times are as if it always did."""
        self.slowest = 1.0
        """Largest slowdown at a visit that counts."""

    def usual_ms(self) -> float:
        """The lower quartile of the last glances: what disturbs them only ever makes them longer."""
        return sorted(self._seen)[len(self._seen) // 4]

    def slowdown(self) -> float:
        """How much longer everything takes now than when the probe began."""
        slowdown = self.usual_ms() / self.first_ms
        self.slowest = max(self.slowest, slowdown)
        return slowdown

    def is_calm(self) -> bool:
        """Whether it takes as long as usual right now."""
        self._seen.append(self._glance())
        return abs(self._seen[-1] / self.usual_ms() - 1) <= DRIFT

    def wait_for_calm(self) -> bool:
        """Whether a calm moment came."""
        for _ in range(GLANCES):
            if self.is_calm():
                return True
            time.sleep(PAUSE_S)
        return False

    def _glance(self) -> float:
        return statistics.median(self._runner.timed(SENTINEL_RUNS))


class Work:
    """The work file."""

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads
        self._archive = zipfile.ZipFile(path)
        self.content: dict[str, Any] = json.loads(self._archive.read("work.json"))
        if self.content.get("schema") != SCHEMA:
            raise SystemExit(f"the work file's schema is not {SCHEMA}; get probe.py and work file together")
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def items(self, *kinds: str) -> list[Item]:
        """The models of those kinds, not yet measured."""
        return [Item(**entry) for entry in self.content["items"] if entry["kind"] in kinds]

    def runner(self, item: Item) -> Runner:
        """The item's model, loaded."""
        return Runner(self._archive.read(item.model), item.inputs, self._threads)


def measure(work: Work, items: list[Item], sentinel: Sentinel, shuffle: random.Random) -> None:
    """Fill in the visits of every item; NoisyError where one has none that counts."""
    order = list(items)
    # So that what changes over the run does not line up with shapes, which lie in order.
    shuffle.shuffle(order)
    for start in range(0, len(order), TOGETHER):
        group = order[start : start + TOGETHER]
        runners = {item.id: work.runner(item) for item in group}
        for _ in range(MAX_VISITS):
            waiting = [item for item in group if len(item.visits) < VISITS]
            shuffle.shuffle(waiting)
            for item in waiting:
                runs = runners[item.id].visit() if sentinel.wait_for_calm() else []
                if runs and sentinel.is_calm():
                    slowdown = sentinel.slowdown()
                    item.visits.append([run / slowdown for run in runs])
                else:
                    item.num_disturbed += 1
        for item in group:
            if not item.visits:
                raise NoisyError(f"{item.id} had no undisturbed visit in {MAX_VISITS}")
        _tell(f"measured {min(start + TOGETHER, len(order))} of {len(order)}")


def repeatability(first: list[Item], second: list[Item]) -> dict[str, Any]:
    """How many figures of the second pass agree with the first; NoisyError where too few do."""
    figures = {item.id: item.figures()["p50_ms"] for item in first}
    apart = [abs(item.figures()["p50_ms"] / figures[item.id] - 1) for item in second]
    agreeing = sum(part <= AGREEMENT for part in apart) / len(apart)
    if agreeing < LEAST_AGREEING:
        raise NoisyError(
            f"only {100 * agreeing:.0f} % of {len(apart)} figures repeat within {100 * AGREEMENT:.0f} %; "
            f"{100 * LEAST_AGREEING:.0f} % are needed"
        )
    return {"agreeing": agreeing, "median_apart": statistics.median(apart), "num_models": len(apart)}


def probe(path: Path, *, device: str, threads: int, seed: int = 0) -> list[dict[str, Any]]:
    """The header and one line a model; NoisyError where the figures do not repeat."""
    work, shuffle = Work(path, threads), random.Random(seed)
    (guard,) = work.items("sentinel")
    sentinel = Sentinel(work.runner(guard))
    items = work.items("block", "network", "empty")
    measure(work, items, sentinel, shuffle)
    blocks = work.items("block")
    again = work.items("network") + shuffle.sample(blocks, min(BLOCKS_REPEATED, len(blocks)))
    measure(work, again, sentinel, shuffle)
    header = {
        "schema": SCHEMA,
        "device": device,
        "runtime": "onnxruntime",
        "threads": threads,
        "batch": work.content["batch"],
        "dtype": "fp32",
        "tools": {
            "onnxruntime": onnxruntime.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "machine": platform.machine(),
        "work_sha256": work.sha256,
        "sentinel": guard.describes,
        "sentinel_ms": sentinel.first_ms,
        "slowest": sentinel.slowest,
        "repeatability": repeatability(items, again),
        **{name: work.content[name] for name in ("space", "num_classes", "in_channels")},
    }
    lines = [{"kind": item.kind, **item.describes, **item.figures()} for item in items]
    second = [item for item in again if item.kind == "network"]
    return [header, *lines, *({"kind": "network_again", **i.describes, **i.figures()} for i in second)]


def pin(cores: str, threads: int) -> list[int] | None:
    """Stay on these processors, or on the last `threads` of those allowed; None where that cannot be had.

    A thread that moves finds its caches cold. The last are the fast ones where there are slow ones too.
    """
    if not hasattr(os, "sched_setaffinity"):
        if cores:
            raise SystemExit("--cores is for Linux alone; leave it out here")
        return None
    allowed = sorted(os.sched_getaffinity(0))
    chosen = [int(core) for core in cores.split(",")] if cores else allowed[-threads:]
    os.sched_setaffinity(0, chosen)
    return chosen


def main(arguments: list[str]) -> int:
    """Probe and write; the exit status, 3 where the figures do not repeat."""
    parser = argparse.ArgumentParser(description="measure the models of a work file on this machine")
    parser.add_argument("work", type=Path, help="the zip that the service made")
    parser.add_argument("out", type=Path, help="where the figures go, as JSON lines")
    parser.add_argument("--device", default=None, help="a name for this machine; its host name by default")
    parser.add_argument("--threads", type=int, default=1, help="threads that share one model")
    parser.add_argument("--cores", default="", help="processors to stay on, like 2,3; the last by default")
    options = parser.parse_args(arguments)
    cores = pin(options.cores, options.threads)
    device = options.device or platform.node().lower() or "unnamed"
    try:
        lines = probe(options.work, device=device, threads=options.threads)
        lines[0]["cores"] = cores
    except NoisyError as noise:
        _tell(f"nothing was written: {noise}. Stop other programs, fix the clock, and run again")
        return EXIT_NOISY
    # Under another name first: a file of that name is then always a whole one.
    unfinished = options.out.with_name(options.out.name + ".unfinished")
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    unfinished.replace(options.out)
    _tell(f"wrote {options.out}: {json.dumps(lines[0]['repeatability'])}")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
