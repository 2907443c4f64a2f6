"""The accuracy predictor on random networks that it did not learn from: intervals and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.search_tables import Table
from nas.layers import WEIGHTED
from nas.search.features import Features
from nas.search.forecasts import equal_bins, within_bins
from nas.search.predictor import Predictor, conformal_factor, predictions
from nas.search.trees import fit_trees

_NUM_BINS = 10
_NUM_NEIGHBOURS = 5
_MORE_LEARNED = (4,)
"""Times the budget, for the learning curve."""


def measure_predictor(table: Table, num_learned: int, seeds: Sequence[int]) -> None:
    """Learn from so many random networks, predict all others; figures pooled over the seeds.

    Kendall's tau is that within ten bins of the cost, beside what needs no learning or little: log MACs, the
    number of weighted layers, and the mean of the five networks learned from that differ in fewest decisions.
    """
    described = Features(table)
    features, num_layers = described.of(table.networks), _num_layers(table)
    for num in (times * num_learned for times in (1, *_MORE_LEARNED)):
        if num > len(table.networks) // 2:
            break
        rows = [_one_seed(table, described.figures, features, num_layers, num, seed) for seed in seeds]
        coverage = np.mean([row.pop("coverage") for row in rows])
        taus = ", ".join(f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in rows[0])
        print(
            f"  learned from {num} random networks: 90 % intervals hold {100 * coverage:.1f} % of others; "
            f"tau within {_NUM_BINS} bins of cost: {taus}",
            flush=True,
        )


def _one_seed(
    table: Table,
    figures: np.ndarray,
    features: np.ndarray,
    num_layers: np.ndarray,
    num_learned: int,
    seed: int,
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.networks))
    learned, others = order[:num_learned], order[num_learned:]
    accuracies = table.accuracies
    predictor = Predictor.fit(features[learned], accuracies[learned], fit_trees, rng, figures=figures)
    means, spreads = predictor.mean_and_spread(features[others])
    factor = conformal_factor(predictor.held_out_scores(accuracies[learned]))
    made = predictions(means, spreads, factor)
    bins = equal_bins(table.costs[table.cost][others], _NUM_BINS)
    ranked = {
        "predictor": means,
        "MACs": table.costs["macs"][others],
        "layers": num_layers[others],
        "kNN": _by_neighbours(table, learned, others),
    }
    taus = {name: within_bins(values, accuracies[others], bins) for name, values in ranked.items()}
    held = [p.holds(a) for p, a in zip(made, accuracies[others].tolist(), strict=True)]
    return {"coverage": float(np.mean(held)), **taus}


def _num_layers(table: Table) -> np.ndarray:
    """Layers with weights of their own; in the cheap twin of the space, which repeats fewer cells."""
    space = table.space.peak_equivalent()
    return np.array(
        [sum(layer.kind in WEIGHTED for layer in space.lower(network)) for network in table.networks]
    )


def _by_neighbours(table: Table, learned: np.ndarray, others: np.ndarray) -> np.ndarray:
    codes = table.space.encode(table.networks)
    differing = (codes[others][:, None, :] != codes[learned][None, :, :]).sum(axis=2)
    nearest = np.argsort(differing, axis=1, kind="stable")[:, :_NUM_NEIGHBOURS]
    return table.accuracies[learned][nearest].mean(axis=1)
