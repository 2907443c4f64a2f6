"""`python -m bench [--quick] [NAME [options]]`: one measurement, or the short ones where none is named.

With `--quick` each is cut down until its figures mean nothing: it shows that the command works.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench import (
    alone,
    best,
    certificate,
    cifar10,
    costs,
    deepmad,
    deps,
    depthwise,
    evaluation,
    images,
    lanes,
    latency,
    outside,
    pareto,
    plot,
    prefilter,
    probe,
    ranking,
    ranks,
    search,
    spinning,
    step,
)

BENCHES: dict[str, Callable[[Sequence[str]], None]] = {
    "alone": alone.main,
    "best": best.main,
    "certificate": certificate.main,
    "costs": costs.main,
    "deepmad": deepmad.main,
    "deps": deps.main,
    "depthwise": depthwise.main,
    "step": step.main,
    "evaluation": evaluation.main,
    "images": images.main,
    "lanes": lanes.main,
    "latency": latency.main,
    "outside": outside.main,
    "pareto": pareto.main,
    "ranks": ranks.main,
    "search": search.main,
    "spinning": spinning.main,
    "cifar10": cifar10.main,
    "plot": plot.main,
    "prefilter": prefilter.main,
    "probe": probe.main,
    "ranking": ranking.main,
}
QUICK: dict[str, tuple[str, ...]] = {
    "alone": ("--epochs", "1", "--space", "micro_8", "--part", "supernet", "0"),
    "best": ("--evaluations", "2000", "--requests", "2"),
    "certificate": ("--questions", "2", "--space", "micro_8"),
    "costs": ("--architectures", "1000"),
    "deepmad": ("--repeats", "1", "--starts", "1", "--beam", "2", "--evaluations", "1"),
    "deps": ("--epochs", "2", "--seeds", "0"),
    "depthwise": ("--pairs", "1"),
    "step": ("--pairs", "1"),
    "evaluation": ("--pairs", "1", "--space", "micro"),
    "images": ("--images", "300", "--pairs", "1"),
    "lanes": ("--pairs", "1", "--space", "micro_8"),
    "latency": ("--splits", "1", "--fit", "60", "--test", "100", "--runtimes", "onnx"),
    "outside": ("--sizes", "1", "--rounds", "2"),
    "pareto": ("--points", "1000"),
    "ranks": ("--epochs", "1"),
    "search": ("--tables", "macro", "--seeds", "2", "--proposers", "model", "random", "--budgets", "20"),
    "spinning": ("--rounds", "1", "--steps", "1"),
    "cifar10": ("--images", "600", "--epochs", "1", "--trials", "8"),
    "plot": (),
    "prefilter": (
        "--epochs",
        "1",
        "--space",
        "micro_8",
        "--trials",
        "12",
        "--seeds",
        "2",
        "--proposers",
        "nsga2",
    ),
    "probe": ("--space", "micro_8", "--networks", "30", "--fit", "20", "--blocks", "20"),
    "ranking": ("--images", "600", "--budget", "1e10", "--per-bin", "2", "--resamples", "50"),
}
"""What is put behind the options, and so overrides them."""

SHORT = ("costs", "certificate", "depthwise", "step", "evaluation", "pareto")
"""Run when no name is given: minutes, and no data set needed."""


def main(arguments: Sequence[str]) -> int:
    """Run the named measurement, or the short ones; the exit status."""
    is_quick = arguments[:1] == ["--quick"]
    if is_quick:
        arguments = arguments[1:]
    if not arguments:
        for name in SHORT:
            print(f"== {name}")
            BENCHES[name](QUICK[name] if is_quick else ())
        return 0
    name, *options = arguments
    if name not in BENCHES:
        print(f"no measurement {name!r}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    BENCHES[name]([*options, *QUICK[name]] if is_quick else options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
