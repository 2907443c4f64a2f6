"""Devices, their latency tables, what was measured on them and the models fitted to it, and work files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from api.schemas.common import AnswerModel, CreateRequest, JobResource, RequestModel, Seed, job_shape
from nas.devices.basis import Basis
from nas.devices.device import Device, DType
from nas.devices.measurements import FIT_FROM
from nas.store import work_files
from nas.store.measurements import SECOND_PASS
from nas.store.resources import WithJob
from nas.store.tables import DeviceRow, LatencyTableRow, MeasurementsRow, WorkFileRow

PROBE = "probe.py"
"""No device can be called so: in paths, the probe is."""
MIN_NETWORKS = FIT_FROM
DEFAULT_NETWORKS = 60
DEFAULT_BLOCKS = 500
MAX_GIVEN = 200
"""Networks of a work file that are asked for by name."""
MAX_NETWORKS = 2000
MAX_GAPS = 5000
DEVICE_NAME = r"^[a-z0-9][a-z0-9_.\-]{0,63}$"

DeviceName = Annotated[str, StringConstraints(pattern=DEVICE_NAME)]


class DeviceCreate(RequestModel):
    """A machine and the way that networks run on it: latencies compare only where all of it agrees."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "raspberry_pi_5", "runtime": "onnxruntime", "threads": 4, "notes": "8 GB, fan"}
            ]
        }
    )

    name: DeviceName = Field(description="By which it is asked for from now on.")
    runtime: DeviceName = Field(
        default="onnxruntime", description="What runs the networks, such as onnxruntime, the probe's."
    )
    threads: int = Field(default=1, ge=1, le=1024, description="That share one network.")
    batch: int = Field(
        default=1, ge=1, le=65_536, description="Images run together; `latency_ms` is of the whole batch."
    )
    # By its plain values: JSON has no enumerations.
    dtype: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    notes: Annotated[str, StringConstraints(max_length=2000)] = Field(default="", description="For people.")

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str) -> str:
        if name == PROBE:
            raise ValueError(f"{PROBE} is the probe's own path; choose another name")
        return name

    def device(self) -> Device:
        """As the domain knows it."""
        return Device(**self.model_dump(exclude={"notes"}))


class LatencyAccuracy(AnswerModel):
    """How far times are from those that were measured: predictions, or a second pass of measuring."""

    num_networks: int = Field(description="That it is judged by. A model was not fitted to them.")
    mape: float = Field(description="Mean of |time - measured| / measured, as a fraction.")
    hit_rate: float = Field(description="The part of them that is within 10 %.")
    spearman: float | None = Field(description="Rank correlation; null where all times are the same.")


class LatencyTable(AnswerModel):
    """A latency table that was given for a device; its lines are at `content`."""

    id: str
    num_blocks: int
    base_ms: float
    tools: dict[str, str]
    fills_gaps: bool = Field(description="Blocks that it lacks are estimated, where it has some around them.")
    warnings: list[str] = Field(
        description="Times that look like another unit; larger blocks that are said to take clearly less "
        "than smaller."
    )
    created_at: datetime
    links: dict[str, str]


class LatencyTableGaps(AnswerModel):
    """What a latency table lacks for a space."""

    search_space: str
    num_classes: int
    in_channels: int
    num_blocks: int = Field(description="That the space's networks are made of.")
    num_missing: int = Field(description="Of them, those that it lacks; 0 where it serves the space.")
    missing: list[dict[str, Any]] = Field(
        description=f"The first {MAX_GAPS} of them, as lines of a table: each then takes its `p50_ms`."
    )


class LatencyModelForm(AnswerModel):
    """What cross-validation chose."""

    basis: Basis = Field(description="What is added up over a network's blocks.")
    residual: Literal["interactions", "trees"] | None = Field(
        description="What the sum is multiplied by: a factor of each network's own, or nothing."
    )
    is_additive: bool = Field(description="Whether proofs about bounds are exact; else a floor proves some.")
    num_interpolated_blocks: int = Field(description="Whose time in the table is an estimate.")


SecondPass = Annotated[
    LatencyAccuracy | None,
    Field(
        description="How far a second pass over the same networks in the same sitting is from the first: a "
        "model that is no further off is as good as measuring once more. Null where fewer than two networks "
        "were measured twice, and for what earlier releases took."
    ),
]


