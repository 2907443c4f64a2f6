"""Images: batches from the shared memory map against one of train's own, and what an import holds."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from bench.paired import time_paired
from supernet.data import Augmentation, DataSource, DataSplits, Intake, SplitPlan, TrainingBatches
from supernet.data.augmentation import crop_and_flip, draw_shifts
from supernet.data.preprocess import standardise, to_channels_last

BATCH_SIZE, NUM_BATCHES = 128, 20
SIZES = {32: 20_000, 224: 2_000}
"""Images of each side in pixels."""
VARIED = Augmentation(crop_padding=4, horizontal_flip=True)


def main(arguments: Sequence[str]) -> None:
    """CPU seconds of batches, and the peak memory of an import in a process of its own."""
    parser = argparse.ArgumentParser(prog="bench images")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--images", type=int, help="so many of each size")
    parser.add_argument("--side", type=int, choices=SIZES, action="append", help="only these; by default all")
    parser.add_argument("--import-only", nargs=2, metavar=("SOURCE", "CACHES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.import_only:
        _import_and_tell(*options.import_only)
        return
    torch.set_num_threads(1)
    for side in options.side or SIZES:
        count = options.images or SIZES[side]
        with tempfile.TemporaryDirectory() as folder:
            source = _write_source(Path(folder) / "train.parquet", side, count)
            _tell_import(source, Path(folder), side, count)
            splits = Intake.of(DataSource.from_json(source), Path(folder) / "caches").split(SplitPlan())
            own = Path(folder) / "train.npy"
            np.save(own, splits.train.images)
            _tell_batches(splits, own, side, options.pairs)


def _write_source(path: Path, side: int, count: int) -> dict[str, str]:
    rng = np.random.default_rng(0)
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, 100):
            images = [{"bytes": _jpeg(rng, side), "path": None} for _ in range(100)]
            rows = {"image": images, "label": [(start + i) % 10 for i in range(100)]}
            writer.write_table(pa.table(rows, schema=schema))
    return {"kind": "parquet", "path": str(path)}


def _jpeg(rng: np.random.Generator, side: int) -> bytes:
    file = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def _tell_import(source: dict[str, str], folder: Path, side: int, count: int) -> None:
    command = [sys.executable, "-m", "bench", "images", "--import-only", json.dumps(source)]
    done = subprocess.run([*command, str(folder / "alone")], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    print(
        f"import of {count} JPEGs of {side}x{side}: {found['seconds']:.1f} s, "
        f"{found['decoded_mib']:.0f} MiB decoded, peak memory grown by {found['grown_mib']:.0f} MiB"
    )


def _import_and_tell(source: str, caches: str) -> None:
    before, started = _peak_mib(), time.perf_counter()
    decoded = Intake.of(DataSource.from_json(json.loads(source)), Path(caches)).decode()
    found = {
        "seconds": time.perf_counter() - started,
        "grown_mib": _peak_mib() - before,
        "decoded_mib": decoded.pixels.nbytes / 2**20,
    }
    print(json.dumps(found))


def _peak_mib() -> float:
    # Not getrusage: its maximum is inherited from the parent.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _tell_batches(splits: DataSplits, own: Path, side: int, pairs: int) -> None:
    ours = TrainingBatches(splits, BATCH_SIZE, 0, VARIED)
    copied, labels = torch.from_numpy(np.load(own, mmap_mode="c")), torch.from_numpy(splits.train.labels)
    order = np.random.default_rng(0).permutation(len(copied))

    def batches() -> None:
        for step in range(NUM_BATCHES):
            ours.batch(step % ours.steps_per_epoch)

    def reference() -> None:
        for step in range(NUM_BATCHES):
            start = step % ours.steps_per_epoch * BATCH_SIZE
            chosen = torch.from_numpy(order[start : start + BATCH_SIZE])
            images = standardise(copied[chosen], splits.mean, splits.std)
            shifts = draw_shifts(VARIED, BATCH_SIZE, np.random.default_rng([0, 1, step]))
            to_channels_last(crop_and_flip(images, shifts, VARIED.crop_padding))
            labels[chosen]

    timed = time_paired(batches, reference, pairs=pairs)
    what = f"{NUM_BATCHES} batches of {BATCH_SIZE} at {side}x{side}, shared memory map against train's own"
    print(timed.line(what))
