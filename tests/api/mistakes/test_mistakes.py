"""Every mistake of the corpus is answered by a sentence that helps, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.api.conftest import DIGITS

CORPUS = yaml.safe_load(Path(__file__).with_name("http.yaml").read_text())
KINDS = ("datasets", "supernets", "searches", "subnets", "uploads", "jobs")
METHODS = ("get", "post", "patch", "delete")


@pytest.fixture
def names(client, supernet, search, subnet) -> dict[str, str]:
    """What stands for what in the corpus."""
    waiting = client.supernets.create(client.datasets.create(DIGITS).id, "micro_8")
    found = {"supernet": supernet, "search": search, "subnet": subnet, "untrained": waiting}
    ids = {name: resource.id for name, resource in found.items()}
    return ids | {"dataset": supernet["dataset_id"], "job": search.job_id}


def test_every_mistake_is_answered_with_what_helps(http, names, subtests):
    before = _counts(http)
    for mistake in CORPUS:
        with subtests.test(mistake["name"]):
            _check(_send(http, mistake, names), mistake)
    assert _counts(http) == before


def test_the_corpus_names_each_mistake_once():
    assert len({mistake["name"] for mistake in CORPUS}) == len(CORPUS) >= 40


def _send(http: httpx.Client, mistake: Mapping[str, Any], names: Mapping[str, str]) -> httpx.Response:
    (method,) = (method for method in METHODS if method in mistake)
    path = _filled(mistake[method], names)
    if "text" in mistake:
        headers = {"Content-Type": "application/json"}
        return http.request(method, path, content=_filled(mistake["text"], names), headers=headers)
    if "size" in mistake:
        body = json.dumps({"display_name": "x" * mistake["size"]})
        return http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    if "form" in mistake:
        return http.request(method, path, data=mistake["form"])
    body = mistake.get("body")
    return http.request(method, path, json=None if body is None else _filled(body, names))


def _check(response: httpx.Response, mistake: Mapping[str, Any]) -> None:
    assert response.status_code == mistake["status"], response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    if "type" in mistake:
        assert problem["type"] == f"/problems/{mistake['type']}"
    if "field" in mistake:
        assert [error["field"] for error in problem["errors"]] == [mistake["field"]]
    told = "\n".join(_texts([problem["detail"], problem.get("errors", [])]))
    missing = [text for text in mistake["says"] if text not in told]
    assert not missing, f"{missing} not in:\n{told}"
    assert "Traceback" not in response.text


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, found in names.items():
            value = value.replace(f"{{{name}}}", found)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    return [_filled(item, names) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


def _counts(http: httpx.Client) -> dict[str, int]:
    return {kind: len(http.get(f"/v1/{kind}", params={"page_size": 200}).json()["items"]) for kind in KINDS}
