"""The law of sources: the same images are the same data set, whatever they are kept in."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import torch
from containers import (
    write_folder,
    write_npz,
    write_parquet,
    write_saved,
    write_tar,
    write_zip,
)

from supernet.data import Augmentation, SplitPlan, TrainingBatches, load_source, make_splits
from supernet.data.decode import ImageShape, decode_image
from supernet.data.sources import DataSource, open_listing

NAMES = ("cat", "dog", "eel", "fox")


class Images(NamedTuple):
    """What the containers are written from; shapes (n, c, h, w) and (n,)."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def three_hundred(channels):
    rng = np.random.default_rng(5)
    return Images(
        images=rng.integers(0, 256, (300, channels, 12, 10), dtype=np.uint8),
        labels=rng.integers(0, len(NAMES), 300),
        class_names=NAMES,
    )


def every_container(root, images):
    """(name, source) of each kind that holds `images`."""
    folder = write_folder(root / "pets", images)
    saved = write_saved(root / "saved", images)
    (root / "npz").mkdir()
    npz = write_npz(root / "npz" / "pets.npz", images)
    parquet = write_parquet(root / "parquet" / "data" / "train-00000-of-00001.parquet", images)
    packed = {
        "zip of class folders": write_zip(root / "a.zip", folder, "pets/"),
        "tar.gz of class folders": write_tar(root / "a.tar.gz", folder),
        "tar of saved": write_tar(root / "b.tar", saved, ""),
        "tar.xz of npz": write_tar(root / "c.tar.xz", npz.parent, "xz"),
        "zip of parquet": write_zip(root / "d.zip", root / "parquet"),
    }
    plain = {
        "folder": ("folder", folder),
        "npz": ("npz", npz),
        "parquet": ("parquet", parquet),
        "imagefolder": ("huggingface", folder),
        "repository": ("huggingface", root / "parquet"),
        "save_to_disk": ("huggingface", saved),
    }
    sources = {name: {"kind": kind, "path": str(path)} for name, (kind, path) in plain.items()}
    sources |= {name: {"kind": "archive", "path": str(path)} for name, path in packed.items()}
    return {name: DataSource.from_json(source) for name, source in sources.items()}


@pytest.mark.parametrize("channels", [3, 1])
def test_every_container_lists_the_same_labels_names_and_pixels(tmp_path, channels):
    images = three_hundred(channels)
    shape = ImageShape(channels, 12, 10)
    expected = Counter(
        (label, NAMES[label], pixels.tobytes())
        for pixels, label in zip(images.images, images.labels.tolist(), strict=True)
    )
    for name, source in every_container(tmp_path, images).items():
        listing = open_listing(source)
        found = Counter(
            (image.label, listing.class_names[image.label], decode_image(image, shape).tobytes())
            for image in listing.images()
        )
        assert found == expected, name


@pytest.mark.parametrize("channels", [3, 1])
def test_every_container_gives_the_same_fingerprint_splits_and_first_batch(tmp_path, channels):
    reference = None
    for name, source in every_container(tmp_path, three_hundred(channels)).items():
        splits = make_splits(load_source(source), SplitPlan(seed=3, calibration_images=50))
        batch = TrainingBatches(splits, 32, 7, Augmentation(crop_padding=2, horizontal_flip=True)).batch(0)
        found = (splits, batch)
        reference = reference or found
        same, first = reference
        assert splits.fingerprint == same.fingerprint, name
        for split in ("train", "val", "test"):
            own, theirs = getattr(splits, split), getattr(same, split)
            assert np.array_equal(own.pixels[own.rows], theirs.pixels[theirs.rows]), name
            assert np.array_equal(own.labels, theirs.labels), name
        assert np.array_equal(splits.calibration, same.calibration), name
        assert all(torch.equal(own, theirs) for own, theirs in zip(batch, first, strict=True)), name
