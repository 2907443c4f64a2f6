"""Whatever is typed: a sentence that names what is wrong and what to do, the right status, no traceback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.api.conftest import DIGITS
from tests.ports import free_port


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["dataset", "lst"], 2, "Did you mean 'list'"),
        (["dataset", "add"], 2, "say which images"),
        (["dataset", "add", "/nowhere/at/all"], 2, "no such file or folder here"),
        (["dataset", "add", "digits", "--kind", "tfrecord"], 2, "'tfrecord' is not one of"),
        (["dataset", "add", "digits", "--val-fraction", "much"], 2, "--val-fraction"),
        (["dataset", "add", "digits", "--val-fraction", "0.9"], 2, "split.val_fraction"),
        (["dataset", "add", "digits", "--val-fraction", "nan"], 2, "split.val_fraction: nan"),
        (["dataset", "add", "digits", "--split-seed", "-1"], 2, "split.seed"),
        (["dataset", "add", "digits", "--set", "colour=red"], 2, "colour"),
        (["dataset", "add", "digits", "--set", "colour"], 2, "write it like --set recipe.epochs=10"),
        (["dataset", "add", "digits", "--set", "=1"], 2, "write it like"),
        (["dataset", "add", "digits", "--label", "x"], 2, "write it like --label team=vision"),
        (["dataset", "add", "digits", "--label", "a b=c"], 2, "labels"),
        (["dataset", "add", "digits", "--name", "x" * 201], 2, "display_name"),
        (["dataset", "add", "digits", "--timeout", "5"], 2, "add --wait"),
        (["dataset", "add", "digits", "--wait", "--timeout", "0"], 2, "above 0"),
        (["dataset", "add", "digits", "--wait", "--timeout", "nan"], 2, "above 0"),
        (["dataset", "add", "--upload"], 2, "give it"),
        (["dataset", "add", "--upload", "/nowhere"], 2, "no such file or folder"),
        (["dataset", "get", ""], 2, "it is empty"),
        (["dataset", "get", "ds_none"], 1, "ds_none"),
        (["dataset", "get", "../jobs"], 1, "no resource"),
        (["dataset", "get", "日本"], 1, "no resource"),
        (["dataset", "list", "--limit", "0"], 2, "--limit"),
        (["dataset", "list", "-o", "yaml"], 2, "'yaml' is not one of"),
        (["dataset", "list", "--url", "localhost"], 2, "it looks like http"),
        (["dataset", "list", "--key", "two words"], 2, "copy it anew"),
        (["supernet", "train"], 2, "dataset_id"),
        (["supernet", "train", "ds_none", "micro_8"], 1, "ds_none"),
        (["supernet", "train", "ds_none", "macro"], 2, "micro_8"),
        (["supernet", "train", "ds_none", "micro_8", "--epochs", "many"], 2, "--epochs"),
        (["supernet", "train", "ds_none", "micro_8", "--epochs", "-3"], 2, "recipe.epochs"),
        (["supernet", "train", "ds_none", "micro_8", "--recipe", "magic"], 2, "bignas"),
        (["search", "create", "sn_none", "--trials", "0"], 2, "num_trials"),
        (["search", "create", "sn_none"], 2, "num_trials"),
        (["search", "create", "sn_none", "--trials", "5", "--max-macs", "few"], 2, "constraints.max_macs"),
        (["search", "create", "sn_none", "--trials", "5", "--max-macs", "nan"], 2, "constraints.max_macs"),
        (["search", "create", "sn_none", "--trials", "5", "--max-macs", "-1"], 2, "constraints.max_macs"),
        (["search", "create", "sn_none", "--trials", "5", "--objective", "latency"], 2, "objectives"),
        (["search", "pareto", "se_none"], 1, "se_none"),
        (["best", "sn_none"], 1, "sn_none"),
        (["best"], 2, "SUPERNET"),
        (["subnet", "create"], 2, "exactly one of these sets"),
        (["subnet", "create", "--supernet", "sn_none", "--architecture", "{"], 2, "line 1"),
        (["subnet", "download", "sub_none"], 2, "--dir"),
        (["space", "get", "macro"], 1, "micro_8"),
        (["space", "get", "micro_8", "--num-classes", "0"], 2, "num_classes"),
        (["job", "watch", "job_none", "--timeout", "soon"], 2, "number of seconds"),
        (["serve", "--port", "http"], 2, "choose a number from 1 to 65535"),
        (["serve", "--port", "0"], 2, "choose a number from 1 to 65535"),
        (["serve", "--exit"], 2, "add --demo"),
    ],
)  # fmt: skip
def test_the_mistake_is_named(nas, arguments, status, told):
    ended = nas(*arguments)
    assert (ended.status, ended.out) == (status, ""), ended.err
    assert told in ended.err, ended.err
    assert len(ended.err.strip().splitlines()) <= 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing instead of a mapping"),
        ("- 1\n", "a list instead of a mapping"),
        ("digits", "a text instead of a mapping"),
        ("a: [1", "line 1"),
        ("a: 1\na: 2\n", "a key stands twice"),
        ("1: 2\n", "the key 1 is no text"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("source: {kind: bundled, name: digits}\ncolour: red\n", "colour"),
        ("source: {kind: bundled, name: digits}\nsplit: {val_fraction: .nan}\n", "split.val_fraction"),
        ("source: {kind: bundled, name: digits}\nsplit: 3\n", "split"),
        ("\t", "line 1"),
    ],
)
def test_a_body_file_that_is_wrong_is_told(nas, tmp_path, text, told):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    ended = nas("dataset", "add", "-f", path)
    assert ended.status == 2, ended.err
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) <= 3


def test_a_body_file_that_cannot_be_read_is_told(nas, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in nas("dataset", "add", "-f", tmp_path / "binary").err
    missing = nas("dataset", "add", "-f", tmp_path / "missing.yaml")
    assert missing.status == 2
    assert "No such file or directory); correct the path" in missing.err
    assert "directory" in nas("dataset", "add", "-f", tmp_path).err


def test_a_body_file_is_the_body_and_options_override_it(nas, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "display_name: from the file\nlabels: {team: vision, on: yes}\n"
        "source: {kind: bundled, name: digits}\nsplit: {val_fraction: 2e-1, seed: 4}\n"
    )
    made = nas(
        "dataset", "add", "-f", path, "--name", "from the option", "--label", "team=audio", "--split-seed", 5,
        "-o", "json",
    ).json()  # fmt: skip
    assert made["display_name"] == "from the option"
    assert made["labels"] == {"team": "audio", "on": "yes"}
    assert (made["spec"]["split"]["val_fraction"], made["spec"]["split"]["seed"]) == (0.2, 5)


def test_a_json_body_is_read_too_also_from_stdin(nas, tmp_path, monkeypatch):
    import io
    import sys

    text = '{\n\t"source": {"kind": "bundled", "name": "digits"}, "display_name": "json"}'
    path = tmp_path / "job.json"
    path.write_text(text)
    assert nas("dataset", "add", "-f", path, "-o", "json").json()["display_name"] == "json"
    stdin = io.TextIOWrapper(io.BytesIO(text.replace("\t", " ").encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert nas("dataset", "add", "-f", "-", "-o", "json").json()["display_name"] == "json"


def test_an_argument_that_is_no_text_is_refused(nas):
    ended = nas("dataset", "get", "\udcff")
    assert (ended.status, "not valid UTF-8" in ended.err) == (2, True)


def test_what_steers_a_terminal_is_not_printed(nas, client):
    client.datasets.create(DIGITS, display_name="red \x1b[31m \u202e")
    for command in (["list"], ["get", next(iter(client.datasets.list())).id]):
        ended = nas("dataset", *command)
        assert "\x1b" not in ended.out
        assert "\u202e" not in ended.out


def test_infeasible_bounds_end_with_3_and_name_bounds_that_would_do(nas, search):
    supernet = search["supernet_id"]
    refused = nas("search", "create", supernet, "--trials", 5, "--max-macs", 10)
    assert refused.status == 3, refused.err
    assert "a bound that would do alone: --max-macs " in refused.err
    together = refused.err.split("bounds that would do together: ")[1].splitlines()[0].split()
    bound = refused.err.split("--max-macs ")[-1].split()[0]
    assert together == ["--max-macs", bound]
    assert nas("search", "create", supernet, "--trials", 5, "--max-macs", bound).status == 0
    nothing = nas("best", supernet, "--max-macs", 10)
    assert (nothing.status, nothing.out) == (3, "")
    relaxed = nothing.err.split("bounds that would do together: ")[1].split()
    assert nas("best", supernet, *relaxed).status == 0


def test_the_dry_run_tells_the_same_and_makes_nothing(nas, search):
    question = ("search", "validate", search["supernet_id"], "--trials", 5, "--max-macs")
    before = nas("search", "list", "-o", "json").out
    answer = nas(*question, 10, "-o", "json")
    assert answer.status == 3
    told = json.loads(answer.out)
    assert told["verdict"] == "infeasible"
    bound = told["relax_alone"]["max_macs"]
    assert told["relax"]["max_macs"] == told["nearest"]["costs"]["macs"] == bound
    assert nas(*question, bound - 1).status == 3
    allowed = nas(*question, bound)
    assert allowed.status == 0
    assert "feasible" in allowed.out
    assert nas("search", "list", "-o", "json").out == before


def test_what_is_not_ready_fails_with_its_state(nas, untrained):
    for arguments in (["best", untrained.id], ["search", "create", untrained.id, "--trials", 5]):
        ended = nas(*arguments)
        assert (ended.status, "queued" in ended.err) == (1, True)


def test_no_service_is_told_with_what_was_tried_and_how_to_start_one(unserved):
    url = f"http://127.0.0.1:{free_port()}"
    ended = unserved("dataset", "list", "--url", url)
    assert (ended.status, ended.out) == (1, "")
    assert url in ended.err
    assert "nas serve" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_another_server_on_the_port_is_told_apart(unserved):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        ended = unserved("dataset", "list", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert ended.status == 1
    assert "is not this service" in ended.err


def test_help_is_there_for_every_command(unserved):
    import click

    from nas.cli import commands

    def walk(command: click.Command, *path: str) -> None:
        ended = unserved(*path, "--help")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.startswith("Usage: nas")
        for name, child in getattr(command, "commands", {}).items():
            assert child.get_short_help_str(), name
            walk(child, *path, name)

    walk(commands)
