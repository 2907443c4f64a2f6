"""Networks trained alone, where no table says how good they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from bench.alone import alone_recipe
from bench.ranking_protocol import Protocol, batches_for, judged_networks, splits_for
from bench.sittings import train
from nas.recipes import RECIPES
from nas.single_network import SingleNetworkSpace
from supernet.data import ResizedSplits
from supernet.evaluate import SubnetEvaluator
from supernet.network import Supernet
from supernet.training import Trainer, build_stack
from supernet.training.checkpoint import replace_file

RATE = 0.1
SEED = 1_000
"""None that a recipe is tried with: what two trainings share by chance is no sign of ranking."""


def train_alone(protocol: Protocol, data: Path, out: Path, deadline: float, part: tuple[int, int]) -> None:
    """Trains the protocol's networks whose number is (k, of n) and whose accuracy `out` does not hold.

    OutOfTimeError where the sitting ends before.
    """
    assert protocol.alone_epochs is not None
    splits = splits_for(protocol, data, out / "images")
    recipe = replace(alone_recipe(RECIPES["bignas"], RATE), epochs=protocol.alone_epochs)
    batches = batches_for(protocol, splits, recipe, SEED)
    for name in judged_networks(protocol)[part[0] :: part[1]]:
        file = _file(out, name)
        if file.exists():
            continue
        space = SingleNetworkSpace(protocol.space, protocol.space.parse(name))
        supernet = Supernet(space, generator=torch.Generator().manual_seed(SEED))
        stack = build_stack(recipe, space, steps_per_epoch=batches.steps_per_epoch, seed=SEED)
        train(Trainer(supernet, batches, stack, data_id=splits.fingerprint), file.with_suffix(""), deadline)
        evaluator = SubnetEvaluator(supernet.eval(), ResizedSplits(splits), checkpoint="bench")
        accuracy = evaluator.evaluate(space.largest()).accuracy
        replace_file(file, json.dumps({"accuracy": accuracy, "recipe": recipe.to_json()}).encode())
        print(f"{name} alone: {accuracy:.4f} on val", flush=True)


def accuracy_alone(out: Path, name: str) -> float:
    """On val, from 0 to 1."""
    file = _file(out, name)
    if not file.exists():
        raise SystemExit(f"{file} is missing; train the networks alone first, with --alone")
    return float(json.loads(file.read_text())["accuracy"])


def _file(out: Path, name: str) -> Path:
    return out / "alone" / f"{name}.json"
