"""Supernets: what to train, and how training went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from api.schemas.common import (
    AnswerModel,
    CreateRequest,
    JobResource,
    RequestModel,
    ResourceId,
    Seed,
    job_shape,
)
from api.schemas.evaluations import FrontierEvaluation
from api.schemas.recipes import Recipe
from nas.probes import DEFAULT_PROBES, MAX_PROBES
from nas.recipe_notes import notes_on_stored
from nas.store.resources import WithJob
from nas.store.supernets import TrainingPoint as StoredPoint
from nas.store.tables import SupernetRow
from nas.trial import Provenance


class WarmStart(RequestModel):
    """Weights to begin from, in place of fresh ones: a supernet's, or those in a file that was sent."""

    supernet_id: ResourceId | None = Field(
        default=None,
        description="A supernet of the same search space: its final weights, or the newest checkpoint of a "
        "training that failed or was cancelled.",
    )
    upload_id: ResourceId | None = Field(
        default=None,
        description="A `supernet.safetensors`, or the `bundle.zip` of a subnet: what the network has learned "
        "is put where the supernet keeps it, the rest begins anew.",
    )

    @model_validator(mode="after")
    def _names_one_source(self) -> WarmStart:
        if (self.supernet_id is None) == (self.upload_id is None):
            raise ValueError("give exactly one of supernet_id and upload_id")
        return self