class LatencyModel(AnswerModel):
    """The model that predicts for one space's networks on a device."""

    measurements_id: str = Field(description="What it was fitted to.")
    search_space: str
    num_classes: int
    in_channels: int
    form: LatencyModelForm
    accuracy: LatencyAccuracy
    second_pass: SecondPass
    created_at: datetime
    links: dict[str, str]


class DeviceAnswer(AnswerModel):
    """A machine, the way that networks run on it, and what predicts latencies there."""

    name: str
    runtime: str
    threads: int
    batch: int
    dtype: DType
    notes: str
    created_at: datetime
    models: list[LatencyModel] = Field(description="Of each space the newest: what predicts for it.")
    latency_table: LatencyTable | None = Field(
        description="What was given; it predicts where there is no model."
    )
    links: dict[str, str]


class Repeatability(AnswerModel):
    """How the figures repeat, by a second pass in the same sitting; a probe's are of some blocks too."""

    agreeing: float = Field(description="The part of them that came within 10 % of the first pass.")
    median_apart: float = Field(description="As a fraction.")
    num_models: int


class MeasurementsIdentity(RequestModel):
    """What makes two requests the same: the device, and every byte."""

    device: str
    display_name: str
    sha256: str


class Measurements(JobResource):
    """What a probe measured on a device. Its job fits a model, which counts from then on."""

    device: str
    search_space: str
    num_classes: int
    in_channels: int
    num_networks: int
    num_blocks: int
    repeatability: Repeatability | None = Field(description="Null where nothing was measured twice.")
    form: LatencyModelForm | None = Field(
        description="Of the model; null until it is fitted, and where too few networks were measured for one."
    )
    accuracy: LatencyAccuracy | None = Field(description="Likewise.")
    second_pass: SecondPass
    table_accuracy: LatencyAccuracy | None = Field(
        description="Of the blocks' plain sum, for comparison; null where blocks are missing."
    )


