"""Networks chosen outside, on the command line."""

from __future__ import annotations

import io
import json
import sys

import pytest

from tests.api.worker import ladder
from tests.commands.test_main_path import later

GIVEN = [network.to_json() for network in ladder(5)]


@pytest.fixture
def chosen(tmp_path):
    path = tmp_path / "chosen.json"
    path.write_text(json.dumps(GIVEN[:3]))
    return path


def test_a_list_of_architectures_is_measured_and_told_in_its_order(nas, supernet, worker, chosen):
    helper = later(lambda: worker.evaluate([100, 140]))
    ended = nas(
        "supernet", "evaluate", supernet.id, chosen, "--max-macs", "25%", "--name", "mine", "--label", "a=b",
        "--wait", "--timeout", 60, "-o", "json",
    )  # fmt: skip
    helper.join()
    assert (ended.status, ended.err) == (0, "")
    found = ended.json()
    assert [network["architecture"] for network in found] == GIVEN[:3]
    states = [network["state"] for network in found]
    assert states == ["measured", "measured", "infeasible"]
    (batch,) = nas("evaluation", "list", "--supernet", supernet.id, "-o", "json").json()
    assert (batch["display_name"], batch["labels"]) == ("mine", {"a": "b"})
    table = nas("evaluation", "networks", batch["id"])
    assert table.out.splitlines()[3].split()[:3] == ["2", "infeasible", "max_macs"]
    assert table.out.splitlines()[1].split()[:2] == ["0", "measured"]


def test_without_waiting_it_says_how_to_watch(nas, supernet, chosen):
    ended = nas("supernet", "evaluate", supernet.id, chosen)
    assert ended.status == 0
    batch = nas("evaluation", "list", "-o", "id").out.strip()
    assert f"nas evaluation watch {batch}" in ended.err
    assert nas("evaluation", "cancel", batch).out.strip() == f"{batch} is cancelled"
    assert nas("evaluation", "delete", batch).status == 0
    assert nas("evaluation", "list", "-o", "id").out == ""


def test_a_whole_body_is_read_from_stdin_and_options_override_it(nas, supernet, monkeypatch):
    body = {"architectures": GIVEN, "display_name": "file", "constraints": {"max_params": "90%"}}
    text = io.TextIOWrapper(io.BytesIO(json.dumps(body).encode()))
    monkeypatch.setattr(sys, "stdin", text)
    ended = nas("supernet", "evaluate", supernet.id, "-", "--name", "option", "-o", "json")
    made = ended.json()
    assert (made["display_name"], made["num_architectures"]) == ("option", 5)
    assert [*made["constraints"]] == ["max_params"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("just words", "instead of a list of architectures"),
        ("", "nothing instead of a list"),
        ("[1, 2", "line 1"),
        ("[]", "architectures"),
        ("[{stage1.width: 9}]", "architectures.0"),
        ("- {a: 1}\n- {a: 1, a: 2}", "stands twice"),
    ],
)
def test_a_file_that_holds_no_networks_is_named(nas, supernet, tmp_path, text, told):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    ended = nas("supernet", "evaluate", supernet.id, path)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err
    assert nas("evaluation", "list", "-o", "id").out == ""


def test_a_file_that_is_not_there_is_named(nas, supernet, tmp_path):
    ended = nas("supernet", "evaluate", supernet.id, tmp_path / "nothing.json")
    assert ended.status == 2
    assert "cannot be read" in ended.err
