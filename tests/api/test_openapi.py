"""The OpenAPI document: committed, complete, and with examples that work as they stand."""

from __future__ import annotations

import ast
import json
import re
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from api.app import create_app
from api.examples import WITHOUT_EXAMPLE
from api.openapi import build_openapi, render
from api.problem_types import PROBLEM_TYPES
from api.problems import NAS_PROBLEMS
from api.settings import ApiSettings
from tests.api.conftest import DIGITS
from tests.api.worker import SPACE
from tests.devices.lines import probe_lines, table_of, text_of

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def document() -> dict:
    return build_openapi(create_app(ApiSettings(database_url="", artifact_url="")))


def operations() -> list[dict]:
    return [operation for path in document()["paths"].values() for operation in path.values()]


def test_the_committed_document_is_what_the_service_serves(http):
    remedy = "run: python -m api.openapi docs/openapi.json"
    assert COMMITTED.read_text() == render(document()), remedy
    assert http.get("/openapi.json").json() == json.loads(COMMITTED.read_text())


def test_every_operation_has_a_name_of_its_own_and_tells_its_errors():
    names = [operation["operationId"] for operation in operations()]
    assert len(set(names)) == len(names)
    for operation in operations():
        assert operation["description"]
        content = operation["responses"]["default"]["content"]
        assert list(content) == ["application/problem+json"]
        assert "422" not in operation["responses"]


PREFIXED_ID = re.compile(r"([a-z]+)_a{16}")


class Examples:
    """The document's examples as requests; what an id stands for is made, or looked up, for each."""

    def __init__(self, http, finished: dict[str, str]) -> None:
        self._http = http
        self._finished = finished

    def send(self, path: str, method: str, operation: dict) -> list[httpx.Response]:
        """One answer for each example body, or one where there is no body."""
        content = operation.get("requestBody", {}).get("content", {})
        bodies = [
            (media_type, example)
            for media_type, described in content.items()
            for example in (
                [item["value"] for item in described["examples"].values()]
                if "examples" in described
                else [described["example"]]
            )
        ]
        return [self._send_one(path, method, operation, *body) for body in bodies or [(None, None)]]

    def _send_one(self, path, method, operation, media_type, example):
        ids = self._ids(path, method)
        located = {"path": {}, "query": {}, "header": {}}
        for parameter in operation.get("parameters", []):
            if parameter["name"] not in WITHOUT_EXAMPLE:
                located[parameter["in"]][parameter["name"]] = self._own(parameter["example"], ids)
        headers = {name: str(value) for name, value in located["header"].items()}
        body = self._own(example, ids)
        if media_type is not None:
            headers["Content-Type"] = media_type
        if "idempotency-key" in headers:
            # One key with two examples would be refused, and rightly.
            headers["idempotency-key"] = uuid4().hex
        content = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body)
        url = path.format(**located["path"])
        return self._http.request(method, url, params=located["query"], headers=headers, content=content)

    def _own(self, value, ids):
        """The value with every id that stands for any replaced by one of ours."""
        if isinstance(value, dict):
            return {name: self._own(item, ids) for name, item in value.items()}
        if isinstance(value, str) and (match := PREFIXED_ID.fullmatch(value)):
            return ids[match[1]]
        return ids.get("host", value) if value == "host" else value

    def _ids(self, path: str, method: str) -> dict[str, str]:
        """Finished resources; to be changed or cancelled, one that waits; to be deleted, an unused one."""
        waits = method == "patch" or path.endswith("/cancel")
        if not waits and method != "delete":
            return self._finished
        made = self._make(path.split("/")[2])
        if method == "delete" and "job_id" in made:
            self._http.post(f"/v1/jobs/{made['job_id']}/cancel").raise_for_status()
        ids = {made["id"].partition("_")[0]: made["id"]} if "id" in made else {"host": made["name"]}
        return {**self._finished, **ids, "job": made.get("job_id", "")}

    def _make(self, collection: str) -> dict:
        if collection == "uploads":
            headers = {"Content-Type": "application/zip"}
            return self._http.post("/v1/uploads", content=b"x", headers=headers).json()
        finished = self._finished
        bodies = {
            "datasets": {"source": DIGITS},
            "supernets": {"dataset_id": finished["ds"], "search_space": "micro_8"},
            "searches": {"supernet_id": finished["sn"], "num_trials": 1},
            "evaluation-batches": {"architectures": [SPACE.largest().to_json()]},
            "subnets": {"search_id": finished["se"], "trial_number": 0},
            "verifications": {"search_id": finished["se"]},
            "devices": {"name": f"device_{uuid4().hex}"},
            "work-files": {"search_space": "micro_8"},
        }
        if collection == "measurements":
            headers = {"Content-Type": "application/jsonl"}
            lines = "\n".join(probe_lines())
            return self._http.post("/v1/devices/host/measurements", content=lines, headers=headers).json()
        collection = "datasets" if collection == "jobs" else collection
        nested = {"evaluation-batches": f"supernets/{finished['sn']}/evaluations"}
        path = nested.get(collection, collection)
        return self._http.post(f"/v1/{path}", json=bodies[collection]).json()


