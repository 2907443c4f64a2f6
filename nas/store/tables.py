"""The tables, as SQLAlchemy models. `migrations/` makes them; a test holds the two equal.

One file however long: a schema is read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nas.devices.device import DType
from nas.job import JobKind, JobState
from nas.prefilter.names import PrefilterName
from nas.probes import ProbeRole
from nas.search.rounds import Origin, StopReason
from nas.trial import Split
from nas.verification import RunState, Training

BigInt = Annotated[int, mapped_column(BigInteger)]
Moment = Annotated[datetime, mapped_column(server_default=func.clock_timestamp())]
"""A time on the database's clock, the only one that all processes share."""


class Base(DeclarativeBase):
    """The schema's metadata. Every constraint has a name, so that a migration can drop it."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy at class creation, never changed
        str: Text,
        float: Double,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        dict[str, str]: JSONB,
        list[str]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[int]: ARRAY(Integer),
        list[float]: ARRAY(Double),
    }


def _one_of(column: str, values: Iterable[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _latency_source() -> CheckConstraint:
    """A device is named together with one thing that predicts latencies on it."""
    return CheckConstraint(
        "num_nonnulls(latency_table_id, measurements_id) = num_nonnulls(device_id)", name="latency_source"
    )


_PROTOCOL = ("supernet_id", "checkpoint", "split", "num_images", "calibration")
"""Evaluations equal in these were measured in one way, so that their accuracies compare."""


class JobRow(Base):
    """The work behind a resource, and who holds it."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=JobState.QUEUED.value)
    state_reason: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    resource_id: Mapped[str]
    depends_on: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(server_default=text("5"))
    """How many attempts in a row may land nothing before the job is given up."""
    landed: Mapped[BigInt] = mapped_column(server_default=text("0"))
    """Durable work in the job's own unit (steps in checkpoints, evaluations); it only grows."""
    landed_at_attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """The attempt in which `landed` last grew; 0 before it ever did."""
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    phase: Mapped[str | None]
    done: Mapped[int | None]
    total: Mapped[int | None]
    eta_seconds: Mapped[float | None]
    error: Mapped[str | None]
    created_at: Mapped[Moment]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    updated_at: Mapped[Moment] = mapped_column(onupdate=func.clock_timestamp())

    __table_args__ = (
        _one_of("state", JobState),
        _one_of("kind", JobKind),
        # A lease exists exactly while a worker may write.
        CheckConstraint(
            "(lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)"
            " = (state IN ('running', 'cancelling'))",
            name="lease",
        ),
        Index("ix_jobs_claim", "created_at", "id", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_lease", "lease_expires_at", postgresql_where=text("lease_token IS NOT NULL")),
        Index("ix_jobs_created_at_id", "created_at", "id"),
    )


class JobEventRow(Base):
    """Something a watcher of the job wants to hear of; ids grow, so a stream can be resumed."""

    __tablename__ = "job_events"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[Moment]

    __table_args__ = (Index(None, "job_id", "id"),)


class ResourceRow(Base):
    """What every resource made by a job has in common."""

    __abstract__ = True

    id: Mapped[str] = mapped_column(primary_key=True)
    display_name: Mapped[str]
    labels: Mapped[dict[str, str]]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    created_at: Mapped[Moment]


class UploadRow(Base):
    """Bytes that a client sent, whole. They lie in the artefact store."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    display_name: Mapped[str]
    uri: Mapped[str]
    size_bytes: Mapped[BigInt]
    sha256: Mapped[str]
    created_at: Mapped[Moment]

    __table_args__ = (Index(None, "created_at", "id"),)


class DatasetRow(ResourceRow):
    """Labelled images. What the import finds in them is null until it has."""

    __tablename__ = "datasets"

    source: Mapped[dict[str, Any]]
    upload_id: Mapped[str | None] = mapped_column(
        ForeignKey("uploads.id"), Computed("(source ->> 'upload_id')", persisted=True), index=True
    )
    """Read out of the source, so that an upload cannot go while a data set comes of it."""
    fingerprint: Mapped[str | None]
    num_classes: Mapped[int | None]
    in_channels: Mapped[int | None]
    image_height: Mapped[int | None]
    image_width: Mapped[int | None]
    class_names: Mapped[list[str] | None]
    mean: Mapped[list[float] | None]
    std: Mapped[list[float] | None]
    num_train: Mapped[int | None]
    num_calibration: Mapped[int | None]
    num_val: Mapped[int | None]
    num_test: Mapped[int | None]
    fingerprint_format: Mapped[int | None]
    num_unreadable: Mapped[int | None]
    stored_rule: Mapped[str | None]
    given_splits: Mapped[list[str] | None]
    # Shown, never queried; with its list of unreadable images too long to be read for nothing.
    report: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)

    __table_args__ = (Index(None, "created_at", "id"),)


class DatasetFileRow(Base):
    """One split as a file. Its bytes lie in the artefact store."""

    __tablename__ = "dataset_files"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[BigInt]
    sha256: Mapped[str]
    media_type: Mapped[str]
    uri: Mapped[str]


class SupernetRow(ResourceRow):
    """A weight-shared network. The weights' columns are null until training ends."""

    __tablename__ = "supernets"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    search_space: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    seed: Mapped[BigInt]
    num_workers: Mapped[int]
    checkpoint: Mapped[str | None]
    weights_uri: Mapped[str | None]
    calibration: Mapped[str | None]
    resume_departures: Mapped[list[str]] = mapped_column(server_default=text("'[]'::jsonb"))
    """What differed when the training went on after a stop; empty: bit for bit an undisturbed one."""
    num_probes: Mapped[int] = mapped_column(server_default=text("0"))
    """Networks measured after every epoch beside the ends of the space."""
    probes_flat_at_epoch: Mapped[int | None]
    """The first at whose end no probe rose any more, as `nas.plateau` says; null while one does."""
    rollbacks: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    """Each return of a training that had diverged to an earlier state, in order; shown, never queried."""
    warm_start_supernet_id: Mapped[str | None] = mapped_column(
        ForeignKey("supernets.id", ondelete="SET NULL"), index=True
    )
    """Whose weights the training began from: like all that may be nulled, needed until its job has ended."""
    warm_start_upload_id: Mapped[str | None] = mapped_column(
        ForeignKey("uploads.id", ondelete="SET NULL"), index=True
    )
    warm_start_sha256: Mapped[str | None]
    """Of those weights' file. It stays when the source is deleted: it is part of what run this is."""

    __table_args__ = (
        Index(None, "created_at", "id"),
        CheckConstraint("num_nonnulls(warm_start_supernet_id, warm_start_upload_id) <= 1", name="warm_start"),
    )


class TrainingPointRow(Base):
    """One point of the training curves."""

    __tablename__ = "training_points"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int]
    images_seen: Mapped[BigInt]
    train_loss: Mapped[float]
    learning_rate: Mapped[float]
    accuracy_val_largest: Mapped[float | None]
    accuracy_val_smallest: Mapped[float | None]
    num_images_val: Mapped[int | None]
    strategies: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    """What strategies that learn had come to; shown, never queried."""
    elapsed_s: Mapped[float]


