"""Reads what a probe wrote: a latency table of blocks, and whole networks to fit a model to.

Or what somebody wrote who measured whole networks with a runtime of their own: no probe was there to tell
what an empty call takes, or how figures repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.devices.accuracy import Accuracy
from nas.devices.device import Device
from nas.devices.fitting import MeasuredNetworks
from nas.devices.parts import NetworkBlocks
from nas.devices.repeats import accuracy_of_repeat, agreement
from nas.devices.table import MAX_MS, InvalidTableError, LatencyTable, read_rows
from nas.devices.units import MANY_MACS, macs_per_second, refuse_impossible_speed, refuse_other_units
from nas.errors import InvalidArchitectureError, InvalidRequestError, NasError
from nas.space import SearchSpace

SCHEMA = 1
FIT_FROM = 30
"""Whole networks, to fit a model to and to judge it by."""
LEAST_MS = 1e-4
"""What a block is said to take that is as quick as an empty call: not nothing."""
_DEVICE = ("runtime", "threads", "batch", "dtype")
_LARGEST = 1e300
_MOST_CLASSES, _MOST_CHANNELS = 1_000_000, 1024
_KINDS = ("empty", "block", "network", "network_again")
_REPEATABILITY = ("agreeing", "median_apart", "num_models")
LEAST_AGREEING = 0.8
"""Of the figures, in the second pass: what `probe.py` asks before it writes any."""


@dataclass(frozen=True, kw_only=True)
class SentinelTime:
    """What one network took when a probe began: all of its times are as of then."""

    architecture_key: str
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """One run of the probe."""

    table: LatencyTable
    """Base: an empty call, 0 where none was measured. Rows: what a block takes beyond that."""
    networks: MeasuredNetworks
    again: MeasuredNetworks
    """The same networks in the second pass."""
    repeatability: Mapping[str, float] | None
    """How many of the figures agree in the second pass, how far apart they are, and of how many; None where
    nothing was measured twice."""
    is_drawn: NDArray[np.bool_]
    """Of each network, shape (n,); the others were asked for, such as a frontier, and are no sample."""
    sentinel: SentinelTime | None = None
    """None in files of probes of before, whose sentinels were all sorts of networks."""

    @property
    def drawn(self) -> MeasuredNetworks:
        """The networks to which a model may be fitted."""
        return self.networks.rows(np.flatnonzero(self.is_drawn))

    @property
    def second_pass(self) -> Accuracy | None:
        """How far the networks' second pass is from the first; None where fewer than two are in both."""
        return accuracy_of_repeat(self.networks, self.again)

    @property
    def is_for_fit(self) -> bool:
        """Whether a model is to be fitted; else networks were measured for their own sake."""
        return int(self.is_drawn.sum()) >= FIT_FROM or bool(self.table.rows)


def read_measurements(lines: Iterable[str], space: SearchSpace) -> Measurements:
    """The measurements that the probe's JSON lines hold.

    Raises InvalidTableError where they are not of this space or not the probe's, InvalidRequestError for rows
    with impossible values, of another device or in another unit than milliseconds; messages name the lines.
    """
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    header, *rows = [_Row.read(number, line) for number, line in numbered] or [_Row(1, {})]
    if header.content.get("schema") != SCHEMA or header.content.get("space") != space.name:
        raise InvalidTableError(
            f"the measurements are not of schema {SCHEMA} and space '{space.name}'; "
            "send the file that probe.py wrote for this space"
        )
    head = header.content
    try:
        device = Device(name=head["device"], **{name: head[name] for name in _DEVICE})
        _check_rows(header, rows, device)
        reader = NetworkBlocks.of(
            space,
            num_classes=_size(head["num_classes"], "num_classes", _MOST_CLASSES),
            in_channels=_size(head["in_channels"], "in_channels", _MOST_CHANNELS),
        )
        table = _table(device, head, _empty_ms(rows), _of_kind(rows, "block"))
        networks, again = (
            _networks(device, reader, _of_kind(rows, kind)) for kind in ("network", "network_again")
        )
        _refuse_impossible_speed(networks)
        repeatability = _repeatability(head, networks, again)
        sentinel = _sentinel(space, header)
    except NasError:
        raise
    except KeyError as missing:
        raise InvalidTableError(
            f"the measurements lack {missing}; send the file as probe.py wrote it"
        ) from None
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidTableError(
            f"the measurements are not as the probe writes them ({error}); send its file unchanged"
        ) from None
    asked_for = [row.content.get("asked_for") is True for row in _of_kind(rows, "network")]
    return Measurements(
        table=table,
        networks=networks,
        again=again,
        repeatability=repeatability,
        is_drawn=~np.array(asked_for, dtype=np.bool_),
        sentinel=sentinel,
    )


def _check_rows(header: _Row, rows: Sequence[_Row], device: Device) -> None:
    """Refuse what would be left out in silence, or taken for something else."""
    for row in (header, *rows):
        kind = row.content.get("kind")
        if row is not header and kind not in _KINDS:
            allowed = ", ".join(_KINDS)
            raise InvalidTableError(f"line {row.number}: kind {kind!r} is unknown; allowed: {allowed}")
        try:
            device.refuse_other(row.content)
            refuse_other_units(row.content)
        except InvalidRequestError as error:
            raise InvalidTableError(f"line {row.number}: {error}") from None


