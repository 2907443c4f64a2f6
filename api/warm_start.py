"""Where a training is to begin: what of a warm start can be known when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.problems import ProblemError, field_error
from api.schemas.supernets import SupernetCreate
from nas.fields import InvalidFieldError
from nas.job import JobState
from nas.recipe import Recipe
from nas.store import datasets, supernets, uploads
from nas.store.artifacts import ArtifactStore
from nas.store.resources import WithJob
from nas.store.supernets import WarmStart
from nas.store.tables import SupernetRow
from nas.warm_start import check_warm_start
from nas.weights_file import WeightsDescription, WeightsFileError, describe_weights
from search_spaces import SPACES


@dataclass(frozen=True)
class _Source:
    warm_start: WarmStart
    weights: WeightsDescription


def resolve_warm_start(
    session: Session, artifacts: ArtifactStore, body: SupernetCreate, recipe: Recipe
) -> WarmStart | None:
    """The weights that the training is to begin from; ProblemError where it cannot begin from them.

    A worker looks at the weights themselves, and at the images' channels where they are not imported yet.
    """
    asked = body.warm_start
    if asked is None:
        return None
    if asked.supernet_id is not None:
        source = _of_supernet(session, asked.supernet_id)
    else:
        assert asked.upload_id is not None
        source = _of_upload(session, artifacts, asked.upload_id)
    try:
        check_warm_start(
            source.weights,
            SPACES[body.search_space],
            in_channels=datasets.get(session, body.dataset_id).row.in_channels,
            kernel_transform=recipe.kernel_transform,
        )
    except InvalidFieldError as error:
        raise _refused(error.field, error.value, str(error), error.allowed) from error
    return source.warm_start


def _of_supernet(session: Session, supernet_id: str) -> _Source:
    found = supernets.get(session, supernet_id)
    _check_has_weights(session, found)
    weights = supernets.describe_weights(session, found.row)
    return _Source(WarmStart(supernet_id=supernet_id, sha256=found.row.checkpoint), weights)


def _check_has_weights(session: Session, found: WithJob[SupernetRow]) -> None:
    state, supernet_id = found.job.state, found.row.id
    if state is JobState.SUCCEEDED or (state.is_terminal and supernets.has_checkpoint(session, found)):
        return
    if state.is_terminal:
        detail = (
            f"supernet {supernet_id} has {state} before its first checkpoint, and has no weights to start "
            "from; name another, or leave warm_start out"
        )
    else:
        detail = (
            f"supernet {supernet_id} is {state}, and its weights still change; wait for its training to end, "
            "or cancel it to start from its newest checkpoint"
        )
    allowed = "a supernet whose training has ended"
    errors = [field_error("warm_start.supernet_id", detail, value=supernet_id, allowed=allowed)]
    raise ProblemError("supernet-not-ready", 409, detail, state=state, errors=errors)


def _of_upload(session: Session, artifacts: ArtifactStore, upload_id: str) -> _Source:
    upload = uploads.get(session, upload_id)
    try:
        with artifacts.open_file(upload.uri) as file:
            weights = describe_weights(file)
    except WeightsFileError as error:
        allowed = "supernet.safetensors or bundle.zip, as downloaded"
        raise _refused("warm_start.upload_id", upload_id, str(error), allowed) from error
    return _Source(WarmStart(upload_id=upload.id, sha256=upload.sha256), weights)


def _refused(field: str, value: object, message: str, allowed: str) -> ProblemError:
    errors = [field_error(field, message, value=value, allowed=allowed)]
    return ProblemError("invalid-request", 422, message, errors=errors)