class ProbeNetworkRow(Base):
    """A network that the training measures after every epoch."""

    __tablename__ = "probe_networks"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]
    architecture_key: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    macs: Mapped[BigInt]
    params: Mapped[BigInt]
    size_bytes: Mapped[BigInt]
    peak_activation_bytes: Mapped[BigInt]

    __table_args__ = (_one_of("role", ProbeRole),)


class ProbeResultRow(Base):
    """What one of them got right on val after an epoch: no evaluation, for the weights went on changing."""

    __tablename__ = "probe_results"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    num_correct: Mapped[int]
    num_images: Mapped[int]
    duration_s: Mapped[float | None]
    """NULL in rows of before it was kept."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["supernet_id", "number"],
            ["probe_networks.supernet_id", "probe_networks.number"],
            name="fk_probe_results_number_probe_networks",
        ),
        CheckConstraint("num_images > 0 AND num_correct BETWEEN 0 AND num_images", name="proportion"),
    )


class EvaluationRow(Base):
    """One network measured, and what it costs. Found once, shared by every search of the supernet."""

    __tablename__ = "evaluations"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"))
    checkpoint: Mapped[str]
    architecture_key: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    split: Mapped[str]
    num_images: Mapped[int]
    calibration: Mapped[str]
    num_correct: Mapped[int]
    per_class_correct: Mapped[list[int]]
    per_class_images: Mapped[list[int]]
    correct_bitmap: Mapped[bytes]
    macs: Mapped[BigInt]
    params: Mapped[BigInt]
    size_bytes: Mapped[BigInt]
    peak_activation_bytes: Mapped[BigInt]
    duration_s: Mapped[float]
    code: Mapped[bytes | None]
    """The network's codes, a byte a decision: what latencies are predicted from, of all networks at once.
    Null where it was recorded by an earlier release."""
    recorded_in: Mapped[BigInt] = mapped_column(server_default=text("(pg_current_xact_id()::text)::bigint"))
    """By which transaction: who has read all that had ended finds what came since, in whatever order."""
    is_superseded: Mapped[bool] = mapped_column(server_default=text("false"))
    """Kept by `nas.store.evaluations`: another one is as accurate and no dearer, so no answer needs this."""
    created_at: Mapped[Moment]

    __table_args__ = (
        UniqueConstraint(
            "supernet_id",
            "checkpoint",
            "architecture_key",
            "split",
            "num_images",
            "calibration",
            name="uq_evaluations_identity",
        ),
        _one_of("split", Split),
        CheckConstraint("num_images > 0 AND num_correct BETWEEN 0 AND num_images", name="proportion"),
        # In the order in which answers want them, for each way of measuring.
        Index(
            "ix_evaluations_candidates",
            *_PROTOCOL,
            text("num_correct DESC"),
            "macs",
            "id",
            postgresql_where=text("NOT is_superseded"),
        ),
        # Wide enough to count what is within bounds without reading the rows, which are ten times as wide.
        Index("ix_evaluations_costs", *_PROTOCOL, "macs", "params", "size_bytes", "peak_activation_bytes"),
        # For a list of all of them, newest first.
        Index("ix_evaluations_recorded", *_PROTOCOL, "id"),
        # Wide enough to read them as columns, all or what came since, without the rows.
        Index(
            "ix_evaluations_columns",
            "supernet_id",
            "recorded_in",
            postgresql_include=[
                "checkpoint",
                "split",
                "num_images",
                "calibration",
                "id",
                "num_correct",
                "macs",
                "params",
                "size_bytes",
                "peak_activation_bytes",
                "code",
            ],
        ),
        Index("ix_evaluations_uncoded", "supernet_id", "recorded_in", postgresql_where=text("code IS NULL")),
    )


class DeviceRow(Base):
    """A machine and the way that networks run on it. Its id is the name that people gave it."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    runtime: Mapped[str]
    threads: Mapped[int]
    batch: Mapped[int]
    dtype: Mapped[str]
    notes: Mapped[str]
    created_at: Mapped[Moment]

    __table_args__ = (_one_of("dtype", DType), Index(None, "created_at", "id"))


