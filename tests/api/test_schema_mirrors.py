"""The API may not import what trains, so its schemas repeat those limits; here the two are held equal."""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

import pytest
from pydantic import ValidationError

from api.schemas.dataset_report import DatasetReport
from api.schemas.datasets import SOURCE_MODELS, BundledSource, DatasetCreate, Split
from nas.errors import DatasetError

sources = pytest.importorskip("supernet.data.sources")
splits = pytest.importorskip("supernet.data.splits")
intake = pytest.importorskip("supernet.data.intake")


def accepts(make, refusal: type[Exception]) -> bool:
    try:
        make()
    except refusal:
        return False
    return True


def test_sources_have_the_same_fields():
    ours = {get_args(model.model_fields["kind"].annotation)[0]: model for model in SOURCE_MODELS}
    assert list(ours) == list(sources.SourceKind)
    for kind, model in ours.items():
        assert set(model.model_fields) == {"kind", *sources.FIELDS[kind], *sources.STORAGE}
    named = {name for model in SOURCE_MODELS for name in model.model_fields}
    assert named == set(sources.DataSource.__dataclass_fields__)
    assert get_args(BundledSource.model_fields["name"].annotation) == sources.BUNDLED_NAMES


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "bundled", "name": "digits"},
        {"kind": "parquet", "path": "/data"},
        {"kind": "parquet", "train": "/a", "val": "/c", "test": "/b", "label_column": "fine_label"},
        {"kind": "folder", "path": "/a", "skip_unreadable": True},
        {"kind": "npz", "path": "/a.npz", "stored_size": [32, 48]},
        {"kind": "huggingface", "path": "/a", "image_column": "img"},
        {"kind": "archive", "path": "/a.zip", "fit": "centre_crop"},
        {"kind": "archive", "upload_id": "up_abc123"},
    ],
)
def test_a_source_reaches_the_worker_as_it_was_given(source):
    sent = DatasetCreate(source=source).spec()["source"]
    assert sources.DataSource.from_json(sent) == sources.DataSource.from_json(source)


def test_the_examples_of_every_source_are_sources():
    for model in SOURCE_MODELS:
        for example in model.model_config["json_schema_extra"]["examples"]:
            assert sources.DataSource.from_json(DatasetCreate(source=example).spec()["source"])


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "folder"},
        {"kind": "folder", "path": ""},
        {"kind": "folder", "path": "/a", "train": "/b"},
        {"kind": "npz", "path": "/a", "image_column": "x"},
        {"kind": "npz", "path": 3},
        {"kind": "huggingface", "path": "/a", "name": "digits"},
        {"kind": "huggingface", "path": "/a", "image_column": ""},
        {"kind": "archive"},
        {"kind": "archive", "path": "/a", "upload_id": "up_1"},
        {"kind": "archive", "upload_id": 3},
        {"kind": "archive", "path": "/a", "skip_unreadable": "true"},
        {"kind": "parquet", "path": "/a", "val": "/b"},
        {"kind": "parquet", "val": "/b"},
        {"kind": "bundled", "name": "digits", "path": "/a"},
        {"kind": "Folder", "path": "/a"},
        {"kind": None, "path": "/a"},
    ],
)
def test_what_is_no_source_is_refused_on_both_sides(source):
    assert not accepts(lambda: DatasetCreate(source=source), ValidationError)
    assert not accepts(lambda: sources.DataSource.from_json(source), DatasetError)


@pytest.mark.parametrize("stops_at", ["survey", "decode", "split"])
def test_a_report_is_shown_as_it_was_written(tmp_path, stops_at):
    left = {"survey": [None] * 1797, "decode": [None] * 3000, "split": [None] * 9999}[stops_at]
    source = sources.DataSource.from_json({"kind": "bundled", "name": "digits"})
    # Out of calls, `pop` raises, as a stop check does.
    taken = intake.Intake.of(source, tmp_path, left.pop)
    with suppress(IndexError):
        taken.split(splits.SplitPlan())
    assert (len(left) > 0) == (stops_at == "split")
    report = taken.report()
    assert DatasetReport(**report).model_dump() == report


def test_splits_have_the_same_fields_and_defaults():
    assert Split().model_dump() == splits.SplitPlan().to_json()
    assert splits.SplitPlan.from_json(Split(seed=3, val_fraction=0.5).model_dump()).seed == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"test_fraction": 0.0},
        {"test_fraction": 0.51},
        {"val_fraction": 0.5},
        {"val_images_wanted": -1},
        {"val_images_wanted": 0},
        {"calibration_images": 0},
        {"seed": -1},
    ],
)
def test_splits_have_the_same_limits(fields):
    ours = accepts(lambda: Split(**fields), ValidationError)
    assert ours == accepts(lambda: splits.SplitPlan.from_json(fields), DatasetError)
