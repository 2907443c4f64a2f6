"""Is a network cut from the supernet as good as the same network trained alone, epoch for epoch?

Twelve networks, fixed before anything is trained: the ends of the space and one at random from each of ten
bins of MACs. The supernet is trained by its recipe; each network alone by the same recipe with one network a
step, learning from labels and without dropout, at the learning rate of `--rate`. All are recalibrated
and measured on val, and on test for the report. May take several sittings and several processes:

    python -m bench alone --data ../shared/data/cifar10 --out FOLDER --choose-rate
    python -m bench alone --data ../shared/data/cifar10 --out FOLDER --rate R [--part supernet 0 1 …]
    python -m bench alone --out FOLDER --report

`--choose-rate` trains a thirteenth network at each of several rates and says which is best on val.
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
from bench.sittings import OutOfTimeError, spent_s, train
from nas.architecture import Architecture
from nas.costs import costs
from nas.recipe import Recipe
from nas.recipes import RECIPES
from nas.single_network import SingleNetworkSpace
from nas.space import SearchSpace
from nas.trial import Split
from nas.verification import alone_recipe
from search_spaces import SPACES
from supernet.training import tune_malloc
from supernet.training.checkpoint import replace_file

NUM_BINS = 10
CHOICE_SEED = 0
"""Of the networks, not of the trainings."""
RATES = (0.025, 0.05, 0.1, 0.2)
SUPERNET = "supernet"


def main(arguments: Sequence[str]) -> None:
    """Choose a rate, or train and measure, or report."""
    options = _parser().parse_args(arguments)
    if options.report:
        _tell(options.out)
        return
    torch.set_num_threads(options.threads)
    tune_malloc()
    comparison = Comparison(
        space=SPACES[options.space],
        recipe=replace(RECIPES[options.recipe], epochs=options.epochs),
        seed=options.seed,
        data=DataSet(options.data),
        out=options.out,
        deadline=time.monotonic() + 60 * options.minutes,
    )
    try:
        if options.choose_rate:
            comparison.choose_rate()
        else:
            for part in options.part or comparison.parts:
                comparison.do(part, options.rate)
    except OutOfTimeError as reason:
        print(f"{reason}; the same command goes on")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench alone")
    parser.add_argument(
        "--data", type=Path, help="folder with train.parquet and test.parquet; else the bundled digits"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of one comparison")
    parser.add_argument("--space", default="micro", choices=SPACES)
    parser.add_argument("--recipe", default="bignas", choices=RECIPES)
    parser.add_argument("--epochs", type=int, default=10, help="of the supernet, and of each network alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=RATES[1], help="learning rate of networks alone")
    parser.add_argument("--part", nargs="+", help=f"'{SUPERNET}' or numbers from 0 to {NUM_BINS + 1}")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the sitting after so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--choose-rate", action="store_true")
    parser.add_argument("--report", action="store_true")
    return parser


def chosen_networks(space: SearchSpace) -> tuple[tuple[Architecture, ...], Architecture]:
    """(the ends and one of each bin of MACs, from cheap to dear; another for choosing the rate)."""
    rng = np.random.default_rng(CHOICE_SEED)
    drawn = sorted((space.sample(rng) for _ in range(1000)), key=lambda a: costs(space, a)["macs"])
    size = len(drawn) // NUM_BINS
    bins = [drawn[size * b : size * (b + 1)] for b in range(NUM_BINS)]
    inner = [members[int(rng.integers(size))] for members in bins]
    middle = next(a for a in bins[NUM_BINS // 2] if a not in inner)
    return (space.smallest(), *inner, space.largest()), middle


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One supernet against networks alone; everything known of it lies in its folder."""

    space: SearchSpace
    recipe: Recipe
    seed: int
    data: DataSet
    out: Path
    deadline: float
    """On the monotonic clock."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The trainings: the supernet, then each network by its number."""
        return (SUPERNET, *(str(number) for number in range(NUM_BINS + 2)))

    def do(self, part: str, rate: float) -> None:
        """Trains and measures a part, unless that is done."""
        networks, _ = chosen_networks(self.space)
        file, folder = self.out / f"{part}.json", self.out / part
        recipe = self.recipe if part == SUPERNET else alone_recipe(self.recipe, rate)
        record = self._record(recipe)
        if file.exists():
            if {name: json.loads(file.read_text())[name] for name in record} != record:
                raise SystemExit(f"{file} is of another comparison; choose another --out")
            return
        if part == SUPERNET:
            measured = self._trained(self.space, recipe, folder, networks)
        else:
            alone = SingleNetworkSpace(self.space, networks[int(part)])
            measured = self._trained(alone, recipe, folder, [alone.largest()])
        macs = [costs(self.space, network)["macs"] for network in networks]
        result = {**record, "train_s": spent_s(folder), "macs": macs, "accuracies": measured}
        replace_file(file, json.dumps(result, indent=1).encode())
        print(f"{part}: {[m['val'] for m in measured]}", flush=True)

    def choose_rate(self) -> None:
        """Prints the accuracy on val that each of `RATES` gives a network that is none of the twelve."""
        alone = SingleNetworkSpace(self.space, chosen_networks(self.space)[1])
        for rate in RATES:
            recipe = alone_recipe(self.recipe, rate)
            folder = self.out / f"rate-{rate}"
            file = self.out / f"rate-{rate}.json"
            if not file.exists():
                (measured,) = self._trained(alone, recipe, folder, [alone.largest()], splits=(Split.VAL,))
                replace_file(file, json.dumps({**self._record(recipe), **measured}, indent=1).encode())
            print(f"rate {rate}: {json.loads(file.read_text())['val']:.4f} on val", flush=True)

    def _record(self, recipe: Recipe) -> dict[str, Any]:
        """What a result must share with the others."""
        return {"space": self.space.name, "seed": self.seed, "recipe": recipe.to_json()}

    def _trained(
        self,
        space: SearchSpace,
        recipe: Recipe,
        folder: Path,
        networks: Sequence[Architecture],
        splits: Sequence[Split] = (Split.VAL, Split.TEST),
    ) -> list[dict[str, float]]:
        """The accuracies of each network, by split, once `space` is trained."""
        trainer = self.data.trainer(space, recipe, self.seed)
        train(trainer, folder, self.deadline)
        evaluator = self.data.evaluator(trainer.supernet)
        return [
            {str(split): evaluator.evaluate(network, split).accuracy for split in splits}
            for network in networks
        ]


# Telling


def _tell(out: Path) -> None:
    inherited = json.loads((out / f"{SUPERNET}.json").read_text())
    networks = range(NUM_BINS + 2)
    alone = [json.loads((out / f"{number}.json").read_text()) for number in networks]
    recipe = inherited["recipe"]
    print(
        f"{inherited['space']}, {recipe['name']}, {recipe['epochs']} epochs, seed {inherited['seed']}; "
        f"alone at rate {alone[0]['recipe']['base_learning_rate']}"
    )
    print("| MACs | inherited, test | alone, test | gap |\n|---:|---:|---:|---:|")
    for split in ("val", "test"):
        gaps = []
        for number in networks:
            ours = 100 * inherited["accuracies"][number][split]
            own = 100 * alone[number]["accuracies"][0][split]
            gaps.append(own - ours)
            if split == "test":
                print(f"| {inherited['macs'][number]:,} | {ours:.1f} % | {own:.1f} % | {own - ours:+.1f} |")
        print(f"{split}: alone less inherited {mean_interval(gaps)} points", flush=True)
