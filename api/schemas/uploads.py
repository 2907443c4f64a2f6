"""Uploads: files sent to the service, for data sets and weights to be made of."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api.schemas.common import AnswerModel, RequestModel
from nas.store.tables import UploadRow


class Upload(AnswerModel):
    """A file as it was sent."""

    id: str
    display_name: str
    size_bytes: int
    sha256: str = Field(description="Of the bytes as they came.")
    created_at: datetime
    links: dict[str, str]


class UploadIdentity(RequestModel):
    """What makes two uploads the same request: the name, and every byte."""

    display_name: str
    sha256: str


def describe_upload(row: UploadRow) -> Upload:
    """The upload as answers show it."""
    return Upload(
        id=row.id,
        display_name=row.display_name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        links={"self": f"/v1/uploads/{row.id}"},
    )
