"""Does DeepMAD before a search make it better? Searches with and without it, on one trained supernet.

A supernet is trained, or read from `--out` where that was done. Then, for each proposer and seed, two
searches that measure its networks on validation images: one as it is, one with `prefilter: deepmad`, each
with as many trials. What was measured is kept in `--out`: no network is measured twice, and sittings add up.

Hypervolume of accuracy and MACs is told as a share of that of everything measured, below the largest MACs and
the lowest accuracy measured; the difference is paired by seed.

    python -m bench prefilter --data ../shared/data/cifar10 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.dataset import DataSet
from bench.intervals import mean_interval
from bench.recipe_changes import add_set_option, recipe_changes
from bench.sittings import OutOfTimeError, is_over, train
from nas.architecture import Architecture
from nas.pareto import Direction, Objective, hypervolume
from nas.prefilter.deepmad.search_filter import DeepMadFilter, FilterReport
from nas.recipes import recipe_from_json
from nas.search.cost_model import SpaceCosts
from nas.search.loop import Proposer, SearchLoop
from nas.search.proposers import make_proposer
from nas.search.region import FeasibleRegion
from nas.search.settings import ACCURACY, ProposerName, SearchSettings
from search_spaces import SPACES
from supernet.evaluate import SubnetEvaluator
from supernet.training import tune_malloc
from supernet.training.checkpoint import replace_file

OBJECTIVES = (ACCURACY, Objective("macs", Direction.MINIMISE))
_KEEP_EVERY = 20
"""Measurements between two writings of the file."""
_KEPT_BYTES = 2**28
"""Of activations, for networks that begin alike."""

Losses = np.ndarray
"""MACs and accuracy less than none, shape (n, 2)."""


def main(arguments: Sequence[str]) -> None:
    """Train, search, and say what the pre-filter was worth."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    tune_malloc()
    deadline = time.monotonic() + 60 * options.minutes
    recipe = {"name": options.recipe, "epochs": options.epochs, **recipe_changes(options.set)}
    told = {"space": options.space, "data": str(options.data), "recipe": recipe}
    data = DataSet(options.data)
    trainer = data.trainer(SPACES[options.space], recipe_from_json(recipe), seed=0)
    try:
        train(trainer, options.out / "supernet", deadline)
        evaluator = SubnetEvaluator(
            trainer.supernet.eval(), data.resized, checkpoint="bench", max_kept_bytes=_KEPT_BYTES
        )
        supernet = trainer.supernet
        costs = SpaceCosts(
            space=supernet.space, num_classes=supernet.num_classes, in_channels=supernet.in_channels
        )
        measured = Measured(evaluator, costs, options.out / "measured.json", told, deadline)
        pairs = {
            ProposerName(name): [
                _searched_both_ways(measured, ProposerName(name), options.trials, seed)
                for seed in range(options.seeds)
            ]
            for name in options.proposers
        }
    except OutOfTimeError as reason:
        print(f"{reason}; the same command goes on")
        return
    measured.keep()
    scores = {proposer: Scores.of(found, measured.losses) for proposer, found in pairs.items()}
    for proposer, found in pairs.items():
        _tell(proposer, found, scores[proposer])
    first, *others = scores
    for other in others:
        lead = scores[other].without - scores[first].without
        print(f"{other} less {first}, both without: {mean_interval(lead)} points")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench prefilter")
    parser.add_argument("--data", type=Path, help="folder with train.parquet; by default the bundled digits")
    parser.add_argument("--out", type=Path, required=True, help="folder of the supernet and its measurements")
    parser.add_argument("--space", default="micro", choices=SPACES)
    parser.add_argument("--recipe", default="bignas")
    parser.add_argument("--epochs", type=int, default=2)
    add_set_option(parser)
    parser.add_argument("--trials", type=int, default=60, help="of each search")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--proposers", nargs="+", choices=[*ProposerName], default=["nsga2", "model"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the sitting after so many")
    return parser


@dataclass(frozen=True)
class Found:
    """What a search is told of a network."""

    accuracy: float


