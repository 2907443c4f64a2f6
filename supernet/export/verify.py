"""Checks that this bundle does what its card says. Needs torch, numpy, safetensors and onnxruntime.

    python verify.py                     # in the unzipped folder
    python verify.py --images check.npz  # a path or an http(s) URL, where the bundle carries no images

Exit status 0: every file is the published one, `model.py` classifies exactly as many images rightly as
`card.json` says, and `model.onnx` as many to within 0.1 % of the images. 1: something differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch

SCHEMA = 1
CARD, IMAGES = "card.json", "check.npz"
ONNX_TOLERANCE = 0.001
"""Share of the images by which ONNX Runtime's count may differ; one image at least."""
CLOSE_CALL = 1e-4
"""Two best logits nearer than this may swap under another machine's rounding."""

Classifier = Callable[[torch.Tensor], torch.Tensor]
"""Normalised images (N, C, H, W) to logits (N, classes)."""


class MismatchError(Exception):
    """The bundle and its card disagree; the message says where."""


@dataclass(frozen=True)
class SplitResult:
    """What the two models did on one split."""

    split: str
    num_images: int
    card_correct: int
    torch_correct: int
    onnx_correct: int
    max_difference: float
    """Largest absolute difference between a logit of model.py and the same of model.onnx."""
    num_close_calls: int

    def problems(self) -> list[str]:
        """Each disagreement in a sentence."""
        found = []
        if self.torch_correct != self.card_correct:
            found.append(
                f"{self.split}: the card says {self.card_correct} of {self.num_images} correct, model.py got "
                f"{self.torch_correct} ({self.num_close_calls} images are so close that another machine's "
                "rounding may decide them)"
            )
        allowed = max(1, int(ONNX_TOLERANCE * self.num_images))
        if abs(self.onnx_correct - self.card_correct) > allowed:
            found.append(
                f"{self.split}: the card says {self.card_correct} of {self.num_images} correct, "
                f"model.onnx got {self.onnx_correct}; at most {allowed} may differ"
            )
        return found


# The parts of the bundle


def read_card(folder: Path) -> dict[str, Any]:
    """`card.json`, of a schema that this file understands."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MismatchError(f"{CARD} in {folder} cannot be read: {error}") from error
    if card.get("schema") != SCHEMA:
        raise MismatchError(f"{CARD} has schema {card.get('schema')}, this verify.py reads {SCHEMA}")
    return card


def check_files(folder: Path, card: dict[str, Any]) -> None:
    """Every file but the images is there, with the bytes that were published."""
    for name in card["files"]:
        if name != IMAGES:
            check_sha256(folder / name, card)


def check_sha256(path: Path, card: dict[str, Any], name: str | None = None) -> None:
    """The file has the bytes the card lists under `name`, by default its own."""
    name = name or path.name
    if not path.is_file():
        raise MismatchError(f"{name} is missing: there is no file {path}; download it again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    expected = card["files"][name]["sha256"]
    if digest.hexdigest() != expected:
        raise MismatchError(
            f"{name} is not the published file: its sha256 is {digest.hexdigest()}, the card says {expected}"
        )


def load_torch(folder: Path) -> Classifier:
    """The network of model.py with its weights."""
    path = folder / "model.py"
    # Not imported: that would leave a name in sys.modules and compiled files in the folder.
    module = ModuleType("model")
    module.__file__ = str(path)
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    network = module.load(folder)

    def classify(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network(images)

    return classify


def load_onnx(folder: Path) -> Classifier:
    """model.onnx in ONNX Runtime, on the CPU."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def classify(images: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(["logits"], {"images": np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)

    return classify


def preprocess(pixels: torch.Tensor, card: dict[str, Any]) -> torch.Tensor:
    """float32 images for the networks, of uint8 pixels (N, C, H, W) that have the right size."""
    mean, std = (torch.tensor(card["input"][name], dtype=torch.float32) for name in ("mean", "std"))
    images = pixels.to(torch.float32).div(255).sub(mean.view(-1, 1, 1)).div(std.view(-1, 1, 1))
    # Channels last in memory, as when the card's figures were measured: with another layout sums
    # round otherwise. Written out, since `contiguous` does not touch the strides of a lone channel.
    count, channels, height, width = images.shape
    channels_last = images.new_empty((count, height, width, channels))
    channels_last.copy_(images.permute(0, 2, 3, 1))
    return channels_last.permute(0, 3, 1, 2)


