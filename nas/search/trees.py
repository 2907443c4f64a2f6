"""The ensemble's members: boosted trees by scikit-learn, which only this file of the search imports."""

from __future__ import annotations

import numpy as np
from sklearn import config_context
from sklearn.ensemble import GradientBoostingRegressor

from nas.pareto import Floats
from nas.search.ensemble import Predict

_NUM_TREES = 30
_MAX_DEPTH = 3
_SHRINKAGE = 0.2
_SHARE_OF_ROWS = 0.8
"""Each tree sees so many of the networks …"""
_SHARE_OF_COLUMNS = 0.5
"""… and each of its splits so many of the features."""

_UNCHECKED = {"assume_finite": True, "skip_parameter_validation": True}
"""Thousands of small trees a round: checking what they are given takes a third of their time."""


def fit_trees(features: Floats, targets: Floats, seed: int) -> Predict:
    """Stochastic gradient boosting. Source: Friedman, Computational Statistics & Data Analysis 38 (2002)."""
    trees = GradientBoostingRegressor(
        n_estimators=_NUM_TREES,
        max_depth=_MAX_DEPTH,
        learning_rate=_SHRINKAGE,
        subsample=_SHARE_OF_ROWS,
        max_features=_SHARE_OF_COLUMNS,
        random_state=seed,
    )
    with config_context(**_UNCHECKED):
        trees.fit(features, targets)

    def predict(rows: Floats) -> Floats:
        with config_context(**_UNCHECKED):
            return np.asarray(trees.predict(rows), dtype=np.float64)

    return predict
