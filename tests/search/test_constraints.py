"""Bounds as read from requests, and as kept by networks."""

from __future__ import annotations

import numpy as np
import pytest

from nas.costs import batch_costs, costs
from nas.errors import InvalidRequestError, UnknownNameError
from nas.search.constraints import Bounds
from nas.search.cost_model import SpaceCosts
from search_spaces import SPACES

SPACE = SPACES["micro_8"]
COSTS = SpaceCosts(space=SPACE)


def test_a_percentage_is_of_the_largest_networks_cost_for_the_classes_at_hand():
    for num_classes in (10, 1000):
        model = SpaceCosts(space=SPACE, num_classes=num_classes)
        largest = costs(SPACE, SPACE.largest(), num_classes=num_classes)
        bounds = Bounds.parse({"max_macs": "100%", "max_params": " 37.5 % "}, model)
        assert dict(bounds.limits) == {"macs": largest["macs"], "params": 0.375 * largest["params"]}


def test_limits_read_back_as_the_fields_they_came_from():
    fields = {"max_params": 5e5, "max_macs": 2_000_000, "max_peak_activation_bytes": np.int64(7)}
    bounds = Bounds.parse(fields, COSTS)
    assert bounds.to_fields() == fields
    assert Bounds.parse(bounds.to_fields(), COSTS) == bounds
    assert hash(bounds) == hash(Bounds.parse(dict(reversed(fields.items())), COSTS))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_macs", float("nan"), "finite"),
        ("max_macs", float("inf"), "finite"),
        ("max_macs", -1, "at least 0"),
        ("max_macs", True, "True is not"),
        ("max_macs", None, "leave it out"),
        ("max_macs", [5], "finite"),
        ("max_macs", 10**400, "finite"),
        ("max_macs", "5e6", "percentage"),
        ("max_macs", "0%", "percentage"),
        ("max_macs", "101%", "up to 100%"),
        ("max_macs", "nan%", "percentage"),
        ("max_latency_ms", 5, "max_latency_ms.*max_macs"),
        ("macs", 5, "max_macs"),
    ],
)
def test_impossible_bounds_are_refused_by_name(field, value, expected):
    with pytest.raises(InvalidRequestError, match=expected) as caught:
        Bounds.parse({field: value}, COSTS)
    assert field in str(caught.value)


def test_holds_exactly_where_every_cost_is_at_most_its_limit():
    rng = np.random.default_rng(0)
    sizes = [len(d.options) for d in SPACE.decisions]
    figures = batch_costs(SPACE, rng.integers(0, sizes, (500, len(sizes))))
    for limit in figures["macs"][:20]:
        # The limit itself, and the two numbers next to it.
        for nudged in (np.nextafter(limit, 0), float(limit), np.nextafter(limit, np.inf)):
            bounds = Bounds((("macs", nudged), ("params", 3e5)))
            expected = (figures["macs"] <= nudged) & (figures["params"] <= 3e5)
            assert np.array_equal(bounds.holds(figures), expected)


def test_a_limit_of_zero_is_kept_by_zero_alone():
    assert Bounds((("macs", 0.0),)).holds({"macs": np.array([0, 1])}).tolist() == [True, False]


def test_no_limits_allow_everything_and_unknown_costs_are_not_zero():
    assert Bounds().holds({"macs": np.array([1, 2])}).all()
    with pytest.raises(UnknownNameError, match="params"):
        Bounds((("params", 5.0),)).holds({"macs": np.array([1])})
