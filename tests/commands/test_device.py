"""`nas device`, and what other commands say of devices."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from nas.commands import measuring
from nas.commands.points import latency
from tests.commands.test_main_path import later
from tests.devices.lines import probe_lines, probe_lines_of, table_of, text_of


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "table.jsonl"
    path.write_text(text_of(table_of()))
    return path


def test_a_device_is_added_shown_and_deleted(nas, table):
    assert nas("device", "add", "host", "--notes", "a shelf").status == 0
    again = nas("device", "add", "host")
    assert again.status == 1 and "there is a device 'host' already" in again.err
    assert nas("device", "add", "Pi 5").status == 2
    assert nas("device", "table", "host", table).status == 0
    assert nas("device", "table", "host").out == table.read_text() + "\n"
    listed = nas("device", "list").out
    assert "KNOWN FOR" in listed and f"a table of {len(table_of().rows)}" in listed
    gaps = nas("device", "gaps", "host", "--space", "micro_8", "-o", "json").json()
    assert gaps["num_missing"] > 0, "the space's own classes are not those of the table"
    assert nas("device", "gaps", "host").status == 2
    assert nas("device", "get", "host", "-o", "json").json()["notes"] == "a shelf"
    assert nas("device", "delete", "host", "-o", "json").json() == {"name": "host", "deleted": True}
    absent = nas("device", "get", "host")
    assert absent.status == 1 and "nas device add" in absent.err


def test_a_broken_table_is_refused_by_its_line(nas, table):
    nas("device", "add", "host")
    table.write_text(table.read_text().replace('"p50_ms": ', '"p50_ms": -', 1))
    refused = nas("device", "table", "host", table)
    assert refused.status == 2 and "line 2: p50_ms -" in refused.err


def test_the_best_is_asked_for_by_latency(nas, search, table):
    nas("device", "add", "host")
    nas("device", "table", "host", table)
    supernet = search["supernet_id"]
    best = nas("best", supernet, "--device", "host", "--max-latency-ms", "60%", "-o", "json").json()
    bound = best["latency_ms"]["value"]
    assert best["latency_ms"]["provenance"] == "predicted"
    nothing = nas("best", supernet, "--device", "host", "--max-latency-ms", 0.001)
    assert nothing.status == 3 and "--max-latency-ms" in nothing.err
    assert nas("best", supernet, "--max-latency-ms", bound).status == 2
    unknown = nas("best", supernet, "--device", "pi5")
    assert unknown.status == 2 and "there are host" in unknown.err
    asked = ["--device", "host", "--max-latency-ms", "80%", "--objective", "accuracy", "--objective"]
    dry = nas("search", "validate", supernet, "--trials", 3, *asked, "latency_ms", "-o", "json").json()
    assert (dry["verdict"], dry["device"]) == ("feasible", "host")
    made = nas("search", "create", supernet, "--trials", 3, *asked, "latency_ms", "-o", "json").json()
    assert made["device"] == "host"
    assert "nas search" not in nas("device", "delete", "host").err


class _Ran:
    """Stands for the probe's process: what it writes takes minutes of a quiet machine to measure."""

    def __init__(self, returncode: int, lines: list[str]) -> None:
        self.commands: list[list[str]] = []
        self._returncode, self._lines = returncode, lines

    def __call__(self, command, *, cwd, check):
        self.commands.append(command)
        assert (cwd / "work.zip").read_bytes() == b"a zip"
        assert "def main" in (cwd / "probe.py").read_text()
        if self._returncode == 0:
            (cwd / "out.jsonl").write_text("\n".join(self._lines))
        return subprocess.CompletedProcess(command, self._returncode)


def test_this_machine_is_measured_in_one_command(nas, supernet, worker, monkeypatch):
    ran = _Ran(0, probe_lines())
    monkeypatch.setattr(measuring.subprocess, "run", ran)

    def work():
        worker.make_work_file(b"a zip")
        later(worker.fit_latency).join()

    helper = later(work)
    found = nas("device", "probe", "--supernet", supernet.id, "--cores", "0", "--timeout", 60, "-o", "json")
    helper.join()
    assert found.status == 0, found.err
    assert found.json()["accuracy"]["mape"] < 0.03
    ((_, isolated, _, *arguments),) = ran.commands
    assert isolated == "-I"
    assert arguments == ["work.zip", "out.jsonl", "--device", "host", "--threads", "1", "--cores", "0"]
    assert nas("device", "list", "-o", "id").out.split() == ["host"]
    told = found.json()
    error, again = (f"{told[name]['mape']:.1%}" for name in ("accuracy", "second_pass"))
    assert f"micro_8 ({error}, measured again {again})" in nas("device", "list").out
    listed = nas("device", "measurements", "host").out
    assert told["id"] in listed and f"{again}, 100.0%, {told['second_pass']['spearman']:.3f}" in listed
    assert "second_pass" in nas("device", "get", "host").out
    best = nas("best", supernet.id, "--device", "host")
    assert best.status == 1 and "no network" in best.err


