"""Stacks: what a recipe becomes, on record."""

import json

import pytest

from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.training import build_stack

DECISIVE = ("shrink", "data", "sampler", "distillation", "regularisation")
EXPECTED = {
    "bignas": ("StaticSchedule", "UniformData", "SandwichSampler", "SoftDistillation", "LargestOnly"),
    "spos": ("StaticSchedule", "UniformData", "UniformSampler", "NoDistillation", "LargestOnly"),
    "ofa": ("ProgressiveSchedule", "UniformData", "UniformSampler", "FrozenTeacher", "EveryNetwork"),
    "deps": ("DelayedEpsilonSchedule", "UniformData", "SandwichSampler", "SoftDistillation", "LargestOnly"),
    "panda": ("StaticSchedule", "ImportanceData", "UniformSampler", "NoDistillation", "LargestOnly"),
    "shiftnas": ("StaticSchedule", "UniformData", "UniformSampler", "NoDistillation", "LargestOnly"),
    "attentive": ("StaticSchedule", "UniformData", "SandwichSampler", "SoftDistillation", "LargestOnly"),
    "alphanet": ("StaticSchedule", "UniformData", "SandwichSampler", "AlphaDistillation", "LargestOnly"),
    "house": ("DelayedEpsilonSchedule", "UniformData", "SandwichSampler", "SoftDistillation", "LargestOnly"),
}
PATHS = {
    "ofa": "SharedResolutionPaths",
    "panda": "ImportancePaths",
    "shiftnas": "ShiftPaths",
    "attentive": "AttentivePaths",
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_resolved_stack_is_json_and_names_every_strategy(name):
    stack = build_stack(RECIPES[name], SPACES["micro"], steps_per_epoch=10, seed=7)
    record = stack.to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["num_steps"] == 10 * RECIPES[name].epochs
    assert record["strategies"] == {kind: type(made).__name__ for kind, made in stack.strategies.items()}
    assert {kind: record["strategies"][kind] for kind in DECISIVE} == dict(
        zip(DECISIVE, EXPECTED[name], strict=True)
    )
    assert type(stack.sampler.paths).__name__ == PATHS.get(name, "UniformPaths")
