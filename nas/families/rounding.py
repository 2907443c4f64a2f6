"""How families round a width to one that hardware likes."""

from __future__ import annotations


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, half up, never below it nor below 0.9 × value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
