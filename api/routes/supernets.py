"""/v1/supernets: train one, watch it."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import ArtifactsDep, CreationDep, IfNoneMatch, Name, ServicesDep, SessionDep
from api.downloads import DOWNLOAD_RESPONSES, download
from api.etags import tagged_json
from api.pages import PageDep, each
from api.problems import ProblemError, field_error, invalid_field
from api.schemas.artifacts import Artifacts, describe_artifact
from api.schemas.common import Page, ResourcePatch
from api.schemas.probes import Probes, describe_probes
from api.schemas.supernets import (
    Curves,
    Supernet,
    SupernetCreate,
    SupernetWithCurves,
    describe_points,
    describe_supernet,
    describe_supernet_with_curves,
)
from api.strict import StrictRoute
from api.warm_start import resolve_warm_start
from nas.errors import InvalidRequestError
from nas.fields import InvalidFieldError
from nas.job import JobState
from nas.progressive_phases import least_num_steps, phases_of_run
from nas.recipe import Recipe
from nas.recipe_choices import ScheduleKind
from nas.recipe_rules import check_space
from nas.space import SearchSpace
from nas.store import datasets, probes, supernets
from nas.store.deletion import SUPERNET
from nas.store.resources import WithJob, rename
from nas.store.tables import SupernetRow
from search_spaces import SPACES

router = APIRouter(prefix="/supernets", tags=["supernets"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=Supernet, operation_id="create_supernet")
def create_supernet(body: SupernetCreate, create: CreationDep, services: ServicesDep) -> Response:
    """Train a supernet, from fresh weights or those of `warm_start`; it waits for the data set's import."""
    _check_space(body.search_space)
    recipe = _resolve(body)
    _check_sharing(recipe, body.num_workers)

    def make(session: Session) -> Supernet:
        _check_dataset(session, body.dataset_id, SPACES[body.search_space], recipe)
        found = supernets.create(
            session,
            display_name=body.display_name,
            labels=body.labels,
            dataset_id=body.dataset_id,
            search_space=body.search_space,
            recipe=recipe.to_json(),
            seed=body.seed,
            num_workers=body.num_workers,
            num_probes=body.num_probes,
            spec=body.spec(),
            warm_start=resolve_warm_start(session, services.artifacts, body, recipe),
        )
        return describe_supernet(found)

    answer = create(body, make)
    services.tables.want(search_space=body.search_space, dataset_id=body.dataset_id)
    return answer


@router.get("", operation_id="list_supernets")
def list_supernets(session: SessionDep, page: PageDep) -> Page[Supernet]:
    """Supernets, newest first."""
    return page.of_resources("supernets", partial(supernets.list, session), each(describe_supernet))


@router.get("/{supernet_id}", operation_id="get_supernet")
def get_supernet(supernet_id: Name, session: SessionDep) -> SupernetWithCurves:
    """One supernet, with its training curves."""
    found = supernets.get(session, supernet_id)
    return describe_supernet_with_curves(found, supernets.curve(session, supernet_id))


@router.patch("/{supernet_id}", operation_id="change_supernet")
def change_supernet(supernet_id: Name, body: ResourcePatch, services: ServicesDep) -> SupernetWithCurves:
    """Rename a supernet or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, SupernetRow, supernet_id, body.changes(), noun="supernet")
        return get_supernet(supernet_id, session)


@router.delete("/{supernet_id}", status_code=204, response_class=Response, operation_id="delete_supernet")
def delete_supernet(supernet_id: Name, services: ServicesDep) -> Response:
    """Delete a supernet that is trained no more, with its weights, curves and evaluations.

    Refused while searches, subnets or evaluation batches are of it; `used_by` names them."""
    return delete(services, SUPERNET, supernet_id)


@router.get("/{supernet_id}/artifacts", operation_id="list_supernet_artifacts")
def list_supernet_artifacts(supernet_id: Name, session: SessionDep, store: ArtifactsDep) -> Artifacts:
    """The supernet's files: its final weights; none before training has ended."""
    found = supernets.artifacts(session, supernet_id, store)
    folder = f"/v1/supernets/{supernet_id}/artifacts"
    return Artifacts(items=[describe_artifact(folder, artifact) for artifact in found])


@router.head("/{supernet_id}/artifacts/{name}", include_in_schema=False)
@router.get(
    "/{supernet_id}/artifacts/{name}",
    operation_id="download_supernet_artifact",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
)
def download_supernet_artifact(
    supernet_id: Name, name: Name, request: Request, session: SessionDep, store: ArtifactsDep
) -> Response:
    """One file. Its ETag is its SHA-256; Range, If-Range and If-None-Match are understood."""
    _check_trained(supernets.get(session, supernet_id))
    return download(request, supernets.artifact(session, supernet_id, name, store), store)


