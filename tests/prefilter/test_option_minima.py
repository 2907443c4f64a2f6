"""Min-marginals of sums, against looking at every network."""

from __future__ import annotations

import numpy as np
import pytest

from nas.prefilter.elimination import merged_tables
from nas.prefilter.option_minima import OptionMinima
from nas.search.branches import OptionLayout
from nas.search.cost_model import CostParts, Part, PartKind
from search_spaces import SPACES
from tests.prefilter.parted_costs import TINY, cost_of, random_cost
from tests.prefilter.scaled_costs import ONE_STAGE, counting, spelled


def _with_everywhere(cost, column, rng, sizes):
    """The cost with the column in each of its parts, as the resolution is in those of real spaces."""
    parts = []
    for part in cost.parts:
        if column not in part.columns:
            factors = rng.integers(1, 4, (sizes[column], *[1] * part.costs.ndim))
            part = Part((column, *part.columns), part.costs * factors)
        parts.append(part)
    return CostParts(cost.kind, tuple(parts))


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("space", [TINY, ONE_STAGE], ids=lambda space: space.name)
def test_the_least_of_each_option_is_that_over_all_networks_that_choose_it(space, is_split):
    rng = np.random.default_rng(int(is_split))
    layout = OptionLayout.of(space)
    codes = spelled(space)
    chosen = counting(space, codes)
    splits_met = set()
    for _ in range(10):
        cost = random_cost(space, PartKind.SUM, rng)
        if is_split:
            cost = _with_everywhere(cost, 0, rng, layout.num_options)
        tables = merged_tables(space, [cost])
        minima = OptionMinima.of(layout, tuple(tables))
        splits_met.add(minima.split)
        added = np.where(
            rng.random((3, len(layout.owners))) < 0.2, np.inf, rng.integers(-9, 9, len(layout.owners))
        )
        splits = np.zeros(3, dtype=np.int64)
        if minima.split is not None:
            splits = rng.integers(minima.num_splits, size=3)
            options = layout.options_of(minima.split)
            added[:, options] = np.where(
                np.arange(minima.num_splits) == splits[:, None], added[:, options], np.inf
            )
        own = [table[splits][:, 0] for table in minima.split_tables(tables.values())]
        upward = minima.pass_up(splits, own, added)
        by_option = upward.by_option()
        for row in range(3):
            numbers = np.where(chosen, added[row], 0.0).sum(axis=1) + cost_of(cost, codes)
            assert upward.least[row] == numbers.min()
            if np.isfinite(numbers.min()):
                best = upward.codes()[row]
                assert numbers[(codes == best).all(axis=1)] == numbers.min()
            expected = [numbers[chosen[:, option]].min() for option in range(len(layout.owners))]
            assert np.array_equal(by_option[row], expected)
    assert is_split == (0 in splits_met)


def test_layouts_tell_where_decisions_count():
    layout = OptionLayout.of(SPACES["micro"])
    names = [decision.name for decision in SPACES["micro"].decisions]
    at = names.index("stage2.block3.kernel")
    assert names[layout.parents[at]] == "stage2.depth"
    assert layout.counts_at[at] == (False, False, True)
    assert layout.options_of(at) == slice(layout.starts[at], layout.starts[at] + 3)