class WorkFileCreate(CreateRequest):
    """What a probe is to measure."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"search_space": "micro_8", "num_classes": 10, "in_channels": 1}],
        }
    )

    search_space: str = Field(max_length=200)
    num_classes: int | None = Field(
        default=None, ge=1, le=1_000_000, description="The data set's; the space's own by default."
    )
    in_channels: int | None = Field(
        default=None, ge=1, le=1024, description="The data set's; the space's own by default."
    )
    batch: int = Field(default=1, ge=1, le=1024, description="The device's: images run together.")
    architectures: list[dict[str, Any] | str] = Field(
        default=[],
        max_length=MAX_GIVEN,
        description="Networks to be measured by name, such as those on a frontier. With none but them no "
        "model is fitted: what they took is shown wherever their latency on the device is.",
    )
    num_networks: int | None = Field(
        default=None,
        ge=0,
        le=500,
        description="Whole networks drawn from the smallest to the largest, to fit a model to: "
        f"{MIN_NETWORKS} or more, or 0 where `architectures` are given. By default 60, or 0 with "
        "`architectures`.",
    )
    max_blocks: int | None = Field(
        default=None,
        ge=0,
        le=20_000,
        description="Of the space's fused blocks; drawn where it has more. By default 500, or 0 where no "
        "networks are drawn.",
    )
    seed: Seed = 0

    @field_validator("num_networks")
    @classmethod
    def _is_enough(cls, num_networks: int | None, info: ValidationInfo) -> int | None:
        if num_networks == 0 and not info.data.get("architectures"):
            raise ValueError(
                "0 networks and no architectures leave nothing to measure; give one or the other"
            )
        if num_networks and num_networks < MIN_NETWORKS:
            raise ValueError(
                f"{num_networks} networks are too few to fit a model to and to judge it by; draw "
                f"{MIN_NETWORKS} or more, or 0 with architectures"
            )
        return num_networks

    @property
    def num_drawn(self) -> int:
        """Networks to draw."""
        if self.num_networks is not None:
            return self.num_networks
        return 0 if self.architectures else DEFAULT_NETWORKS

    @property
    def most_blocks(self) -> int:
        """Blocks to draw."""
        if self.max_blocks is not None:
            return self.max_blocks
        return DEFAULT_BLOCKS if self.num_drawn else 0

    def spec(self) -> dict[str, Any]:
        """Networks by name are many, and shown by the work file itself."""
        return {name: value for name, value in super().spec().items() if name != "architectures"}


class WorkFile(JobResource):
    """A file that tells a probe what to measure."""

    search_space: str
    num_classes: int
    in_channels: int
    batch: int
    num_networks: int = Field(description="Drawn.")
    architectures: list[dict[str, Any]] = Field(description="Asked for by name.")
    num_blocks: int | None = Field(description="In it; null until it is made.")
    num_blocks_of_space: int | None = Field(description="That the space's networks are made of.")
    size_bytes: int | None
    sha256: str | None


def describe_device(
    row: DeviceRow, models: Sequence[MeasurementsRow], table: LatencyTableRow | None
) -> DeviceAnswer:
    """The device as answers show it."""
    self_link = f"/v1/devices/{row.id}"
    links = {
        "self": self_link,
        "measurements": f"/v1/measurements?device={row.id}",
        "probe": f"/v1/devices/{PROBE}",
    }
    return DeviceAnswer(
        name=row.id,
        runtime=row.runtime,
        threads=row.threads,
        batch=row.batch,
        dtype=DType(row.dtype),
        notes=row.notes,
        created_at=row.created_at,
        models=[_describe_model(model) for model in models],
        latency_table=None if table is None else describe_table(table),
        links=links,
    )


def describe_table(row: LatencyTableRow) -> LatencyTable:
    """The table as answers show it."""
    device = f"/v1/devices/{row.device_id}"
    return LatencyTable(
        id=row.id,
        num_blocks=row.num_blocks,
        base_ms=row.base_ms,
        tools=row.tools,
        fills_gaps=row.fills_gaps,
        warnings=row.warnings,
        created_at=row.created_at,
        links={"self": f"{device}/latency-table", "device": device},
    )


def describe_measurements(found: WithJob[MeasurementsRow]) -> Measurements:
    """The measurements as answers show them."""
    row = found.row
    shape = job_shape(found, "measurements")
    shape["links"]["device"] = f"/v1/devices/{row.device_id}"
    return Measurements(
        **shape,
        device=row.device_id,
        search_space=row.search_space,
        num_classes=row.num_classes,
        in_channels=row.in_channels,
        num_networks=row.num_networks,
        num_blocks=row.num_blocks,
        repeatability=_repeatability(row),
        form=None if row.form is None else LatencyModelForm(**row.form),
        accuracy=_accuracy(row),
        second_pass=_second_pass(row),
        table_accuracy=None if row.table_accuracy is None else LatencyAccuracy(**row.table_accuracy),
    )


def describe_work_file(found: WithJob[WorkFileRow]) -> WorkFile:
    """The work file as answers show it."""
    row = found.row
    made = work_files.artifact(row)
    shape: dict[str, Any] = job_shape(found, "work-files")
    if made is not None:
        shape["links"]["content"] = f"{shape['links']['self']}/content"
    return WorkFile(
        **shape,
        search_space=row.search_space,
        num_classes=row.num_classes,
        in_channels=row.in_channels,
        batch=row.batch,
        num_networks=row.num_networks,
        architectures=row.architectures,
        num_blocks=row.num_blocks,
        num_blocks_of_space=row.num_blocks_of_space,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )


def _describe_model(row: MeasurementsRow) -> LatencyModel:
    accuracy = _accuracy(row)
    assert accuracy is not None and row.form is not None  # it has a model
    return LatencyModel(
        measurements_id=row.id,
        search_space=row.search_space,
        num_classes=row.num_classes,
        in_channels=row.in_channels,
        form=LatencyModelForm(**row.form),
        accuracy=accuracy,
        second_pass=_second_pass(row),
        created_at=row.created_at,
        links={"measurements": f"/v1/measurements/{row.id}"},
    )


def _repeatability(row: MeasurementsRow) -> Repeatability | None:
    told = {name: row.repeatability[name] for name in Repeatability.model_fields if name in row.repeatability}
    return Repeatability(**told) if told else None


def _second_pass(row: MeasurementsRow) -> LatencyAccuracy | None:
    told = row.repeatability.get(SECOND_PASS)
    return None if told is None else LatencyAccuracy(**told)


def _accuracy(row: MeasurementsRow) -> LatencyAccuracy | None:
    if row.num_judged is None or row.mape is None or row.hit_rate is None:
        return None
    return LatencyAccuracy(
        num_networks=row.num_judged, mape=row.mape, hit_rate=row.hit_rate, spearman=row.spearman
    )
