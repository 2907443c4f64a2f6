"""What the finished trainings in a folder say: how well each recipe ranks, and against what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ranking_statistics import Bootstrap, Interval, rho_of_resamples, tau_of_resamples

Runs = Sequence[tuple[NDArray, NDArray]]
MEASURES = {
    "tau": (tau_of_resamples, False),
    "rho": (rho_of_resamples, False),
    "tau_within_bins": (tau_of_resamples, True),
    "rho_within_bins": (rho_of_resamples, True),
}
"""The correlation, and whether it is taken bin by bin."""
REFERENCES = ("macs", "non_identity_layers", "spos")
"""What every recipe is compared with."""


def report(folder: Path, num_resamples: int) -> dict[str, Any]:
    """Correlations with the accuracy of networks trained alone, with 95 % intervals, and differences."""
    results = _read(folder)
    networks = results[0]["networks"]
    bootstrap = Bootstrap(np.array([network["bin"] for network in networks]), num_resamples)
    sources = {**_baselines(networks), **_recipes(results)}
    figures = {name: _figures(bootstrap, runs) for name, runs in sources.items()}
    return {
        "protocol": results[0]["protocol"],
        "num_networks": len(networks),
        "num_resamples": num_resamples,
        "table_baselines": results[0]["table_baselines"],
        "correlations": {
            name: {measure: asdict(Interval.of(*pair)) for measure, pair in of.items()}
            for name, of in figures.items()
        },
        "differences": {
            f"{name} - {reference}": _differences(figures[name], figures[reference])
            for name in _recipes(results)
            for reference in REFERENCES
            if reference in figures and reference != name
        },
        "trainings": [_training(result) for result in results],
    }


def lines(content: Mapping[str, Any]) -> list[str]:
    """The report as Markdown."""
    table = [f"| by | {' | '.join(MEASURES)} |", f"|---|{'---:|' * len(MEASURES)}"]
    for part in ("correlations", "differences"):
        for name, figures in content[part].items():
            cells = [str(Interval(**figures[measure])) for measure in MEASURES]
            table.append(f"| {name} | {' | '.join(cells)} |")
    trainings = [
        f"{training['label']}, seed {training['seed']}: {training['num_steps']} steps, "
        f"{training['spent_macs']:.3g} forward MACs ({training['spent_of_budget']:.1%} of the budget), "
        f"{training['train_s'] / 60:.0f} min, tau {training['tau']:.3f}"
        for training in content["trainings"]
    ]
    return [*table, "", *trainings]


def _read(folder: Path) -> list[dict[str, Any]]:
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]
    if not results:
        raise SystemExit(f"{folder} holds no finished training; run `python -m bench ranking --out {folder}`")
    for result in results[1:]:
        if result["protocol"] != results[0]["protocol"]:
            raise SystemExit(
                f"{folder} holds trainings of two protocols, {results[0]['protocol']} and "
                f"{result['protocol']}; keep each in a folder of its own"
            )
    return results


def _baselines(networks: Sequence[Mapping[str, Any]]) -> dict[str, Runs]:
    alone = np.array([network["alone"] for network in networks])
    truth = alone.mean(axis=1)
    trivial = {
        name: [(np.array([network[name] for network in networks], dtype=float), truth)]
        for name in ("macs", "non_identity_layers")
    }
    if "trained_briefly" in networks[0]:
        trivial["trained_briefly"] = [
            (np.array([network["trained_briefly"] for network in networks], dtype=float), truth)
        ]
    if alone.shape[1] == 1:
        # One figure each: nothing says how well such a training repeats.
        return trivial
    thirds = [(np.delete(alone, third, axis=1).mean(axis=1), alone[:, third]) for third in range(3)]
    return {**trivial, "two_seeds_against_third": thirds}


def _recipes(results: Sequence[Mapping[str, Any]]) -> dict[str, Runs]:
    by_label: dict[str, list[tuple[NDArray, NDArray]]] = {}
    for result in results:
        by_label.setdefault(result["label"], []).append(_inherited_and_alone(result))
    return dict(by_label)


def _inherited_and_alone(result: Mapping[str, Any]) -> tuple[NDArray, NDArray]:
    inherited = np.array([network["inherited"] for network in result["networks"]])
    return inherited, np.array([network["alone"] for network in result["networks"]]).mean(axis=1)


def _figures(bootstrap: Bootstrap, runs: Runs) -> dict[str, tuple[float, NDArray]]:
    return {
        measure: bootstrap.within(correlation, runs) if is_within else bootstrap.of(correlation, runs)
        for measure, (correlation, is_within) in MEASURES.items()
    }


def _differences(
    first: Mapping[str, tuple[float, NDArray]], second: Mapping[str, tuple[float, NDArray]]
) -> dict[str, Any]:
    """Paired: both on the same resampled networks."""
    return {
        measure: asdict(
            Interval.of(first[measure][0] - second[measure][0], first[measure][1] - second[measure][1])
        )
        for measure in MEASURES
    }


def _training(result: Mapping[str, Any]) -> dict[str, Any]:
    inherited, alone = _inherited_and_alone(result)
    tau = float(tau_of_resamples(inherited, alone, np.ones((1, len(alone))))[0])
    kept = ("label", "seed", "num_steps", "expected_macs", "spent_macs", "train_s", "departures")
    share = result["spent_macs"] / result["protocol"]["budget_macs"]
    return {**{name: result[name] for name in kept}, "spent_of_budget": share, "tau": tau}
