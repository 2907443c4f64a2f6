"""/v1/work-files: what a probe is to measure, as one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import ArtifactsDep, CreationDep, Name, ServicesDep, SessionDep
from api.downloads import DOWNLOAD_RESPONSES, download
from api.pages import PageDep, each
from api.problems import ProblemError, invalid_field
from api.schemas.common import Page, ResourcePatch
from api.schemas.devices import WorkFile, WorkFileCreate, describe_work_file
from api.strict import StrictRoute
from nas.errors import InvalidArchitectureError
from nas.space import SearchSpace
from nas.store import work_files
from nas.store.deletion import WORK_FILE
from nas.store.resources import rename
from nas.store.tables import WorkFileRow
from nas.store.work_files import WorkPlan
from search_spaces import SPACES

router = APIRouter(prefix="/work-files", tags=["devices"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=WorkFile, operation_id="create_work_file")
def create_work_file(body: WorkFileCreate, create: CreationDep) -> Response:
    """Have a worker make the file that tells a probe what to measure for a space."""
    plan = _plan(body)

    def make(session: Session) -> WorkFile:
        found = work_files.create(
            session, plan, display_name=body.display_name, labels=body.labels, spec=body.spec()
        )
        return describe_work_file(found)

    return create(body, make)


@router.get("", operation_id="list_work_files")
def list_work_files(session: SessionDep, page: PageDep) -> Page[WorkFile]:
    """Work files, newest first."""
    return page.of_resources("work-files", partial(work_files.list, session), each(describe_work_file))


@router.get("/{work_file_id}", operation_id="get_work_file")
def get_work_file(work_file_id: Name, session: SessionDep) -> WorkFile:
    """One work file."""
    return describe_work_file(work_files.get(session, work_file_id))


@router.patch("/{work_file_id}", operation_id="change_work_file")
def change_work_file(work_file_id: Name, body: ResourcePatch, services: ServicesDep) -> WorkFile:
    """Rename a work file or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, WorkFileRow, work_file_id, body.changes(), noun="work file")
        return get_work_file(work_file_id, session)


@router.delete("/{work_file_id}", status_code=204, response_class=Response, operation_id="delete_work_file")
def delete_work_file(work_file_id: Name, services: ServicesDep) -> Response:
    """Delete a work file; what was measured by it stays."""
    return delete(services, WORK_FILE, work_file_id)


@router.head("/{work_file_id}/content", include_in_schema=False)
@router.get(
    "/{work_file_id}/content",
    operation_id="download_work_file",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
)
def download_work_file(
    work_file_id: Name, request: Request, session: SessionDep, store: ArtifactsDep
) -> Response:
    """The file itself, `work.zip`; Range, If-Range and If-None-Match are understood."""
    found = work_files.get(session, work_file_id)
    made = work_files.artifact(found.row)
    if made is None:
        state = found.job.state
        remedy = "make another" if state.is_terminal else "wait for its job to succeed"
        detail = f"work file {work_file_id} is {state} and has no bytes; {remedy}"
        raise ProblemError("work-file-not-ready", 409, detail, state=state)
    return download(request, made, store)


def _plan(body: WorkFileCreate) -> WorkPlan:
    if body.search_space not in SPACES:
        message = f"search space {body.search_space!r} is unknown; choose one of {', '.join(SPACES)}"
        raise invalid_field("search_space", body.search_space, message, slug="unknown-search-space")
    space = SPACES[body.search_space]
    return WorkPlan(
        search_space=body.search_space,
        num_classes=space.default_classes if body.num_classes is None else body.num_classes,
        in_channels=space.default_channels if body.in_channels is None else body.in_channels,
        batch=body.batch,
        num_networks=body.num_drawn,
        max_blocks=body.most_blocks,
        seed=body.seed,
        architectures=[*_given(space, body.architectures)],
    )


def _given(space: SearchSpace, descriptions: Sequence[dict[str, Any] | str]) -> Iterator[dict[str, Any]]:
    for number, description in enumerate(descriptions):
        try:
            yield space.canonical(space.parse(description)).to_json()
        except InvalidArchitectureError as error:
            field = f"architectures.{number}"
            raise invalid_field(field, description, str(error), slug="unknown-architecture") from error