class LatencyTableRow(Base):
    """A table that was given for a device. The newest counts; older ones stay for what was asked by them."""

    __tablename__ = "latency_tables"

    id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    # As JSON lines; up to thousands of blocks, which a list of devices has no use for.
    content: Mapped[str] = mapped_column(deferred=True)
    fills_gaps: Mapped[bool]
    """Blocks that it lacks are estimated from those it has, where they lie between them."""
    num_blocks: Mapped[int]
    base_ms: Mapped[float]
    tools: Mapped[dict[str, str]]
    warnings: Mapped[list[str]]
    created_at: Mapped[Moment]

    __table_args__ = (Index(None, "device_id", "created_at", "id"),)


class MeasurementsRow(ResourceRow):
    """What a probe measured of one space's networks. Columns of the model are null until there is one."""

    __tablename__ = "measurements"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    search_space: Mapped[str]
    num_classes: Mapped[int]
    in_channels: Mapped[int]
    content: Mapped[str] = mapped_column(deferred=True)
    """As the probe wrote it."""
    num_networks: Mapped[int]
    num_blocks: Mapped[int]
    repeatability: Mapped[dict[str, Any]]
    """Of the probe's own figures, in a second pass, and as `second_pass` how far that is from the first on
    whole networks; empty where nothing was measured twice. Shown, never queried."""
    sentinel_key: Mapped[str | None]
    """Of the network by which the speeds of two sittings compare; NULL in files of probes of before."""
    sentinel_ms: Mapped[float | None]
    model: Mapped[str | None] = mapped_column(deferred=True)
    """As text: JSON that the database has read need not have the same bits."""
    form: Mapped[dict[str, Any] | None]
    """Which of the forms cross-validation chose; shown, never queried."""
    num_judged: Mapped[int | None]
    """Networks that had no part in the fit: what the model's accuracy is of."""
    mape: Mapped[float | None]
    hit_rate: Mapped[float | None]
    spearman: Mapped[float | None]
    table_accuracy: Mapped[dict[str, Any] | None]
    """Of the blocks' plain sum, on all the networks; shown, never queried."""

    __table_args__ = (
        Index(None, "created_at", "id"),
        # For the newest model of a device and a space.
        Index(
            "ix_measurements_models",
            "device_id",
            "search_space",
            "num_classes",
            "in_channels",
            "created_at",
            "id",
        ),
    )


