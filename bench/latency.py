"""How well latency models fitted to few networks predict the others: NAS-Bench-201 on a Raspberry Pi 5.

The model is chosen by cross-validation within the networks that it is fitted to; it is held against others,
several hundred to thousands, and so are multiply-accumulates alone, scaled as well as the fit can.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from nas.costs import batch_costs
from nas.devices.accuracy import Accuracy, compare
from nas.devices.boosting import grow_trees
from nas.devices.device import Device
from nas.devices.fitting import MeasuredNetworks, fit_latency, judged
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from search_spaces import SPACES

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TABLE = "latency/nas_bench_201_devices_train.parquet"
CLASSES = {"cifar100": 100, "ninapro": 18, "darcy": 1}
TARGETS = {"litert": (4.0, 0.97), "onnx": (4.0, 0.97), "torchmobile": (7.0, 0.95)}
"""Per cent at most, rank correlation at least."""


def main(arguments: Sequence[str]) -> None:
    """Error, hits and rank correlation of each runtime and task, by random split."""
    parser = argparse.ArgumentParser(prog="bench latency")
    parser.add_argument("--data", type=Path, default=SHARED / TABLE)
    parser.add_argument("--device", default="raspberry_pi_5", choices=("raspberry_pi_5", "pixel_6a"))
    parser.add_argument("--tasks", nargs="+", default=["cifar100"], choices=sorted(CLASSES))
    parser.add_argument("--runtimes", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--fit", type=int, default=200, help="networks to fit to")
    parser.add_argument("--test", type=int, default=0, help="others to test on; 0 for all there are")
    parser.add_argument("--splits", type=int, default=5)
    options = parser.parse_args(arguments)
    for task in options.tasks:
        for runtime in options.runtimes:
            measured = _measured(options.data, options.device, runtime, task)
            results = []
            for seed in range(options.splits):
                order = np.random.default_rng(seed).permutation(len(measured))
                end = options.fit + options.test if options.test else len(order)
                fit, test = measured.rows(order[: options.fit]), measured.rows(order[options.fit : end])
                model = judged(fit_latency(fit, grow_trees=grow_trees, seed=seed), test)
                alone = _macs_alone(fit, test)
                print(f"{task} {runtime} split {seed}: {_told(model.accuracy)}; {_form(model)}", flush=True)
                print(f"    macs alone: {_told(alone)}", flush=True)
                results.append(model.accuracy)
            _tell_summary(task, runtime, results)


def _measured(path: Path, device: str, runtime: str, task: str) -> MeasuredNetworks:
    """The networks of one device, runtime and task, without those that the converter folded away.

    All tasks are read as networks for 32 × 32 images: their inputs scale every map alike, and with it every
    block's work, which is up to the factors that are fitted.
    """
    table = pq.read_table(path, filters=[("device", "=", device), ("framework", "=", runtime),
                                         ("task", "=", task), ("degenerate", "=", False)])  # fmt: skip
    space = SPACES["nas_bench_201"]
    codes = space.encode([space.parse(text) for text in table["arch"].to_pylist()])
    return MeasuredNetworks(
        device=Device(name=device, runtime=runtime),
        networks=NetworkBlocks.of(space, num_classes=CLASSES[task]),
        codes=codes,
        latency_ms=table["latency_ms"].to_numpy(),
    )


def _macs_alone(fit: MeasuredNetworks, test: MeasuredNetworks) -> Accuracy:
    """base + factor × MACs, least relative squares."""
    macs = [batch_costs(m.networks.space, m.codes, names=["macs"])["macs"] / 1e6 for m in (fit, test)]
    columns = np.column_stack([np.ones(len(fit)), macs[0]]) / fit.latency_ms[:, None]
    base, factor = np.linalg.lstsq(columns, np.ones(len(fit)), rcond=None)[0]
    return compare(base + factor * macs[1], test.latency_ms)


def _form(model: LatencyModel) -> str:
    residual = "additive" if model.residual is None else f"with {model.residual.to_json()['kind']}"
    return f"{model.basis}, {'live' if model.drop_dead else 'all'} layers, {residual}"


def _told(accuracy: Accuracy | None) -> str:
    assert accuracy is not None
    return (
        f"MAPE {100 * accuracy.mape:.2f} %, within 10 % {100 * accuracy.hit_rate:.1f} %, "
        f"Spearman {accuracy.spearman:.4f} on {accuracy.num_networks}"
    )


def _tell_summary(task: str, runtime: str, results: Sequence[Accuracy]) -> None:
    mape, rank = [100 * r.mape for r in results], [r.spearman for r in results]
    most, least = TARGETS[runtime]
    is_met = max(mape) <= most and min(rank) >= least
    print(
        f"{task} {runtime}: MAPE {np.mean(mape):.2f} % (at worst {max(mape):.2f}), "
        f"Spearman {np.mean(rank):.4f} (at worst {min(rank):.4f}); "
        f"wanted {most} % and {least}: {'met' if is_met else 'NOT met'}",
        flush=True,
    )
