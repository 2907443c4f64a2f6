"""What NAS-Bench-Macro says of its networks, and the 200 of them by which supernets are judged.

The table (Su et al., CVPR 2021) is not part of this project; `--data` names the folder that has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.ranking_statistics import kendall_tau, within_bins

NUM_BINS, NUM_PER_BIN = 10, 20
CHOICE_SEED = 0
NETWORKS_FILE = Path(__file__).with_name("ranking_networks.json")
CHOICE_NETWORKS_FILE = Path(__file__).with_name("ranking_choice_networks.json")
"""Others of the table, for the choice of a recipe."""
NUM_PER_BIN_OF_CHOICE = 3

KNOWN_BASELINES = {
    "macs": (0.545, 0.12),
    "non_identity_layers": (0.676, 0.46),
    "two_seeds_against_third": (0.895, None),
}
"""Kendall tau with the table's mean accuracy on all its canonical networks, overall and within bins."""
_TOLERANCE = 0.005
"""The figures above are rounded, and 0.895 may be of another choice of the third seed."""


@dataclass(frozen=True)
class Table:
    """One row for each distinct network of the table, in the order of their names."""

    names_n: tuple[str, ...]
    """The canonical spelling, one digit a layer."""
    macs_n: NDArray[np.int64]
    accuracies_n3: NDArray[np.float64]
    """In percent, of three trainings alone."""

    @classmethod
    def read(cls, data: Path) -> Table:
        """The canonical rows of `nas_bench_macro/train.parquet` in the data folder."""
        rows = pq.read_table(data / "nas_bench_macro" / "train.parquet").to_pylist()
        chosen = sorted((r for r in rows if r["arch"] == r["canonical_arch"]), key=lambda r: r["arch"])
        return cls(
            tuple(row["arch"] for row in chosen),
            np.array([row["flops"] for row in chosen]),
            np.array([row["test_acc"] for row in chosen]),
        )

    @property
    def mean_accuracy_n(self) -> NDArray[np.float64]:
        """Over the three trainings."""
        return self.accuracies_n3.mean(axis=1)

    @property
    def num_layers_n(self) -> NDArray[np.int64]:
        """Layers that are no identity."""
        return np.array([sum(digit != "0" for digit in name) for name in self.names_n])

    def edges(self) -> NDArray[np.float64]:
        """Of `NUM_BINS` bins of MACs with equally many networks of the table."""
        return np.quantile(self.macs_n, np.linspace(0, 1, NUM_BINS + 1))

    def bins_n(self) -> NDArray[np.int64]:
        """The bin of each network, from 0."""
        inner = self.edges()[1:-1]
        return np.searchsorted(inner, self.macs_n, side="right")

    def baselines(self) -> dict[str, tuple[float, float]]:
        """Tau overall and within bins of what needs no supernet."""
        bins, truth = self.bins_n(), self.mean_accuracy_n

        def both(guess: NDArray, target: NDArray) -> tuple[float, float]:
            return kendall_tau(guess, target), within_bins(kendall_tau, guess, target, bins)

        thirds = [
            both(np.delete(self.accuracies_n3, third, axis=1).mean(axis=1), self.accuracies_n3[:, third])
            for third in range(3)
        ]
        overall, within = np.mean(thirds, axis=0).tolist()
        return {
            "macs": both(self.macs_n, truth),
            "non_identity_layers": both(self.num_layers_n, truth),
            "two_seeds_against_third": (overall, within),
        }

    def rows(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Where these networks stand."""
        place = {name: i for i, name in enumerate(self.names_n)}
        return np.array([place[name] for name in names])


def check_baselines(found: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError where the table does not say of its baselines what is known of them."""
    for name, known in KNOWN_BASELINES.items():
        for figure, expected in zip(found[name], known, strict=True):
            if expected is not None and abs(figure - expected) > _TOLERANCE:
                raise ValueError(
                    f"tau of '{name}' on the table is {figure:.3f}, not {expected}; it is another table, "
                    "or it is read wrongly"
                )


def choose_networks(table: Table) -> dict[str, object]:
    """The contents of the files of networks by their names: so many at random from each bin of MACs."""
    rng = np.random.default_rng(CHOICE_SEED)
    bins = table.bins_n()
    drawn = [rng.permutation(np.flatnonzero(bins == b)) for b in range(NUM_BINS)]
    both = NUM_PER_BIN + NUM_PER_BIN_OF_CHOICE
    places = {NETWORKS_FILE: slice(NUM_PER_BIN), CHOICE_NETWORKS_FILE: slice(NUM_PER_BIN, both)}
    return {
        file.name: {
            "space": "nas_bench_macro",
            "seed": CHOICE_SEED,
            "made_by": "python -m bench ranking --data DATA --choose",
            "edges_macs": [round(edge) for edge in table.edges()],
            "networks": [[table.names_n[row] for row in sorted(rows[place])] for rows in drawn],
        }
        for file, place in places.items()
    }


def networks_by_bin(
    num_per_bin: int = NUM_PER_BIN, file: Path = NETWORKS_FILE
) -> tuple[tuple[str, ...], ...]:
    """The names of the committed networks, bin by bin; the first few of each where fewer are asked for."""
    bins = json.loads(file.read_text())["networks"]
    return tuple(tuple(names[:num_per_bin]) for names in bins)
