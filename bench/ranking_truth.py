"""What benchmarks say of their networks, and the 200 of each by which supernets are judged.

The tables (NAS-Bench-Macro, Su et al., CVPR 2021; NAS-Bench-201, Dong and Yang, ICLR 2020) are no part of
this project; `--data` names the folder that has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
"""Others of NAS-Bench-Macro, for a first choice among many recipes."""
FULL_CHOICE_NETWORKS_FILE = Path(__file__).with_name("ranking_full_choice_networks.json")
"""These and more, for the choice among the few that are left."""
CELL_NETWORKS_FILE = Path(__file__).with_name("ranking_cell_networks.json")
"""Of NAS-Bench-201."""
NUM_PER_BIN_OF_CHOICE, NUM_PER_BIN_OF_FULL_CHOICE = 3, 10

_TOLERANCE = 0.005
"""Figures known of a table are rounded, and that of three seeds may be of another choice of the third."""


@dataclass(frozen=True)
class Table:
    """One row for each distinct network of a benchmark."""

    names_n: tuple[str, ...]
    """In the space's native notation, canonical."""
    macs_n: NDArray[np.int64]
    num_layers_n: NDArray[np.int64]
    """Layers that are no identity; of a cell the convolutions on its edges."""
    accuracies_nk: NDArray[np.float64]
    """In percent, of k trainings alone, or the mean of all (k of 1) where that is all the table has."""
    early_n: NDArray[np.float64] | None = None
    """The same after a much shorter training alone, where the table has that."""

    @property
    def mean_accuracy_n(self) -> NDArray[np.float64]:
        """Over the trainings."""
        return self.accuracies_nk.mean(axis=1)

    def edges(self) -> NDArray[np.float64]:
        """Of `NUM_BINS` bins of MACs, with as nearly equally many networks as equal MACs allow."""
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

        found = {"macs": both(self.macs_n, truth), "non_identity_layers": both(self.num_layers_n, truth)}
        if self.early_n is not None:
            found["trained_briefly"] = both(self.early_n, truth)
        num_trainings = self.accuracies_nk.shape[1]
        if num_trainings == 3:
            thirds = [
                both(np.delete(self.accuracies_nk, third, axis=1).mean(axis=1), self.accuracies_nk[:, third])
                for third in range(num_trainings)
            ]
            overall, within = np.mean(thirds, axis=0).tolist()
            found["two_seeds_against_third"] = (overall, within)
        return found

    def rows(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Where these networks stand."""
        place = {name: i for i, name in enumerate(self.names_n)}
        return np.array([place[name] for name in names])


def _read_macro(data: Path) -> Table:
    rows = pq.read_table(data / "nas_bench_macro" / "train.parquet").to_pylist()
    chosen = sorted((r for r in rows if r["arch"] == r["canonical_arch"]), key=lambda r: r["arch"])
    names = tuple(row["arch"] for row in chosen)
    return Table(
        names,
        np.array([row["flops"] for row in chosen]),
        np.array([sum(digit != "0" for digit in name) for name in names]),
        np.array([row["test_acc"] for row in chosen]),
    )


def _read_cells(data: Path) -> Table:
    """CIFAR-10 after 200 epochs, and after 12 of a schedule of its own."""
    rows = pq.read_table(data / "nas_bench_201" / "train.parquet").to_pylist()
    chosen = [row for row in rows if row["arch_index"] == row["canonical_index"]]
    return Table(
        tuple(row["arch"] for row in chosen),
        np.array([row["macs_cifar10"] for row in chosen]),
        np.array([sum("conv" in operation for operation in row["ops"]) for row in chosen]),
        np.array([[row["cifar10_test_acc_200ep"]] for row in chosen]),
        np.array([row["cifar10_test_acc_12ep"] for row in chosen]),
    )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A table, and what is known of it."""

    space: str
    read: Callable[[Path], Table]
    """From the data folder."""
    known_baselines: Mapping[str, tuple[float, float | None]]
    """Kendall tau with the table's mean accuracy on all its canonical networks, overall and within bins."""
    files: Mapping[Path, slice]
    """Of committed networks, and which of the networks drawn from each bin they hold."""

    def check(self, found: Mapping[str, tuple[float, float]]) -> None:
        """Raise ValueError where the table does not say of its baselines what is known of them."""
        for name, known in self.known_baselines.items():
            for figure, expected in zip(found[name], known, strict=True):
                if expected is not None and abs(figure - expected) > _TOLERANCE:
                    raise ValueError(
                        f"tau of '{name}' on the table is {figure:.3f}, not {expected}; it is another table "
                        f"than {self.space}'s, or it is read wrongly"
                    )

    def choose_networks(self, table: Table) -> dict[str, object]:
        """The contents of the files of networks by their names: so many at random from each bin of MACs."""
        rng = np.random.default_rng(CHOICE_SEED)
        bins = table.bins_n()
        drawn = [rng.permutation(np.flatnonzero(bins == b)) for b in range(NUM_BINS)]
        return {
            file.name: {
                "space": self.space,
                "seed": CHOICE_SEED,
                "made_by": "python -m bench ranking --data DATA --choose",
                "edges_macs": [round(edge) for edge in table.edges()],
                "networks": [[table.names_n[row] for row in sorted(rows[place])] for rows in drawn],
            }
            for file, place in self.files.items()
        }


BENCHMARKS = {
    benchmark.space: benchmark
    for benchmark in (
        Benchmark(
            space="nas_bench_macro",
            read=_read_macro,
            known_baselines={
                "macs": (0.545, 0.12),
                "non_identity_layers": (0.676, 0.46),
                "two_seeds_against_third": (0.895, None),
            },
            files={
                NETWORKS_FILE: slice(NUM_PER_BIN),
                CHOICE_NETWORKS_FILE: slice(NUM_PER_BIN, NUM_PER_BIN + NUM_PER_BIN_OF_CHOICE),
                FULL_CHOICE_NETWORKS_FILE: slice(NUM_PER_BIN, NUM_PER_BIN + NUM_PER_BIN_OF_FULL_CHOICE),
            },
        ),
        Benchmark(
            space="nas_bench_201",
            read=_read_cells,
            known_baselines={
                "macs": (0.607, 0.129),
                "non_identity_layers": (0.619, 0.167),
                "trained_briefly": (0.690, 0.701),
            },
            files={CELL_NETWORKS_FILE: slice(NUM_PER_BIN)},
        ),
    )
}
"""By the name of their space."""


def networks_by_bin(
    num_per_bin: int = NUM_PER_BIN, file: Path = NETWORKS_FILE
) -> tuple[tuple[str, ...], ...]:
    """The names of the committed networks, bin by bin; the first few of each where fewer are asked for."""
    bins = json.loads(file.read_text())["networks"]
    return tuple(tuple(names[:num_per_bin]) for names in bins)
