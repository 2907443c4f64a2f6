"""Splits in the artefact store: published once, at import; users download them, other machines take them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from nas.errors import DatasetError
from nas.ports import StopCheck
from nas.store.artifacts import Artifact, ArtifactStore
from supernet.data import DataSplits
from supernet.data.listing import GivenSplit
from supernet.data.split_files import SPLIT_FILES, SplitFilesListing, write_split_file
from workers.context import JobContext

_MEDIA_TYPE = "application/octet-stream"
SCRATCH = "nas-splits-"
"""How the folders begin in which splits are packed and unpacked; a killed worker leaves its own behind."""


@dataclass(frozen=True, kw_only=True)
class PublishedSplits:
    """Where a data set's splits lie, for any process that reaches the artefact store."""

    artifacts: ArtifactStore
    files: tuple[Artifact, ...]
    given_splits: frozenset[GivenSplit]
    """Those that the source itself had; the others were drawn from its train split."""

    def are_there(self) -> bool:
        """Whether the store has all of them."""
        return all(self.artifacts.exists(file.uri) for file in self.files)

    @contextmanager
    def fetched(self, scratch: Path, stop_check: StopCheck) -> Iterator[SplitFilesListing]:
        """Their images, as the source had them; in files below `scratch` that are gone afterwards."""
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch) as folder:
            for file in self.files:
                self._fetch(file, Path(folder) / file.name, stop_check)
            yield SplitFilesListing.of(Path(folder), self.given_splits, stop_check)

    def _fetch(self, file: Artifact, target: Path, stop_check: StopCheck) -> None:
        digest = hashlib.sha256()
        with target.open("wb") as copy:
            for chunk in self.artifacts.open(file.uri):
                stop_check()
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise DatasetError(
                f"the bytes of {file.uri} are not those that were published; restore the file, "
                "or register the images anew"
            )


def publish_splits(
    artifacts: ArtifactStore, dataset_id: str, splits: DataSplits, scratch: Path, context: JobContext
) -> Sequence[Artifact]:
    """Writes each split to the artefact store, and tells how far it is."""
    # A folder of this attempt's own: one that lost its lease must not replace another's files.
    place = f"datasets/{dataset_id}/{token_hex(8)}"
    published = []
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch) as folder:
        for number, name in enumerate(SPLIT_FILES):
            context.report("publish", number, len(SPLIT_FILES))
            path = Path(folder) / name
            write_split_file(path, splits, name, context.check)
            published.append(_publish(artifacts, f"{place}/{name}", path))
            path.unlink()
    context.report("publish", len(SPLIT_FILES), len(SPLIT_FILES))
    return published


def _publish(artifacts: ArtifactStore, key: str, path: Path) -> Artifact:
    stored = artifacts.put(key, path)
    return Artifact(
        name=path.name,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        media_type=_MEDIA_TYPE,
        uri=stored.uri,
    )
