"""Device: where and how a latency was measured. Two figures are comparable only where all of it agrees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Annotated, Any

from nas.errors import InvalidRequestError
from nas.fields import Interval, InvalidFieldError, checked_fields

LATENCY = "latency_ms"
"""The cost's name: milliseconds of a whole batch on a device, median."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}")
_NAMED = ("name", "runtime")


class DType(StrEnum):
    """Numbers that the network computes with."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a runtime runs a network."""

    threads: Annotated[int, Interval(1, 1024), "Threads that share one network."] = 1
    batch: Annotated[int, Interval(1, 65_536), "Images run together; latency_ms is of the whole batch."] = 1
    dtype: Annotated[DType, "Numbers that the network computes with."] = DType.FP32


_SETTINGS = checked_fields(RunSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(RunSettings):
    """A machine and the way that networks run on it."""

    name: str
    """Of the machine, like raspberry_pi_5."""
    runtime: str
    """What runs the network, like onnxruntime or litert."""

    def __post_init__(self) -> None:
        """Refuse what is not allowed, by the field's name."""
        for name in _NAMED:
            _check_name(name, getattr(self, name))
        for field in _SETTINGS:
            value = field.checked(getattr(self, field.name), owner=f"device '{self.name}'")
            object.__setattr__(self, field.name, value)

    def to_json(self) -> dict[str, Any]:
        """Every field by its name; `from_json` reads it back."""
        return {**asdict(self), "dtype": self.dtype.value}

    def told(self) -> dict[str, Any]:
        """The same as the lines of files tell it: there `device` is the name."""
        fields = self.to_json()
        return {"device": fields.pop("name"), **fields}

    def refuse_other(self, row: Mapping[str, Any]) -> None:
        """InvalidRequestError for a row that names another device, or another way to run, than its header."""
        told = self.told()
        apart = [
            f"{name} {row[name]!r}, not {told[name]!r}"
            for name in told
            if row.get(name) not in (None, told[name])
        ]
        if apart:
            raise InvalidRequestError(
                f"the row is of {'; '.join(apart)} as the header says, and all rows of a file are of one "
                "device, run in one way; put it into a file of its own, or leave the fields out"
            )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Device:
        """The device that the fields describe; InvalidRequestError for unknown or missing ones."""
        allowed = [field.name for field in fields(cls)]
        for name in content:
            if name not in allowed:
                raise InvalidRequestError(
                    f"device field '{name}' is unknown; allowed: {', '.join(allowed)}; leave it out"
                )
        for name in _NAMED:
            if name not in content:
                raise InvalidRequestError(f"device field '{name}' is missing; give the device's {name}")
        return cls(**content)


def _check_name(field: str, value: Any) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        allowed = "1 to 64 of a-z, 0-9, '_', '-' and '.', the first a letter or a digit"
        raise InvalidFieldError(
            f"device {field} {value!r} is not {allowed}; choose another name",
            field=field,
            value=value,
            allowed=allowed,
        )
