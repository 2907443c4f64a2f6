"""The proposers on tables of trained networks: how much of the true front they find with few measurements.

A search is confined to the networks that a table has, and its seeds count as measurements. Hypervolume is
told as a share of the true front's, below the front's largest cost and lowest accuracy, moved out by 1e-4 of
each; regret as the accuracy missing under the quartiles of the front's costs. Settings were chosen on seeds
100 to 109, so those from 0 judge.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.intervals import mean_interval
from bench.search_predictor import SIZES, measure_predictor
from bench.search_tables import Table, cells, macro
from nas.pareto import Direction, Objective, hypervolume
from nas.search.loop import SearchLoop
from nas.search.proposers import make_proposer
from nas.search.rounds import Origin, SearchTrial
from nas.search.settings import ACCURACY, ProposerName, SearchSettings

TABLES: dict[str, Callable[[Path], Table]] = {"macro": macro, "cells": cells}
BUDGETS = {"macro": (55, 83), "cells": (90,)}
"""2 % of the distinct networks, and 3 % of NAS-Bench-Macro's."""
_BEYOND = 1e-4
_QUARTILES = (0.25, 0.5, 0.75)
_BASELINES = (ProposerName.NSGA2, ProposerName.TPE, ProposerName.RANDOM)


@dataclass(frozen=True)
class Measured:
    """What a table says of a network."""

    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of one proposer, one row a seed."""

    volumes: np.ndarray
    """Shares of the true front's hypervolume, shape (seeds,)."""
    log_volumes: np.ndarray
    """The same with the logarithm of the cost."""
    regrets: np.ndarray
    """Points of accuracy, shape (seeds, quartiles)."""
    forecasts: list[SearchTrial[Measured]]
    """Of all seeds, the trials that were predicted with an interval before they were measured."""
    duration_s: float


def main(arguments: Sequence[str]) -> None:
    """One line for each table, budget and proposer, and the model's paired lead over the baselines."""
    parser = argparse.ArgumentParser(prog="bench search")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tables", nargs="+", choices=[*TABLES], default=[*TABLES])
    parser.add_argument(
        "--proposers", nargs="*", default=[ProposerName.MODEL, *_BASELINES], help="none: the predictor alone"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--round-size", type=int, default=10)
    parser.add_argument("--budgets", nargs="+", type=int, help="in place of the standard ones")
    parser.add_argument(
        "--learned",
        nargs="*",
        type=int,
        default=SIZES,
        help="random networks for the predictor to learn from",
    )
    asked = parser.parse_args(arguments)
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    for name in asked.tables:
        table = TABLES[name](asked.data)
        print(f"{name}: {len(table.networks)} networks, {len(table.front)} on the front", flush=True)
        for budget in (asked.budgets or BUDGETS[name]) if asked.proposers else ():
            _compare(table, [ProposerName(p) for p in asked.proposers], budget, seeds, asked.round_size)
        measure_predictor(table, [n for n in asked.learned if n < len(table.networks)], seeds)


def _compare(
    table: Table, proposers: Sequence[ProposerName], budget: int, seeds: Sequence[int], round_size: int
) -> None:
    found: dict[ProposerName, Scores] = {}
    for proposer in proposers:
        found[proposer] = scores = _scores(table, proposer, budget, seeds, round_size)
        regrets = ", ".join(f"{regret:.2f}" for regret in scores.regrets.mean(axis=0))
        print(
            f"  {budget} measured, {proposer}: {_percent(scores.volumes)}, log cost "
            f"{_percent(scores.log_volumes)}, regret at the quartiles {regrets} points, "
            f"{scores.duration_s:.1f} s CPU a search",
            flush=True,
        )
    if ProposerName.MODEL in found:
        _tell_leads(found)
        _tell_forecasts(found[ProposerName.MODEL].forecasts)


def _tell_leads(found: dict[ProposerName, Scores]) -> None:
    """The model less each other proposer, seed by seed."""
    ours = found[ProposerName.MODEL]
    for proposer, theirs in found.items():
        if proposer is not ProposerName.MODEL:
            leads = [
                mean_interval(100 * (a - b))
                for a, b in ((ours.volumes, theirs.volumes), (ours.log_volumes, theirs.log_volumes))
            ]
            print(f"    model less {proposer}: {leads[0]} points; log cost {leads[1]}")


def _tell_forecasts(forecasts: Sequence[SearchTrial[Measured]]) -> None:
    held = [t.prediction.holds(t.measurement.accuracy) for t in forecasts if t.prediction]
    if held:
        print(f"    90 % intervals held {100 * np.mean(held):.1f} % of {len(held)} selected networks")


def _scores(
    table: Table, proposer: ProposerName, budget: int, seeds: Sequence[int], round_size: int
) -> Scores:
    volumes, log_volumes, regrets, forecasts = [], [], [], []
    started = time.process_time()
    for seed in seeds:
        trials = search_table(table, proposer, budget, seed, round_size)
        losses = np.array([[trial.costs[table.cost], -trial.measurement.accuracy] for trial in trials])
        volumes.append(share_of_volume(losses, table.front))
        log_volumes.append(share_of_volume(_log_cost(losses), _log_cost(table.front)))
        regrets.append(regrets_at_quartiles(losses, table.front))
        forecasts += [t for t in trials if _is_forecast(t)]
    return Scores(
        volumes=np.array(volumes),
        log_volumes=np.array(log_volumes),
        regrets=np.array(regrets),
        forecasts=forecasts,
        duration_s=(time.process_time() - started) / len(seeds),
    )


def search_table(
    table: Table, proposer: ProposerName, budget: int, seed: int, round_size: int
) -> tuple[SearchTrial[Measured], ...]:
    """The trials of one search that measures by looking up."""
    objectives = (ACCURACY, Objective(table.cost, Direction.MINIMISE))
    settings = SearchSettings(
        num_trials=budget, objectives=objectives, seed=seed, round_size=round_size, proposer=proposer
    )
    region = table.region
    loop = SearchLoop[Measured](region=region, settings=settings, proposer=make_proposer(region, settings))
    outcome = loop.run(lambda numbered: [Measured(table.accuracy_of[network]) for _, network in numbered])
    return outcome.trials


def share_of_volume(losses: np.ndarray, front: np.ndarray) -> float:
    """Hypervolume of the losses (n, 2) in that of the true front (k, 2)."""
    worst = front.max(axis=0)
    corner = worst + _BEYOND * np.abs(worst)
    return hypervolume(losses, corner) / hypervolume(front, corner)


def regrets_at_quartiles(losses: np.ndarray, front: np.ndarray) -> list[float]:
    """Points of accuracy between the true best and the best found under each quartile of the front's costs.

    Where nothing that cheap was found, all of the true best's.
    """
    regrets = []
    for limit in np.quantile(front[:, 0], _QUARTILES):
        true, found = (-rows[rows[:, 0] <= limit, 1].min(initial=0.0) for rows in (front, losses))
        regrets.append(100 * (true - found))
    return regrets


def _is_forecast(trial: SearchTrial[Any]) -> bool:
    has_interval = trial.prediction is not None and np.isfinite(trial.prediction.high)
    return trial.origin is Origin.PROPOSED and has_interval


def _log_cost(losses: np.ndarray) -> np.ndarray:
    return np.column_stack([np.log(losses[:, 0]), losses[:, 1]])


def _percent(shares: np.ndarray) -> str:
    return f"{100 * shares.mean():.2f} % (worst {100 * shares.min():.2f} %)"