class MeasuredNetworkRow(Base):
    """A whole network whose time on the device is among the measurements."""

    __tablename__ = "measured_networks"

    measurements_id: Mapped[str] = mapped_column(ForeignKey("measurements.id"), primary_key=True)
    architecture_key: Mapped[str] = mapped_column(primary_key=True)
    p50_ms: Mapped[float]
    again_ms: Mapped[float | None]
    """In the probe's second pass; null where it was not in it."""

    __table_args__ = (Index(None, "architecture_key"),)


class WorkFileRow(ResourceRow):
    """What a probe is to measure: a space's blocks and some networks. Its bytes lie in the artefact store."""

    __tablename__ = "work_files"

    search_space: Mapped[str]
    num_classes: Mapped[int]
    in_channels: Mapped[int]
    batch: Mapped[int]
    num_networks: Mapped[int]
    max_blocks: Mapped[int]
    seed: Mapped[BigInt]
    architectures: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    """Networks that were asked for by name, beside those drawn."""
    num_blocks: Mapped[int | None]
    """That are in it; null until it is made, like all that follow."""
    num_blocks_of_space: Mapped[int | None]
    uri: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]

    __table_args__ = (Index(None, "created_at", "id"),)


class SearchRow(ResourceRow):
    """A question put to a supernet: objectives, constraints, and how many trials to spend.

    One that extends another begins with those trials of the other that keep its constraints; they are not
    among the `num_trials`.
    """

    __tablename__ = "searches"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), index=True)
    constraints: Mapped[dict[str, Any]]
    objectives: Mapped[list[str]]
    num_trials: Mapped[int]
    proposer: Mapped[str]
    seed: Mapped[BigInt]
    extends: Mapped[str | None] = mapped_column(ForeignKey("searches.id"), index=True)
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id"), index=True)
    latency_table_id: Mapped[str | None] = mapped_column(ForeignKey("latency_tables.id"), index=True)
    measurements_id: Mapped[str | None] = mapped_column(ForeignKey("measurements.id"), index=True)
    """What predicts `latency_ms` for it, to its end: one of these where there is a device."""
    known_evaluation_ids: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    """The evaluations known at the start, frozen: a resumed search must see the very same."""
    prefilter: Mapped[str] = mapped_column(server_default=text("'none'"))
    prefilter_seeds: Mapped[list[dict[str, Any]] | None]
    """The networks that it chose for the first round, as first found: a resumed search tries the same."""
    prefilter_report: Mapped[dict[str, Any] | None]
    """What it came to after the first round, first written wins; shown, never queried."""
    flat_rounds: Mapped[int | None]
    """It ends when so many rounds together gained next to no hypervolume; null spends the trials."""
    stop_reason: Mapped[str | None]
    """Null until its job has succeeded."""

    __table_args__ = (
        Index(None, "created_at", "id"),
        _one_of("prefilter", PrefilterName),
        _one_of("stop_reason", StopReason),
        _latency_source(),
    )


