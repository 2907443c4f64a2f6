"""Files that a resource offers for download."""

from __future__ import annotations

from api.schemas.common import AnswerModel
from nas.store.artifacts import Artifact as StoredArtifact


class Artifact(AnswerModel):
    """One file."""

    name: str
    size_bytes: int
    sha256: str
    media_type: str
    links: dict[str, str]


class Artifacts(AnswerModel):
    """The files of a resource; none before it has them."""

    items: list[Artifact]


def describe_artifact(folder: str, artifact: StoredArtifact) -> Artifact:
    """The file as listings show it; `folder` is the path below which it is downloaded."""
    return Artifact(
        name=artifact.name,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        media_type=artifact.media_type,
        links={"self": f"{folder}/{artifact.name}"},
    )
