"""DeepMAD before a search: seeds from its best networks, and a cut where it is seen to rank as accuracy does.

Both from the bounds alone, on a CPU, with nothing measured. The first round of the search then tells, with
all that was measured of the supernet before, whether the objective goes with accuracy: only where it does
are the networks left out that fall short of DeepMAD's best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.errors import InvalidRequestError
from nas.pareto import Floats
from nas.prefilter.deepmad.backbone import trace_backbone
from nas.prefilter.deepmad.batch import Codes
from nas.prefilter.deepmad.correlation import Agreement, agreement
from nas.prefilter.deepmad.ladder import NUM_RUNGS, Ladder, LadderCut
from nas.prefilter.deepmad.score import score
from nas.search.region import FeasibleRegion
from nas.space import SearchSpace

_SEEDS_SHARE = 3
"""One seed in so many is DeepMAD's: the others say whether it is to be believed."""
_MAX_JUDGED = 1000
"""Of the networks measured before the search, spread evenly over the order in which they were."""
_LADDER_COSTS = ("macs", "params", "size_bytes")
_NUM_DRAWN = 20_000
"""Networks by which the size of what is left is estimated."""


@dataclass(frozen=True, kw_only=True)
class FilterReport:
    """What the pre-filter did to a search, and why."""

    is_cut: bool
    """Whether networks were left out from the search's second round on."""
    reason: str
    """In words."""
    agreement: Agreement
    log_size_before: float | None = None
    """Natural logarithm of the number of networks that keep the bounds, estimated; None where nothing was
    cut, or random networks hardly ever keep them."""
    log_size_after: float | None = None
    """The same of those that are not cut."""

    def to_json(self) -> dict[str, Any]:
        """Every figure by its name, those of the agreement among them."""
        figures = asdict(self)
        return {**figures.pop("agreement"), **figures}


class DeepMadFilter:
    """DeepMAD on one search. The same arguments and measurements give the same answers."""

    def __init__(
        self,
        region: FeasibleRegion,
        *,
        cost_objectives: Sequence[str],
        num_classes: int,
        in_channels: int,
        seed: int,
        on_part: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_part` is called often, and may raise."""
        self._region, self._seed, self._on_part = region, seed, on_part
        self._num_classes, self._in_channels = num_classes, in_channels
        self._costs: list[str | None] = [name for name in cost_objectives if name in _LADDER_COSTS]
        if not self._costs:
            # A cost that is no sum over layers has MACs stand for it; without one there are only the bounds.
            self._costs = ["macs"] if cost_objectives else [None]

    def seeds(self, num_seeds: int) -> list[Architecture]:
        """Of a search that begins with so many seeds, those that are DeepMAD's: its best at rising budgets.

        None of a space that it does not score.
        """
        try:
            return self._ladders[0].choose(min(num_seeds // _SEEDS_SHARE, NUM_RUNGS))
        except InvalidRequestError:
            return []

    def judge(self, measured: Sequence[tuple[Architecture, float]]) -> FilterReport:
        """Cut or not, by networks measured with this supernet and their accuracies, each network once."""
        try:
            return self._judge(measured)
        except InvalidRequestError as error:
            return FilterReport(is_cut=False, reason=f"not cut: {error}", agreement=Agreement(len(measured)))

    @cached_property
    def cut(self) -> LadderCut:
        """What is left out where the search is cut."""
        return LadderCut(tuple(self._ladders))

    def _judge(self, measured: Sequence[tuple[Architecture, float]]) -> FilterReport:
        found = self._agreement(measured)
        if not found.is_trusted:
            return FilterReport(is_cut=False, reason=f"not cut: {found.reason}", agreement=found)
        codes, log_weights = weighted_codes(self._region.space, _NUM_DRAWN, np.random.default_rng(self._seed))
        is_within = self._region.holds(codes)
        is_left = is_within & (self.cut.ratio(codes) <= 1)
        before, after = (_log_size(log_weights, is_counted) for is_counted in (is_within, is_left))
        return FilterReport(
            is_cut=True,
            reason=f"cut: {found.reason}",
            agreement=found,
            log_size_before=before,
            log_size_after=after,
        )

    def _agreement(self, measured: Sequence[tuple[Architecture, float]]) -> Agreement:
        places = range(len(measured))
        if len(measured) > _MAX_JUDGED:
            places = np.linspace(0, len(measured) - 1, _MAX_JUDGED).astype(int).tolist()
        networks = [measured[place][0] for place in places]
        macs = self._region.costs.batch(self._region.space.encode(networks), ["macs"])["macs"]
        return agreement(
            np.array([self._objective(network) for network in networks]),
            np.array([measured[place][1] for place in places]),
            macs.astype(np.float64),
            np.random.default_rng(self._seed),
        )

    def _objective(self, network: Architecture) -> float:
        self._on_part()
        layers = self._region.space.lower(
            network, num_classes=self._num_classes, in_channels=self._in_channels
        )
        return score(layers).objective

    @cached_property
    def _ladders(self) -> list[Ladder]:
        return [
            Ladder.climb(
                self._region,
                cost,
                num_classes=self._num_classes,
                in_channels=self._in_channels,
                on_part=self._on_part,
            )
            for cost in self._costs
        ]


def check_scored(space: SearchSpace) -> None:
    """InvalidRequestError with the reason for a space that DeepMAD does not score: of cells, say."""
    trace_backbone(space.lower(space.largest()))


def weighted_codes(space: SearchSpace, count: int, rng: np.random.Generator) -> tuple[Codes, Floats]:
    """Random networks, and the logarithm of what each weighs where weights are to count networks.

    Every decision is drawn evenly, so that shallow networks are as likely as deep ones, which are many more.
    """
    codes = rng.integers([len(d.options) for d in space.decisions], size=(count, len(space.decisions)))
    place = {decision.name: i for i, decision in enumerate(space.decisions)}
    log_weights = np.zeros(count)
    for decision in space.decisions:
        is_counted = np.ones(count, dtype=bool)
        if decision.active_if is not None:
            parent = space.decisions[place[decision.active_if.parent]]
            reached = np.array([int(option) >= decision.active_if.minimum for option in parent.options])
            is_counted = reached[codes[:, place[parent.name]]]
        log_weights += is_counted * np.log(len(decision.options))
    return codes, log_weights


def _log_size(log_weights: Floats, is_counted: NDArray[np.bool_]) -> float | None:
    """Of the networks counted; None where none of them was drawn."""
    if not is_counted.any():
        return None
    return float(np.logaddexp.reduce(log_weights[is_counted]) - np.log(len(log_weights)))
