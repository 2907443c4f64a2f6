"""Data sets of every kind over HTTP, and those made of an upload."""

from __future__ import annotations

import pytest

from api.schemas.datasets import SOURCE_MODELS
from tests.api.test_http_conventions import DATASETS, problem_of

EXAMPLES = [
    example
    for model in SOURCE_MODELS
    for example in model.model_config["json_schema_extra"]["examples"]
    if "upload_id" not in example
]


@pytest.mark.parametrize("source", EXAMPLES, ids=lambda source: source["kind"])
def test_the_example_of_every_kind_is_accepted_as_it_stands(http, source):
    response = http.post(DATASETS, json={"source": source})
    assert response.status_code == 201, response.text
    assert source.items() <= response.json()["spec"]["source"].items()


def test_a_data_set_of_an_upload_wants_one_that_is_there(http):
    content = b"PK, but an archive is looked into by workers only"
    sent = http.post("/v1/uploads", content=content, headers={"Content-Type": "application/octet-stream"})
    assert sent.status_code == 201, sent.text
    source = {"kind": "archive", "upload_id": sent.json()["id"]}
    made = http.post(DATASETS, json={"source": source})
    assert made.status_code == 201, made.text
    assert made.json()["spec"]["source"]["upload_id"] == sent.json()["id"]

    missing = {"kind": "archive", "upload_id": "up_0123456789abcdef"}
    problem = problem_of(http.post(DATASETS, json={"source": missing}), 404, "not-found")
    assert "up_0123456789abcdef" in problem["detail"]
