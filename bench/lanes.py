"""A training step with its networks side by side, against the same one after the other: the same threads.

The clock is timed, so the machine must have nothing else to do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from bench.dataset import DataSet
from bench.paired import time_paired
from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.training import Trainer, tune_malloc

SPACES_TIMED = ("micro", "ofa_mobilenetv3_32")


def main(arguments: Sequence[str]) -> None:
    """Seconds of one `bignas` step on the bundled digits, whose size a network changes to its own."""
    parser = argparse.ArgumentParser(prog="bench lanes")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--space", nargs="+", choices=SPACES, default=SPACES_TIMED)
    options = parser.parse_args(arguments)
    tune_malloc()
    torch.set_num_threads(options.threads)
    data = DataSet(None)
    recipe = replace(RECIPES["bignas"], epochs=100)
    for name in options.space:
        beside, in_turn = (
            data.trainer(SPACES[name], recipe, seed=0, num_lanes=lanes) for lanes in (options.threads, 1)
        )
        timed = time_paired(
            lambda trainer=beside: _step(trainer),
            lambda trainer=in_turn: _step(trainer),
            pairs=options.pairs,
            clock=time.perf_counter,
        )
        print(timed.line(f"a step of {name}, batch {recipe.batch_size}, {options.threads} threads"))


def _step(trainer: Trainer) -> None:
    trainer.run(1)
