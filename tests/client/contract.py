"""What both clients do, written for the asynchronous one; the tests derive the blocking spelling of it.

Each function is a law. `client` is connected to the real service, `worker` plays the workers' part.
"""

from __future__ import annotations

from contextlib import aclosing

import pytest

from nas.client import (
    InfeasibleConstraintsError,
    JobCancelledError,
    JobFailedError,
    NotMeasuredError,
    NotReadyError,
    RequestRefusedError,
    ResourceNotFoundError,
    StateConflictError,
    UnsendableRequestError,
    WaitTimeoutError,
)
from nas.job import JobKind
from tests.api.worker import ladder
from tests.devices.lines import probe_lines, probe_lines_of, table_of, text_of

DIGITS = {"kind": "bundled", "name": "digits"}
FILES = {"model.py": b"print('model')\n", "model.safetensors": bytes(range(256)) * 20_000}


async def trained(client, worker):
    dataset = await client.datasets.create(DIGITS, display_name="digits")
    supernet = await client.supernets.create(dataset.id, "micro_8", recipe={"epochs": 3})
    worker.import_dataset()
    worker.train()
    return await supernet.wait(timeout=60)


async def the_whole_path_ends_in_files(client, worker, folder):
    supernet = await trained(client, worker)
    assert [point["train_loss"] for point in await supernet.curves()] == [2.0]
    assert [epoch["epoch"] for epoch in (await supernet.probes())["epochs"]] == [1]
    assert (await client.supernets.probes(supernet.id))["networks"][0]["role"] == "largest"
    search = await client.searches.create(supernet.id, 5, constraints={"max_macs": "100%"})
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    search = await search.wait(timeout=60)
    assert [trial["number"] async for trial in search.trials()] == [0, 1, 2, 3, 4]
    assert search.stop_reason == "budget_spent"
    assert [found["num_trials"] async for found in client.searches.rounds(search.id)] == [3, 5]
    study = await client.searches.export_optuna(search.id, folder / "study.log")
    # The study, the names of its values, three notes, and the trials.
    assert len(study.read_text().splitlines()) == 1 + 1 + 3 + 5
    study.unlink()
    front = await search.pareto()
    assert [point["number"] for point in front] == [0, 1, 3, 4]
    assert [point.origin for point in front] == ["seed", "seed", "proposed", "proposed"]
    assert [point.predicted and point.predicted["value"] for point in front] == [None, None, 0.75, 0.875]
    best = await supernet.best(max_macs=front[1].costs["macs"])
    assert best["architecture_key"] == front[1]["architecture_key"]
    assert len(await client.supernets.frontier(supernet.id, max_macs="99%")) == 3
    subnet = await best.specialise(display_name="small")
    worker.specialise(FILES)
    subnet = await subnet.wait(timeout=60)
    paths = await subnet.download(folder)
    assert {path.name: path.read_bytes() for path in paths} == FILES


async def networks_chosen_outside_are_answered_in_their_order(client, worker, folder):
    supernet = await trained(client, worker)
    given = [network.to_json() for network in ladder(5)]
    batch = await supernet.evaluate(given, constraints={"max_macs": "99%"}, display_name="mine")
    worker.evaluate([100, 140, 120, 180])
    results = await batch.results(timeout=60)
    assert [network.architecture for network in results] == given
    assert [network.accuracy for network in results[:4]] == [0.5, 0.7, 0.6, 0.9]
    assert [network.is_infeasible for network in results] == [False] * 4 + [True]
    with pytest.raises(NotMeasuredError):
        assert results[4].interval_95
    again = await client.supernets.evaluate(supernet.id, given[:1])
    assert [network["is_reused"] async for network in client.evaluation_batches.networks(again.id)] == [True]
    assert [found.id async for found in client.evaluation_batches.list()] == [again.id, batch.id]
    newest = [point.architecture async for point in client.supernets.evaluations(supernet.id)]
    assert newest == given[3::-1]
    await client.evaluation_batches.delete(batch.id)
    with pytest.raises(ResourceNotFoundError):
        await batch.refresh()


async def finalists_and_their_own_trainings_are_told_beside_what_they_inherit(client, worker, folder):
    supernet = await trained(client, worker)
    search = await client.searches.create(supernet.id, 5)
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    finalists = await client.searches.finalise(search.id)
    worker.verify()
    measured = await finalists.results(timeout=60)
    assert [network.accuracy_test for network in measured] == [0.75] * 4
    assert [point["number"] for point in await client.searches.finalists(search.id)] == [0, 1, 3, 4]
    verification = await client.verifications.create(
        search_id=search.id, trial_numbers=(4,), trainings=("alone",), learning_rates=(0.1, 0.2)
    )
    worker.verify({0: 160, 1: 170})
    (network,) = await verification.results(timeout=60)
    assert (network.accuracy, network.accuracy_test) == (0.95, 0.75)
    assert network.trained["alone"]["learning_rate"] == 0.2
    runs = [run["is_chosen"] async for run in client.verifications.runs(verification.id)]
    assert runs == [False, True]
    assert [found.number async for found in client.verifications.networks(verification.id)] == [0]
    assert [found.id async for found in client.verifications.list()] == [verification.id, finalists.id]


