"""DeepMAD's objective of many encoded networks at once, read off the tables that the lowering filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.deepmad.backbone import Tap
from nas.prefilter.deepmad.score import DepthSpread, ScoreRules
from nas.prefilter.deepmad.tables import Floats, ScoreTables, TermTable

Codes = NDArray[np.int64]
"""Encoded networks, shape (n, decisions)."""


def batch_objectives(tables: ScoreTables, codes: Codes, rules: ScoreRules | None = None) -> Floats:
    """Shape (n,): what `score` says of each network; inactive columns are ignored."""
    rules = ScoreRules() if rules is None else rules
    columns = {name: codes[:, place] for place, name in enumerate(tables.sizes)}
    places = [tuple(columns[name] for name in table.term.decisions) for table in tables.terms]
    log_widths = np.zeros((len(codes), tables.num_taps))
    sizes = np.full((len(codes), tables.num_taps), -np.inf)
    for table, place in zip(tables.terms, places, strict=True):
        log_widths += table.log_widths[place]
        for number, tensors in table.taps.items():
            # Of the terms that may read a tap, the one that is there does.
            sizes[:, number] = np.maximum(sizes[:, number], _log_sizes(tensors, rules)[place])
    weighted = sizes * np.array(rules.tap_weights(tables.num_taps))
    entropy = (weighted * np.cumsum(log_widths, axis=1)).sum(axis=1) / 2
    return np.asarray(entropy - _penalties(tables, places, len(codes), rules))


def _log_sizes(tensors: NDArray[np.object_], rules: ScoreRules) -> Floats:
    flat = [rules.log_size(tap) if isinstance(tap, Tap) else -np.inf for tap in tensors.ravel()]
    return np.array(flat).reshape(tensors.shape)


def _penalties(
    tables: ScoreTables, places: list[tuple[NDArray[np.int64], ...]], count: int, rules: ScoreRules
) -> Floats:
    depths: dict[str, Floats] = {}
    for table, place in zip(tables.terms, places, strict=True):
        if table.is_block:
            depths[table.stage] = depths.get(table.stage, np.zeros(count)) + _presence(table)[place]
    num = rules.num_penalised(len(depths), has_depthwise=tables.has_depthwise)
    if rules.spread is DepthSpread.NONE or not num:
        return np.zeros(count)
    variance = np.stack([*depths.values()][-num:], axis=1).var(axis=1)
    power = variance if rules.spread is DepthSpread.VARIANCE else np.sqrt(variance)
    # Beyond this `score` says infinity as well.
    return np.asarray(rules.penalty_weight * np.exp(np.where(power < 700, power, np.inf)))


def _presence(table: TermTable) -> Floats:
    return np.asarray(table.is_present, dtype=np.float64)
