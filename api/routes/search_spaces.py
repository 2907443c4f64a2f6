"""/v1/search-spaces: what can be trained and searched."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Name
from api.schemas.common import Page
from api.schemas.search_spaces import SpaceAnswer, SpaceWithDecisions, describe_space
from api.strict import StrictRoute
from nas.errors import NotFoundError
from search_spaces import SPACES

router = APIRouter(prefix="/search-spaces", tags=["search spaces"], route_class=StrictRoute)

NumClasses = Annotated[
    int | None, Query(ge=1, le=1_000_000, description="To count costs for; the space's own by default.")
]
InChannels = Annotated[
    int | None, Query(ge=1, le=1024, description="To count costs for; the space's own by default.")
]


@router.get("", operation_id="list_search_spaces")
def list_search_spaces(num_classes: NumClasses = None, in_channels: InChannels = None) -> Page[SpaceAnswer]:
    """Every search space; there are few, so they come on one page."""
    spaces = [
        describe_space(name, space, num_classes=num_classes, in_channels=in_channels)
        for name, space in SPACES.items()
    ]
    return Page(
        items=[SpaceAnswer(**space.model_dump(exclude={"decisions"})) for space in spaces],
        next_page_token=None,
    )


@router.get("/{name}", operation_id="get_search_space")
def get_search_space(
    name: Name, num_classes: NumClasses = None, in_channels: InChannels = None
) -> SpaceWithDecisions:
    """One search space, decision by decision."""
    if name not in SPACES:
        raise NotFoundError(f"no search space {name!r}; there are {', '.join(SPACES)}")
    return describe_space(name, SPACES[name], num_classes=num_classes, in_channels=in_channels)
