"""DeepMAD's programs: the best of a space under three budgets, and networks of free widths with a bound."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from nas.prefilter.deepmad import Demand, backbone_params, cut_options, deepmad_flops, score, solve
from nas.prefilter.deepmad.correlation import agreement
from nas.prefilter.deepmad.free_bound import certify, multipliers_near
from nas.prefilter.deepmad.free_search import search_free
from nas.prefilter.deepmad.free_widths import FreeTask
from nas.prefilter.deepmad.score import PenalisedStages, ScoreRules
from nas.prefilter.deepmad.tables import score_tables
from search_spaces import SPACES

SPACE = "ofa_mobilenetv3"
BUDGETS = {"macs": 230e6, "params": 5e6, "deepmad_flops": 250e6}
EFFECTIVENESS = (None, 0.6, 0.5)
KEPT = 0.99
"""Options are cut that no network has whose objective is at least this part of the best."""
_R18 = FreeTask(max_flops=1.82e9, max_params=11.69e6, max_effectiveness=0.3)
_R34 = FreeTask(max_flops=3.68e9, max_params=21.8e6, max_effectiveness=0.3)
TASKS = {"R18": _R18, "R34": _R34}
_STRICT = {"min_depths": (1, 2, 2, 2, 2), "penalised_stages": PenalisedStages.ALL}
STRICT_TASKS = {f"{name}, all depths alike": replace(task, **_STRICT) for name, task in TASKS.items()}
"""Without the loophole of the official penalty, which looks at the last three depths alone."""


@dataclass(frozen=True)
class Seconds:
    """By the clock, and of the processor: on a shared machine the first says little."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.processor:.2f} s of processor)"


def main(arguments: Sequence[str]) -> None:
    """Seconds and results; what is found is scored and counted anew by its lowering."""
    parser = argparse.ArgumentParser(prog="bench deepmad")
    parser.add_argument("--part", choices=("all", "space", "free", "strict", "published"), default="all")
    parser.add_argument("--data", type=Path, help="Folder of the data; where published accuracies are.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--beam", type=int, default=16)
    parser.add_argument("--evaluations", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.part in ("all", "space"):
        _discrete(options.repeats)
    if options.part == "published":
        _published(options.data)
    if options.part in ("space", "published"):
        return
    tasks = STRICT_TASKS if options.part == "strict" else TASKS
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rows = [
            pool.submit(_free, name, task, options.starts, options.beam, options.evaluations, options.seed)
            for name, task in tasks.items()
        ]
        for row in rows:
            print(row.result())


def _discrete(repeats: int) -> None:
    space = SPACES[SPACE]
    _, taken = _timed(lambda: score_tables(space, tuple(sorted(BUDGETS)), {}))
    print(f"{SPACE}: tables made once a process in {taken}")
    for limit in EFFECTIVENESS:
        demand = Demand(budgets=BUDGETS, max_effectiveness=limit)
        runs = [_timed(lambda demand=demand: solve(space, demand)) for _ in range(repeats)]
        solution, best = runs[0][0], runs[0][0].ranked[0]
        taken = Seconds(*(statistics.median(getattr(t, n) for _, t in runs) for n in ("wall", "processor")))
        costs = ", ".join(f"{name} {cost / 1e6:.2f} M" for name, cost in best.costs.items())
        print(
            f"effectiveness at most {limit}: {taken}, objective {best.score.objective:.3f}, "
            f"proved {solution.is_proved}, {solution.num_relaxations} relaxations, {solution.num_programs} "
            f"integer programs; {costs}; effectiveness {best.score.effectiveness:.4f}"
        )
        ranked, taken = _timed(lambda demand=demand: solve(space, demand, count_best=5).ranked)
        print(f"  five best: {taken}, {', '.join(f'{r.score.objective:.2f}' for r in ranked)}")
        floor = KEPT * best.score.objective
        cut, taken = _timed(lambda demand=demand, floor=floor: cut_options(space, demand, floor=floor))
        left = sum(len(options) for options in cut.kept.values())
        total = sum(len(decision.options) for decision in space.decisions)
        print(
            f"  options within {1 - KEPT:.0%} of the best: {left} of {total}, "
            f"log-size {cut.log_size_before:.2f} to {cut.log_size_after:.2f}, {taken}"
        )


def _published(data: Path) -> None:
    """How the objective goes with accuracies that others measured on their supernet."""
    space = SPACES[SPACE]
    rows = pq.read_table(data / "ofa_mbv3" / "published_evaluations.parquet").to_pylist()
    networks = [space.parse({field: row[field] for field in ("ks", "e", "d", "r")}) for row in rows]
    objectives = np.array([score(space.lower(network)).objective for network in networks])
    found = agreement(
        objectives,
        np.array([row["top1"] for row in rows]),
        np.array([float(row["macs"]) for row in rows]),
        np.random.default_rng(0),
    )
    for name in ("spearman", "spearman_given_macs"):
        correlation = getattr(found, name)
        low, high = correlation.interval_95
        print(f"{len(rows)} published networks, {name}: {correlation.value:.3f} ({low:.3f} to {high:.3f})")


def _free(name: str, task: FreeTask, starts: int, beam: int, evaluations: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    found, searched = _timed(lambda: search_free(task, rng, starts=starts, beam=beam))
    structure = found.structure(0)
    layers = structure.lower()
    scored = score(layers, ScoreRules(penalised_stages=task.penalised_stages))
    flops, params = deepmad_flops(layers), backbone_params(layers)
    num_convs = 1 + 3 * sum(scored.depths)
    start = multipliers_near(scored.objective, num_convs)
    proof, proved = _timed(lambda: certify(task, start, evaluations=evaluations))
    holds = flops <= task.max_flops and params <= task.max_params
    holds = holds and scored.effectiveness <= task.max_effectiveness
    stages = " ".join(
        f"{s.out_channels}/{s.inner_channels}/{s.kernel}/{s.depth}" for s in structure.stages[1:]
    )
    return (
        f"{name}: objective {scored.objective:.1f} found in {searched}, at most {proof.bound:.1f} proved in "
        f"{proved}: gap {1 - scored.objective / proof.bound:.2%}; keeps its limits: {holds} "
        f"({flops / 1e9:.4f} G, {params / 1e6:.3f} M, {scored.effectiveness:.4f}); "
        f"stem {structure.stages[0].out_channels}, stages {stages}"
    )


def _timed(work):
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - processor)
