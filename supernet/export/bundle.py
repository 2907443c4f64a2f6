"""Writes the bundle, and lets none out that does not reproduce the supernet."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from nas.errors import ArtifactError
from nas.ports import StopCheck, never_stop
from supernet.export import verify
from supernet.export.card import Card
from supernet.export.gates import CheckImages, check_agreement, check_card, check_statistics
from supernet.export.onnx_graph import build_onnx
from supernet.export.source import generate_source
from supernet.extract import PlainNetwork

ZIP = "bundle.zip"
MAX_IMAGES_IN_ZIP_BYTES = 20 * 10**6
"""Beyond this the images are published beside the zip, not in it."""

_SAMPLE_IMAGES = 128
"""Of the first split: enough to compare logits on, few enough at any resolution."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest a zip can say: the same bundle is the same bytes, whenever it is written."""

_MEDIA_TYPES = {
    ".py": "text/x-python",
    ".json": "application/json",
    ".onnx": "application/onnx",
    ".zip": "application/zip",
}


@dataclass(frozen=True)
class BundleFile:
    """One file to publish."""

    name: str
    path: Path
    media_type: str
    is_in_zip: bool


def write_bundle(
    folder: Path,
    *,
    network: PlainNetwork,
    supernet_logits: Callable[[Tensor], Tensor],
    card: Card,
    check: CheckImages,
    images_at: str | None = None,
    max_images_in_zip_bytes: int = MAX_IMAGES_IN_ZIP_BYTES,
    stop_check: StopCheck = never_stop,
) -> list[BundleFile]:
    """The bundle's files, written to `folder`, which is made; the zip comes last, once all checks passed.

    `network` is what `extract` gave with statistics. `supernet_logits` is what it must reproduce: the
    supernet's own logits for normalised images. `check` are the images that `card` is about. Where
    they are too large for the zip, `images_at` tells the reader of the card a path or URL. `stop_check` is
    called between the files and before each batch that is checked.

    Raises ArtifactError where the files do not reproduce the supernet's logits or the card's figures.
    """
    check_statistics(network)
    check_card(card, network, check)
    folder.mkdir(parents=True, exist_ok=True)
    # So that a bundle that fails its checks cannot be taken for an earlier one that passed.
    (folder / ZIP).unlink(missing_ok=True)
    names = _write_parts(folder, network, card, check, stop_check)
    is_small = (folder / verify.IMAGES).stat().st_size <= max_images_in_zip_bytes
    _write_card(folder, card, names, None if is_small else images_at, in_zip=is_small)
    contents = [
        _bundle_file(folder, name, is_in_zip=is_small or name != verify.IMAGES)
        for name in [verify.CARD, *names]
    ]
    _check_logits(folder, supernet_logits, check)
    _check_figures(folder, stop_check)
    stop_check()
    _write_zip(folder, [file for file in contents if file.is_in_zip])
    return [*contents, _bundle_file(folder, ZIP, is_in_zip=False)]


def _write_parts(
    folder: Path, network: PlainNetwork, card: Card, check: CheckImages, stop_check: StopCheck
) -> list[str]:
    """Writes everything but the card; the files' names."""
    source = generate_source(network.layers, class_names=card.class_names, headline=card.headline())
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    (folder / "model.py").write_text(source, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(weights))
    (folder / "model.onnx").write_bytes(build_onnx(network).SerializeToString(deterministic=True))
    (folder / "verify.py").write_bytes(Path(verify.__file__).read_bytes())
    stop_check()
    _write_images(folder / verify.IMAGES, check)
    stop_check()
    return ["model.py", "model.safetensors", "model.onnx", "verify.py", verify.IMAGES]


def _write_images(path: Path, check: CheckImages) -> None:
    arrays = {}
    for split, (images, labels) in check.items():
        arrays[f"{split}_images"] = images.contiguous().numpy()
        arrays[f"{split}_labels"] = labels.numpy().astype(np.int64)
    np.savez_compressed(path, **arrays)


def _write_card(folder: Path, card: Card, names: Sequence[str], where: str | None, *, in_zip: bool) -> None:
    content = card.to_json()
    content["verification"]["images"] = {"name": verify.IMAGES, "is_in_bundle": in_zip, "where": where}
    content["files"] = {name: _fingerprint(folder / name) for name in names}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / verify.CARD).write_text(f"{text}\n", encoding="utf-8")


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"sha256": digest.hexdigest(), "size_bytes": path.stat().st_size}


def _bundle_file(folder: Path, name: str, *, is_in_zip: bool) -> BundleFile:
    path = folder / name
    media_type = _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    return BundleFile(name=name, path=path, media_type=media_type, is_in_zip=is_in_zip)


# The gates, on the files as they were written


def _check_logits(folder: Path, supernet_logits: Callable[[Tensor], Tensor], check: CheckImages) -> None:
    pixels, _ = next(iter(check.values()))
    images = verify.preprocess(pixels[:_SAMPLE_IMAGES], verify.read_card(folder))
    check_agreement(
        supernet=supernet_logits(images).detach().cpu(),
        extracted=verify.load_torch(folder)(images),
        onnx=verify.load_onnx(folder)(images),
    )


def _check_figures(folder: Path, stop_check: StopCheck) -> None:
    """The very check that the bundle's reader runs."""
    try:
        results = verify.verify(folder, before_batch=stop_check)
    except verify.MismatchError as error:
        raise ArtifactError(f"the bundle does not verify: {error}") from error
    problems = [problem for result in results for problem in result.problems()]
    if problems:
        raise ArtifactError(f"the bundle does not reproduce its card: {'; '.join(problems)}")


def _write_zip(folder: Path, files: Sequence[BundleFile]) -> None:
    with zipfile.ZipFile(folder / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files, key=lambda file: file.name):
            entry = zipfile.ZipInfo(file.name, date_time=_ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.path.read_bytes())
