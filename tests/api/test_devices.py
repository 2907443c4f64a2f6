"""Devices over HTTP: what is kept of them, what is refused, and what goes with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nas.devices.blocks import FusedBlock
from nas.devices.device import Device
from nas.devices.measurements import read_measurements
from tests.api.test_hostile_requests import check, hostile_tokens
from tests.api.worker import SPACE
from tests.devices.lines import HOST, NETWORKS, probe_lines, table_of, text_of

LINES = {"Content-Type": "application/jsonl"}


def put_table(http, text, name="host", **query):
    return http.put(f"/v1/devices/{name}/latency-table", content=text, headers=LINES, params=query)


def measure(http, lines, name="host"):
    return http.post(f"/v1/devices/{name}/measurements", content="\n".join(lines), headers=LINES)


@pytest.fixture
def host(http) -> dict:
    answer = http.post("/v1/devices", json={"name": "host", "notes": "a shelf"})
    assert answer.status_code == 201 and answer.headers["Location"] == "/v1/devices/host"
    return answer.json()


def test_a_device_is_kept_as_it_was_given_and_its_name_is_its_own(http, host):
    told = {name: host[name] for name in ("name", "runtime", "threads", "batch", "dtype", "notes")}
    assert told == {**HOST.to_json(), "notes": "a shelf"}
    assert (host["models"], host["latency_table"]) == ([], None)
    assert http.get("/v1/devices/host").json() == host
    check(http.post("/v1/devices", json={"name": "host"}), 409, "conflict")
    http.post("/v1/devices", json={"name": "pi5", "threads": 4, "dtype": "fp16"}).raise_for_status()
    assert [item["name"] for item in http.get("/v1/devices").json()["items"]] == ["pi5", "host"]
    problem = check(http.get("/v1/devices/pi4"), 404, "not-found")
    assert "host, pi5" in problem["detail"]


def test_a_hostile_device_is_refused(http):
    for fields, field in [
        ({"name": ""}, "name"),
        ({"name": "Pi"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x\n"}, "name"),
        ({"name": "probe.py"}, "name"),
        ({"runtime": "ONNX Runtime"}, "runtime"),
        ({"threads": 0}, "threads"),
        ({"threads": True}, "threads"),
        ({"batch": 10**400}, "batch"),
        ({"dtype": "fp64"}, "dtype"),
        ({"notes": "x" * 2001}, "notes"),
        ({"cores": 4}, "cores"),
    ]:
        check(http.post("/v1/devices", json={"name": "a", **fields}), 422, "invalid-request", field)
    for page_token in hostile_tokens("devices"):
        response = http.get("/v1/devices", params={"page_token": page_token})
        check(response, 422, "invalid-request", "page_token")


def test_a_table_reads_back_as_it_was_given(http, host):
    text = text_of(table_of())
    answer = put_table(http, text)
    assert answer.status_code == 200, answer.text
    table = answer.json()
    assert table["num_blocks"] == len(table_of().rows) and table["base_ms"] == 0.25
    assert http.get("/v1/devices/host").json()["latency_table"] == table
    read = http.get("/v1/devices/host/latency-table")
    assert read.text == text + "\n" and read.headers["content-type"].startswith("application/jsonl")
    held = {"If-None-Match": read.headers["ETag"]}
    assert http.get("/v1/devices/host/latency-table", headers=held).status_code == 304
    again = put_table(http, text_of(table_of(scale=2.0))).json()
    assert again["id"] != table["id"] and http.get("/v1/devices/host").json()["latency_table"] == again


def test_a_broken_table_names_the_line(http, host):
    lines = text_of(table_of()).splitlines()
    check(http.get("/v1/devices/host/latency-table"), 404, "not-found")
    for number, line, told in [
        (3, "{", "no JSON object"),
        (4, json.dumps({**json.loads(lines[3]), "p50_ms": -1}), "p50_ms -1 is not a number of milliseconds"),
        (4, json.dumps({**json.loads(lines[3]), "p50_ms": 10**400}), "is not a number of milliseconds"),
        (5, json.dumps({**json.loads(lines[4]), "cin": 10**400}), "is not a whole number"),
        (5, json.dumps({**json.loads(lines[4]), "cin": None}), "cin None is not a whole number"),
        (6, lines[4], "was told before"),
        (7, json.dumps({**json.loads(lines[6]), "op": "magic"}), "op 'magic' is unknown"),
        (7, json.dumps({**json.loads(lines[6]), "threads": 4}), "of threads 4, not 1 as the header says"),
        (8, json.dumps({**json.loads(lines[7]), "p50_us": 9.0}), "'p50_us' is a time in another unit"),
    ]:
        spoiled = [*lines]
        spoiled[number - 1] = line
        problem = check(put_table(http, "\n".join(spoiled)), 422, "invalid-lines")
        assert f"line {number}: " in problem["detail"] and told in problem["detail"]
    headers = [{"schema": 2}, {"base_ms": None}, {"base_ms": -1}, {"base_ms": 10**400}, {"tools": []}]
    for header in [*headers, {"threads": 10**400}, {"colour": "red"}]:
        text = json.dumps({**json.loads(lines[0]), **header})
        check(put_table(http, "\n".join([text, *lines[1:]])), 422, "invalid-lines")
    for body in [b"", b"\xff", b"{}\0", b"[" * 100_000]:
        check(put_table(http, body), 422, "invalid-lines")
    check(http.get("/v1/devices/host/latency-table"), 404, "not-found")


def test_a_table_in_another_unit_is_doubted_or_refused(http, host):
    doubt = "make sure that times are milliseconds, not microseconds"
    assert not any(doubt in warning for warning in put_table(http, text_of(table_of())).json()["warnings"])
    slower = put_table(http, text_of(table_of(scale=1e3))).json()
    assert doubt in slower["warnings"][0]
    problem = check(put_table(http, text_of(table_of(scale=1e6))), 422, "invalid-lines")
    assert "slower than any device" in problem["detail"] and "in milliseconds" in problem["detail"]
    assert http.get("/v1/devices/host").json()["latency_table"] == slower


def test_a_table_of_something_else_is_refused(http, host):
    text = text_of(table_of())
    for other in [Device(name="pi5", runtime="onnxruntime"), Device(name="host", runtime="litert")]:
        problem = check(put_table(http, text_of(table_of(device=other))), 422, "invalid-lines")
        assert "line 1: the figures are of" in problem["detail"]
    check(put_table(http, text, "pi5"), 404, "not-found")
    response = http.put("/v1/devices/host/latency-table", content=text, headers={"Content-Type": "text/csv"})
    check(response, 415, "unsupported-media-type")


def test_gaps_are_listed_as_lines_to_fill_in(http, host):
    asked = {"search_space": "micro_8", "num_classes": 10, "in_channels": 1}
    path = "/v1/devices/host/latency-table/gaps"
    whole = table_of()
    assert http.get(path, params=asked).json()["num_missing"] == len(whole.rows)
    absent = sorted(whole.rows)[3:5]
    rows = {block: ms for block, ms in whole.rows.items() if block not in absent}
    put_table(http, text_of(replace(whole, rows=rows))).raise_for_status()
    gaps = http.get(path, params=asked).json()
    assert gaps["missing"] == [block.to_json() for block in absent]
    assert (gaps["num_missing"], gaps["num_blocks"]) == (2, len(whole.rows))
    rows |= {FusedBlock.from_json(line): 1.0 for line in gaps["missing"]}
    put_table(http, text_of(replace(whole, rows=rows))).raise_for_status()
    assert http.get(path, params=asked).json()["num_missing"] == 0
    check(http.get(path, params={**asked, "search_space": "x"}), 422, "unknown-search-space", "search_space")


def test_measurements_are_refused_by_line(http, host):
    lines = probe_lines()
    network = next(i for i, line in enumerate(lines) if json.loads(line).get("kind") == "network")
    for number, change, told in [
        (1, {"space": "nothing"}, "search space 'nothing' is unknown"),
        (1, {"num_classes": 0}, "num_classes 0"),
        (1, {"threads": 2}, "threads 2, not 1"),
        (1, {"repeatability": {}}, "lack 'agreeing'"),
        (1, {"repeatability": {"agreeing": 10**400, "median_apart": 0, "num_models": 1}}, "no finite number"),
        (2, {"p50_ms": 10**400}, "is not a number of milliseconds above 0"),
        (2, {"p50_ms": 0}, "p50_ms 0 is not a number of milliseconds above 0"),
        (network + 1, {"architecture": {"r": 9}}, ""),
        (network + 1, {"architecture": json.loads(lines[network + 1])["architecture"]}, "more than once"),
    ]:
        spoiled = [*lines]
        spoiled[number - 1] = json.dumps({**json.loads(lines[number - 1]), **change})
        problem = check(measure(http, spoiled), 422, "invalid-lines")
        assert told in problem["detail"], problem["detail"]
        assert f"line {number}" in problem["detail"] or "more than once" in told or "lack" in told
    few = check(measure(http, probe_lines(count=29)), 422, "invalid-lines")
    assert "30 to 2000" in few["detail"]
    check(measure(http, lines, "pi5"), 404, "not-found")
    assert http.get("/v1/measurements?device=host").json()["items"] == []


def test_a_model_counts_once_it_is_fitted_and_tells_its_errors(http, host, worker):
    key = {"Idempotency-Key": "a"}
    body = "\n".join(probe_lines())
    sent = http.post("/v1/devices/host/measurements", content=body, headers={**LINES, **key})
    assert sent.status_code == 201, sent.text
    found = sent.json()
    assert (found["state"], found["accuracy"], found["num_networks"]) == ("queued", None, 40)
    again = http.post("/v1/devices/host/measurements", content=body, headers={**LINES, **key})
    assert again.json() == found
    assert http.get("/v1/devices/host").json()["models"] == []
    worker.fit_latency()
    found = http.get(f"/v1/measurements/{found['id']}").json()
    assert found["accuracy"]["num_networks"] == 12 and found["accuracy"]["mape"] < 0.03
    # Blocks alone take longer than in a network, by the law that the figures follow.
    assert found["table_accuracy"]["num_networks"] == 40 and found["table_accuracy"]["mape"] > 0.1
    (model,) = http.get("/v1/devices/host").json()["models"]
    assert model["measurements_id"] == found["id"] and model["accuracy"] == found["accuracy"]
    again = found["second_pass"]
    assert again["num_networks"] == 40 and 0 < again["mape"] < 0.03
    assert again["hit_rate"] == 1 and again["spearman"] > 0.98
    assert model["second_pass"] == again
    assert http.get("/v1/measurements?device=host").json()["items"] == [found]
    later = measure(http, probe_lines(factor=1.4)).json()
    worker.fit_latency()
    (model,) = http.get("/v1/devices/host").json()["models"]
    assert model["measurements_id"] == later["id"]


def test_whole_networks_alone_are_fitted_with_the_given_table(http, host, worker):
    put_table(http, text_of(table_of())).raise_for_status()
    sent = measure(http, probe_lines(with_blocks=False)).json()
    worker.fit_latency()
    found = http.get(f"/v1/measurements/{sent['id']}").json()
    assert found["num_blocks"] == 0 and found["table_accuracy"] is not None
    assert found["form"]["basis"].startswith("table")


def test_times_of_another_runtime_need_what_its_user_knows(http, worker):
    http.post("/v1/devices", json={"name": "phone", "runtime": "litert"}).raise_for_status()
    head, *rows = map(json.loads, probe_lines(with_blocks=False))
    head = {name: head[name] for name in head if name not in ("repeatability", "tools")}
    head |= {"device": "phone", "runtime": "litert"}
    once = [row for row in rows if row["kind"] == "network"]
    sent = measure(http, map(json.dumps, [head, *once]), "phone")
    assert sent.status_code == 201, sent.text
    assert (sent.json()["repeatability"], sent.json()["second_pass"]) == (None, None)
    worker.fit_latency()
    (model,) = http.get("/v1/devices/phone").json()["models"]
    assert model["accuracy"]["mape"] < 0.05 and model["second_pass"] is None
    twice = [row for row in rows if row["kind"] != "empty"]
    found = measure(http, map(json.dumps, [head, *twice]), "phone").json()
    assert found["repeatability"]["num_models"] == found["second_pass"]["num_networks"] == 40


def test_a_device_goes_with_all_that_was_measured_on_it(http, host, worker, database):
    put_table(http, text_of(table_of())).raise_for_status()
    sent = measure(http, probe_lines()).json()
    problem = check(http.delete("/v1/devices/host"), 409, "conflict")
    assert sent["id"] in problem["detail"]
    worker.fit_latency()
    assert http.delete("/v1/devices/host").status_code == 204
    check(http.get("/v1/devices/host"), 404, "not-found")
    check(http.get(f"/v1/measurements/{sent['id']}"), 404, "not-found")
    check(http.get(f"/v1/jobs/{sent['job_id']}"), 404, "not-found")
    assert http.post("/v1/devices", json={"name": "host"}).json()["latency_table"] is None


def test_the_probe_comes_as_it_is(http):
    answer = http.get("/v1/devices/probe.py")
    assert "def main(arguments" in answer.text and answer.headers["content-type"].startswith("text/x-python")
    held = {"If-None-Match": answer.headers["ETag"]}
    assert http.get("/v1/devices/probe.py", headers=held).status_code == 304


def test_a_work_file_is_downloaded_once_it_is_made(http, worker):
    asked = {"search_space": "micro_8", "num_classes": 10, "in_channels": 1}
    made = http.post("/v1/work-files", json=asked).json()
    assert made["num_networks"] == 60 and made["size_bytes"] is None and "content" not in made["links"]
    check(http.get(f"/v1/work-files/{made['id']}/content"), 409, "work-file-not-ready")
    worker.make_work_file(b"a zip")
    made = http.get(f"/v1/work-files/{made['id']}").json()
    content = http.get(made["links"]["content"])
    assert content.content == b"a zip" and made["size_bytes"] == 5 and made["num_blocks"] == 3
    assert http.delete(f"/v1/work-files/{made['id']}").status_code == 204
    check(http.get(f"/v1/work-files/{made['id']}"), 404, "not-found")
    check(
        http.post("/v1/work-files", json={**asked, "search_space": "x"}),
        422,
        "unknown-search-space",
        "search_space",
    )
    for field, value in [("num_networks", 29), ("num_networks", 501), ("batch", 0), ("max_blocks", -1)]:
        check(http.post("/v1/work-files", json={**asked, field: value}), 422, "invalid-request", field)


def test_a_work_file_of_networks_by_name_has_them_alone(http):
    asked = {"search_space": "micro_8", "num_classes": 10, "in_channels": 1}
    named = [SPACE.smallest().to_json(), SPACE.largest().to_json()]
    made = http.post("/v1/work-files", json={**asked, "architectures": named}).json()
    assert (made["num_networks"], made["architectures"]) == (0, named)
    both = http.post("/v1/work-files", json={**asked, "architectures": named, "num_networks": 40}).json()
    assert (both["num_networks"], both["architectures"]) == (40, named)
    wrong = {**asked, "architectures": [*named, {"r": 9}]}
    check(http.post("/v1/work-files", json=wrong), 422, "unknown-architecture", "architectures.2")
    none = http.post("/v1/work-files", json={**asked, "num_networks": 0})
    assert (
        "leave nothing to measure"
        in check(none, 422, "invalid-request", "num_networks")["errors"][0]["message"]
    )
    many = {**asked, "architectures": named * 101}
    check(http.post("/v1/work-files", json=many), 422, "invalid-request", "architectures")


def test_few_networks_are_kept_without_a_model_and_go_with_the_device(http, host, worker):
    sent = measure(http, probe_lines(count=5, with_blocks=False))
    assert sent.status_code == 201, sent.text
    worker.fit_latency()
    found = http.get(f"/v1/measurements/{sent.json()['id']}").json()
    assert (found["state"], found["form"], found["accuracy"]) == ("succeeded", None, None)
    assert http.get("/v1/devices/host").json()["models"] == []
    assert http.delete("/v1/devices/host").status_code == 204


def test_measurements_read_as_the_worker_will_read_them():
    measured = read_measurements(probe_lines(), SPACE)
    assert measured.networks.networks == NETWORKS
    assert set(measured.table.rows) == set(NETWORKS.distinct())