async def a_device_is_measured_and_asked_about(client, worker, folder):
    supernet = await trained(client, worker)
    device = await client.devices.create("host", notes="a shelf")
    assert [found.name async for found in client.devices.list()] == ["host"]
    with pytest.raises(NotReadyError, match="nas device probe host"):
        await supernet.best(device="host")
    with pytest.raises(RequestRefusedError, match="line 2"):
        await device.put_table(text_of(table_of()).splitlines()[0] + "\n{}")
    assert (await device.put_table(text_of(table_of())))["num_blocks"] == len(table_of().rows)
    assert await client.devices.table("host") == text_of(table_of()) + "\n"
    assert (await device.gaps("micro_8", num_classes=10, in_channels=1))["num_missing"] == 0
    measured = await client.devices.measure("host", "\n".join(probe_lines()))
    worker.fit_latency()
    measured = await measured.wait(timeout=60)
    assert [found.id async for found in device.measurements()] == [measured.id]
    assert [found.id async for found in client.measurements.list(device="host")] == [measured.id]
    (model,) = (await device.refresh())["models"]
    assert (model["accuracy"], model["second_pass"]) == (measured["accuracy"], measured["second_pass"])
    assert measured["second_pass"]["hit_rate"] == 1
    await client.searches.create(
        supernet.id,
        5,
        device="host",
        constraints={"max_latency_ms": "100%"},
        objectives=["accuracy", "latency_ms"],
    )
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    front = await supernet.frontier(["latency_ms"], device="host")
    times = [point.latency_ms for point in front]
    assert times == sorted(times) and len(times) > 1
    best = await client.supernets.best(supernet.id, device="host", max_latency_ms=times[0])
    assert best["architecture_key"] == front[0]["architecture_key"]
    assert best["latency_ms"]["predicted_by"] == measured.id
    everything = [point.latency_ms async for point in supernet.evaluations("host")]
    assert min(everything) == times[0] and (await supernet.best()).latency_ms is None
    with pytest.raises(StateConflictError):
        await device.delete()
    work_file = await client.work_files.create("micro_8", num_classes=10, in_channels=1)
    worker.make_work_file(b"a zip")
    path = await (await work_file.wait(timeout=60)).download(folder)
    assert path.read_bytes() == b"a zip" and "def main" in await client.devices.probe_source()
    await client.work_files.delete(work_file.id)


async def lists_are_read_page_by_page(client, worker, folder):
    ids = [(await client.datasets.create(DIGITS, display_name=str(n))).id for n in range(3)]
    assert [dataset.id async for dataset in client.datasets.list()] == ids[::-1]
    assert [job["resource_id"] async for job in client.jobs.list(state="queued")] == ids[::-1]
    assert "micro_8" in [space["name"] for space in await client.search_spaces.list()]
    assert (await client.search_spaces.get("micro_8", num_classes=10))["num_classes"] == 10
    assert (await client.version())["api"] == "v1"


async def events_are_told_once_and_end_with_the_job(client, worker, folder):
    dataset = await client.datasets.create(DIGITS)
    seen = []
    async for event in dataset.events():
        seen.append(event)
        if event.payload.get("state") == "queued":
            worker.import_dataset()
    assert [event.payload.get("state") for event in seen] == ["queued", "running", None, "succeeded"]
    assert [event.id for event in seen] == sorted({event.id for event in seen})
    rest = [event async for event in client.jobs.events(dataset.job_id, after_id=seen[1].id)]
    assert rest == seen[2:]


async def reading_of_events_can_be_broken_off(client, worker, folder):
    dataset = await client.datasets.create(DIGITS)
    async with aclosing(dataset.events()) as events:
        async for event in events:
            assert event.payload["state"] == "queued"
            break
    assert (await client.jobs.get(dataset.job_id)).state == "queued"


async def waiting_tells_progress_and_ends_in_time(client, worker, folder):
    dataset = await client.datasets.create(DIGITS)
    shown = []
    with pytest.raises(WaitTimeoutError, match="it goes on"):
        await dataset.wait(timeout=0.3, on_progress=lambda current: shown.append(current.state))
    assert shown == ["queued"]
    worker.import_dataset()
    dataset = await client.datasets.wait(dataset.id, on_progress=shown.append)
    assert shown[-1] == dataset
    assert dataset["progress"]["phase"] == "work"


async def an_ended_job_is_told_by_how_it_ended(client, worker, folder):
    dataset = await client.datasets.create(DIGITS)
    worker.fail(JobKind.IMPORT_DATASET, "broken images")
    with pytest.raises(JobFailedError, match="broken images"):
        await dataset.wait(timeout=60)
    other = await client.datasets.create(DIGITS)
    assert (await other.cancel())["state"] == "cancelled"
    with pytest.raises(JobCancelledError):
        await other.wait(timeout=60)
    assert (await client.jobs.cancel(other.job_id))["state"] == "cancelled"
    with pytest.raises(StateConflictError):
        await client.jobs.cancel(dataset.job_id)