def test_the_finalists_of_a_search_are_measured_by_name(nas, client, search, table, worker, monkeypatch):
    front = [point["architecture"] for point in client.searches.get(search.id).pareto()]
    monkeypatch.setattr(measuring.subprocess, "run", _Ran(0, probe_lines_of(front)))

    def work():
        worker.make_work_file(b"a zip")
        later(worker.fit_latency).join()

    helper = later(work)
    found = nas("device", "probe", "--search", search.id, "--timeout", 60)
    helper.join()
    assert found.status == 0, found.err
    assert f"the times of {len(front)} networks are shown beside the predicted ones" in found.err
    assert nas("device", "table", "host", table).status == 0
    assert "latency_ms.measurement.value" in nas("best", search["supernet_id"], "--device", "host").out
    best = nas("best", search["supernet_id"], "--device", "host", "-o", "json").json()
    assert re.fullmatch(r"[\d.]+ \(predicted, error unknown; measured [\d.]+\)", latency(best["latency_ms"]))
    both = nas("device", "probe", "--search", search.id, "--space", "micro_8")
    assert both.status == 2 and "leave --supernet and --space out" in both.err


def test_figures_that_do_not_repeat_are_not_sent(nas, supernet, worker, monkeypatch):
    monkeypatch.setattr(measuring.subprocess, "run", _Ran(3, []))
    helper = later(lambda: worker.make_work_file(b"a zip"))
    found = nas("device", "probe", "--supernet", supernet.id, "--timeout", 60)
    helper.join()
    assert found.status == 1 and "nothing was sent: the figures do not repeat" in found.err
    assert nas("device", "measurements", "host", "-o", "json").json() == []


def test_what_measuring_elsewhere_takes_is_packed_and_its_figures_sent(nas, supernet, worker, tmp_path):
    nas("device", "add", "pi5", "--threads", 4)
    helper = later(lambda: worker.make_work_file(b"a zip"))
    packed = nas("device", "probe", "pi5", "--supernet", supernet.id, "--pack", tmp_path / "kit")
    helper.join()
    assert packed.status == 0, packed.err
    assert "python probe.py work.zip out.jsonl --device pi5 --threads 4" in packed.err
    assert {path.name for path in (tmp_path / "kit").iterdir()} == {"work.zip", "probe.py"}
    lines = [json.loads(line) for line in probe_lines()]
    out = tmp_path / "out.jsonl"
    out.write_text("\n".join(map(json.dumps, lines)))
    wrong = nas("device", "upload", "pi5", out)
    assert wrong.status == 2 and "name 'host', not 'pi5'" in wrong.err
    lines[0] |= {"device": "pi5", "threads": 4}
    out.write_text("\n".join(map(json.dumps, lines)))
    helper = later(worker.fit_latency)
    assert nas("device", "upload", "pi5", out, "--wait", "--timeout", 60, "-o", "id").status == 0
    helper.join()


def test_a_device_that_the_probe_cannot_measure_is_refused(nas, supernet):
    nas("device", "add", "phone", "--runtime", "litert")
    refused = nas("device", "probe", "phone", "--supernet", supernet.id)
    assert refused.status == 2 and "give this one a latency table" in refused.err
    assert "--pack FOLDER" in refused.err
    assert nas("device", "probe", "phone").status == 2


def test_networks_are_packed_for_a_runtime_that_has_no_probe(nas, client, supernet, worker, tmp_path):
    nas("device", "add", "phone", "--runtime", "litert")
    asked = []

    def work():
        asked[:] = client.work_files.list()
        assert asked, "no work file to claim"
        worker.make_work_file(b"a zip")

    helper = later(work)
    packed = nas("device", "probe", "phone", "--supernet", supernet.id, "--pack", tmp_path / "kit")
    helper.join()
    assert packed.status == 0 and "time the networks in it with litert" in packed.err
    assert [path.name for path in (tmp_path / "kit").iterdir()] == ["work.zip"]
    assert [work_file["spec"]["max_blocks"] for work_file in asked] == [0]


@pytest.mark.parametrize(
    ("speed", "told"),
    [
        (None, "4.81 (predicted, error 2.9%; measured 4.2)"),
        (1.01, "4.81 (predicted, error 2.9%; measured 4.2)"),
        (1.146, "4.81 (predicted, error 2.9%; measured 4.2 at 1.15 times the speed)"),
        (0.5, "4.81 (predicted, error 2.9%; measured 4.2 at 0.50 times the speed)"),
    ],
)
def test_a_time_measured_at_another_speed_says_so(speed, told):
    figure = {"value": 4.81, "mape": 0.029, "measurement": {"value": 4.2, "speed": speed}}
    assert latency(figure) == told