@router.get("/{supernet_id}/curves", operation_id="get_supernet_curves")
def get_supernet_curves(supernet_id: Name, session: SessionDep) -> Curves:
    """The training curves alone, one point an epoch."""
    supernets.get(session, supernet_id)
    points = describe_points(supernets.curve(session, supernet_id))
    return Curves(supernet_id=supernet_id, items=points)


@router.get("/{supernet_id}/probes", response_model=Probes, operation_id="get_supernet_probes")
def get_supernet_probes(
    supernet_id: Name, session: SessionDep, if_none_match: IfNoneMatch = None
) -> Response:
    """What a fixed set of networks got right on val after every epoch: the frontier while training goes on.

    Shown as probes, never as evaluations: the weights went on changing."""
    found = supernets.get(session, supernet_id)
    return tagged_json(describe_probes(found, probes.curves(session, supernet_id)), if_none_match)


def _check_space(name: str) -> None:
    if name not in SPACES:
        message = f"search space {name!r} is unknown; choose one of {', '.join(SPACES)}"
        raise invalid_field("search_space", name, message, slug="unknown-search-space")


def _resolve(body: SupernetCreate) -> Recipe:
    try:
        recipe = body.recipe.resolve()
        check_space(recipe, SPACES[body.search_space])
        return recipe
    except InvalidFieldError as error:
        raise _refused(f"recipe.{error.field}", error.value, str(error), allowed=error.allowed) from error


def _check_sharing(recipe: Recipe, num_workers: int) -> None:
    size = recipe.batch_size
    if size % num_workers:
        nearest = max(count for count in range(1, num_workers) if size % count == 0)
        message = (
            f"a batch of {size} images cannot be shared evenly by {num_workers} workers; "
            f"choose num_workers {nearest}, or a recipe.batch_size that is a multiple of {num_workers}"
        )
        allowed = f"a divisor of recipe.batch_size, {size}"
        raise _refused("num_workers", num_workers, message, allowed=allowed)


def _check_dataset(session: Session, dataset_id: str, space: SearchSpace, recipe: Recipe) -> None:
    """The images are to be had, and suffice for the recipe; before their import nobody knows how many."""
    found = datasets.get(session, dataset_id)
    state, num_train = found.job.state, found.row.num_train
    if num_train is not None:
        _check_num_images(num_train, dataset_id, recipe)
        _check_num_steps(num_train, space, recipe)
    if state.is_terminal and state is not JobState.SUCCEEDED:
        detail = f"data set {dataset_id} was not imported: its job is {state}; register the images again"
        raise ProblemError("dataset-not-ready", 409, detail, state=state)


def _check_num_images(num_train: int, dataset_id: str, recipe: Recipe) -> None:
    num_held_out = recipe.num_held_out(num_train)
    num_learned = num_train - num_held_out
    if recipe.batch_size > num_learned:
        less = f" less the {num_held_out} held out" if num_held_out else ""
        message = (
            f"a batch of {recipe.batch_size} images is more than the {num_train} training images of data set "
            f"{dataset_id}{less}; choose a recipe.batch_size from 2 to {num_learned}"
        )
        allowed = f"a whole number from 2 to {num_learned}"
        raise _refused("recipe.batch_size", recipe.batch_size, message, allowed=allowed)
    if recipe.held_out_fraction > 0 and num_held_out == 0:
        message = (
            f"{recipe.held_out_fraction:g} of the {num_train} training images of data set {dataset_id} is "
            f"none of them; choose a recipe.held_out_fraction of at least {1 / num_train:.2g}"
        )
        allowed = "a part that is one image at least, or 0"
        raise _refused("recipe.held_out_fraction", recipe.held_out_fraction, message, allowed=allowed)


def _check_num_steps(num_train: int, space: SearchSpace, recipe: Recipe) -> None:
    if recipe.schedule is not ScheduleKind.PROGRESSIVE:
        return
    steps_per_epoch = (num_train - recipe.num_held_out(num_train)) // recipe.batch_size
    try:
        phases_of_run(space, recipe.epochs * steps_per_epoch)
    except InvalidRequestError as error:
        allowed = f"{-(-least_num_steps(space) // steps_per_epoch)} or more"
        raise _refused("recipe.epochs", recipe.epochs, str(error), allowed=allowed) from error


def _check_trained(found: WithJob[SupernetRow]) -> None:
    if found.row.weights_uri is None:
        state = found.job.state
        remedy = "train another" if state.is_terminal else "wait for its training to succeed"
        detail = f"supernet {found.row.id} is {state} and has no files; {remedy}"
        raise ProblemError("supernet-not-ready", 409, detail, state=state)


def _refused(field: str, value: Any, message: str, *, allowed: str) -> ProblemError:
    errors = [field_error(field, message, value=value, allowed=allowed)]
    return ProblemError("invalid-request", 422, message, errors=errors)
