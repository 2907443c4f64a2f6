"""Draws the frontier that `cifar10 --out` kept, as the README shows it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

INK, LINE = "#24292f", "#0969da"


def main(arguments: Sequence[str]) -> None:
    """`python -m bench plot result.json frontier.svg`."""
    parser = argparse.ArgumentParser(prog="bench plot")
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args(arguments)
    draw(json.loads(options.result.read_text()), options.picture)


def draw(result: dict, picture: Path) -> None:
    """Accuracy against MACs with 95 % intervals; the two specialised networks' test accuracy beside."""
    # Only here: the other measurements need no drawing.
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "the same picture for the same figures"
    points = result["frontier"]
    macs = [point["macs"] / 1e6 for point in points]
    accuracy = [100 * point["accuracy"] for point in points]
    low = [a - 100 * point["interval_95"][0] for a, point in zip(accuracy, points, strict=True)]
    high = [100 * point["interval_95"][1] - a for a, point in zip(accuracy, points, strict=True)]
    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    axes.errorbar(
        macs, accuracy, yerr=[low, high], color=LINE, ecolor="#9ec5fe", marker="o", markersize=4, capsize=2,
        linewidth=1.2, label="measured on val, 95 % interval",
    )  # fmt: skip
    tested = [(c["costs"]["macs"] / 1e6, 100 * c["accuracy_test"]["value"]) for c in result["chosen"]]
    axes.plot(*zip(*tested, strict=True), "D", color="#cf222e", markersize=5, label="downloaded: on test")
    axes.set_xlabel("million MACs", color=INK)
    axes.set_ylabel("CIFAR-10 accuracy, %", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None})
