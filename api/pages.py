"""Pages of a list, and the opaque tokens between them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from api.problems import ProblemError, invalid_field
from api.schemas.common import Page
from nas.store.resources import WithJob
from nas.store.tables import ResourceRow

F = TypeVar("F")
R = TypeVar("R", bound=ResourceRow)
T = TypeVar("T")

Describe = Callable[[Sequence[F]], list[T]]
"""What was found, as answers show it."""

_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True)
class PageRequest:
    """Which page is asked for. One item more is read than shown, to know whether another page follows."""

    size: int
    token: str | None

    @property
    def num_to_read(self) -> int:
        """How many items to fetch."""
        return self.size + 1

    def after_resource(self, kind: str) -> tuple[datetime, str] | None:
        """Where the last page of resources ended."""
        if self.token is None:
            return None
        match _decode(self.token):
            case [str(of), str(moment), str(name)] if of == kind and name.isascii() and name.isprintable():
                return self._moment(moment), name
        raise self._refusal()

    def after_number(self, kind: str, *, first: int, limit: int = _MAX_NUMBER) -> int:
        """Where the last page of numbered things ended; before `first` for the first page."""
        if self.token is None:
            return first - 1
        match _decode(self.token):
            # JSON's true is an int to Python.
            case [str(of), int(number)] if of == kind and first <= number <= limit and number is not True:
                return number
        raise self._refusal()

    def of_resources(
        self, kind: str, read: Callable[..., Sequence[WithJob[R]]], describe: Describe[WithJob[R], T]
    ) -> Page[T]:
        """A page of resources, newest first; `read` is one of the store's `list`, given the rest."""
        found = read(page_size=self.num_to_read, after=self.after_resource(kind))
        return self.cut(kind, found, lambda resource: resource.cursor, describe)

    def cut(
        self,
        kind: str,
        found: Sequence[F],
        cursor_of: Callable[[F], tuple[Any, ...]],
        describe: Describe[F, T],
    ) -> Page[T]:
        """The page, made of what was found for it, with the token of the next one if there is one."""
        shown = found[: self.size]
        token = _encode(kind, *cursor_of(shown[-1])) if len(found) > self.size else None
        return Page(items=describe(shown), next_page_token=token)

    def _moment(self, text: str) -> datetime:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise self._refusal() from None
        if moment.tzinfo is None:
            raise self._refusal()
        return moment

    def _refusal(self) -> ProblemError:
        message = "not a page token of this list; use next_page_token as it was given, or begin without"
        return invalid_field("page_token", self.token, message)


def each(describe: Callable[[F], T]) -> Describe[F, T]:
    """Describes a page item by item."""
    return lambda found: [describe(item) for item in found]


def get_page_request(
    page_size: Annotated[int, Query(ge=1, le=200, description="Most items in the answer.")] = 50,
    page_token: Annotated[
        str | None, Query(max_length=500, description="`next_page_token` of the page before.")
    ] = None,
) -> PageRequest:
    """The page that the query names."""
    return PageRequest(page_size, page_token)


PageDep = Annotated[PageRequest, Depends(get_page_request)]


def _encode(kind: str, *cursor: Any) -> str:
    values = [value.isoformat() if isinstance(value, datetime) else value for value in cursor]
    return urlsafe_b64encode(json.dumps([kind, *values]).encode()).decode().rstrip("=")


def _decode(token: str) -> Any:
    try:
        return json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    # Deep nesting or a number of many digits is as foreign as any other nonsense.
    except (ValueError, RecursionError):
        return None
