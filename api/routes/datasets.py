"""/v1/datasets: images to train on."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.deps import CreationDep, Name, SessionDep
from api.pages import PageDep, each
from api.schemas.common import Page
from api.schemas.datasets import (
    Dataset,
    DatasetCreate,
    DatasetDetail,
    describe_dataset,
    describe_dataset_detail,
)
from api.strict import StrictRoute
from nas.store import datasets, uploads

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=Dataset, operation_id="create_dataset")
def create_dataset(body: DatasetCreate, create: CreationDep) -> Response:
    """Register images; a worker imports them."""

    def make(session: Session) -> Dataset:
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
        return describe_dataset(found)

    return create(body, make)


@router.get("", operation_id="list_datasets")
def list_datasets(session: SessionDep, page: PageDep) -> Page[Dataset]:
    """Data sets, newest first."""
    return page.of_resources("datasets", partial(datasets.list, session), each(describe_dataset))


@router.get("/{dataset_id}", operation_id="get_dataset")
def get_dataset(dataset_id: Name, session: SessionDep) -> DatasetDetail:
    """One data set, with the report on its images."""
    return describe_dataset_detail(datasets.get(session, dataset_id))
