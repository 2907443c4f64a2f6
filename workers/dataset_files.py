"""Splits in the artefact store: published once, at import; users download them, other machines take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from nas.ports import StopCheck
from nas.scratch import ScratchFolder
from nas.store.artifacts import Artifact, ArtifactStore
from supernet.data import DataSplits
from supernet.data.listing import GivenSplit
from supernet.data.split_files import SPLIT_FILES, SplitFilesListing, write_split_file
from workers.context import JobContext

_MEDIA_TYPE = "application/octet-stream"


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
        with ScratchFolder(scratch) as folder:
            for file in self.files:
                remedy = "restore the file, or register the images anew"
                target = folder / file.name
                self.artifacts.fetch(file.uri, target, file.sha256, remedy=remedy, stop_check=stop_check)
            yield SplitFilesListing.of(folder, self.given_splits, stop_check)


def publish_splits(
    artifacts: ArtifactStore, dataset_id: str, splits: DataSplits, scratch: Path, context: JobContext
) -> Sequence[Artifact]:
    """Writes each split to the artefact store, and tells how far it is."""
    # A folder of this attempt's own: one that lost its lease must not replace another's files.
    place = f"datasets/{dataset_id}/{token_hex(8)}"
    published = []
    with ScratchFolder(scratch) as folder:
        for number, name in enumerate(SPLIT_FILES):
            context.report("publish", number, len(SPLIT_FILES))
            path = folder / name
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
