"""The one search loop: seeds, proposals, rounds of measurements, a frontier; `loop` is its heart.

Only `proposers` imports Optuna; the rest may be imported where requests are checked.
"""
