"""How far a second pass over the same networks is from the first, and files of those who know no more."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.devices.measurements import read_measurements
from nas.devices.table import InvalidTableError
from search_spaces import SPACES
from tests.devices.lines import probe_lines

SPACE = SPACES["micro_8"]


def lines_of(again_of=lambda number, first_ms: first_ms, *, count=40, without=()):
    """A file of whole networks whose second times follow from the first."""
    head, *rows = map(json.loads, probe_lines(count=count, with_blocks=False))
    first = [row for row in rows if row["kind"] == "network"]
    again = [
        {**row, "kind": "network_again", "p50_ms": again_of(number, row["p50_ms"])}
        for number, row in enumerate(first)
    ]
    empty = [] if "empty" in without else [{"kind": "empty", "p50_ms": 0.001}]
    head = {name: value for name, value in head.items() if name not in without}
    return head, [*empty, *first, *again]


def read(head, rows):
    return read_measurements(map(json.dumps, [head, *rows]), SPACE)


def test_the_second_pass_is_held_against_the_first_network_by_network():
    factors = np.random.default_rng(3).uniform(0.85, 1.15, size=40)
    head, rows = lines_of(lambda number, first_ms: factors[number] * first_ms)
    found = read(head, [*rows[:1], *reversed(rows[1:])]).second_pass
    first_ms = np.array([row["p50_ms"] for row in rows if row["kind"] == "network"])
    assert found.num_networks == 40
    assert found.mape == pytest.approx(np.abs(factors - 1).mean())
    assert found.hit_rate == (np.abs(factors - 1) <= 0.1).mean() and 0.3 < found.hit_rate < 0.9
    assert found.spearman == pytest.approx(spearmanr(factors * first_ms, first_ms).statistic)


def test_only_networks_of_both_passes_are_held_against_each_other():
    head, rows = lines_of()
    once = [row for row in rows if row["kind"] != "network_again"]
    assert read(head, [*once, *rows[-7:]]).second_pass.num_networks == 7
    assert read(head, [*once, rows[-1]]).second_pass is None
    assert read(head, once).second_pass is None


def test_what_only_a_probe_knows_may_be_left_out_of_a_file_of_whole_networks():
    head, rows = lines_of(
        lambda number, first_ms: 1.02 * first_ms, without=("repeatability", "tools", "empty")
    )
    found = read(head, rows)
    assert found.is_for_fit and found.table.base_ms == 0 and not found.table.rows
    assert found.repeatability == {"agreeing": 1.0, "median_apart": pytest.approx(0.02), "num_models": 40}
    once = read(head, [row for row in rows if row["kind"] == "network"])
    assert (once.repeatability, once.second_pass) == (None, None) and len(once.networks) == 40


def test_what_the_passes_themselves_show_not_to_repeat_is_refused():
    noisy = lines_of(
        lambda number, first_ms: first_ms * (1.2 if number % 4 == 0 else 1), without=("repeatability",)
    )
    with pytest.raises(InvalidTableError, match=r"^only 75% of the figures repeat within 10 %"):
        read(*noisy)


def test_blocks_need_the_one_call_that_computes_nothing():
    head, *rows = map(json.loads, probe_lines(count=3))
    for empty, number in ([], 0), ([rows[0], rows[0]], 2):
        with pytest.raises(InvalidTableError, match=f"^{number} rows are of kind 'empty'"):
            read(head, [*empty, *rows[1:]])