class SearchRoundRow(Base):
    """Where a search stood after a round, and how well it had predicted what it chose until then."""

    __tablename__ = "search_rounds"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    num_trials: Mapped[int]
    """Up to and with this round."""
    num_measured: Mapped[int]
    """Of those, the ones that nothing had measured before the search."""
    hypervolume: Mapped[float]
    reference: Mapped[list[float]]
    """The worst of round 0, an objective each in the search's order, as measured: accuracy is not turned."""
    num_forecasts: Mapped[int]
    """Networks chosen whose accuracy was predicted with an interval."""
    coverage: Mapped[float | None]
    num_ranked: Mapped[int]
    within_bin_tau: Mapped[float | None]
    created_at: Mapped[Moment]


class TrialRow(Base):
    """Which evaluation was the search's n-th, why, what was predicted, and whether it was there before."""

    __tablename__ = "trials"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    evaluation_id: Mapped[BigInt] = mapped_column(ForeignKey("evaluations.id"), index=True)
    round: Mapped[int]
    is_reused: Mapped[bool]
    origin: Mapped[str | None]
    """Null in searches of releases that did not keep it."""
    predicted_accuracy: Mapped[float | None]
    """Before the search knew the measurement; null where nothing was predicted."""
    predicted_low: Mapped[float | None]
    """The 90 % interval's; null where too few networks were measured to say."""
    predicted_high: Mapped[float | None]
    predicted_from: Mapped[int | None]
    """How many trials of the search came before it; what was known before the search is not counted."""
    created_at: Mapped[Moment]

    __table_args__ = (
        _one_of("origin", Origin),
        CheckConstraint("num_nulls(predicted_accuracy, predicted_from) IN (0, 2)", name="predicted"),
        CheckConstraint(
            "num_nulls(predicted_low, predicted_high) IN (0, 2)"
            " AND (predicted_low IS NULL OR predicted_accuracy IS NOT NULL)",
            name="predicted_interval",
        ),
    )


class EvaluationBatchRow(ResourceRow):
    """Networks chosen outside, to be measured with a supernet's weights."""

    __tablename__ = "evaluation_batches"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), index=True)
    constraints: Mapped[dict[str, Any]]
    num_architectures: Mapped[int]
    device_id: Mapped[str | None] = mapped_column(ForeignKey("devices.id"), index=True)
    latency_table_id: Mapped[str | None] = mapped_column(ForeignKey("latency_tables.id"), index=True)
    measurements_id: Mapped[str | None] = mapped_column(ForeignKey("measurements.id"), index=True)
    """What predicts `latency_ms` for it, to its end: one of these where there is a device."""

    __table_args__ = (Index(None, "created_at", "id"), _latency_source())


class EvaluationItemRow(Base):
    """One network of a batch, where it was given. Several may be one network, and share its evaluation."""

    __tablename__ = "evaluation_items"

    batch_id: Mapped[str] = mapped_column(ForeignKey("evaluation_batches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    architecture_key: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    macs: Mapped[BigInt]
    params: Mapped[BigInt]
    size_bytes: Mapped[BigInt]
    peak_activation_bytes: Mapped[BigInt]
    latency_ms: Mapped[float | None]
    """Predicted, where the batch has a device."""
    is_infeasible: Mapped[bool]
    """It breaks a constraint of the batch, so it is never measured for it."""
    evaluation_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )
    is_reused: Mapped[bool] = mapped_column(server_default=text("false"))
    """Something else had measured the network."""

    __table_args__ = (
        CheckConstraint("evaluation_id IS NULL OR NOT is_infeasible", name="infeasible"),
        CheckConstraint("evaluation_id IS NOT NULL OR NOT is_reused", name="reused"),
    )


class VerificationRow(ResourceRow):
    """Chosen networks, measured to the end and, where asked, trained on their own."""

    __tablename__ = "verifications"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), index=True)
    seed: Mapped[BigInt]

    __table_args__ = (Index(None, "created_at", "id"),)


