"""Every mistake of the corpus is answered by a sentence that helps, and changes nothing."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nas.cli import main
from tests.api.conftest import DIGITS

REQUESTS, COMMANDS = (
    yaml.safe_load(Path(__file__).with_name(name).read_text()) for name in ("http.yaml", "command_line.yaml")
)
KINDS = (
    "datasets",
    "supernets",
    "searches",
    "subnets",
    "evaluation-batches",
    "verifications",
    "uploads",
    "jobs",
)
METHODS = ("get", "post", "patch", "delete")


@pytest.fixture
def names(client, supernet, search, subnet) -> dict[str, str]:
    """What stands for what in the corpus."""
    waiting = client.supernets.create(client.datasets.create(DIGITS).id, "micro_8")
    found = {"supernet": supernet, "search": search, "subnet": subnet, "untrained": waiting}
    ids = {name: resource.id for name, resource in found.items()}
    return ids | {"dataset": supernet["dataset_id"], "job": search.job_id}


def test_the_corpus_names_each_mistake_once():
    for corpus in (REQUESTS, COMMANDS):
        assert len({mistake["name"] for mistake in corpus}) == len(corpus)


def test_every_foolish_request_is_answered_with_what_helps(http, names, subtests):
    before = _counts(http)
    for mistake in REQUESTS:
        with subtests.test(mistake["name"]):
            _check_problem(_send(http, mistake, names), mistake)
    assert _counts(http) == before


def test_every_foolish_command_is_answered_with_what_helps(
    http, names, service_url, subtests, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_URL", service_url)
    with socket.socket() as taken:
        # Bound, but not listening: nothing answers there.
        taken.bind(("127.0.0.1", 0))
        names |= {"nowhere": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        before = _counts(http)
        for mistake in COMMANDS:
            with subtests.test(mistake["name"]):
                status = main(shlex.split(_filled(mistake["nas"], names)))
                printed = capsys.readouterr()
                assert status == mistake["exit"], printed.err
                _check_told(printed.err, _filled(mistake["says"], names))
                assert printed.out == ""
        assert _counts(http) == before


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


def _check_problem(response: httpx.Response, mistake: Mapping[str, Any]) -> None:
    assert response.status_code == mistake["status"], response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    if "type" in mistake:
        assert problem["type"] == f"/problems/{mistake['type']}"
    if "field" in mistake:
        assert [error["field"] for error in problem["errors"]] == [mistake["field"]]
    _check_told("\n".join(_texts([problem["detail"], problem.get("errors", [])])), mistake["says"])


def _check_told(told: str, says: list[str]) -> None:
    missing = [text for text in says if text not in told]
    assert not missing, f"{missing} not in:\n{told}"
    assert "Traceback" not in told


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
