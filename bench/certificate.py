"""How long the certificate on bounds takes: counted costs, with a latency table, with one that is no sum."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from api.certificates import CertificateProcesses
from bench.latency_models import made_up_models
from nas.devices.latency_costs import DeviceCosts, networks_of
from nas.prefilter.certificate import Certificate, Verdict, certify
from nas.search.constraints import Bounds
from nas.search.cost_model import Codes, CostModel, CostParts, Costs, Part, PartKind, SpaceCosts
from nas.search.region import FeasibleRegion
from nas.search.sampling import is_enumerable
from nas.space import SearchSpace
from search_spaces import SPACES

LATENCY = "latency_ms"
LIMIT_S = 1.0
_PATIENCE_S = 600.0
"""Longer than requests have: here it is told how long things take."""

Ask = Callable[[FeasibleRegion], Certificate]


@dataclass(frozen=True)
class TimedCosts:
    """The counted costs, and the latency of a device that is made up."""

    counted: SpaceCosts
    latency: CostParts

    @property
    def space(self) -> SearchSpace:
        """That of the counted costs."""
        return self.counted.space

    @property
    def names(self) -> tuple[str, ...]:
        """The counted costs, and latency_ms."""
        return (*self.counted.names, LATENCY)

    def parts(self, name: str) -> CostParts:
        """Tables of either."""
        return self.latency if name == LATENCY else self.counted.parts(name)

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The named costs of encoded networks."""
        costs = self.counted.batch(codes, [name for name in names if name != LATENCY])
        if LATENCY in names:
            costs[LATENCY] = np.zeros(len(codes))
            for part in self.latency.parts:
                costs[LATENCY] += part.costs[tuple(codes[:, column] for column in part.columns)]
        return costs


def main(arguments: Sequence[str]) -> None:
    """Milliseconds a certificate, warm, by space: median, most, and what was answered.

    Bounds are 0.6 to 1.3 times what the smallest network costs: where answers are hardest. The latency is
    made up of MACs and parameters, each part with an error of its own by a factor of about `--noise`. With
    `--fitted` it is a sum over blocks times a factor of its own for each network, in both of its forms.
    """
    parser = argparse.ArgumentParser(prog="bench certificate")
    parser.add_argument("--questions", type=int, default=100, help="A space and number of bounds.")
    parser.add_argument("--noise", type=float, default=0.3, help="Standard deviation of the logarithm.")
    parser.add_argument("--space", action="append", choices=SPACES, help="All of them by default.")
    parser.add_argument("--served", action="store_true", help="Ask as requests do: in another process.")
    parser.add_argument("--fitted", action="store_true", help="Latencies that are no sum, nothing else.")
    options = parser.parse_args(arguments)
    processes = CertificateProcesses(patience_s=_PATIENCE_S)
    ask = processes.certify if options.served else partial(certify, limit_s=LIMIT_S)
    for name in options.space or SPACES:
        if options.fitted:
            _report_fitted(ask, SPACES[name], options.questions)
            continue
        started = time.perf_counter()
        model = _timed_costs(SPACES[name], options.noise)
        if options.served:
            # The other process makes its own.
            started = time.perf_counter()
        ask(_region(model.counted, model.counted.names, np.random.default_rng(0)))
        what = "to start the process and make its tables" if options.served else "to make its tables"
        print(f"{name}: {time.perf_counter() - started:.1f} s {what}, once a process")
        for count in range(1, 5):
            _report(ask, model.counted, model.counted.names, count, options.questions)
        _report(ask, model, (LATENCY, "macs", "params", "peak_activation_bytes"), 4, options.questions)
    processes.close()


def _report_fitted(ask: Ask, space: SearchSpace, num_questions: int) -> None:
    """By form of the model: its latency alone, beside MACs, and beside three counted costs."""
    if is_enumerable(space):
        print(f"{space.name}: all of its networks are looked at, whatever the latency")
        return
    exact = SpaceCosts(space=space)
    for form, model in made_up_models(networks_of(exact)):
        if model.is_additive:
            continue
        print(f"{space.name}, {form}:")
        costs = DeviceCosts(exact=exact, model=model)
        ask(_region(costs, costs.names, np.random.default_rng(0)))
        for others in ((), ("macs",), ("macs", "params", "peak_activation_bytes")):
            _report(ask, costs, (LATENCY, *others), 1 + len(others), num_questions)


def _report(ask: Ask, model: CostModel, names: Sequence[str], count: int, num_questions: int) -> None:
    rng = np.random.default_rng(1)
    taken_ms, answers = [], Counter[str]()
    for _ in range(num_questions):
        region = _region(model, [str(name) for name in rng.choice(names, count, replace=False)], rng)
        started = time.perf_counter()
        answer = ask(region)
        taken_ms.append(1e3 * (time.perf_counter() - started))
        answers[_told(answer, region)] += 1
    what = f"{count} with latency" if LATENCY in names else f"{count} counted"
    told = ", ".join(f"{number} {answer}" for answer, number in answers.most_common())
    print(f"  {what}: median {np.median(taken_ms):.0f} ms, most {max(taken_ms):.0f} ms; {told}")


def _told(answer: Certificate, region: FeasibleRegion) -> str:
    if answer.verdict is not Verdict.INFEASIBLE:
        return answer.verdict
    if answer.relief is None or len(answer.relief.relax_alone) < len(region.bounds.limits):
        return "infeasible, relief not found in time"
    return "infeasible" if answer.relief.is_least else "infeasible, relief not proved to be the least"


def _region(model: CostModel, names: Sequence[str], rng: np.random.Generator) -> FeasibleRegion:
    least: Mapping[str, np.ndarray] = model.batch(model.space.encode([model.space.smallest()]), names)
    limits = [(name, float(least[name][0] * rng.uniform(0.6, 1.3))) for name in sorted(names)]
    return FeasibleRegion(model, Bounds(tuple(limits)))


def _timed_costs(space: SearchSpace, noise: float) -> TimedCosts:
    counted = SpaceCosts(space=space)
    rng = np.random.default_rng(2)
    parts = []
    for macs, params in zip(counted.parts("macs").parts, counted.parts("params").parts, strict=True):
        work_ms = 0.05 + macs.costs * 5e-9 + params.costs * 1e-6
        error = np.exp(noise * rng.standard_normal(work_ms.shape))
        parts.append(Part(macs.columns, np.where(macs.costs > 0, work_ms * error, 0.0)))
    return TimedCosts(counted, CostParts(PartKind.SUM, tuple(parts)))
