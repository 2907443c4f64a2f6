"""The accuracy predictor on random networks that it did not learn from: intervals, ranks, the best found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau
from sklearn.linear_model import Ridge

from bench.intervals import mean_interval
from bench.search_tables import Table
from nas.layers import WEIGHTED
from nas.search.features import Features
from nas.search.forecasts import equal_bins, within_bins
from nas.search.predictor import Predictor, conformal_factor, predictions
from nas.search.trees import fit_trees

SIZES = (50, 100, 200, 500)
"""Numbers of networks learned from, for the learning curve."""
_PREDICTOR = "predictor"
_NUM_BINS = 10
_NUM_NEIGHBOURS = 5
_BEST = 0.01
"""The part of all others whose recall is told."""


@dataclass(frozen=True)
class Ranking:
    """How well one way ranks networks that nothing was learned from."""

    tau: float
    """Kendall's tau-b, over all costs."""
    within_bins: float
    """Its mean within bins of equal numbers and like cost, where cost alone says little."""
    recall: float
    """Of the best hundredth in truth the part that is in the predicted best hundredth."""


def measure_predictor(table: Table, sizes: Sequence[int], seeds: Sequence[int]) -> None:
    """Learn from so many random networks, predict all others; means over the seeds.

    Beside the predictor stand ways that need no learning or little: MACs, the number of weighted layers, a
    ridge regression on the predictor's own features, and the mean of the five networks learned from that
    differ in fewest decisions. The lead is over the best of these within bins, by the mean over all seeds.
    """
    described = Features(table)
    features, num_layers = described.of(table.networks), _num_layers(table)
    for num in sizes:
        found = [_one_seed(table, described.figures, features, num_layers, num, seed) for seed in seeds]
        coverage = np.mean([held for held, _ in found])
        print(f"  learned from {num} random networks: 90 % intervals hold {100 * coverage:.1f} % of others")
        rankings = {name: [ranked[name] for _, ranked in found] for name in found[0][1]}
        for name, of_seeds in rankings.items():
            print(
                f"    {name}: tau {_mean(r.tau for r in of_seeds)}, within {_NUM_BINS} bins of cost "
                f"{_mean(r.within_bins for r in of_seeds)}, recall of the best {_BEST:.0%} "
                f"{_mean(r.recall for r in of_seeds)}"
            )
        _tell_lead(rankings)


def _tell_lead(rankings: Mapping[str, Sequence[Ranking]]) -> None:
    ours = np.array([r.within_bins for r in rankings[_PREDICTOR]])
    others = {
        name: np.array([r.within_bins for r in of_seeds])
        for name, of_seeds in rankings.items()
        if name != _PREDICTOR
    }
    best = max(others, key=lambda name: others[name].mean())
    lead = mean_interval(ours - others[best], digits=3)
    print(f"    predictor less {best}, the best of these: {lead} within bins", flush=True)


def _one_seed(
    table: Table,
    figures: np.ndarray,
    features: np.ndarray,
    num_layers: np.ndarray,
    num_learned: int,
    seed: int,
) -> tuple[float, dict[str, Ranking]]:
    """The part of others within their intervals, and how well each way ranks them."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.networks))
    learned, others = order[:num_learned], order[num_learned:]
    accuracies = table.accuracies
    predictor = Predictor.fit(features[learned], accuracies[learned], fit_trees, rng, figures=figures)
    means, spreads = predictor.mean_and_spread(features[others])
    factor = conformal_factor(predictor.held_out_scores(accuracies[learned]))
    made = predictions(means, spreads, factor)
    held = [p.holds(a) for p, a in zip(made, accuracies[others].tolist(), strict=True)]
    ranked = {
        _PREDICTOR: means,
        "MACs": table.costs["macs"][others],
        "layers": num_layers[others],
        "linear": _by_a_line(features, accuracies, learned, others),
        "kNN": _by_neighbours(table, learned, others),
    }
    bins = equal_bins(table.costs[table.cost][others], _NUM_BINS)
    return float(np.mean(held)), {
        name: Ranking(
            float(kendalltau(values, accuracies[others]).statistic),
            within_bins(values, accuracies[others], bins),
            recall_of_the_best(values, accuracies[others]),
        )
        for name, values in ranked.items()
    }


def recall_of_the_best(predicted: np.ndarray, accuracies: np.ndarray) -> float:
    """Of the best hundredth in truth, the part that is in the predicted best hundredth; ties by order."""
    num = max(1, round(_BEST * len(accuracies)))
    truly, as_predicted = (np.argsort(-values, kind="stable")[:num] for values in (accuracies, predicted))
    return len(np.intersect1d(truly, as_predicted)) / num


def _num_layers(table: Table) -> np.ndarray:
    """Layers with weights of their own; in the cheap twin of the space, which repeats fewer cells."""
    space = table.space.peak_equivalent()
    return np.array(
        [sum(layer.kind in WEIGHTED for layer in space.lower(network)) for network in table.networks]
    )


def _by_a_line(
    features: np.ndarray, accuracies: np.ndarray, learned: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Ridge regression with scikit-learn's penalty of 1, on features of one scale."""
    spread = features[learned].std(axis=0)
    scaled = (features - features[learned].mean(axis=0)) / np.where(spread > 0, spread, 1)
    line = Ridge().fit(scaled[learned], accuracies[learned])
    return np.asarray(line.predict(scaled[others]))


def _by_neighbours(table: Table, learned: np.ndarray, others: np.ndarray) -> np.ndarray:
    codes = table.space.encode(table.networks)
    differing = (codes[others][:, None, :] != codes[learned][None, :, :]).sum(axis=2)
    nearest = np.argsort(differing, axis=1, kind="stable")[:, :_NUM_NEIGHBOURS]
    return table.accuracies[learned][nearest].mean(axis=1)


def _mean(values) -> str:
    return f"{np.mean(list(values)):.3f}"
