"""Networks of free widths whose widths and depths may be fractions: smooth, so that gradients lead uphill.

For given kernels the objective and the limits are smooth in the logarithms of the widths and in the depths,
and all other rules are linear in them. Sequential quadratic programming (SLSQP of SciPy) finds a local
optimum in some twenty steps; nothing proves it the best. Some of the numbers may be held where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log

import numpy as np
from scipy.optimize import Bounds, minimize

from nas.prefilter.deepmad.free_widths import GENES, Floats, FreeNetworks, FreeTask
from nas.prefilter.deepmad.score import Monotone

_SCALE = 1e4
"""Objectives are of this order; SLSQP wants numbers about 1."""
_DIFFERENCE = 1e-6
"""Of the finite differences, in logarithms of widths and in depths."""
_MAX_STEPS = 60
_TOLERANCE = 1e-7
"""What a limit may be exceeded by: relatively, and only while there are fractions."""


@dataclass(frozen=True)
class Relaxed:
    """A network with fractions, or one that has none left."""

    kernels: tuple[int, ...]
    numbers: Floats
    """The stem's width, then output and inner width of each stage, then all depths."""
    objective: float


class Relaxation:
    """The task with fractions, for the given kernels."""

    def __init__(self, task: FreeTask, kernels: tuple[int, ...]) -> None:
        self._task, self._kernels = task, kernels
        self._num_widths = 1 + 2 * task.num_stages
        self._size = self._num_widths + task.num_stages
        rows = [*self._rules()]
        self._rows = np.array([row for row, _ in rows])
        self._at_least = np.array([right for _, right in rows])
        self._seen: tuple[bytes, Floats, Floats] = (b"", np.empty(0), np.empty(0))

    def climb(self, start: Floats, held: Mapping[int, float]) -> Relaxed | None:
        """The local optimum reached from the start; None where that keeps no limit.

        `held` are numbers by place, whatever the start says.
        """
        point = start.copy()
        point[[*held]] = [*held.values()]
        low, high = self._ends()
        low[[*held]] = high[[*held]] = [*held.values()]
        # The widest and narrowest of what is held must not be cut off by rounding of their logarithms.
        point, low, high = (self._logs(numbers) for numbers in (point, low, high))
        found = minimize(
            lambda logs: -self._look(logs)[0][0],
            np.clip(point, low, high),
            jac=lambda logs: -self._look(logs)[1][0],
            method="SLSQP",
            bounds=Bounds(low, high),
            constraints=[
                {
                    "type": "ineq",
                    "fun": lambda logs: self._look(logs)[0][1:],
                    "jac": lambda logs: self._look(logs)[1][1:],
                },
                {
                    "type": "ineq",
                    "fun": lambda logs: self._rows @ logs - self._at_least,
                    "jac": lambda _: self._rows,
                },
            ],
            options={"maxiter": _MAX_STEPS, "ftol": _TOLERANCE},
        )
        figures, _ = self._look(found.x)
        is_kept = min(figures[1:].min(), (self._rows @ found.x - self._at_least).min()) >= -_TOLERANCE
        if not np.isfinite(figures).all() or not is_kept:
            return None
        return Relaxed(self._kernels, self._numbers(found.x), float(figures[0]) * _SCALE)

    def _look(self, logs: Floats) -> tuple[Floats, Floats]:
        """The objective and how far the logarithm of each limit is off (4,), and their gradients (4, n)."""
        key = logs.tobytes()
        if self._seen[0] != key:
            around = np.concatenate([logs[None], logs + _DIFFERENCE * np.eye(self._size)])
            networks = FreeNetworks(self._task, self._codes(around))
            figures = np.column_stack([networks.objective / _SCALE, -np.log(networks.ratios)])
            self._seen = key, figures[0], ((figures[1:] - figures[0]) / _DIFFERENCE).T
        return self._seen[1], self._seen[2]

    def _codes(self, logs: Floats) -> Floats:
        numbers = self._numbers(logs)
        codes = np.empty((len(logs), 1 + GENES * self._task.num_stages))
        codes[:, 0] = numbers[:, 0]
        codes[:, 1::GENES] = numbers[:, 1 : self._num_widths : 2]
        codes[:, 2::GENES] = numbers[:, 2 : self._num_widths : 2]
        codes[:, 3::GENES] = self._kernels
        codes[:, 4::GENES] = numbers[:, self._num_widths :]
        return codes

    def _ends(self) -> tuple[Floats, Floats]:
        """The least and the most of every number."""
        task = self._task
        low, high = np.full(self._size, 8.0), np.full(self._size, float(task.max_width))
        high[0] = task.max_stem
        low[self._num_widths :], high[self._num_widths :] = task.min_depths, task.max_depths
        return low, high

    def _rules(self) -> Iterator[tuple[Floats, float]]:
        """Linear rows over the logarithms, and what each must at least be."""
        task = self._task
        for stage in range(task.num_stages):
            out = 1 + 2 * stage
            inner, read = out + 1, max(0, out - 2)
            yield self._difference(read, out), -log(task.max_growth)
            yield self._difference(out, inner), 0.0
            yield self._difference(inner, out), -log(task.max_narrowing)
            gene = {Monotone.OUT: 0, Monotone.INNER: 1}.get(task.monotone)
            if gene is not None and stage > 0:
                yield self._difference(out + gene, read + gene), 0.0

    def _difference(self, more: int, less: int) -> Floats:
        row = np.zeros(self._size)
        row[more], row[less] = 1.0, -1.0
        return row

    def _logs(self, numbers: Floats) -> Floats:
        logs = numbers.copy()
        logs[: self._num_widths] = np.log(numbers[: self._num_widths])
        return logs

    def _numbers(self, logs: Floats) -> Floats:
        numbers = logs.copy()
        numbers[..., : self._num_widths] = np.exp(logs[..., : self._num_widths])
        return numbers
