"""/v1/datasets: images to train on."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import CreationDep, Name, ServicesDep, SessionDep
from api.pages import PageDep, each
from api.schemas.common import Page, ResourcePatch
from api.schemas.datasets import Dataset, DatasetCreate, describe_dataset
from api.strict import StrictRoute
from nas.store import datasets
from nas.store.deletion import DATASET
from nas.store.resources import rename
from nas.store.tables import DatasetRow

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=Dataset, operation_id="create_dataset")
def create_dataset(body: DatasetCreate, create: CreationDep) -> Response:
    """Register images; a worker imports them."""

    def make(session: Session) -> Dataset:
        spec: dict[str, Any] = body.spec()
        found = datasets.create(
            session,
            display_name=body.display_name,
            labels=body.labels,
            source=spec["source"],
            spec=spec,
        )
        return describe_dataset(found)

    return create(body, make)


@router.get("", operation_id="list_datasets")
def list_datasets(session: SessionDep, page: PageDep) -> Page[Dataset]:
    """Data sets, newest first."""
    return page.of_resources("datasets", partial(datasets.list, session), each(describe_dataset))


@router.get("/{dataset_id}", operation_id="get_dataset")
def get_dataset(dataset_id: Name, session: SessionDep) -> Dataset:
    """One data set."""
    return describe_dataset(datasets.get(session, dataset_id))


@router.patch("/{dataset_id}", operation_id="change_dataset")
def change_dataset(dataset_id: Name, body: ResourcePatch, services: ServicesDep) -> Dataset:
    """Rename a data set or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, DatasetRow, dataset_id, body.changes(), noun="data set")
        return get_dataset(dataset_id, session)


@router.delete("/{dataset_id}", status_code=204, response_class=Response, operation_id="delete_dataset")
def delete_dataset(dataset_id: Name, services: ServicesDep) -> Response:
    """Delete a data set whose import has ended. Refused while supernets use it; `used_by` names them."""
    return delete(services, DATASET, dataset_id)
