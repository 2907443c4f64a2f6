"""`nas search`: what a search knows, printed; and written for Optuna."""

from __future__ import annotations

import json

import pytest

from nas.commands.points import ROUND_COLUMNS, TRIAL_COLUMNS
from nas.commands.progress import ProgressLine
from tests.api.conftest import ACCURACIES
from tests.api.worker import ladder
from tests.devices.lines import table_of, text_of


class Terminal:
    """Remembers what was written to it."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_trials_show_what_was_predicted_beside_what_was_measured(nas, search):
    printed = nas("search", "trials", search.id)
    head, *rows = printed.out.splitlines()
    assert all(title in head for title in TRIAL_COLUMNS)
    assert len(rows) == 5
    assert ["seed" in row for row in rows] == [True] * 3 + [False] * 2
    # The fourth was predicted without an interval, the last with one.
    assert " 75.0% 90.0% (" in " ".join(rows[3].split())
    assert " 87.5% (75.0% to 100.0%) 95.0% (" in " ".join(rows[4].split())
    assert len(nas("search", "trials", search.id, "-o", "json").json()) == 5


def test_trials_of_a_search_on_a_device_show_their_latencies(nas, client, supernet, worker, tmp_path):
    assert "LATENCY_MS" not in nas("search", "trials", client.searches.create(supernet.id, 5).id).out
    worker.search(ladder(5), ACCURACIES)
    client.devices.create("host")
    client.devices.put_table("host", text_of(table_of()))
    asked = {"device": "host", "constraints": {"max_latency_ms": "100%"}}
    timed = client.searches.create(supernet.id, 5, **asked)
    worker.search(ladder(5), ACCURACIES)
    head, *rows = nas("search", "trials", timed.id).out.splitlines()
    assert head.endswith("LATENCY_MS")
    assert len(rows) == 5 and all(row.endswith(" (predicted, error unknown)") for row in rows)


def test_rounds_show_how_far_the_search_got(nas, search):
    head, *rows = nas("search", "rounds", search.id).out.splitlines()
    assert all(title in head for title in ROUND_COLUMNS)
    assert [row.split() for row in rows] == [
        ["0", "3", "3", "0", "-", "-", "-"],
        ["1", "5", "5", "1e+06", "1", "-", "-"],
    ]
    assert [found["number"] for found in nas("search", "rounds", search.id, "-o", "json").json()] == [0, 1]


def test_get_shows_why_it_ended_and_its_last_round(nas, search):
    lines = nas("search", "get", search.id).out.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines if len(line.split()) == 2)
    assert told["stop_reason"] == "budget_spent"
    assert told["latest_round.hypervolume"] == "1000000.0"
    assert told["latest_round.num_trials"] == "5"


def test_a_search_is_told_to_end_when_it_is_flat(nas, supernet):
    created = nas("search", "create", supernet.id, "--trials", 500, "--flat-rounds", 4, "-o", "json").json()
    assert created["flat_rounds"] == 4
    refused = nas("search", "create", supernet.id, "--trials", 500, "--flat-rounds", 0)
    assert refused.status != 0
    assert "flat_rounds" in refused.err


def test_a_search_is_exported_for_optuna(nas, search, tmp_path):
    path = tmp_path / "study.log"
    printed = nas("search", "export", search.id, "--optuna", path)
    assert (printed.status, printed.out) == (0, f"{path}\n")
    created, *_, last = map(json.loads, path.read_text().splitlines())
    assert created["study_name"] == search.id
    assert last["user_attrs"]["origin"] == "proposed"
    again = nas("search", "export", search.id, "--optuna", path, "-o", "json").json()
    assert again == {"id": search.id, "path": str(path)}
    missing = nas("search", "export", "se_aaaaaaaaaaaaaaaa", "--optuna", tmp_path / "none.log")
    assert missing.status == 1
    assert not (tmp_path / "none.log").exists()


def test_watching_tells_the_hypervolume_and_an_end_before_the_budget_once(search):
    running = {
        "progress": {"phase": "search", "done": 5, "total": 50, "eta_seconds": None},
        "state": "running",
    }
    terminal = Terminal()
    with ProgressLine(terminal) as line:
        line(type(search)({**search, **running, "stop_reason": None}, search.transport))
        assert "hypervolume 1e+06" in terminal.text
        for _ in range(2):
            line(type(search)({**search, "stop_reason": "flat"}, search.transport))
    assert terminal.text.count("ended before its trials were spent") == 1
    spent = Terminal()
    with ProgressLine(spent) as line:
        line(search)
    assert "ended before" not in spent.text


def shown(lines: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in lines.splitlines() if len(line.split()) > 1)


def test_the_dry_run_shows_a_network_that_keeps_the_bounds_and_what_the_space_has(nas, search):
    question = ("search", "validate", search["supernet_id"], "--trials", 5, "--max-macs")
    whole = nas(*question, "50%", "-o", "json").json()
    rows = shown(nas(*question, "50%").out)
    assert rows["witness.costs.macs"] == str(whole["witness"]["costs"]["macs"])
    assert rows["witness.architecture_key"] == whole["witness"]["architecture_key"]
    assert rows["nearest"] == "-"
    space, ends = whole["search_space"], whole["search_space"]["costs"]
    assert float(rows["search_space.num_networks"]) == pytest.approx(space["num_networks"], rel=0.05)
    for cost in ("macs", "params"):
        assert rows[f"search_space.{cost}"] == f"{ends[cost]['smallest']:,} to {ends[cost]['largest']:,}"
    refused = shown(nas(*question, 10).out)
    assert refused["witness"] == "-"
    assert refused["nearest.costs.macs"] == refused["relax.max_macs"] == f"{ends['macs']['smallest']}"
    assert not [name for name in (*rows, *refused) if ".architecture." in name]
