"""Does a supernet rank networks as training them alone does? The same budget for every recipe.

A training of NAS-Bench-Macro, or of NAS-Bench-201 (`--protocol cells`), by one recipe and one seed, then the
accuracy on val of 200 networks with its weights, against the accuracy that the benchmark has of each trained
alone. May take several sittings: the same command goes on where the last was killed or ran out of
`--minutes`.

    python -m bench ranking --data ../shared/data --recipe bignas --seed 0 --out FOLDER
    python -m bench ranking --report FOLDER

The reduced protocol has 16 × 16 images and half the channels. The 200 networks, 20 in each of 10 bins of
MACs, are in `ranking_networks.json` and `ranking_cell_networks.json`; they serve to judge, never to tune. To
choose a recipe there are `--protocol choice` (Fashion-MNIST, 30 other networks, a fifth of the budget: for
many recipes) and `choice_full` (100 networks and the whole budget: for the few that are left), whose networks
`--alone 0 1` trains first.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench.ranking_alone import train_alone
from bench.ranking_protocol import PROTOCOLS, Protocol
from bench.ranking_report import lines, report
from bench.ranking_run import Run
from bench.ranking_truth import BENCHMARKS
from bench.recipe_changes import add_set_option, recipe_changes
from bench.sittings import OutOfTimeError
from nas.recipes import recipe_from_json
from supernet.training import tune_malloc


def main(arguments: Sequence[str]) -> None:
    """Train and measure, or report, or choose the networks anew."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.report:
        _report(options.report, options.resamples)
        return
    if not options.data:
        parser.error("--data is needed, the folder of cifar10 and nas_bench_macro")
    if options.choose:
        for benchmark in BENCHMARKS.values():
            print(json.dumps(benchmark.choose_networks(benchmark.read(options.data)), indent=1))
        return
    benchmark = PROTOCOLS[options.protocol].benchmark
    benchmark.check(benchmark.read(options.data).baselines())
    if not options.out:
        parser.error("--out is needed, a folder for the training and its result")
    torch.set_num_threads(options.threads)
    tune_malloc()
    try:
        if options.alone:
            _train_alone(options)
        else:
            _run(options)
    except OutOfTimeError as reason:
        print(f"{reason}; the same command goes on")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench ranking")
    parser.add_argument("--data", type=Path, help="folder with cifar10/ and the benchmark's table")
    parser.add_argument("--out", type=Path, help="folder of all trainings that are to be compared")
    parser.add_argument("--recipe", default="bignas")
    add_set_option(parser)
    parser.add_argument("--label", help="name of the result; needed with --set, else the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="reduced")
    parser.add_argument("--budget", type=float, help="forward MACs of the training; else the protocol's")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the sitting after so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="to train on")
    parser.add_argument("--images", type=int, help="only so many of each file, its first")
    parser.add_argument("--per-bin", type=int, help="networks of each bin; else the protocol's")
    parser.add_argument(
        "--alone", type=int, nargs=2, metavar=("K", "N"), help="train every Nth network alone, from the Kth"
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="compare what is finished in it")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--choose", action="store_true", help="print the networks' files")
    return parser


def _train_alone(options: argparse.Namespace) -> None:
    protocol = _protocol_of(options)
    if protocol.alone_epochs is None:
        raise SystemExit(f"the table says how good the networks of protocol '{protocol.name}' are alone")
    train_alone(protocol, options.data, options.out, _deadline_of(options), tuple(options.alone))


def _run(options: argparse.Namespace) -> None:
    run = _run_of(options)
    result = run.carry_on()
    share = result["spent_macs"] / result["protocol"]["budget_macs"]
    print(f"finished: {result['spent_macs']:.3g} forward MACs, {share:.1%} of the budget; {run.result_file}")


def _run_of(options: argparse.Namespace) -> Run:
    changes = recipe_changes(options.set)
    if changes and not options.label:
        raise SystemExit("--set makes another recipe; name it with --label")
    return Run(
        label=options.label or options.recipe,
        recipe=recipe_from_json({"name": options.recipe, **changes}),
        seed=options.seed,
        protocol=_protocol_of(options),
        data=options.data,
        out=options.out,
        device=torch.device(options.device),
        deadline=_deadline_of(options),
    )


def _protocol_of(options: argparse.Namespace) -> Protocol:
    protocol = PROTOCOLS[options.protocol]
    return replace(
        protocol,
        budget_macs=options.budget or protocol.budget_macs,
        num_per_bin=options.per_bin or protocol.num_per_bin,
        num_images=options.images or protocol.num_images,
    )


def _deadline_of(options: argparse.Namespace) -> float:
    return time.monotonic() + 60 * options.minutes


def _report(folder: Path, num_resamples: int) -> None:
    content = report(folder, num_resamples)
    (folder / "report.json").write_text(json.dumps(content, indent=1))
    for line in lines(content):
        print(line)
