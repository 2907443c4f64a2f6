"""Grows the trees of a latency model. The only file that imports scikit-learn; its use is the fit's alone.

Whoever fits hands `grow_trees` to `fit_latency`, which knows it as a function, so that everything else runs
where scikit-learn is not installed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from nas.devices.parts import Floats
from nas.devices.residual import ResidualInputs
from nas.devices.tree_ensemble import TreeEnsemble

NUM_TREES = 300
_DEPTH = 3
_RATE = 0.05
_SHARE = 0.7
"""Of the networks, drawn anew for each tree (Friedman, "Stochastic gradient boosting", 2002)."""


def grow_trees(inputs: ResidualInputs, log_factor: Floats, *, seed: int) -> TreeEnsemble:
    """Boosted regression trees for the logarithm of the factor; Huber's loss, for some runs are disturbed."""
    columns = np.concatenate([inputs.sums, inputs.choices], axis=1)
    booster = GradientBoostingRegressor(
        n_estimators=NUM_TREES, max_depth=_DEPTH, learning_rate=_RATE, subsample=_SHARE, loss="huber",
        random_state=seed,
    ).fit(columns, log_factor)  # fmt: skip
    trees = [estimator.tree_ for estimator in booster.estimators_[:, 0]]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
    feature = np.concatenate([tree.feature for tree in trees]).astype(np.int64)
    is_leaf = feature < 0
    own = np.arange(len(feature))
    left, right = (
        np.where(is_leaf, own, np.concatenate([side + root for side, root in zip(sides, roots, strict=True)]))
        for sides in ([t.children_left for t in trees], [t.children_right for t in trees])
    )
    ensemble = TreeEnsemble(
        offset=0.0,
        roots=roots.astype(np.int64),
        feature=np.where(is_leaf, -1, feature),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=left.astype(np.int64),
        right=right.astype(np.int64),
        value=_RATE * np.concatenate([tree.value[:, 0, 0] for tree in trees]),
        depth=_DEPTH,
    )
    # What boosting starts from is what the trees do not say.
    start = booster.predict(columns[:1])[0] - ensemble.log_factor(_first(inputs))[0]
    return replace(ensemble, offset=float(start))


def _first(inputs: ResidualInputs) -> ResidualInputs:
    return inputs.rows(np.array([0]))