class VerifiedNetworkRow(Base):
    """One network of a verification, and what it does with the weights that it inherits."""

    __tablename__ = "verified_networks"

    verification_id: Mapped[str] = mapped_column(ForeignKey("verifications.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    trial_number: Mapped[int | None]
    """Of the search that it was chosen from."""
    architecture_key: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    macs: Mapped[BigInt]
    params: Mapped[BigInt]
    size_bytes: Mapped[BigInt]
    peak_activation_bytes: Mapped[BigInt]
    evaluation_val_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )
    evaluation_test_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )

    __table_args__ = (UniqueConstraint("verification_id", "architecture_key"),)


class VerificationRunRow(Base):
    """One training of one network at one learning rate. Its evaluations are of its own weights."""

    __tablename__ = "verification_runs"

    verification_id: Mapped[str] = mapped_column(ForeignKey("verifications.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    network_number: Mapped[int]
    training: Mapped[str]
    learning_rate: Mapped[float]
    rate_factor: Mapped[float] = mapped_column(server_default=text("1"))
    """On that in the end: below 1 where the training diverged and was rolled back."""
    epochs: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=RunState.DUE.value)
    error: Mapped[str | None]
    weights_uri: Mapped[str | None]
    """Null again where another rate was chosen."""
    evaluation_val_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )
    evaluation_test_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )
    """Of the rate that was chosen on val, and of no other."""
    is_chosen: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        ForeignKeyConstraint(
            ["verification_id", "network_number"],
            ["verified_networks.verification_id", "verified_networks.number"],
            name="fk_verification_runs_network_number_verified_networks",
        ),
        _one_of("training", Training),
        _one_of("state", RunState),
        CheckConstraint("(evaluation_val_id IS NOT NULL) = (state = 'measured')", name="measured"),
        CheckConstraint("evaluation_test_id IS NULL OR is_chosen", name="test"),
    )


class SubnetRow(ResourceRow):
    """A network taken out of a supernet. It has evaluations and a date once its bundle is published."""

    __tablename__ = "subnets"

    supernet_id: Mapped[str] = mapped_column(ForeignKey("supernets.id"), index=True)
    architecture_key: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    macs: Mapped[BigInt]
    params: Mapped[BigInt]
    size_bytes: Mapped[BigInt]
    peak_activation_bytes: Mapped[BigInt]
    evaluation_val_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )
    evaluation_test_id: Mapped[int | None] = mapped_column(
        ForeignKey("evaluations.id"), type_=BigInteger, index=True
    )
    published_at: Mapped[datetime | None]
    verification_id: Mapped[str | None] = mapped_column(
        ForeignKey("verifications.id", ondelete="SET NULL"), index=True
    )
    """Whose training gave the weights, until that is deleted; null where they are inherited."""
    run_number: Mapped[int | None]
    """The training's, in the verification."""
    own_training: Mapped[dict[str, Any] | None]
    """What that was, whether or not the verification is still there; null where weights are inherited."""

    __table_args__ = (
        Index(None, "created_at", "id"),
        CheckConstraint("(run_number IS NULL) = (own_training IS NULL)", name="own_training"),
    )


class ArtifactRow(Base):
    """One file of a bundle. Its bytes lie in the artefact store."""

    __tablename__ = "artifacts"

    subnet_id: Mapped[str] = mapped_column(ForeignKey("subnets.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[BigInt]
    sha256: Mapped[str]
    media_type: Mapped[str]
    uri: Mapped[str]


class DiscardedFolderRow(Base):
    """A folder of the artefact store that no row wants any more, or that none may come to want."""

    __tablename__ = "discarded_folders"

    key: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime] = mapped_column(index=True)
    """When it may be removed: at once, or when an upload that has not ended by then is given up."""


class IdempotencyKeyRow(Base):
    """A creating request already seen, and its answer once there is one."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_digest: Mapped[str]
    status: Mapped[int | None]
    response: Mapped[dict[str, Any] | None]
    headers: Mapped[dict[str, str] | None]
    created_at: Mapped[Moment] = mapped_column(index=True)
