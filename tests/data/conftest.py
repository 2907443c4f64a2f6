"""Small synthetic image sets, in memory and as Parquet files."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from supernet.data import (
    ArrayListing,
    DataSource,
    GivenSplit,
    ImageSet,
    Intake,
    LabelledArrays,
    SplitPlan,
    Storage,
    load_listing,
    make_splits,
)

NAMES = ("cat", "dog", "eel", "fox")


def random_set(num_images=600, channels=3, size=8, seed=0, names=NAMES):
    """Random pixels; class c is (c + 1) times as frequent as class 0."""
    rng = np.random.default_rng(seed)
    frequency = np.arange(1, len(names) + 1)
    labels = np.repeat(np.arange(len(names)), frequency * num_images // frequency.sum())
    images = rng.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8)
    return ImageSet.whole(images, rng.permutation(labels), names)


def listing(train, val=None, test=None):
    """Image sets as a source lists them."""
    given = {GivenSplit.TRAIN: train, GivenSplit.VAL: val, GivenSplit.TEST: test}
    return ArrayListing(
        class_names=train.class_names,
        arrays={
            split: LabelledArrays(images=images.images.transpose(0, 2, 3, 1), labels=images.labels)
            for split, images in given.items()
            if images is not None
        },
    )


def decoded(train, val=None, test=None, **fields):
    """Image sets as a source that was decoded; `fields` are those of `Storage`."""
    return load_listing(listing(train, val, test), Storage(**fields))


def encode(pixels, kind="PNG", **options):
    """(c, h, w) pixels as the bytes of an image file."""
    array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


def write_parquet(path, encoded, labels, names=NAMES, columns=("image", "label"), **options):
    """A file in the Hugging Face image layout; names None leaves the schema metadata out."""
    structs = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(encoded)]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = [pa.array(structs, image_type), pa.array(labels, pa.int64())]
    table = pa.table(dict(zip(columns, arrays, strict=True)))
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def write_set(path, images, **options):
    """An ImageSet as lossless PNGs in Parquet."""
    encoded = [encode(pixels) for pixels in images.images]
    return write_parquet(path, encoded, images.labels.tolist(), names=images.class_names, **options)


def taken_in(folder, images, **fields):
    """An image set as a Parquet file, taken in by way of a cache below `folder`."""
    path = write_set(folder / "source" / f"{len(images)}.parquet", images)
    source = DataSource.from_json({"kind": "parquet", "path": str(path), **fields})
    return Intake.of(source, folder / "caches")


@pytest.fixture
def data_kit():
    """The builders above, for tests that cannot import this file by name."""

    class Kit:
        names = NAMES
        random_set = staticmethod(random_set)
        encode = staticmethod(encode)
        write_parquet = staticmethod(write_parquet)
        write_set = staticmethod(write_set)
        listing = staticmethod(listing)
        decoded = staticmethod(decoded)
        taken_in = staticmethod(taken_in)
        intake = staticmethod(Intake.of)

        @staticmethod
        def source(**fields):
            return DataSource.from_json(fields)

    return Kit


@pytest.fixture(scope="session")
def splits():
    """600 random RGB images of 8x8, four classes of unequal frequency, all splits made."""
    plan = SplitPlan(calibration_images=100, seed=3)
    return make_splits(decoded(random_set()), plan)
