"""Latency tables: how long each fused block takes on a device, as JSON lines with a header.

The first line is the header: `schema`, the device's fields (`device` is its name), `base_ms` and `tools`, the
versions of what measured. Each line after it is one block: the fields of `FusedBlock`, and `p50_ms`, the
median, of the whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from nas.devices.blocks import FusedBlock
from nas.devices.device import Device
from nas.devices.units import (
    MANY_MACS,
    macs_per_second,
    refuse_impossible_speed,
    refuse_other_units,
    unusual_speed,
)
from nas.errors import InvalidRequestError, NasError

SCHEMA = 1
MAX_ROWS = 200_000
_MAX_TOLD = 10
"""Problems that one message names."""
MAX_MS = 1e7
_LARGEST = 1e300
_OPTIONAL_MS = ("mean_ms", "p90_ms")
_JUDGED = f"blocks of {MANY_MACS:,.0f} multiply-accumulates or more"
_DROP_TOLERATED = 0.05
"""Of a larger block's time below a smaller one's: what medians of one block differ by anyway."""


class InvalidTableError(InvalidRequestError):
    """A table that cannot be used; the message names the lines."""


class MissingBlockError(NasError, LookupError):
    """Blocks that the table does not hold."""


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Milliseconds of each block, and of what no block holds."""

    device: Device
    base_ms: float
    """What every network takes beside its blocks; 0 where it was not measured."""
    rows: Mapping[FusedBlock, float]
    """Median milliseconds of the whole batch."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of what measured, by name."""

    @classmethod
    def parse(cls, lines: Iterable[str]) -> LatencyTable:
        """The table that JSON lines describe; blank lines are left out.

        Raises InvalidTableError with the first problems: no JSON, another schema or a field that is missing,
        a time that is not above 0 or in another unit, a row of another device, a block told twice.
        """
        numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        if len(numbered) - 1 > MAX_ROWS:
            raise InvalidTableError(f"the table has {len(numbered) - 1} rows; at most {MAX_ROWS} are allowed")
        if not numbered:
            raise InvalidTableError("the table is empty; its first line is the header, blocks follow")
        device, base_ms, tools = _read_header(numbered[0][1])
        rows = read_rows(numbered[1:], device)
        return cls(device=device, base_ms=base_ms, rows=rows, tools=tools)

    def lines(self) -> Iterator[str]:
        """The table as JSON lines, blocks in order; `parse` reads them back."""
        header = {"schema": SCHEMA, **self.device.told()}
        yield json.dumps({**header, "base_ms": self.base_ms, "tools": dict(self.tools)})
        for block in sorted(self.rows):
            yield json.dumps({**block.to_json(), "p50_ms": self.rows[block]})

    def total_ms(self, blocks: Sequence[FusedBlock]) -> float:
        """Base and blocks, added up. MissingBlockError where one is not in the table: it is not free."""
        refuse_missing(self.missing(blocks), f"the table of device '{self.device.name}'")
        return self.base_ms + sum(self.rows[block] for block in blocks)

    def missing(self, blocks: Iterable[FusedBlock]) -> tuple[FusedBlock, ...]:
        """Those of the blocks that the table lacks, each once, in order."""
        return tuple(sorted({block for block in blocks if block not in self.rows}))

    def warnings(self) -> tuple[str, ...]:
        """Times that look like another unit; then pairs of blocks of which the larger is told to take clearly
        less: slips, or a runtime's switch.
        """
        doubt = unusual_speed(self._macs_per_second, _JUDGED)
        slips = tuple(
            f"{larger} takes {self.rows[larger]:.4g} ms, less than {smaller} with {self.rows[smaller]:.4g} ms"
            for smaller, larger in _ordered_pairs(self.rows)
            if self.rows[larger] < (1 - _DROP_TOLERATED) * self.rows[smaller]
        )
        return slips if doubt is None else (doubt, *slips)

    def refuse_impossible_speed(self) -> None:
        """InvalidRequestError where no device is as fast, or as slow, as the times say: it is another unit.

        Not part of `parse`: a table that was taken stays readable.
        """
        refuse_impossible_speed(self._macs_per_second, _JUDGED)

    @property
    def _macs_per_second(self) -> float | None:
        macs = [float(self.device.batch * block.macs) for block in self.rows]
        return macs_per_second(np.array(macs), np.array([*self.rows.values()], dtype=np.float64))


