"""Part: some of the networks of a space, and what the tables say of all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.deepmad.tables import ScoreTables, TermTable


@dataclass(frozen=True, slots=True)
class Part:
    """The networks of a space with some of the options of its context, and some numbers of blocks."""

    left: Mapping[str, tuple[int, ...]]
    """For every context decision by name the option indices that are left."""
    num_blocks: tuple[int, int]
    """The least and the most blocks of all stages together. One block is worth far more than any other
    choice, so that a bound over several numbers of blocks is loose."""

    def halves(self) -> tuple[Part, Part] | None:
        """The part cut in two; None where one number of blocks and one option of each decision are left."""
        least, most = self.num_blocks
        if least < most:
            middle = (least + most) // 2
            return Part(self.left, (least, middle)), Part(self.left, (middle + 1, most))
        name = max(self.left, key=lambda n: len(self.left[n]), default=None)
        if name is None or len(self.left[name]) == 1:
            return None
        options = self.left[name]
        middle = len(options) // 2
        return (
            Part({**self.left, name: options[:middle]}, self.num_blocks),
            Part({**self.left, name: options[middle:]}, self.num_blocks),
        )


def whole(tables: ScoreTables) -> Part:
    """The part that is the space."""
    left = {name: tuple(range(tables.sizes[name])) for name in tables.context}
    blocks = [table for table in tables.terms if table.is_block]
    return Part(left, (sum(int(table.is_present.all()) for table in blocks), len(blocks)))


def reduced(
    array: NDArray[np.generic], table: TermTable, left: Mapping[str, tuple[int, ...]]
) -> NDArray[np.generic]:
    """The array with the context's options that are left joined in one first axis."""
    own = [axis for axis, name in enumerate(table.term.decisions) if name not in left]
    context = [axis for axis, name in enumerate(table.term.decisions) if name in left]
    for axis in context:
        array = array.take(left[table.term.decisions[axis]], axis=axis)
    rest = list(range(len(table.term.decisions), array.ndim))
    array = array.transpose(*context, *own, *rest)
    return array.reshape(-1, *array.shape[len(context) :])
