"""The API may not import what trains, so its schemas repeat those limits; here the two are held equal."""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

import pytest
from pydantic import ValidationError

from api.schemas.dataset_report import DatasetReport
from api.schemas.datasets import BundledSource, ParquetSource, Split
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
    ours = {*BundledSource.model_fields, *ParquetSource.model_fields}
    assert ours == set(sources.DataSource.__dataclass_fields__)
    assert get_args(BundledSource.model_fields["name"].annotation) == sources.BUNDLED_NAMES


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "bundled", "name": "digits"},
        {"kind": "parquet", "path": "/data"},
        {"kind": "parquet", "train": "/a", "test": "/b", "label_column": "fine_label"},
    ],
)
def test_a_source_reaches_the_worker_as_it_was_given(source):
    model = BundledSource if source["kind"] == "bundled" else ParquetSource
    sent = model(**source).model_dump(exclude_none=True)
    assert sources.DataSource.from_json(sent) == sources.DataSource.from_json(source)


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
