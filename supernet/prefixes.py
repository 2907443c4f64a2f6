"""Kept outputs of the first layers: networks that begin alike need not compute them again.

Calibration and validation images are fixed, and so are the weights of a finished supernet. What the
first layers of a network make of a batch is then a function of these layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from torch import Tensor

from nas.layers import LayerSpec
from supernet.batchnorm import MeanAndVariance

NUM_KEPT_STOPS = 2
"""Further on networks seldom agree, and a batch's outputs would push out those of other networks."""


@dataclass(frozen=True)
class Prefix:
    """What the layers up to `stop` made of one batch. Nobody writes to the tensors."""

    stop: int
    output: Tensor
    batch_statistics: Mapping[str, MeanAndVariance] = field(default_factory=dict)
    """The batch's own mean and variance by slot; for calibration batches."""


class PrefixCache:
    """Outputs of the first layers by (batch, layers); past `max_bytes` the one longest unused is dropped.

    For one supernet whose weights do not change, and one data set. Layers name their slot and their
    sizes, the image's included, so they and the weights are all that an output depends on besides
    the batch. Not thread-safe.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._kept: OrderedDict[tuple[Hashable, tuple[LayerSpec, ...]], Prefix] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Bytes of the outputs kept now; at most `max_bytes`."""
        return self._held_bytes

    def stops_worth_keeping(self, layers: Sequence[LayerSpec], blocks: Sequence[range]) -> tuple[int, ...]:
        """Ends of the first blocks with a narrow output, the stem's first: there many still agree."""
        if not self._max_bytes:
            return ()
        stem = _numbers_out(layers[blocks[0].stop - 1])
        ends = (block.stop for block in blocks)
        return tuple(islice((e for e in ends if _numbers_out(layers[e - 1]) <= 2 * stem), NUM_KEPT_STOPS))

    def longest(self, batch: Hashable, layers: Sequence[LayerSpec], stops: Sequence[int]) -> Prefix | None:
        """The kept prefix of `layers` that ends latest among `stops`, which ascend; None if there is none."""
        found = None
        for stop in stops:
            key = (batch, tuple(layers[:stop]))
            if key in self._kept:
                # The shorter ones count as used too: most networks share those.
                self._kept.move_to_end(key)
                found = self._kept[key]
        return found

    def keep(self, batch: Hashable, layers: Sequence[LayerSpec], prefix: Prefix) -> None:
        """Keeps it, unless it alone is larger than all that may be kept."""
        key = (batch, tuple(layers[: prefix.stop]))
        if prefix.output.nbytes > self._max_bytes or key in self._kept:
            return
        self._kept[key] = prefix
        self._held_bytes += prefix.output.nbytes
        while self._held_bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._held_bytes -= dropped.output.nbytes


def _numbers_out(layer: LayerSpec) -> int:
    return layer.out_channels * layer.out_height * layer.out_width
