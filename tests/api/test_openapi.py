"""The OpenAPI document: committed, complete, and with examples that work as they stand."""

from __future__ import annotations

import json
from pathlib import Path

from api.app import create_app
from api.openapi import build_openapi, render
from api.settings import ApiSettings
from tests.api.conftest import DIGITS

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


def test_every_body_has_examples_that_work_as_they_stand(http, search):
    """Ids alone are replaced, since nobody can know them beforehand."""
    ids = {
        "dataset_id": http.post("/v1/datasets", json={"source": DIGITS}).json()["id"],
        "supernet_id": search["supernet_id"],
        "search_id": search.id,
    }
    found = document()
    num_examples = 0
    for path, methods in found["paths"].items():
        if "requestBody" not in methods.get("post", {}):
            continue
        content = methods["post"]["requestBody"]["content"]
        if "application/json" not in content:
            continue
        schema = content["application/json"]["schema"]
        model = found["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for example in model["examples"]:
            body = {name: ids.get(name, value) for name, value in example.items()}
            response = http.post(path, json=body)
            assert response.status_code == 201, response.text
            num_examples += 1
    assert num_examples == 5


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
    assert schemas["Accuracy"]["properties"]["provenance"]["const"] == "measured"
    assert {"split", "num_images", "interval_95"} <= set(schemas["Accuracy"]["required"])
    counted = dict.fromkeys(["Evaluation", "Trial", "Subnet", "SpaceAnswer", "SpaceWithDecisions"], "counted")
    assert found == {**counted, "TrainingPoint": "measured"}
