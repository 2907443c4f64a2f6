"""`python -m bench NAME [options]`: run one measurement; without a name, say which there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench import best, cifar10, costs, depthwise, evaluation, images, pareto, plot, spinning, step

BENCHES: dict[str, Callable[[Sequence[str]], None]] = {
    "best": best.main,
    "costs": costs.main,
    "depthwise": depthwise.main,
    "step": step.main,
    "evaluation": evaluation.main,
    "images": images.main,
    "pareto": pareto.main,
    "spinning": spinning.main,
    "cifar10": cifar10.main,
    "plot": plot.main,
}
SHORT = ("costs", "depthwise", "step", "evaluation", "pareto")
"""Run when no name is given: minutes, and no data set needed."""


def main(arguments: Sequence[str]) -> int:
    """Run the named measurement, or the short ones; the exit status."""
    if not arguments:
        for name in SHORT:
            print(f"== {name}")
            BENCHES[name]([])
        return 0
    name, *options = arguments
    if name not in BENCHES:
        print(f"no measurement {name!r}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    BENCHES[name](options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
