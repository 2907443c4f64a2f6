"""/v1/datasets: images to train on."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import ArtifactsDep, CreationDep, Name, ServicesDep, SessionDep
from api.downloads import DOWNLOAD_RESPONSES, download
from api.pages import PageDep, each
from api.problems import ProblemError
from api.schemas.artifacts import Artifacts, describe_artifact
from api.schemas.common import Page, ResourcePatch
from api.schemas.datasets import (
    Dataset,
    DatasetCreate,
    DatasetDetail,
    describe_dataset,
    describe_dataset_detail,
)
from api.strict import StrictRoute
from nas.job import JobState
from nas.store import datasets, uploads
from nas.store.deletion import DATASET
from nas.store.resources import WithJob, rename
from nas.store.tables import DatasetRow

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=DatasetDetail, operation_id="create_dataset")
def create_dataset(body: DatasetCreate, create: CreationDep) -> Response:
    """Register images; a worker imports them."""

    def make(session: Session) -> DatasetDetail:
        spec: dict[str, Any] = body.spec()
        if "upload_id" in spec["source"]:
            uploads.hold(session, spec["source"]["upload_id"])
        found = datasets.create(
            session,
            display_name=body.display_name,
            labels=body.labels,
            source=spec["source"],
            spec=spec,
        )
        return describe_dataset_detail(found)

    return create(body, make)


@router.get("", operation_id="list_datasets")
def list_datasets(session: SessionDep, page: PageDep) -> Page[Dataset]:
    """Data sets, newest first."""
    return page.of_resources("datasets", partial(datasets.list, session), each(describe_dataset))


@router.get("/{dataset_id}", operation_id="get_dataset")
def get_dataset(dataset_id: Name, session: SessionDep) -> DatasetDetail:
    """One data set, with the report on its images."""
    return describe_dataset_detail(datasets.get(session, dataset_id))


@router.patch("/{dataset_id}", operation_id="change_dataset")
def change_dataset(dataset_id: Name, body: ResourcePatch, services: ServicesDep) -> DatasetDetail:
    """Rename a data set or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, DatasetRow, dataset_id, body.changes(), noun="data set")
        return get_dataset(dataset_id, session)


@router.delete("/{dataset_id}", status_code=204, response_class=Response, operation_id="delete_dataset")
def delete_dataset(dataset_id: Name, services: ServicesDep) -> Response:
    """Delete a data set whose import has ended. Refused while supernets use it; `used_by` names them."""
    return delete(services, DATASET, dataset_id)


@router.get("/{dataset_id}/splits", operation_id="list_dataset_splits")
def list_dataset_splits(dataset_id: Name, session: SessionDep) -> Artifacts:
    """The splits as files; none before the import has succeeded."""
    datasets.get(session, dataset_id)
    found = datasets.files(session, dataset_id)
    return Artifacts(items=[describe_artifact(f"/v1/datasets/{dataset_id}/splits", file) for file in found])


@router.head("/{dataset_id}/splits/{name}", include_in_schema=False)
@router.get(
    "/{dataset_id}/splits/{name}",
    operation_id="download_dataset_split",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
)
def download_dataset_split(
    dataset_id: Name, name: Name, request: Request, session: SessionDep, store: ArtifactsDep
) -> Response:
    """train.npz, val.npz or test.npz, as the images are stored. ETag, Range and If-Range as for bundles.

    Arrays: uint8 `images` (n, c, h, w), int64 `labels` (n,), `class_names`, `fingerprint`; in train.npz also
    `calibration`, indices of the images that batch-norm statistics are taken from.
    """
    _check_imported(datasets.get(session, dataset_id))
    return download(request, datasets.file(session, dataset_id, name), store)


def _check_imported(found: WithJob[DatasetRow]) -> None:
    state = found.job.state
    if state is JobState.SUCCEEDED:
        return
    remedy = "register the images again" if state.is_terminal else "wait for its job to succeed"
    detail = f"data set {found.row.id} is {state} and has no splits to download; {remedy}"
    raise ProblemError("dataset-not-ready", 409, detail, state=state)
