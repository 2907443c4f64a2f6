"""Laws of every search space: spelling, identity, counting, walking."""

import json

import numpy as np
import pytest

from nas.errors import InvalidArchitectureError
from search_spaces import SPACES

NUM_SAMPLES = 100


@pytest.fixture(params=sorted(SPACES))
def space(request):
    return SPACES[request.param]


def samples(space, count=NUM_SAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


def test_the_readable_json_names_the_architecture(space):
    for architecture in samples(space):
        text = json.dumps(architecture.to_json())
        assert space.parse(text) == architecture
        assert space.parse(json.loads(text)) == architecture
        assert space.parse(architecture) == architecture


def test_decode_inverts_encode(space):
    architectures = samples(space)
    codes = space.encode(architectures)
    assert codes.shape == (len(architectures), len(space.decisions))
    assert [space.decode(row) for row in codes] == architectures
    assert np.array_equal(space.encode(space.decode(row) for row in codes), codes)


def test_the_ends_are_members_and_cover_the_extreme_options(space):
    for architecture in (space.largest(), space.smallest(), *samples(space)):
        assert space.contains(architecture)
    assert space.largest() != space.smallest()


def test_no_space_contains_another_spaces_architecture(space):
    others = [other for name, other in SPACES.items() if name != space.name]
    for other in others:
        assert not space.contains(other.largest())
        with pytest.raises(InvalidArchitectureError, match="belongs to space"):
            space.lower(other.largest())


def test_inactive_choices_are_no_part_of_the_identity(space):
    rng = np.random.default_rng(0)
    for architecture in samples(space):
        (row,) = space.encode([architecture])
        for column, decision in enumerate(space.decisions):
            if architecture.get(decision.name) is None:
                row[column] = rng.integers(len(decision.options))
        noisy = space.decode(row)
        assert noisy == architecture
        assert hash(noisy) == hash(architecture)
        assert noisy.key == architecture.key


def test_different_networks_have_different_keys(space):
    architectures = set(samples(space, 300))
    assert len({architecture.key for architecture in architectures}) == len(architectures)


def test_a_key_is_stable_across_releases():
    assert SPACES["micro"].largest().key == "d51760d347c614ad401c94de"


def test_sampling_repeats_with_its_seed(space):
    assert samples(space, 20, seed=3) == samples(space, 20, seed=3)
    assert samples(space, 20, seed=3) != samples(space, 20, seed=4)


def test_a_mutant_is_another_member(space):
    rng = np.random.default_rng(0)
    for architecture in samples(space, 50):
        mutant = space.mutate(architecture, rng)
        assert mutant != architecture
        assert space.contains(mutant)


def test_every_decision_is_in_one_group_of_equal_options(space):
    groups = space.option_groups().values()
    grouped = [decision for group in groups for decision in group]
    assert sorted(d.name for d in grouped) == sorted(d.name for d in space.decisions)
    assert all(len({decision.options for decision in group}) == 1 for group in groups)


def test_depths_are_sampled_uniformly():
    space = SPACES["micro"]
    depths = [architecture["stage3.depth"] for architecture in samples(space, 3000)]
    counts = np.array([depths.count(depth) for depth in (1, 2, 3)])
    # Chi-square with 2 degrees of freedom: 13.8 is passed once in a thousand times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8


@pytest.mark.parametrize(("name", "distinct"), [("nas_bench_macro", 3969), ("nas_bench_201", 6466)])
def test_the_benchmarks_distinct_networks_are_counted(name, distinct):
    space = SPACES[name]
    assert space.size() == distinct
    every = {space.parse(dict(values)) for values in space.all()}
    assert len(every) == distinct
    assert len({architecture.key for architecture in every}) == distinct


def test_the_size_of_the_depth_spaces_is_the_papers_formula():
    per_unit = 9**2 + 9**3 + 9**4
    assert SPACES["ofa_mobilenetv3"].size() == 25 * per_unit**5
    assert SPACES["micro"].size() == 3 * (2 * (9 + 9**2 + 9**3)) ** 4


def test_the_size_of_the_spaces_with_elastic_width_is_the_product_of_their_tables():
    by_stage = [2 * 2 * 2, 2 * 3 * 2 * 3, 2 * 4 * 2 * 3, 2 * 4 * 2 * 3, 3 * 6 * 2 * 3, 4 * 6 * 2, 2 * 2 * 2]
    assert SPACES["attentive_nas"].size() == 4 * 2 * np.prod(by_stage) * 2
    stages = [3 * sum(3 ** (base + extra) for extra in (0, 1, 2)) for base in (2, 2, 4, 2)]
    # Inside the stem two of the three multipliers round to one width.
    assert SPACES["ofa_resnet50"].size() == 25 * 2 * 2 * 3 * np.prod(stages)


def test_attentive_nas_descriptions_name_the_ends():
    space = SPACES["attentive_nas"]
    largest = {
        "resolution": 288,
        "width": [24, 24, 32, 40, 72, 128, 216, 224, 1984],
        "kernel_size": [5] * 7,
        "expand_ratio": [1, 6, 6, 6, 6, 6, 6],
        "depth": [2, 5, 6, 6, 8, 8, 2],
    }
    assert space.parse(largest) == space.largest()
    assert space.largest()["head.width"] == 1984


def test_ofa_resnet_descriptions_name_the_ends_and_their_placeholders_are_ignored():
    space = SPACES["ofa_resnet50"]
    largest = {"d": [2] * 5, "e": [0.35] * 18, "w": [2] * 6, "r": 224}
    assert space.parse(largest) == space.largest()
    smallest = {"d": [0] * 5, "e": [0.2] * 18, "w": [0] * 6, "r": 128}
    assert space.parse(smallest) == space.smallest()
    # The two narrower stems are one.
    assert space.parse({**smallest, "w": [1] + [0] * 5}) == space.smallest()
    unused = [0.2, 0.2, None, None] * 2 + [0.2] * 4 + [None, None] + [0.2, 0.2, None, None]
    assert space.parse({**smallest, "e": unused}) == space.smallest()


def test_ofa_dictionaries_are_read_and_their_placeholders_ignored():
    space = SPACES["ofa_mobilenetv3"]
    description = {"ks": [7] * 20, "e": [6] * 20, "d": [2] * 5, "r": 224}
    placeholders = {**description, "ks": [7, 7, 0, 0] * 5, "e": [6, 6, 0, 0] * 5}
    assert space.parse(description) == space.parse(placeholders)
    assert space.parse({**description, "d": [4] * 5}) == space.largest()


@pytest.mark.parametrize(
    ("space_name", "description", "message"),
    [
        ("micro", {"stage1.block1.kernel": 9}, "is missing|not in"),
        (
            "micro",
            {**SPACES["micro"].largest().to_json(), "stage2.block1.kernel": 9},
            r"9 is not in \(3, 5, 7\)",
        ),
        ("micro", {**SPACES["micro"].largest().to_json(), "stage9.depth": 1}, "no decision of space 'micro'"),
        ("micro", {**SPACES["micro"].largest().to_json(), "resolution": True}, "True is not in"),
        ("micro", {**SPACES["micro"].largest().to_json(), "resolution": float("nan")}, "nan is not in"),
        ("micro", {**SPACES["micro"].largest().to_json(), "resolution": [32]}, "is not in"),
        ("micro", "not json", "neither JSON nor"),
        ("micro", 7, "is a mapping"),
        ("micro", "{}", "'resolution' is missing"),
        ("ofa_mobilenetv3", {"ks": [3], "e": [3], "d": [2], "r": 224}, "list of 20"),
        ("ofa_mobilenetv3", {"ks": [3] * 20, "e": [5] * 20, "d": [2] * 5, "r": 224}, "expansion 5 is not in"),
        ("ofa_mobilenetv3", {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 225}, "225 is not in"),
        ("ofa_mobilenetv3", {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "z": 1}, "'z' is unknown"),
        ("attentive_nas", {"width": [16] * 8}, "list of 9"),
        ("attentive_nas", {"width": [16] * 9, "ks": [3]}, "'ks' is unknown"),
        ("attentive_nas", {"depth": [3] * 7, "kernel_size": 3, "width": [16] * 9}, "'kernel_size' must be"),
        ("attentive_nas", {"ks": [3]}, "no decision of space 'attentive_nas'"),
        ("ofa_resnet50", {"d": [2] * 4, "e": [0.2] * 18, "w": [0] * 6}, "list of 5"),
        ("ofa_resnet50", {"d": [1] + [2] * 4, "e": [0.2] * 18, "w": [0] * 6}, r"d 1 is not in \(0, 2\)"),
        ("ofa_resnet50", {"d": [2] * 5, "e": [0.2] * 18, "w": [0.65] * 6}, r"w 0.65 is not in \(0, 1, 2\)"),
        ("ofa_resnet50", {"d": [2] * 5, "e": [0.3] * 18, "w": [0] * 6}, "expansion 0.3 is not in"),
        ("ofa_resnet50", {"d": [2] * 5, "e": [0.2] * 18, "w": [0] * 6, "ks": 3}, "'ks' is unknown"),
        ("nas_bench_macro", "0123", "takes 8 digits"),
        ("nas_bench_macro", "01230123", "takes 8 digits"),
        ("nas_bench_201", "|none~0|+|none~0|none~1|", "is not of the form"),
        ("nas_bench_201", "|none~0|+|none~0|none~1|+|none~0|none~1|magic~2|", "'?magic'? is not in"),
    ],
)
def test_a_wrong_description_is_answered_with_what_is_allowed(space_name, description, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        SPACES[space_name].parse(description)


def test_a_wrong_row_is_refused(space):
    with pytest.raises(InvalidArchitectureError, match="option indices"):
        space.decode([0])
    with pytest.raises(InvalidArchitectureError, match="is not a whole number from 0"):
        space.decode([99] * len(space.decisions))
