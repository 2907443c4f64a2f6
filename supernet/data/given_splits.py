"""The names under which people keep the splits of their data."""

from __future__ import annotations

from supernet.data.listing import GivenSplit

SPLIT_NAMES = {
    "train": GivenSplit.TRAIN,
    "training": GivenSplit.TRAIN,
    "val": GivenSplit.VAL,
    "valid": GivenSplit.VAL,
    "validation": GivenSplit.VAL,
    "test": GivenSplit.TEST,
    "testing": GivenSplit.TEST,
}
"""A folder, a file or a part of a saved data set, in small letters, and the split that it is."""


def given_split(name: str) -> GivenSplit | None:
    """The split that `name` means, capitals or not; None where it means none."""
    return SPLIT_NAMES.get(name.lower())


def in_order(splits: set[GivenSplit]) -> tuple[GivenSplit, ...]:
    """`splits` as train, val, test."""
    return tuple(split for split in GivenSplit if split in splits)