class SupernetCreate(CreateRequest):
    """A supernet to train."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "display_name": "first",
                    "dataset_id": "ds_aaaaaaaaaaaaaaaa",
                    "search_space": "micro_8",
                    "recipe": {"name": "bignas", "epochs": 30},
                },
                {
                    "display_name": "second",
                    "dataset_id": "ds_aaaaaaaaaaaaaaaa",
                    "search_space": "micro_8",
                    "warm_start": {"supernet_id": "sn_aaaaaaaaaaaaaaaa"},
                },
            ]
        }
    )

    dataset_id: ResourceId
    search_space: str = Field(max_length=200, description="A name from /v1/search-spaces.")
    recipe: Recipe = Recipe()
    seed: Seed = 0
    warm_start: WarmStart | None = None
    num_probes: int = Field(
        default=DEFAULT_PROBES,
        ge=0,
        le=MAX_PROBES,
        description="Networks that are measured on val after every epoch, beside the ends of the space, "
        "drawn by the seed at even distances in MACs. Together they cost a twentieth of the training or, "
        "where an epoch is short, 100 images each; what is learned is the same with them and without.",
    )
    num_workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Training processes; more than 1 train data-parallel, each on an equal part of a batch.",
    )

    def spec(self) -> dict[str, Any]:
        """What the job is to do, the whole recipe included."""
        return {**super().spec(), "recipe": self.recipe.resolve().to_json()}


class TrainingPoint(AnswerModel):
    """Where training stood at the end of an epoch."""

    epoch: int
    step: int
    images_seen: int
    train_loss: float
    learning_rate: float
    accuracy_val_largest: float | None = Field(
        description="A probe on `num_images_val` images; null when this epoch had none."
    )
    accuracy_val_smallest: float | None
    accuracy_provenance: Literal[Provenance.MEASURED] = Provenance.MEASURED
    num_images_val: int | None
    strategies: dict[str, Any] = Field(
        description="What strategies of the recipe that learn had come to, by their names: probabilities of "
        "sampling, a phase, a factor on the rate."
    )
    elapsed_s: float


class Rollback(AnswerModel):
    """A return of a training that had diverged to an earlier state of itself."""

    step: int = Field(description="From which it went on: of the last good checkpoint, or 0.")
    from_step: int = Field(description="At which it had diverged.")
    reason: str
    rate_factor: float = Field(description="On the recipe's learning rate from then on.")


class WarmStarted(AnswerModel):
    """The weights that a training began from."""

    supernet_id: str | None = Field(description="Null where they came from a file, or it is deleted since.")
    upload_id: str | None = Field(description="Null where they came from a supernet, or it is deleted since.")
    sha256: str | None = Field(
        description="Of the file of these weights; null until a worker has read the checkpoint they are in."
    )


class Supernet(JobResource):
    """A weight-shared network: every network of its search space in one set of weights."""

    dataset_id: str
    search_space: str
    recipe: dict[str, Any] = Field(description="The whole recipe: the request's fields and the defaults.")
    recipe_notes: list[str] = Field(
        description="What the recipe asks for in vain, such as 'delay_fraction 0.3 has no effect: it needs "
        "schedule delayed_epsilon, as in recipe deps'."
    )
    checkpoint: str | None = Field(description="SHA-256 of the final weights; null until training has ended.")
    is_exact: bool = Field(
        description="Whether the training, however often it was stopped, is bit for bit an undisturbed one."
    )
    resume_departures: list[str] = Field(
        description="What differed where the training went on after a stop, such as "
        "'step 40: threads: 2 before, 1 now'; empty while it is exact."
    )
    rollbacks: list[Rollback] = Field(
        description="Each return from divergence, in order; empty where training never diverged. After three "
        "the next ends it."
    )
    num_probes: int = Field(description="Networks measured after every epoch, beside the ends of the space.")
    probes_flat_at_epoch: int | None = Field(
        description="The first epoch after which no probe rose any more; null while one does."
    )
    warm_start: WarmStarted | None = Field(description="Null where training began from fresh weights.")


class SupernetWithCurves(Supernet):
    """A supernet and its training curves."""

    curves: list[TrainingPoint]


class Curves(AnswerModel):
    """The training curves."""

    supernet_id: str
    items: list[TrainingPoint]


class Frontier(AnswerModel):
    """Networks that no other measured one beats in every objective, by rising cost."""

    supernet_id: str
    checkpoint: str
    device: str | None = Field(
        default=None, description="Whose latencies are shown; null where none was named."
    )
    objectives: list[str]
    constraints: dict[str, float] = Field(description="Percentages resolved.")
    num_evaluations: int = Field(description="Measured networks within the constraints.")
    items: list[FrontierEvaluation]


def describe_supernet(found: WithJob[SupernetRow]) -> Supernet:
    """The supernet as lists show it."""
    return Supernet(**_supernet(found))


def describe_supernet_with_curves(
    found: WithJob[SupernetRow], points: Sequence[StoredPoint]
) -> SupernetWithCurves:
    """The supernet as it is shown alone."""
    return SupernetWithCurves(**_supernet(found), curves=describe_points(points))


def describe_points(points: Sequence[StoredPoint]) -> list[TrainingPoint]:
    """The training curves as answers show them."""
    return [TrainingPoint(**asdict(point)) for point in points]


def _supernet(found: WithJob[SupernetRow]) -> dict[str, Any]:
    row = found.row
    shape = job_shape(found, "supernets", more=("curves", "probes", "frontier", "best", "artifacts"))
    shape["links"]["dataset"] = f"/v1/datasets/{row.dataset_id}"
    return {
        **shape,
        "dataset_id": row.dataset_id,
        "search_space": row.search_space,
        "recipe": row.recipe,
        "recipe_notes": list(notes_on_stored(row.recipe)),
        "checkpoint": row.checkpoint,
        "is_exact": not row.resume_departures,
        "resume_departures": row.resume_departures,
        "rollbacks": row.rollbacks,
        "num_probes": row.num_probes,
        "probes_flat_at_epoch": row.probes_flat_at_epoch,
        "warm_start": _warm_start(found),
    }


def _warm_start(found: WithJob[SupernetRow]) -> WarmStarted | None:
    # The request tells it even when the source is deleted since.
    if found.job.spec.get("warm_start") is None:
        return None
    return WarmStarted(
        supernet_id=found.row.warm_start_supernet_id,
        upload_id=found.row.warm_start_upload_id,
        sha256=found.row.warm_start_sha256,
    )