class Measured:
    """A supernet's networks with their accuracies on val; each is measured once, over all sittings."""

    def __init__(
        self,
        evaluator: SubnetEvaluator,
        costs: SpaceCosts,
        file: Path,
        told: dict[str, Any],
        deadline: float,
    ) -> None:
        self.costs = costs
        self._evaluator, self._file, self._deadline = evaluator, file, deadline
        self._kept: dict[str, Any] = {**told, "networks": {}}
        if file.exists():
            self._kept = json.loads(file.read_text())
            if {name: self._kept[name] for name in told} != told:
                raise SystemExit(f"{file} is of another supernet; choose another --out")

    def found(self, network: Architecture) -> Found:
        """Measured now unless it was before; OutOfTimeError where the sitting is over."""
        networks = self._kept["networks"]
        if network.key not in networks:
            if is_over(self._deadline):
                self.keep()
                raise OutOfTimeError(f"{len(networks)} networks are measured")
            (macs,) = self.costs.batch(self.costs.space.encode([network]), ["macs"])["macs"].tolist()
            networks[network.key] = [macs, self._evaluator.evaluate(network).accuracy]
            if len(networks) % _KEEP_EVERY == 0:
                self.keep()
        return Found(networks[network.key][1])

    @property
    def losses(self) -> Losses:
        """Of everything measured."""
        return np.array([[macs, -accuracy] for macs, accuracy in self._kept["networks"].values()])

    def keep(self) -> None:
        """Write all of it."""
        replace_file(self._file, json.dumps(self._kept).encode())


class _Prefilter:
    """DeepMAD as the loop asks for it, judged by the search's own first round."""

    def __init__(self, region: FeasibleRegion, settings: SearchSettings, costs: SpaceCosts) -> None:
        self.report: FilterReport | None = None
        self._region, self._settings = region, settings
        self._filter = DeepMadFilter(
            region,
            cost_objectives=settings.cost_objectives,
            num_classes=costs.num_classes or costs.space.default_classes,
            in_channels=costs.in_channels or costs.space.default_channels,
            seed=settings.seed,
        )

    def seeds(self) -> Sequence[Architecture]:
        """DeepMAD's own."""
        return self._filter.seeds(self._settings.num_seeds)

    def narrow(
        self, measured: Sequence[tuple[Architecture, float]]
    ) -> tuple[FeasibleRegion, Proposer] | None:
        """Where the search goes on, if the first round agrees with DeepMAD."""
        self.report = self._filter.judge(measured)
        if not self.report.is_cut:
            return None
        region = replace(self._region, cut=self._filter.cut)
        return region, make_proposer(region, self._settings)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One seed's two searches."""

    without: Losses
    with_it: Losses
    report: FilterReport


def _searched_both_ways(measured: Measured, proposer: ProposerName, num_trials: int, seed: int) -> Pair:
    settings = SearchSettings(num_trials=num_trials, objectives=OBJECTIVES, seed=seed, proposer=proposer)
    region = FeasibleRegion(measured.costs)
    prefilter = _Prefilter(region, settings, measured.costs)

    def searched(prefilter: _Prefilter | None) -> Losses:
        loop = SearchLoop[Found](
            region=region,
            settings=settings,
            proposer=make_proposer(region, settings),
            prefilter=prefilter,
        )
        trials = loop.run(lambda numbered: [measured.found(network) for _, network in numbered]).trials
        return np.array([[trial.costs["macs"], -trial.measurement.accuracy] for trial in trials])

    without, with_it = searched(None), searched(prefilter)
    assert prefilter.report is not None, "the first round has been judged"
    print(f"{proposer}, seed {seed}: {prefilter.report.reason}", flush=True)
    return Pair(without=without, with_it=with_it, report=prefilter.report)


@dataclass(frozen=True)
class Scores:
    """Hypervolumes of one proposer's searches, in percent of that of everything measured, one a seed."""

    without: np.ndarray
    with_it: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[Pair], everything: Losses) -> Scores:
        """Below the largest MACs and the lowest accuracy measured."""
        corner = everything.max(axis=0)
        whole = hypervolume(everything, corner)

        def shares(searches: Sequence[Losses]) -> np.ndarray:
            return np.array([100 * hypervolume(losses, corner) / whole for losses in searches])

        return cls(shares([pair.without for pair in pairs]), shares([pair.with_it for pair in pairs]))


def _tell(proposer: ProposerName, pairs: Sequence[Pair], scores: Scores) -> None:
    num_cut = sum(pair.report.is_cut for pair in pairs)
    print(
        f"{proposer}: hypervolume {scores.without.mean():.2f} % without, {scores.with_it.mean():.2f} % with "
        f"DeepMAD, which cut {num_cut} of {len(pairs)} searches; the difference "
        f"{mean_interval(scores.with_it - scores.without)} points",
        flush=True,
    )
