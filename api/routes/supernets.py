"""/v1/supernets: train one, watch it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.deps import CreationDep, Name, SessionDep
from api.pages import PageDep
from api.problems import ProblemError, invalid_field
from api.schemas.common import Page
from api.schemas.supernets import (
    Curves,
    Supernet,
    SupernetCreate,
    SupernetWithCurves,
    describe_points,
    describe_supernet,
    describe_supernet_with_curves,
)
from api.strict import StrictRoute
from nas.job import JobState
from nas.store import datasets, supernets
from search_spaces import SPACES

router = APIRouter(prefix="/supernets", tags=["supernets"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=Supernet, operation_id="create_supernet")
def create_supernet(body: SupernetCreate, create: CreationDep) -> Response:
    """Train a supernet; the training waits for the data set's import."""
    _check_space(body.search_space)

    def make(session: Session) -> Supernet:
        _check_dataset(session, body.dataset_id)
        spec = body.spec()
        found = supernets.create(
            session,
            display_name=body.display_name,
            labels=body.labels,
            dataset_id=body.dataset_id,
            search_space=body.search_space,
            recipe=spec["recipe"],
            seed=body.seed,
            num_workers=body.num_workers,
            spec=spec,
        )
        return describe_supernet(found)

    return create(body, make)


@router.get("", operation_id="list_supernets")
def list_supernets(session: SessionDep, page: PageDep) -> Page[Supernet]:
    """Supernets, newest first."""
    found = supernets.list(session, page_size=page.num_to_read, after=page.after_resource("supernets"))
    shown, token = page.cut("supernets", found, lambda supernet: supernet.cursor)
    return Page(items=[describe_supernet(supernet) for supernet in shown], next_page_token=token)


@router.get("/{supernet_id}", operation_id="get_supernet")
def get_supernet(supernet_id: Name, session: SessionDep) -> SupernetWithCurves:
    """One supernet, with its training curves."""
    found = supernets.get(session, supernet_id)
    return describe_supernet_with_curves(found, supernets.curve(session, supernet_id))


@router.get("/{supernet_id}/curves", operation_id="get_supernet_curves")
def get_supernet_curves(supernet_id: Name, session: SessionDep) -> Curves:
    """The training curves alone, one point an epoch."""
    supernets.get(session, supernet_id)
    points = describe_points(supernets.curve(session, supernet_id))
    return Curves(supernet_id=supernet_id, items=points)


def _check_space(name: str) -> None:
    if name not in SPACES:
        message = f"search space {name!r} is unknown; choose one of {', '.join(SPACES)}"
        raise invalid_field("search_space", name, message, slug="unknown-search-space")


def _check_dataset(session: Session, dataset_id: str) -> None:
    state = datasets.get(session, dataset_id).job.state
    if state.is_terminal and state is not JobState.SUCCEEDED:
        detail = f"the import of data set {dataset_id} ended {state}; register the images again"
        raise ProblemError("dataset-not-ready", 409, detail, state=state)
