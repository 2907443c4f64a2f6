"""One training of the ranking bench, in as many sittings as it takes, and the measuring after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench.ranking_alone import accuracy_alone
from bench.ranking_protocol import (
    CountingSupernet,
    Protocol,
    batches_for,
    epochs_within,
    judged_networks,
    splits_for,
)
from bench.ranking_truth import Table
from bench.sittings import OutOfTimeError, is_over, spent_s, train
from nas.recipe import Recipe
from supernet.data import DataSplits, ResizedSplits, TrainingBatches
from supernet.evaluate import SubnetEvaluator
from supernet.training import Trainer, build_stack
from supernet.training.checkpoint import replace_file

MEASURED_AT_ONCE = 10
"""Networks measured between two writes of what is known."""


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
        self._alone(judged_networks(self.protocol))  # Rather now than after hours of training.
        trainer = self._trainer()
        train(trainer, self.folder, self.deadline)
        result = self._result(trainer, self._measure(trainer.supernet))
        replace_file(self.result_file, json.dumps(result).encode())
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
        return splits_for(self.protocol, self.data, self.out / "images")

    @cached_property
    def _batches(self) -> TrainingBatches:
        return batches_for(self.protocol, self._splits, self.recipe, self.seed)

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
        return Trainer(supernet.to(self.device), self._batches, stack, data_id=self._splits.fingerprint)

    def _measure(self, supernet: CountingSupernet) -> dict[str, float]:
        """The accuracy on val of each network, its statistics recalibrated."""
        file = self.folder / "accuracies.json"
        known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        names = judged_networks(self.protocol)
        left = [name for name in names if name not in known]
        evaluator = SubnetEvaluator(supernet.cpu().eval(), ResizedSplits(self._splits), checkpoint="bench")
        for start in range(0, len(left), MEASURED_AT_ONCE):
            if is_over(self.deadline):
                raise OutOfTimeError(f"{len(known)} of {len(names)} networks are measured")
            for name in left[start : start + MEASURED_AT_ONCE]:
                known[name] = evaluator.evaluate(self.protocol.space.parse(name)).accuracy
            replace_file(file, json.dumps(known).encode())
        return {name: known[name] for name in names}

    def _result(self, trainer: Trainer, accuracies: Mapping[str, float]) -> dict[str, Any]:
        supernet, state = trainer.supernet, trainer.state()
        assert isinstance(supernet, CountingSupernet)
        table = self._table
        rows = table.rows(tuple(accuracies))
        alone = self._alone(tuple(accuracies))
        return {
            "label": self.label,
            "seed": self.seed,
            "protocol": self.protocol.to_json(),
            "recipe": trainer.stack.recipe.to_json(),
            "num_steps": trainer.stack.num_steps,
            "expected_macs": self._length[1],
            "spent_macs": int(supernet.spent_macs),
            "train_s": spent_s(self.folder),
            "environment": dict(state.environment),
            "departures": list(state.departures),
            "table_baselines": table.baselines(),
            "networks": [
                {
                    "name": name,
                    "bin": int(table.bins_n()[row]),
                    "macs": int(table.macs_n[row]),
                    "non_identity_layers": int(table.num_layers_n[row]),
                    "alone": alone[name],
                    "inherited": 100 * accuracies[name],
                    **({} if table.early_n is None else {"trained_briefly": float(table.early_n[row])}),
                }
                for name, row in zip(accuracies, rows.tolist(), strict=True)
            ],
        }

    def _alone(self, names: tuple[str, ...]) -> dict[str, list[float]]:
        """In percent, of each network: one accuracy for each training alone."""
        if self.protocol.alone_epochs is not None:
            return {name: [100 * accuracy_alone(self.out, name)] for name in names}
        rows = self._table.rows(names)
        return dict(zip(names, self._table.accuracies_nk[rows].tolist(), strict=True))

    @cached_property
    def _table(self) -> Table:
        return self.protocol.benchmark.read(self.data)