async def refusals_name_the_field(client, worker, folder):
    dataset = await client.datasets.create(DIGITS)
    with pytest.raises(RequestRefusedError) as refused:
        await client.supernets.create(dataset.id, "micro_8", recipe={"epochs": -1})
    assert refused.value.errors[0]["field"] == "recipe.epochs"
    with pytest.raises(RequestRefusedError) as refused:
        await client.datasets.create_from({"source": DIGITS, "colour": "red"})
    assert refused.value.errors[0]["field"] == "colour"
    supernet = await client.supernets.create(dataset.id, "micro_8")
    with pytest.raises(NotReadyError):
        await client.searches.create(supernet.id, 5)
    with pytest.raises(ResourceNotFoundError):
        await client.searches.get("se_../../jobs")
    itself: dict = {}
    itself["again"] = itself
    for value, told in (
        (float("nan"), "nan"),
        (b"5", "bytes"),
        ([1, object], "max_macs.1"),
        (itself, "itself"),
    ):
        with pytest.raises(UnsendableRequestError, match=told):
            await client.searches.create(supernet.id, 5, constraints={"max_macs": value})


async def what_no_network_keeps_is_told_as_infeasible(client, worker, folder):
    supernet = await trained(client, worker)
    with pytest.raises(InfeasibleConstraintsError) as refused:
        await client.searches.create(supernet.id, 5, constraints={"max_macs": 10})
    assert refused.value.relax_alone["max_macs"] > 10
    assert refused.value.relax == {"max_macs": refused.value.nearest["costs"]["macs"]}
    answer = await client.searches.validate(supernet.id, constraints={"max_macs": 10})
    assert (answer["verdict"], answer["relax"]) == ("infeasible", refused.value.relax)
    answer = await client.searches.validate(supernet.id, constraints=refused.value.relax)
    assert answer["verdict"] == "feasible"


async def a_frontier_is_also_a_data_frame(client, worker, folder):
    supernet = await trained(client, worker)
    assert list((await supernet.frontier()).to_dataframe()["accuracy_val"]) == []
    search = await client.searches.create(supernet.id, 5)
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    front = await search.pareto()
    frame = front.to_dataframe()
    assert list(frame["number"]) == [0, 1, 3, 4]
    assert list(frame["accuracy_val"]) == [point.accuracy for point in front]
    assert list(frame["macs"]) == [point.costs["macs"] for point in front]
    assert all(frame["accuracy_val_low"] < frame["accuracy_val_high"])


async def a_data_frame_tells_predicted_latencies_from_measured_ones(client, worker, folder):
    supernet = await trained(client, worker)
    await client.devices.create("host")
    await client.devices.measure("host", "\n".join(probe_lines(sentinel_ms=2.0)))
    worker.fit_latency()
    await client.searches.create(supernet.id, 5)
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    assert "latency_ms_measured" not in (await supernet.frontier()).to_dataframe()
    chosen = [point.architecture for point in await supernet.frontier()][:2]
    sitting = probe_lines_of(chosen, asked_for=True, sentinel_ms=1.6)
    await client.devices.measure("host", "\n".join(sitting))
    worker.fit_latency()
    front = await supernet.frontier(device="host")
    frame = front.to_dataframe()
    assert list(frame["latency_ms_predicted"]) == [point.latency_ms for point in front]
    measured = [point["latency_ms"]["measurement"] for point in front]
    is_known = [figure is not None for figure in measured]
    assert is_known[:2] == [True, True] and not all(is_known)
    times = [figure["value"] for figure in measured if figure]
    assert list(frame["latency_ms_measured"][is_known]) == times
    assert list(frame["latency_ms_measured"].notna()) == is_known
    assert list(frame["device_speed_when_measured"][:2]) == pytest.approx([1.25, 1.25])
    assert "latency_ms" not in frame


async def a_file_is_sent_and_told_how_far_it_is(client, worker, folder):
    path = folder / "pets.zip"
    path.write_bytes(FILES["model.safetensors"])
    told = []
    upload = await client.uploads.create(path, on_progress=lambda *seen: told.append(seen))
    assert (upload["display_name"], upload["size_bytes"]) == ("pets.zip", path.stat().st_size)
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert [found["id"] async for found in client.uploads.list()] == [upload["id"]]
    assert await client.uploads.get(upload["id"]) == upload


async def names_change_until_the_end_and_deletion_comes_after_it(client, worker, folder):
    dataset = await client.datasets.create(DIGITS, display_name="before")
    renamed = await dataset.update(display_name="after", labels={"team": "vision"})
    assert (renamed["display_name"], renamed["labels"]) == ("after", {"team": "vision"})
    with pytest.raises(StateConflictError):
        await dataset.delete()
    await dataset.cancel()
    with pytest.raises(StateConflictError):
        await client.datasets.update(dataset.id, display_name="too late")
    await client.datasets.delete(dataset.id)
    with pytest.raises(ResourceNotFoundError):
        await dataset.refresh()
