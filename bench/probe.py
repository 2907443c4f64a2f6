"""From the probe to a latency model on this machine: how well it predicts networks that it was not fitted to.

Predictions are held against a second pass over the same networks, and so is the first pass: no model can be
expected to come nearer to the second than measuring again does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.costs import batch_costs
from nas.devices import probe
from nas.devices.accuracy import compare
from nas.devices.boosting import grow_trees
from nas.devices.fitting import fit_latency
from nas.devices.measurements import Measurements, read_measurements
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from search_spaces import SPACES
from supernet.export.probe_work import write_probe_work


def main(arguments: Sequence[str]) -> None:
    """Repeatability of the probe, and error, hits and rank correlation of what is made of its figures."""
    parser = argparse.ArgumentParser(prog="bench probe")
    parser.add_argument("--space", default="micro", choices=sorted(SPACES))
    parser.add_argument("--networks", type=int, default=160, help="whole networks to measure")
    parser.add_argument("--fit", type=int, default=60, help="of them to fit to; the others judge")
    parser.add_argument("--blocks", type=int, default=None, help="blocks to measure; all by default")
    parser.add_argument("--measurements", type=Path, help="what a probe wrote, instead of measuring now")
    options = parser.parse_args(arguments)
    space = SPACES[options.space]
    if options.measurements is not None:
        found = read_measurements(options.measurements.read_text().splitlines(), space)
    else:
        found = _measured_now(options.space, options.networks, options.blocks)
    print(f"{len(found.table.rows)} blocks, {len(found.networks)} networks; {found.repeatability}")
    _tell_models(found, options.fit)


def _measured_now(name: str, num_networks: int, num_blocks: int | None) -> Measurements:
    """In a process of its own, as on any device."""
    with tempfile.TemporaryDirectory() as folder:
        work, out = Path(folder, "work.zip"), Path(folder, "out.jsonl")
        networks = NetworkBlocks.of(SPACES[name])
        write_probe_work(work, networks, num_networks=num_networks, max_blocks=num_blocks)
        command = [sys.executable, probe.__file__, str(work), str(out), "--device", "this_machine"]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("the probe refused; there is nothing to judge")
        return read_measurements(out.read_text().splitlines(), SPACES[name])


def _tell_models(found: Measurements, num_fit: int) -> None:
    order = np.random.default_rng(0).permutation(len(found.networks))
    fit, rest = found.networks.rows(order[:num_fit]), order[num_fit:]
    first, second = found.networks.rows(rest), found.again.rows(rest)
    has_all = not found.table.missing(fit.networks.distinct())
    model = fit_latency(fit, table=found.table if has_all else None, grow_trees=grow_trees)
    predicted = model.predict_ms(first.networks, first.codes)
    _tell(f"chosen: {_form(model)}", predicted, second.latency_ms)
    if has_all:
        bare = LatencyModel.of_table(replace(found.table, device=fit.device))
        summed = bare.predict_ms(first.networks, first.codes)
        _tell("the table's own sum", summed, second.latency_ms)
    macs = [batch_costs(m.networks.space, m.codes, names=["macs"])["macs"] for m in (fit, first)]
    factor = np.median(fit.latency_ms / macs[0])
    _tell("macs times a factor", factor * macs[1], second.latency_ms)
    _tell("measured again", first.latency_ms, second.latency_ms)


def _form(model: LatencyModel) -> str:
    return f"{model.basis}, {'additive' if model.is_additive else 'with a residual'}"


def _tell(what: str, predicted_ms: np.ndarray, measured_ms: np.ndarray) -> None:
    found = compare(predicted_ms, measured_ms)
    print(
        f"{what}: MAPE {100 * found.mape:.2f} %, within 10 % {100 * found.hit_rate:.0f} %, "
        f"Spearman {found.spearman:.4f} on {found.num_networks}"
    )