def _empty_ms(rows: Sequence[_Row]) -> float:
    """What a call takes that computes nothing. Only the times of blocks need it, to be told apart from it."""
    found = _of_kind(rows, "empty")
    if len(found) > 1 or (not found and _of_kind(rows, "block")):
        raise InvalidTableError(
            f"{len(found)} rows are of kind 'empty'; beside rows of kind 'block' send one: the time of a "
            "call that computes nothing"
        )
    return found[0].p50_ms if found else 0.0


def _refuse_impossible_speed(measured: MeasuredNetworks) -> None:
    if not len(measured):
        return
    macs = measured.networks.sums(measured.codes, lambda blocks: np.array([[float(b.macs)] for b in blocks]))
    speed = macs_per_second(measured.device.batch * macs[:, 0], measured.latency_ms)
    refuse_impossible_speed(speed, f"networks of {MANY_MACS:,.0f} multiply-accumulates or more")


def _repeatability(
    head: Mapping[str, Any], networks: MeasuredNetworks, again: MeasuredNetworks
) -> Mapping[str, float] | None:
    """As the header tells it, of blocks too; else as the networks that were measured twice tell it."""
    if "repeatability" in head:
        told = {name: _finite(head["repeatability"][name], name) for name in _REPEATABILITY}
        _refuse_noise(told["agreeing"], "line 1: ")
        return told
    found = agreement(networks, again)
    if found is not None:
        _refuse_noise(found["agreeing"], "")
    return found


def _refuse_noise(agreeing: float, where: str) -> None:
    if agreeing < LEAST_AGREEING:
        raise InvalidTableError(
            f"{where}only {agreeing:.0%} of the figures repeat within 10 %, and {LEAST_AGREEING:.0%} are "
            "needed; stop other programs on the machine and measure again"
        )


def _sentinel(space: SearchSpace, header: _Row) -> SentinelTime | None:
    if "sentinel" not in header.content:
        return None
    network = _architecture(space, _Row(header.number, header.content["sentinel"]))
    return SentinelTime(
        architecture_key=space.canonical(network).key,
        milliseconds=_milliseconds(header.content["sentinel_ms"], "sentinel_ms", header.number),
    )


def _size(value: Any, name: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidTableError(f"line 1: {name} {value!r} is not a whole number from 1 to {most}")
    return value


def _finite(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        raise InvalidTableError(f"line 1: {name} {value!r} of the repeatability is no finite number")
    return value


def space_of(lines: Iterable[str]) -> str:
    """The name of the space whose networks were measured; InvalidTableError where the header says none."""
    first = next((line for line in lines if line.strip()), "")
    name = _Row.read(1, first).content.get("space")
    if not isinstance(name, str):
        raise InvalidTableError("line 1: the header names no space; send the file as probe.py wrote it")
    return name


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the file."""

    number: int
    content: Mapping[str, Any]

    @classmethod
    def read(cls, number: int, line: str) -> _Row:
        try:
            content = json.loads(line)
        # Python reads nested text by recursion, and gives up at some depth.
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise InvalidTableError(f"line {number}: no JSON object; send the file as probe.py wrote it")
        return cls(number, content)

    @property
    def p50_ms(self) -> float:
        """Its time."""
        return _milliseconds(self.content.get("p50_ms"), "p50_ms", self.number)


def _milliseconds(value: Any, name: str, line: int) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_MS:
        raise InvalidTableError(
            f"line {line}: {name} {value!r} is not a number of milliseconds above 0, to {MAX_MS:g}"
        )
    return float(value)


def _of_kind(rows: Sequence[_Row], kind: str) -> list[_Row]:
    return [row for row in rows if row.content.get("kind") == kind]


def _table(device: Device, head: Mapping[str, Any], empty_ms: float, rows: Sequence[_Row]) -> LatencyTable:
    # By way of the table's own reading, so that what is refused there is refused here.
    numbered = [
        (row.number, json.dumps({**row.content, "p50_ms": max(LEAST_MS, row.p50_ms - empty_ms)}))
        for row in rows
    ]
    tools = {str(name): str(version) for name, version in head.get("tools", {}).items()}
    return LatencyTable(device=device, base_ms=empty_ms, rows=read_rows(numbered, device), tools=tools)


def _networks(device: Device, reader: NetworkBlocks, rows: Sequence[_Row]) -> MeasuredNetworks:
    return MeasuredNetworks(
        device=device,
        networks=reader,
        codes=reader.space.encode([_architecture(reader.space, row) for row in rows]),
        latency_ms=np.array([row.p50_ms for row in rows], dtype=np.float64),
    )


def _architecture(space: SearchSpace, row: _Row) -> Architecture:
    try:
        return space.parse(row.content["architecture"])
    except KeyError:
        raise InvalidTableError(f"line {row.number}: it lacks 'architecture'") from None
    except InvalidArchitectureError as error:
        raise InvalidTableError(f"line {row.number}: {error}") from None