@contextmanager
def located_images(folder: Path, card: dict[str, Any], given: str | None) -> Iterator[Path]:
    """The images' file: where `given` says, else in the folder, else where the card says."""
    where = given or str(folder / IMAGES)
    if given is None and not (folder / IMAGES).is_file():
        where = card["verification"]["images"]["where"]
        if where and where.startswith("/v1/"):
            raise MismatchError(
                f"{IMAGES} is not in this bundle; the service that made it has it: "
                f"python verify.py --images http://HOST:PORT{where}"
            )
    if not where:
        raise MismatchError(f"{IMAGES} is not in this bundle; say where it is with --images PATH_or_URL")
    if urllib.parse.urlsplit(where).scheme not in ("http", "https"):
        yield Path(where)
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / IMAGES
        _say(f"downloading {where}")
        try:
            with urllib.request.urlopen(where) as response, path.open("wb") as file:
                shutil.copyfileobj(response, file)
        except OSError as error:
            raise MismatchError(
                f"{where} cannot be downloaded: {error}; say where {IMAGES} is with --images PATH_or_URL"
            ) from error
        yield path


# The check


def verify(
    folder: Path, images: str | None = None, before_batch: Callable[[], None] = lambda: None
) -> list[SplitResult]:
    """The results on every split of the card; raises MismatchError where a file is not the published one."""
    card = read_card(folder)
    check_files(folder, card)
    models = load_torch(folder), load_onnx(folder)
    with located_images(folder, card, images) as path:
        check_sha256(path, card, IMAGES)
        with np.load(path, allow_pickle=False) as arrays:
            return [
                check_split(
                    split,
                    arrays[f"{split}_images"],
                    arrays[f"{split}_labels"],
                    card,
                    models,
                    before_batch,
                )
                for split in card["accuracy"]
            ]


def check_split(
    split: str,
    pixels: np.ndarray,
    labels: np.ndarray,
    card: dict[str, Any],
    models: tuple[Classifier, Classifier],
    before_batch: Callable[[], None] = lambda: None,
) -> SplitResult:
    """What the two models make of one split, in the batches in which it was measured."""
    expected = card["accuracy"][split]
    if len(labels) != expected["num_images"]:
        raise MismatchError(
            f"{split}: the card is of {expected['num_images']} images, {IMAGES} has {len(labels)}"
        )
    torch_correct = onnx_correct = num_close_calls = 0
    max_difference = 0.0
    batch_size = card["verification"]["batch_size"]
    for start in range(0, len(labels), batch_size):
        before_batch()
        images = preprocess(torch.from_numpy(pixels[start : start + batch_size]), card)
        truth = torch.from_numpy(labels[start : start + batch_size])
        by_torch, by_onnx = (classify(images) for classify in models)
        torch_correct += int((by_torch.argmax(1) == truth).sum())
        onnx_correct += int((by_onnx.argmax(1) == truth).sum())
        max_difference = max(max_difference, float((by_torch - by_onnx).abs().max()))
        best, second = by_torch.topk(2, dim=1).values.unbind(1)
        num_close_calls += int((best - second < CLOSE_CALL).sum())
    return SplitResult(
        split=split,
        num_images=len(labels),
        card_correct=expected["num_correct"],
        torch_correct=torch_correct,
        onnx_correct=onnx_correct,
        max_difference=max_difference,
        num_close_calls=num_close_calls,
    )


def report(results: Sequence[SplitResult]) -> str:
    """The results as a table."""
    rows = [("split", "images", "card", "model.py", "model.onnx", "max |difference|")]
    rows += [
        (
            result.split,
            str(result.num_images),
            str(result.card_correct),
            str(result.torch_correct),
            str(result.onnx_correct),
            f"{result.max_difference:.1e}",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the folder of this file; 0 if everything agrees."""
    parser = argparse.ArgumentParser(description="Check that this bundle does what its card says.")
    parser.add_argument("--images", metavar="PATH_or_URL", help=f"{IMAGES}, where the bundle carries none")
    given = parser.parse_args(arguments).images
    try:
        results = verify(Path(__file__).resolve().parent, given)
    except (MismatchError, OSError) as error:
        _say(f"FAILED  {error}")
        return 1
    _say("Images classified rightly, and the largest difference between the logits of the two models:")
    _say(report(results))
    problems = [problem for result in results for problem in result.problems()]
    _say("\n".join(f"FAILED  {problem}" for problem in problems) or "OK  the card's figures are reproduced")
    return 1 if problems else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