def refuse_missing(missing: Sequence[FusedBlock], where: str) -> None:
    """MissingBlockError naming the first of the missing blocks; nothing where there are none."""
    if missing:
        first = "; ".join(map(str, missing[:3]))
        raise MissingBlockError(
            f"{len(missing)} blocks are not in {where}, the first: {first}; "
            "measure them, or ask for interpolation, which is told as such"
        )


def _read_header(line: str) -> tuple[Device, float, dict[str, str]]:
    header = _read_object(line, "the header")
    refuse_other_units(header)
    if header.pop("schema", None) != SCHEMA:
        raise InvalidTableError(f"the header's schema is not {SCHEMA}; write the table as this release does")
    if "device" not in header or "base_ms" not in header:
        raise InvalidTableError("the header lacks 'device' or 'base_ms'; give both")
    base_ms, tools = header.pop("base_ms"), header.pop("tools", {})
    if not _is_number(base_ms) or not 0 <= base_ms <= MAX_MS:
        raise InvalidTableError(f"base_ms {base_ms!r} is not a number of milliseconds from 0 to {MAX_MS:g}")
    if not isinstance(tools, dict) or not all(isinstance(v, str) for v in tools.values()):
        raise InvalidTableError(
            "tools is not a mapping from name to version; give it as {'onnxruntime': '…'}"
        )
    return Device.from_json({"name": header.pop("device"), **header}), float(base_ms), tools


def read_rows(numbered: Sequence[tuple[int, str]], device: Device) -> dict[FusedBlock, float]:
    """The blocks of a device's numbered lines; InvalidTableError names the first lines that are refused."""
    rows: dict[FusedBlock, float] = {}
    problems: list[str] = []
    for number, line in numbered:
        try:
            row = _read_object(line, "a row")
            device.refuse_other(row)
            refuse_other_units(row)
            block, milliseconds = FusedBlock.from_json(row), _read_ms(row)
            if block in rows:
                raise InvalidTableError(f"block {block} was told before; keep one row of it")
            rows[block] = milliseconds
        except InvalidRequestError as problem:
            problems.append(f"line {number}: {problem}")
    if problems:
        more = f"; and {len(problems) - _MAX_TOLD} more" if len(problems) > _MAX_TOLD else ""
        raise InvalidTableError("; ".join(problems[:_MAX_TOLD]) + more)
    return rows


def _read_object(line: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    # Python reads nested text by recursion, and gives up at some depth.
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidTableError(f"{what} is no JSON object; write one object a line")
    return content


def _read_ms(row: Mapping[str, Any]) -> float:
    for name in ("p50_ms", *(n for n in _OPTIONAL_MS if n in row)):
        value = row.get(name)
        if not _is_number(value) or not 0 < float(value or 0) <= MAX_MS:
            raise InvalidTableError(
                f"{name} {value!r} is not a number of milliseconds above 0, to {MAX_MS:g}"
            )
    return float(row["p50_ms"])


def _is_number(value: Any) -> bool:
    # By comparison: there are whole numbers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


_GROWN_TOGETHER = (
    ("cin",),
    ("cout",),
    ("cin", "cout", "groups"),
    ("h", "w", "out_h", "out_w"),
    ("k",),
)
"""Fields that make a block larger when they grow and all others stay."""


def _ordered_pairs(blocks: Iterable[FusedBlock]) -> Iterator[tuple[FusedBlock, FusedBlock]]:
    """Neighbours that differ in one way only, the smaller first."""
    ordered = sorted(blocks)
    for grown in _GROWN_TOGETHER:
        alike: dict[tuple[Any, ...], list[FusedBlock]] = {}
        for block in ordered:
            others = tuple(v for name, v in block.to_json().items() if name not in grown)
            alike.setdefault(others, []).append(block)
        for group in alike.values():
            group.sort(key=lambda block: [getattr(block, name) for name in grown])
            for smaller, larger in pairwise(group):
                if all(getattr(smaller, n) <= getattr(larger, n) for n in grown):
                    yield smaller, larger
