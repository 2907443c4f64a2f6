"""Work files and fits, by a real worker."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO

import pytest

from nas.devices import boosting
from nas.devices.measurements import read_measurements
from nas.job import JobState
from nas.store import devices, latency, measurements, work_files
from nas.store.work_files import WorkPlan
from tests.devices.lines import HOST, NETWORKS, probe_lines, table_of
from tests.workers.conftest import SPACE

NAMED = {"display_name": "", "labels": {}, "spec": {}}


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """Hundreds of them take a quarter of a minute and more, and are not what is tested here."""
    monkeypatch.setattr(boosting, "NUM_TREES", 3)


@pytest.fixture
def host(site):
    with site.database.begin() as session:
        return devices.create(session, HOST, notes="").id


def add_measurements(site, lines):
    with site.database.begin() as session:
        measured = read_measurements(lines, SPACE)
        return measurements.create(session, measured=measured, content="\n".join(lines), **NAMED)


def made_work(site, plan):
    """The row of a work file once a worker has made it, and what its zip says of itself."""
    with site.database.begin() as session:
        made = work_files.create(session, plan, **NAMED)
    site.work([made.job.id])
    with site.database.session() as session:
        found = work_files.get(session, made.row.id)
    assert found.job.state is JobState.SUCCEEDED, found.job.error
    artifact = work_files.artifact(found.row)
    content = b"".join(site.artifacts.open_checked(artifact.uri, artifact.sha256, remedy=""))
    with zipfile.ZipFile(BytesIO(content)) as archive:
        work = json.loads(archive.read("work.json"))
    return found.row, work


def test_a_work_file_holds_what_its_plan_says(site):
    plan = WorkPlan(
        search_space=SPACE.name,
        num_classes=10,
        in_channels=1,
        batch=2,
        num_networks=30,
        max_blocks=5,
        seed=0,
    )
    row, work = made_work(site, plan)
    assert (row.num_blocks, row.num_blocks_of_space) == (5, len(NETWORKS.distinct()))
    assert (work["space"], work["num_classes"], work["in_channels"], work["batch"]) == (SPACE.name, 10, 1, 2)
    kinds = [item["kind"] for item in work["items"]]
    assert (kinds.count("network"), kinds.count("block")) == (30, 5)


def test_a_fit_predicts_and_tells_its_errors(site, host):
    lines = probe_lines(count=40)
    found = add_measurements(site, lines)
    site.work([found.job.id])
    with site.database.session() as session:
        found = measurements.get(session, found.row.id)
        source = latency.current_source(session, host, NETWORKS)
        model = latency.read_model(session, source, NETWORKS)
    assert found.job.state is JobState.SUCCEEDED, found.job.error
    assert source.measurements_id == found.row.id
    assert (found.row.num_judged, found.row.mape < 0.03, found.row.hit_rate) == (12, True, 1.0)
    assert found.row.table_accuracy["mape"] > 0.1
    measured = read_measurements(lines, SPACE).networks
    predicted = model.predict_ms(measured.networks, measured.codes)
    assert predicted == pytest.approx(measured.latency_ms, rel=0.06)


def test_networks_by_name_are_in_the_file_and_their_times_kept_without_a_model(site, host):
    named = SPACE.canonical(SPACE.largest())
    plan = WorkPlan(
        search_space=SPACE.name,
        num_classes=10,
        in_channels=1,
        batch=1,
        num_networks=0,
        max_blocks=0,
        seed=0,
        architectures=[named.to_json()],
    )
    _, work = made_work(site, plan)
    networks = [item["describes"]["architecture"] for item in work["items"] if item["kind"] == "network"]
    assert networks == [named.to_json()]
    few = add_measurements(site, probe_lines(count=3, with_blocks=False))
    # A frontier, however long, is no sample of its space.
    frontier = add_measurements(site, probe_lines(count=40, with_blocks=False, asked_for=True))
    site.work([few.job.id, frontier.job.id])
    with site.database.session() as session:
        for measured in (few, frontier):
            found = measurements.get(session, measured.row.id)
            assert found.job.state is JobState.SUCCEEDED, found.job.error
            assert found.row.num_judged is None
        assert measurements.models(session, [host]) == []


def test_a_model_is_fitted_to_the_networks_that_were_drawn_alone(site, host):
    drawn, asked_for = (probe_lines(count=number, asked_for=asked) for number, asked in ((31, 0), (40, 1)))
    head, *rows = drawn
    known = [json.loads(row).get("architecture") for row in rows]
    named = [row for row in map(json.loads, asked_for) if "asked_for" in row]
    # Times of no law: a model of them would be another.
    others = [
        json.dumps({**row, "p50_ms": 1.0 + number % 7})
        for number, row in enumerate(named)
        if row["architecture"] not in known
    ]
    assert others
    mixed, alone = (add_measurements(site, [head, *rows, *more]) for more in (others, []))
    site.work([mixed.job.id, alone.job.id])
    with site.database.session() as session:
        models = [measurements.with_model(session, found.row.id).model for found in (mixed, alone)]
    assert models[0] is not None and models[0] == models[1]


def test_too_few_networks_fail_the_job_with_a_sentence(site, host):
    """The service refuses them; a worker does not crash by them."""
    found = add_measurements(site, probe_lines(count=21))
    site.work([found.job.id])
    job = site.queue.get(found.job.id)
    assert job.state is JobState.FAILED and "too few to fit" in job.error


def test_gaps_in_a_probes_blocks_are_filled_or_the_fit_does_without_a_table(site, host):
    lines = probe_lines(count=40)
    blocks = [line for line in lines if json.loads(line).get("kind") == "block"]
    inner = [b for b in blocks if json.loads(b)["op"] == "pointwise" and 16 < json.loads(b)["cout"] < 64]
    few = add_measurements(site, [line for line in lines if line != inner[0]])
    none = add_measurements(site, [line for line in lines if line not in blocks[:-1]])
    site.work([few.job.id, none.job.id])
    with site.database.session() as session:
        filled = measurements.get(session, few.row.id).row
        without = measurements.get(session, none.row.id).row
        source = latency.LatencySource(device_id=host, measurements_id=filled.id)
        model = latency.read_model(session, source, NETWORKS)
    assert filled.form["num_interpolated_blocks"] == len(model.interpolated) == (model.table is not None)
    assert (without.form["basis"], without.table_accuracy) == ("work", None)
    assert table_of().rows.keys() >= {*model.interpolated}
