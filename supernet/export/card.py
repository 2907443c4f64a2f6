"""`card.json`: what the network is, what it was measured to do, and everything it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from nas.architecture import Architecture
from nas.costs.count import lowering_costs
from nas.errors import ArtifactError
from nas.layers import LayerSpec
from nas.trial import Evaluation, Split, wilson_interval
from nas.weights_file import CARD_SCHEMA
from supernet.export.onnx_graph import INPUT_NAME, OUTPUT_NAME

RESIZE_RULE = (
    "torch.nn.functional.interpolate(pixels as float32 from 0 to 255, size=(resolution_px, resolution_px), "
    "mode='bicubic', align_corners=False, antialias=False), clamped to 0..255 and rounded half to even; "
    "the aspect ratio is not kept; an image of that size already is left as it is"
)
NORMALISATION_RULE = "(pixel / 255 - mean) / std, each channel, float32"

UNITS = {
    "macs": "multiply-accumulates of convolutions and linear layers, one image",
    "params": "trainable numbers",
    "size_bytes": "bytes of all weights and batch-norm statistics as float32",
    "peak_activation_bytes": "bytes of activations alive at once, one image, float32, layers in order",
}


class Origin(StrEnum):
    """How a figure came to be."""

    COUNTED = "counted"
    """Exactly, from the layers."""
    MEASURED = "measured"
    PREDICTED = "predicted"


@dataclass(frozen=True, kw_only=True)
class CostFigure:
    """One cost with everything needed to read it."""

    name: str
    value: float
    unit: str
    origin: Origin
    by: str
    """What counted, measured or predicted it: a convention, a device and runtime, a fitted model."""

    def to_json(self) -> dict[str, Any]:
        """Every field but the name, under which it is listed."""
        return {"value": self.value, "unit": self.unit, "origin": self.origin.value, "by": self.by}


def counted_costs(layers: Sequence[LayerSpec]) -> tuple[CostFigure, ...]:
    """The costs that need no device."""
    return tuple(
        CostFigure(name=name, value=value, unit=UNITS[name], origin=Origin.COUNTED, by="nas.costs")
        for name, value in lowering_costs(layers).items()
    )


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How stored pixels become what the network reads; the rules are the same for every bundle."""

    resolution_px: int
    mean: tuple[float, ...]
    """Of each channel, pixels as 0 to 1."""
    std: tuple[float, ...]
    """Of each channel, pixels as 0 to 1."""

    def to_json(self) -> dict[str, Any]:
        """The network's input, and the way to it from uint8 pixels."""
        return {
            "name": INPUT_NAME,
            "layout": "NCHW",
            "dtype": "float32",
            "channels": len(self.mean),
            "resolution_px": self.resolution_px,
            "resize": RESIZE_RULE,
            "normalise": NORMALISATION_RULE,
            "mean": list(self.mean),
            "std": list(self.std),
        }


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything `card.json` says but the files' hashes, which only the written bundle knows."""

    architecture: Architecture
    costs: tuple[CostFigure, ...]
    evaluations: tuple[Evaluation, ...]
    """Of the extracted float32 network; one a split."""
    batch_size: int
    """Of those evaluations; `verify.py` uses the same."""
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    supernet_id: str
    supernet_checkpoint: str
    """SHA-256 of the supernet's weights."""
    data_fingerprint: str
    """SHA-256 of the data set's content, before splitting."""
    split_plan: Mapping[str, Any]
    """How the splits were drawn from it."""
    num_unreadable: int
    """Images of the source that could not be read and were left out of the data set."""
    stored_rule: str
    """How the source's images were brought to the one shape in which the data set holds them."""
    recipe: Mapping[str, Any]
    """The training recipe, defaults filled in."""
    seeds: Mapping[str, int]
    code_version: str
    own_training: str | None = None
    """What a training of the network's own began from; None: it has the weights that it inherits."""
    resume_departures: tuple[str, ...] | None = ()
    """What differed where the training went on after a stop; empty: bit for bit an undisturbed one; None:
    nobody has kept it."""
    torch_version: str = str(torch.__version__)

    def __post_init__(self) -> None:
        splits = [evaluation.split for evaluation in self.evaluations]
        if not splits or len(set(splits)) != len(splits):
            raise ArtifactError(f"a card needs one evaluation a split, not {splits}; measure the network")
        for evaluation in self.evaluations:
            self._check_same_network(evaluation)

    @property
    def checkpoint(self) -> str:
        """SHA-256 of the weights that were measured: the supernet's, or the network's own."""
        return self.evaluations[0].checkpoint

    @property
    def calibration(self) -> str:
        """What gave the batch-norm statistics."""
        return self.evaluations[0].calibration

    def evaluation(self, split: Split) -> Evaluation:
        """The evaluation on `split`; KeyError where there is none."""
        return {evaluation.split: evaluation for evaluation in self.evaluations}[split]

    def headline(self) -> list[str]:
        """What to tell a person in a few lines: the network, its costs, its accuracy."""
        return [
            f"An image classifier of {len(self.class_names)} classes for {self.preprocessing.resolution_px} "
            f"x {self.preprocessing.resolution_px} pixels.",
            "",
            f"Architecture {self.architecture.key} of the search space '{self.architecture.space}'.",
            *(f"{figure.name}: {figure.value:,} ({figure.origin.value})" for figure in self.costs),
            *map(_accuracy_line, self.evaluations),
        ]

    def to_json(self) -> dict[str, Any]:
        """The card as JSON values."""
        return {
            "schema": CARD_SCHEMA,
            "architecture": {
                "space": self.architecture.space,
                "key": self.architecture.key,
                "decisions": self.architecture.to_json(),
            },
            "costs": {figure.name: figure.to_json() for figure in self.costs},
            "accuracy": {e.split.value: _accuracy(e, self.class_names) for e in self.evaluations},
            "input": self.preprocessing.to_json(),
            "output": {
                "name": OUTPUT_NAME,
                "layout": "(batch, classes)",
                "meaning": "logits, before softmax",
                "class_names": list(self.class_names),
            },
            "provenance": self._provenance(),
            "verification": {"batch_size": self.batch_size},
        }

    def _provenance(self) -> dict[str, Any]:
        return {
            "supernet": {"id": self.supernet_id, "checkpoint_sha256": self.supernet_checkpoint},
            "weights": self._weights(),
            "data": {
                "fingerprint_sha256": self.data_fingerprint,
                "splits": dict(self.split_plan),
                "stored_as": self.stored_rule,
                "num_unreadable_left_out": self.num_unreadable,
            },
            "batch_norm_statistics": {"origin": "recalibrated for this network", "on": self.calibration},
            "recipe": dict(self.recipe),
            "training": self._exactness(),
            "seeds": dict(self.seeds),
            "versions": {"nas": self.code_version, "torch": self.torch_version},
        }

    def _exactness(self) -> dict[str, Any]:
        departures = self.resume_departures
        if departures is None:
            return {"is_exact": None, "resume_departures": None}
        return {"is_exact": not departures, "resume_departures": list(departures)}

    def _weights(self) -> dict[str, Any]:
        if self.own_training is None:
            return {"origin": "inherited from the supernet"}
        return {
            "origin": "trained on its own",
            "began_from": self.own_training,
            "checkpoint_sha256": self.checkpoint,
        }

    def _check_same_network(self, evaluation: Evaluation) -> None:
        if evaluation.architecture != self.architecture:
            raise ArtifactError(
                f"the {evaluation.split} evaluation is of architecture {evaluation.architecture.key}, "
                f"the card of {self.architecture.key}; measure the network that is published"
            )
        for name in ("checkpoint", "calibration"):
            found, first = getattr(evaluation, name), getattr(self.evaluations[0], name)
            if found != first:
                raise ArtifactError(
                    f"the {evaluation.split} evaluation has {name} {found}, another split's {first}; "
                    "measure every split with the same weights and statistics"
                )


def _accuracy(evaluation: Evaluation, class_names: Iterable[str]) -> dict[str, Any]:
    counts = zip(class_names, evaluation.per_class_correct, evaluation.per_class_images, strict=True)
    return {
        "origin": Origin.MEASURED.value,
        "accuracy": evaluation.accuracy,
        "interval_95": list(wilson_interval(evaluation.num_correct, evaluation.num_images)),
        "interval_method": "Wilson score",
        "num_correct": evaluation.num_correct,
        "num_images": evaluation.num_images,
        "per_class": [
            {"class": name, "num_correct": correct, "num_images": images} for name, correct, images in counts
        ],
    }


def _accuracy_line(evaluation: Evaluation) -> str:
    low, high = wilson_interval(evaluation.num_correct, evaluation.num_images)
    return (
        f"accuracy_{evaluation.split.value}: {evaluation.accuracy:.4f} (measured on "
        f"{evaluation.num_images:,} images, 95 % interval {low:.4f} to {high:.4f})"
    )
