"""The first weights of a training that begins from others: read, carried over, kept beside its checkpoints.

They are made once. A run that is killed before its first checkpoint begins again from the very same file,
and one that has a checkpoint needs no source any more.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor

from nas.costs import costs
from nas.errors import ArtifactError
from nas.job import JobState
from nas.store import supernets, uploads
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.tables import SupernetRow
from nas.warm_start import check_warm_start
from nas.weights_file import WeightsDescription, describe_weights, read_network
from search_spaces import SPACES
from supernet.network import Supernet
from supernet.training.checkpoint import load_checkpoint, newest_readable, replace_file
from supernet.training.checkpoint_files import WEIGHTS_FILE
from supernet.warm_start import Carried, Changes, copy_supernet, write_network
from workers.uploads import SEND_AGAIN
from workers.weights import SupernetDescription, fetch_weights

_START = "start.safetensors"
_KEY = "start"


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """The weights that a training begins from, ready to be loaded."""

    path: Path
    sha256: str
    """Of the file that they come from."""
    changes: Changes

    def load_into(self, supernet: Supernet) -> None:
        """Make them the supernet's."""
        supernet.load_state_dict(load_file(self.path))


@dataclass(frozen=True)
class _Source:
    name: str
    sha256: str
    description: WeightsDescription
    tensors: Mapping[str, Tensor]


class WarmStarts:
    """Makes the first weights of trainings that are to begin from others."""

    def __init__(self, database: Database, artifacts: ArtifactStore, checkpoint_root: Path) -> None:
        """`checkpoint_root` holds this machine's checkpoints, in a folder for each supernet."""
        self._database = database
        self._artifacts = artifacts
        self._root = checkpoint_root

    def prepare(
        self, row: SupernetRow, target: SupernetDescription, class_names: Sequence[str]
    ) -> StartWeights | None:
        """What the supernet's training begins from; None where it begins from fresh weights.

        NasError where the source cannot be read, has changed, or is of another kind than the training needs.
        """
        if row.warm_start_supernet_id is None and row.warm_start_upload_id is None:
            return None
        path = self._root / row.id / _START
        made = _made_before(path, row.warm_start_sha256)
        if made is not None:
            return made
        source = self._read(row, target)
        if row.warm_start_sha256 not in (None, source.sha256):
            raise ArtifactError(
                f"{source.name} has changed since this training was created: the SHA-256 of its weights was "
                f"{row.warm_start_sha256}, now it is {source.sha256}; create the training again"
            )
        supernet = target.build(seed=row.seed)
        changes = copy_supernet(
            supernet,
            _as_supernet(source, target, row.seed),
            class_names=class_names,
            source_class_names=source.description.class_names,
        )
        _write(path, supernet, source.sha256, changes)
        return StartWeights(path=path, sha256=source.sha256, changes=changes)

    def _read(self, row: SupernetRow, target: SupernetDescription) -> _Source:
        if row.warm_start_upload_id is not None:
            return self._read_upload(row.warm_start_upload_id, target)
        assert row.warm_start_supernet_id is not None
        return self._read_supernet(row.warm_start_supernet_id, target)

    def _read_upload(self, upload_id: str, target: SupernetDescription) -> _Source:
        with self._database.session() as session:
            upload = uploads.get(session, upload_id)
        content = fetch_weights(self._artifacts, upload.uri, upload.sha256, remedy=SEND_AGAIN)
        description = describe_weights(io.BytesIO(content))
        _check(description, target)
        if description.architecture is not None:
            content = read_network(io.BytesIO(content), max_bytes=_most_bytes(description))
        name = f"upload {upload_id}"
        return _Source(name, upload.sha256, description, _tensors(name, content))

    def _read_supernet(self, supernet_id: str, target: SupernetDescription) -> _Source:
        with self._database.session() as session:
            found = supernets.get(session, supernet_id)
            description = supernets.describe_weights(session, found.row)
        _check(description, target)
        name, row = f"supernet {supernet_id}", found.row
        if found.job.state is JobState.SUCCEEDED:
            assert row.weights_uri is not None
            assert row.checkpoint is not None
            content = fetch_weights(self._artifacts, row.weights_uri, row.checkpoint)
            return _Source(name, row.checkpoint, description, _tensors(name, content))
        sha256, tensors = _newest_checkpoint(self._root / supernet_id, name)
        return _Source(name, sha256, description, tensors)


def _check(source: WeightsDescription, target: SupernetDescription) -> None:
    """As the API has done, which did not know the images' channels where they were not imported yet."""
    check_warm_start(
        source,
        SPACES[target.search_space],
        in_channels=target.in_channels,
        kernel_transform=target.kernel_transform,
    )


def _made_before(path: Path, sha256: str | None) -> StartWeights | None:
    """The file of an earlier attempt, if it is there and of the source that the row names."""
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()[_KEY])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    if told["sha256"] != sha256:
        return None
    changes = Changes(
        classifier=Carried(told["changes"]["classifier"]), first_layer=Carried(told["changes"]["first_layer"])
    )
    return StartWeights(path=path, sha256=told["sha256"], changes=changes)


def _write(path: Path, supernet: Supernet, sha256: str, changes: Changes) -> None:
    told = json.dumps({"sha256": sha256, "changes": asdict(changes)})
    tensors = {name: value.contiguous() for name, value in supernet.state_dict().items()}
    try:
        replace_file(path, save(tensors, metadata={_KEY: told}))
    except OSError as error:
        raise ArtifactError(
            f"the weights to begin from could not be written to {path.parent} ({error.strerror or error}); "
            "make room there and create the training again"
        ) from error


def _as_supernet(source: _Source, target: SupernetDescription, seed: int) -> Mapping[str, Tensor]:
    """The source's weights as those of a whole supernet, for the source's own classes and channels.

    What a bundle's network leaves open are fresh weights of the training's seed.
    """
    description = source.description
    if description.architecture is None:
        return source.tensors
    whole = SupernetDescription(
        search_space=description.search_space,
        num_classes=description.num_classes,
        in_channels=description.in_channels,
        kernel_transform=target.kernel_transform,
    ).build(seed=seed)
    architecture = whole.space.parse(dict(description.architecture))
    write_network(whole, architecture, source.tensors)
    return whole.state_dict()


def _newest_checkpoint(folder: Path, name: str) -> tuple[str, Mapping[str, Tensor]]:
    """SHA-256 and tensors of the newest weights."""
    path = newest_readable(folder)
    if path is None:
        raise ArtifactError(
            f"{name} has no checkpoint on this machine; put NAS_HOME on storage that all workers share, or "
            "start from a supernet whose training has succeeded"
        )
    weights = load_checkpoint(path).weights
    return hashlib.sha256((path / WEIGHTS_FILE).read_bytes()).hexdigest(), weights


def _most_bytes(description: WeightsDescription) -> int:
    """More than the network's file can have, so that no zip can fill the memory."""
    assert description.architecture is not None
    space = SPACES[description.search_space]
    architecture = space.parse(dict(description.architecture))
    counted = costs(
        space, architecture, num_classes=description.num_classes, in_channels=description.in_channels
    )
    return 2 * int(counted["size_bytes"]) + 2**20


def _tensors(name: str, content: bytes) -> dict[str, Tensor]:
    try:
        return load(content)
    except SafetensorError as error:
        raise ArtifactError(
            f"the weights of {name} are damaged ({error}); send the file again as it was downloaded"
        ) from error
