"""Fields of a frozen dataclass that state limits and meaning beside their type, as in

    epochs: Annotated[int, Interval(1, 100_000), "Passes over the training images."] = 10

The dataclass checks itself against them, and whatever else describes it (a schema, a document) reads them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args, get_type_hints

from nas.errors import InvalidRequestError


class InvalidFieldError(InvalidRequestError):
    """A field whose value is not allowed, at all or beside the other fields."""

    def __init__(self, message: str, *, field: str, value: Any, allowed: str) -> None:
        super().__init__(message)
        self.field = field
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class CheckedField:
    """What one field may hold, and what it means."""

    name: str
    kind: type
    """int, float, bool or a StrEnum."""
    interval: Interval | None
    """Of a number."""
    meaning: str
    """A sentence or two."""

    @property
    def options(self) -> tuple[str, ...]:
        """The values of an enumeration; none for other kinds."""
        return tuple(option.value for option in self.kind) if issubclass(self.kind, StrEnum) else ()

    @property
    def allowed(self) -> str:
        """Every value allowed, in words."""
        if self.interval is not None:
            noun = "whole number" if self.kind is int else "number"
            return f"a {noun} from {self.interval.low} to {self.interval.high}"
        return "true or false" if self.kind is bool else f"one of {', '.join(self.options)}"

    def checked(self, value: Any, *, owner: str) -> Any:
        """The value as the field's own kind; InvalidFieldError, which names the `owner`, if not allowed."""
        if not self._allows(value):
            raise InvalidFieldError(
                f"{owner} field '{self.name}' is {value!r}, not {self.allowed}; "
                "choose what is allowed or leave the field out",
                field=self.name,
                value=value,
                allowed=self.allowed,
            )
        return self.kind(value)

    def _allows(self, value: Any) -> bool:
        if self.options:
            return isinstance(value, str) and value in self.options
        # bool is an int in Python, yet nobody means True epochs.
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        is_number = isinstance(value, int if self.kind is int else int | float)
        # A NaN fails the comparison.
        return is_number and (self.interval is None or self.interval.low <= value <= self.interval.high)


def checked_fields(owner: type) -> tuple[CheckedField, ...]:
    """The fields of the dataclass `owner`, in order, each declared as the module says."""
    hints = get_type_hints(owner, include_extras=True)
    return tuple(_checked_field(field.name, hints[field.name]) for field in dataclasses.fields(owner))


def _checked_field(name: str, hint: Any) -> CheckedField:
    kind, *declared = get_args(hint)
    *interval, meaning = declared
    return CheckedField(name=name, kind=kind, interval=interval[0] if interval else None, meaning=meaning)
