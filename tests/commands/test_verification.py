"""Finalists and verifications on the command line."""

from __future__ import annotations

import pytest

from nas.commands.points import rate
from tests.api.worker import SPACE
from tests.commands.test_main_path import later


def test_finalists_are_measured_and_told(nas, search, worker):
    assert "nas verify finalists" in nas("search", "finalists", search.id).err
    helper = later(worker.verify)
    ended = nas("verify", "finalists", search.id, "--trial", 3, "--wait", "--timeout", 60)
    helper.join()
    assert ended.status == 0
    assert "for reporting" in ended.err
    assert ended.out.splitlines()[1].split()[:2] == ["0", "3"]
    (found,) = nas("search", "finalists", search.id, "-o", "json").json()
    assert (found["number"], found["accuracy_test"]["split"]) == (3, "test")
    table = nas("search", "finalists", search.id).out
    assert "ACCURACY ON TEST" in table.splitlines()[0]


def test_a_verification_shows_what_each_network_learned(nas, search, worker):
    helper = later(lambda: worker.verify({0: 170, 1: 160}))
    ended = nas(
        "verify", "create", search.id, "--trial", 4, "--training", "alone", "--rate", 0.05, "--rate", 0.1,
        "--epochs", 3, "--name", "mine", "--wait", "--timeout", 60,
    )  # fmt: skip
    helper.join()
    assert ended.status == 0
    assert "85.0% at rate 0.05, +10.0 (+" in ended.out
    (made,) = nas("verify", "list", "--supernet", search["supernet_id"], "-o", "json").json()
    assert (made["display_name"], made["num_runs"], made["spec"]["epochs"]) == ("mine", 2, 3)
    runs = nas("verify", "runs", made["id"]).out.splitlines()
    assert [line.split()[-1] for line in runs[1:]] == ["yes", "-"]
    assert "85.0% at rate 0.05" in nas("verify", "networks", made["id"]).out
    assert nas("verify", "delete", made["id"]).status == 0


def test_networks_of_no_search_come_from_a_file(nas, supernet, tmp_path):
    file = tmp_path / "body.json"
    network = SPACE.smallest().to_json()
    file.write_text(
        f'{{"supernet_id": "{supernet.id}", "architectures": [{str(network).replace(chr(39), chr(34))}]}}'
    )
    ended = nas("verify", "create", "-f", file, "-o", "json")
    assert ended.json()["num_runs"] == 4
    assert nas("verify", "cancel", ended.json()["id"]).out.strip().endswith("is cancelled")


def test_what_cannot_be_verified_is_told(nas, search):
    ended = nas("verify", "create", search.id, "--trial", 99)
    assert ended.status == 2
    assert "has no trial 99" in ended.err
    assert nas("verify", "create").status == 2


@pytest.mark.parametrize(("factor", "told"), [(1.0, "0.4"), (0.5, "0.4 (0.2 in the end)")])
def test_a_rate_that_was_halved_in_a_training_is_told(factor, told):
    assert rate({"learning_rate": 0.4, "rate_factor": factor}) == told