@pytest.fixture
def host(http, worker) -> dict[str, str]:
    """A measured device of the name that the examples use, and a work file."""
    http.post("/v1/devices", json={"name": "host"}).raise_for_status()
    headers = {"Content-Type": "application/jsonl"}
    http.put(
        "/v1/devices/host/latency-table", content=text_of(table_of()), headers=headers
    ).raise_for_status()
    lines = "\n".join(probe_lines())
    measured = http.post("/v1/devices/host/measurements", content=lines, headers=headers).json()
    worker.fit_latency()
    work_file = http.post("/v1/work-files", json={"search_space": "micro_8"}).json()
    worker.make_work_file(b"a zip")
    return {"me": measured["id"], "wf": work_file["id"]}


def test_every_call_has_an_example_that_works_as_it_stands(http, host, subnet, search, batch, verification):
    """Ids alone are replaced, since nobody can know them beforehand, and the key is a new one each time."""
    supernet = http.get(f"/v1/supernets/{subnet['supernet_id']}").json()
    upload = http.post("/v1/uploads", content=b"x", headers={"Content-Type": "application/zip"}).json()
    finished = {
        "ds": supernet["dataset_id"],
        "sn": supernet["id"],
        "se": search.id,
        "eb": batch.id,
        "ve": verification.id,
        "sub": subnet.id,
        "job": subnet.job_id,
        "up": upload["id"],
        **host,
    }
    examples = Examples(http, finished)
    committed = json.loads(COMMITTED.read_text())
    num_sent = 0
    for path, operations in committed["paths"].items():
        for method, operation in operations.items():
            (success,) = [status for status in operation["responses"] if status in ("200", "201", "204")]
            for response in examples.send(path, method, operation):
                assert response.status_code == int(success), (path, method, response.text)
                num_sent += 1
    assert num_sent >= sum(map(len, committed["paths"].values()))


def test_every_problem_that_the_code_raises_is_documented():
    """Found in the source: the type of each problem made there."""
    used = {slug for _, slug, _ in NAS_PROBLEMS}
    # Those that the framework raises on its own.
    used |= {HTTPStatus(status).phrase.lower().replace(" ", "-") for status in (400, 404, 405)}
    for file in (COMMITTED.parents[1] / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "id", "") in ("ProblemError", "problem_response"):
                used |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
            used |= {
                keyword.value.value
                for keyword in node.keywords
                if keyword.arg == "slug" and isinstance(keyword.value, ast.Constant)
            }
    assert used == set(PROBLEM_TYPES)
    described = document()["components"]["schemas"]["Problem"]["properties"]["type"]["description"]
    assert all(f"`/problems/{slug}`" in described for slug in used)


OPERATIONS = """
cancel_job change_dataset change_search change_subnet change_supernet create_dataset create_search
create_subnet create_supernet create_upload delete_dataset delete_search delete_subnet delete_supernet
delete_upload download_dataset_split download_subnet_artifact download_supernet_artifact
get_dataset get_health get_job get_readiness get_search
get_search_pareto get_search_space get_subnet get_supernet get_supernet_best get_supernet_curves
get_supernet_frontier get_supernet_probes get_upload get_version list_dataset_splits list_datasets
list_job_events list_jobs
list_search_spaces list_search_trials list_searches list_subnet_artifacts list_subnets
list_supernet_artifacts list_supernets list_uploads validate_search
create_evaluations list_supernet_evaluations list_evaluation_batches get_evaluation_batch
change_evaluation_batch delete_evaluation_batch list_evaluation_batch_networks
list_search_rounds get_search_optuna_journal
create_finalists list_finalists create_verification list_verifications get_verification change_verification
delete_verification list_verified_networks list_verification_runs
create_device get_device list_devices delete_device download_probe put_latency_table get_latency_table
get_latency_table_gaps
create_measurements list_measurements get_measurements change_measurements delete_measurements
create_work_file get_work_file list_work_files change_work_file delete_work_file download_work_file
"""


def test_operations_keep_their_names():
    """Generated clients are written against them: one may be added, none may go or change."""
    assert {operation["operationId"] for operation in operations()} >= {*OPERATIONS.split()}


def test_every_list_tells_its_largest_page():
    for path, methods in document()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if parameter["name"] == "page_size":
                assert parameter["schema"]["maximum"] == 200, path


def test_every_figure_says_what_it_is():
    """A schema with an accuracy or with costs has the provenance beside it, with one value alone."""
    schemas = document()["components"]["schemas"]
    found = {}
    for name, schema in schemas.items():
        fields = schema.get("properties", {})
        if "costs" in fields:
            found[name] = fields["costs_provenance"]["const"]
        if any(field.startswith("accuracy_val_") for field in fields):
            found[name] = fields["accuracy_provenance"]["const"]
        for field in ("accuracy_val", "accuracy_test"):
            assert "#/components/schemas/Accuracy" in str(fields.get(field, "#/components/schemas/Accuracy"))
        predicted = str(fields.get("predicted_accuracy_val", "#/components/schemas/Prediction"))
        assert "#/components/schemas/Prediction" in predicted
    assert schemas["Accuracy"]["properties"]["provenance"]["const"] == "measured"
    assert schemas["Prediction"]["properties"]["provenance"]["const"] == "predicted"
    assert {"split", "num_images", "interval_95"} <= set(schemas["Accuracy"]["required"])
    counted = dict.fromkeys(
        [
            "Evaluation",
            "BestEvaluation",
            "FrontierEvaluation",
            "EvaluationItem",
            "Trial",
            "FrontierTrial",
            "Subnet",
            "SpaceAnswer",
            "SpaceWithDecisions",
            "ProbeNetwork",
            "UnmeasuredNetwork",
            "Finalist",
            "VerifiedNetwork",
        ],
        "counted",
    )
    assert found == {**counted, "TrainingPoint": "measured"}
