"""One training of the ranking bench, in as many sittings as it takes, and the measuring after it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench.ranking_protocol import CountingSupernet, Protocol, epochs_within, splits_at
from bench.ranking_truth import Table, networks_by_bin
from nas.recipe import Recipe
from supernet.data import DataSplits, ResizedSplits, TrainingBatches
from supernet.data.augmentation import Augmentation
from supernet.evaluate import SubnetEvaluator
from supernet.training import Trainer, build_stack, load_checkpoint, save_checkpoint
from supernet.training.checkpoint import newest_readable, replace_file

CHECKPOINT_EVERY_S = 300.0
MEASURED_AT_ONCE = 10
"""Networks measured between two writes of what is known."""


class OutOfTimeError(Exception):
    """The sitting is over; the run goes on with the next."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recipe trained with a seed under a protocol; everything it knows lies in its folder."""

    label: str
    recipe: Recipe
    seed: int
    protocol: Protocol
    data: Path
    out: Path
    device: torch.device
    deadline: float
    """On the monotonic clock."""

    @property
    def folder(self) -> Path:
        """Of what is not finished."""
        return self.out / f"{self.label}-seed{self.seed}"

    @property
    def result_file(self) -> Path:
        """There once the run is finished."""
        return self.out / f"{self.label}-seed{self.seed}.json"

    def carry_on(self) -> dict[str, Any]:
        """Trains what is left, measures what is left; returns the result, which is then a file as well.

        OutOfTimeError where the sitting ends before. A run that was killed loses minutes at most.
        """
        if self.result_file.exists():
            return self._finished()
        trainer = self._trainer()
        self._train(trainer)
        result = self._result(trainer, self._measure(trainer.supernet))
        replace_file(self.result_file, json.dumps(result, indent=1).encode())
        return result

    def _finished(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.result_file.read_text())
        recipe = replace(self.recipe, epochs=result["recipe"]["epochs"]).to_json()
        if (result["protocol"], result["recipe"]) != (self.protocol.to_json(), recipe):
            raise SystemExit(
                f"{self.result_file} is of another recipe or protocol; choose another --label or --out"
            )
        return result

    @cached_property
    def _splits(self) -> DataSplits:
        side = self.protocol.space.resolution
        return splits_at(self.data, side, self.protocol.num_images, self.out / "images")

    @cached_property
    def _batches(self) -> TrainingBatches:
        padding = int(self.recipe.crop_fraction * self.protocol.space.resolution)
        return TrainingBatches(
            self._splits,
            self.recipe.batch_size,
            self.seed,
            Augmentation(crop_padding=padding, horizontal_flip=True),
            held_out_fraction=self.recipe.held_out_fraction,
        )

    @cached_property
    def _length(self) -> tuple[int, float]:
        return epochs_within(self.recipe, self.protocol, num_images=self._batches.num_images)

    def _trainer(self) -> Trainer:
        recipe = replace(self.recipe, epochs=self._length[0])
        supernet = CountingSupernet(
            self.protocol.space, kernel_transform=recipe.kernel_transform, seed=self.seed
        )
        stack = build_stack(
            recipe,
            self.protocol.space,
            steps_per_epoch=self._batches.steps_per_epoch,
            seed=self.seed,
            num_images=self._batches.num_images,
        )
        trainer = Trainer(supernet.to(self.device), self._batches, stack, data_id=self._splits.fingerprint)
        newest = newest_readable(self.folder)
        if newest is not None:
            for line in trainer.restore(load_checkpoint(newest)):
                print(f"no longer exact: {line}")
        return trainer

    def _train(self, trainer: Trainer) -> None:
        clock = _Clock(self.folder / "clock.json")

        def keep() -> None:
            save_checkpoint(trainer.state(), self.folder)
            clock.keep()
            print(f"step {trainer.step} of {trainer.stack.num_steps}", flush=True)

        def keep_now_and_then(_: object) -> None:
            if clock.since_kept_s > CHECKPOINT_EVERY_S:
                keep()

        before = trainer.step
        trainer.run(on_step=keep_now_and_then, should_stop=lambda: time.monotonic() > self.deadline)
        if trainer.step > before:
            keep()
        if trainer.step < trainer.stack.num_steps:
            raise OutOfTimeError(f"{trainer.step} of {trainer.stack.num_steps} steps are done")

    def _measure(self, supernet: CountingSupernet) -> dict[str, float]:
        """The accuracy on val of each network, its statistics recalibrated."""
        file = self.folder / "accuracies.json"
        known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        names = [name for names in networks_by_bin(self.protocol.num_per_bin) for name in names]
        left = [name for name in names if name not in known]
        evaluator = SubnetEvaluator(supernet.cpu().eval(), ResizedSplits(self._splits), checkpoint="bench")
        for start in range(0, len(left), MEASURED_AT_ONCE):
            if time.monotonic() > self.deadline:
                raise OutOfTimeError(f"{len(known)} of {len(names)} networks are measured")
            for name in left[start : start + MEASURED_AT_ONCE]:
                known[name] = evaluator.evaluate(self.protocol.space.parse(name)).accuracy
            replace_file(file, json.dumps(known).encode())
        return {name: known[name] for name in names}

    def _result(self, trainer: Trainer, accuracies: Mapping[str, float]) -> dict[str, Any]:
        supernet, state = trainer.supernet, trainer.state()
        assert isinstance(supernet, CountingSupernet)
        table = Table.read(self.data)
        rows = table.rows(tuple(accuracies))
        return {
            "label": self.label,
            "seed": self.seed,
            "protocol": self.protocol.to_json(),
            "recipe": trainer.stack.recipe.to_json(),
            "num_steps": trainer.stack.num_steps,
            "expected_macs": self._length[1],
            "spent_macs": int(supernet.spent_macs),
            "train_s": _Clock(self.folder / "clock.json").spent_s,
            "environment": dict(state.environment),
            "departures": list(state.departures),
            "table_baselines": table.baselines(),
            "networks": [
                {
                    "name": name,
                    "bin": int(table.bins_n()[row]),
                    "macs": int(table.macs_n[row]),
                    "non_identity_layers": int(table.num_layers_n[row]),
                    "alone": table.accuracies_n3[row].tolist(),
                    "inherited": 100 * accuracies[name],
                }
                for name, row in zip(accuracies, rows.tolist(), strict=True)
            ],
        }


class _Clock:
    """Seconds of training that went into the checkpoints, over all sittings."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.spent_s: float = json.loads(file.read_text())["train_s"] if file.exists() else 0.0
        self._kept_at = time.monotonic()

    @property
    def since_kept_s(self) -> float:
        """What would be lost."""
        return time.monotonic() - self._kept_at

    def keep(self) -> None:
        """Called once the checkpoint is written."""
        self.spent_s += self.since_kept_s
        self._kept_at = time.monotonic()
        replace_file(self._file, json.dumps({"train_s": self.spent_s}).encode())
