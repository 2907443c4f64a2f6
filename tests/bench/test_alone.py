"""The comparison of inherited with alone: which networks, what alone means, and that parts add up."""

import json

import numpy as np
import pytest

from bench import alone
from bench.alone import chosen_networks, main
from bench.intervals import mean_interval, ratio_interval
from nas.costs import costs
from nas.recipes import RECIPES
from nas.verification import alone_recipe
from search_spaces import SPACES


def test_twelve_networks_from_end_to_end_and_another_for_the_rate():
    space = SPACES["micro"]
    networks, other = chosen_networks(space)
    macs = [costs(space, network)["macs"] for network in networks]
    assert len(set(networks)) == 12
    assert macs == sorted(macs)
    assert (networks[0], networks[-1]) == (space.smallest(), space.largest())
    assert other not in networks
    assert chosen_networks(space) == (networks, other)


@pytest.mark.parametrize("name", ["bignas", "spos", "deps", "panda", "attentive", "alphanet"])
def test_alone_differs_from_the_recipe_in_what_is_trained_only(name):
    recipe = alone_recipe(RECIPES[name], 0.1)
    kept = ("epochs", "batch_size", "learning_rate_policy", "weight_decay", "label_smoothing", "clip")
    assert [getattr(recipe, field) for field in kept] == [getattr(RECIPES[name], field) for field in kept]
    assert (recipe.base_learning_rate, recipe.num_random, recipe.distillation) == (0.1, 1, "none")


def test_parts_are_done_once_and_reported_together(tmp_path, monkeypatch, capsys):
    networks, other = chosen_networks(SPACES["micro_8"])
    ends = (networks[0], networks[-1])
    monkeypatch.setattr(alone, "chosen_networks", lambda space: (ends, other))
    monkeypatch.setattr(alone, "NUM_BINS", 0)
    common = ["--space", "micro_8", "--epochs", "1", "--out", str(tmp_path)]
    main(common)
    written = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    assert set(written) == {"supernet.json", "0.json", "1.json"}
    assert json.loads(written["1.json"])["recipe"]["num_random"] == 1
    main(common)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.json")} == written
    with pytest.raises(SystemExit, match="another comparison; choose another --out"):
        main([*common, "--seed", "1"])

    capsys.readouterr()
    main([*common, "--report"])
    told = capsys.readouterr().out
    both = [json.loads(written[name])["accuracies"] for name in ("supernet.json", "0.json", "1.json")]
    gaps = [100 * (both[1 + i][0]["test"] - both[0][i]["test"]) for i in range(2)]
    assert f"test: alone less inherited {mean_interval(gaps)} points" in told


def test_the_interval_is_students():
    assert mean_interval([1.0, 2.0, 3.0]) == "+2.00 (95 % -0.48 to +4.48)"
    assert mean_interval([-1.5]) == "-1.50"


def test_the_interval_of_a_ratio_is_that_of_its_logarithm():
    assert ratio_interval(np.exp([1.0, 2.0, 3.0])) == "7.39 (95 % 0.62 to 88.60)"
    assert ratio_interval([0.5]) == "0.50"
