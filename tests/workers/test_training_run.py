"""The training run of one process: interrupted anywhere and run again, it ends with the very same bits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from nas.errors import NasError
from nas.recipes import recipe_from_json
from supernet.training.checkpoint import latest_checkpoint, load_checkpoint
from supernet.training.collective import SingleProcess
from supernet.training.formats import NewerFormatError
from tests.workers.conftest import RECIPE, SPACE
from workers.context import WorkerDrainingError
from workers.training import TrainingPlan, train
from workers.weights import SupernetDescription

STEPS_PER_EPOCH = 4
NUM_STEPS = RECIPE["epochs"] * STEPS_PER_EPOCH


class Interruption(Exception):  # noqa: N818 - no error, an event
    """In place of a kill."""


class Watcher:
    """Notes what it is told; raises `error` at a step, or when it is told an epoch's point."""

    def __init__(self, *, at_step=None, at_point=None, error=Interruption) -> None:
        self._at_step, self._at_point, self._error = at_step, at_point, error
        self.steps, self.points, self.resumes, self.checkpoints = [], [], [], []
        self.rollbacks, self.damaged, self.probes = [], [], []

    def on_step(self, done, total):
        assert total == NUM_STEPS
        self.steps.append(done)
        if done == self._at_step:
            raise self._error("at a step")

    def on_probes(self, probes):
        self.probes.append(probes)

    def on_point(self, point):
        self.points.append(point)
        if point.epoch == self._at_point:
            raise self._error("at a point")

    def on_checkpoint(self, num_steps):
        self.checkpoints.append(num_steps)

    def on_rollback(self, rollbacks):
        self.rollbacks = [*rollbacks]

    def on_damaged_checkpoint(self, name, reason):
        self.damaged.append(name)

    def check(self):
        pass

    def on_resume(self, step, differences):
        self.resumes.append((step, differences))


@pytest.fixture
def plan(digits, tmp_path):
    """Makes the plan of the one run; `name` is a folder of its own."""

    def make(name, **fields):
        return plan_of(digits, tmp_path / name, **fields)

    return make


def plan_of(digits, checkpoints, *, interval_s=0.0) -> TrainingPlan:
    return TrainingPlan(
        supernet=SupernetDescription(
            search_space=SPACE.name, num_classes=10, in_channels=1, kernel_transform=False
        ),
        data=digits,
        recipe=RECIPE,
        seed=3,
        checkpoints=checkpoints,
        num_threads=1,
        checkpoint_interval_s=interval_s,
    )


def run(plan, watcher=None) -> Watcher:
    watcher = watcher or Watcher()
    train(plan, collective=SingleProcess(), observer=watcher)
    return watcher


def final_state(plan):
    return load_checkpoint(latest_checkpoint(plan.checkpoints))


@pytest.fixture(scope="module")
def left_alone(digits, tmp_path_factory):
    """The undisturbed run: its final state and what it told."""
    plan = plan_of(digits, tmp_path_factory.mktemp("alone") / "checkpoints")
    watcher = run(plan)
    return final_state(plan), watcher


def assert_same_bits(state, expected):
    assert state.step == expected.step == NUM_STEPS
    for part in ("weights", "optimizer"):
        ours, theirs = getattr(state, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def probes(watcher):
    return [
        (p.epoch, p.step, p.train_loss, p.accuracy_val_largest, p.accuracy_val_smallest)
        for p in watcher.points
    ]


def test_a_run_tells_every_step_and_every_epoch(left_alone):
    _, watcher = left_alone
    assert watcher.steps == list(range(NUM_STEPS + 1))
    assert [(point.epoch, point.step) for point in watcher.points] == [(0, 4), (1, 8)]
    assert watcher.resumes == []


def test_a_run_tells_of_each_checkpoint_once_it_can_be_resumed_from(plan):
    plan = plan("run")

    class Reader(Watcher):
        def on_checkpoint(self, step):
            assert load_checkpoint(latest_checkpoint(plan.checkpoints)).step == step
            super().on_checkpoint(step)

    assert run(plan, Reader()).checkpoints == [*range(1, NUM_STEPS + 1), NUM_STEPS]


@pytest.mark.parametrize(
    ("at_step", "at_point", "resumed_at"),
    [(1, None, 0), (4, None, 4), (5, None, 4), (8, None, 8), (None, 0, 3), (None, 1, 7)],
)
def test_interrupted_and_run_again_it_ends_with_the_same_bits(
    plan, left_alone, at_step, at_point, resumed_at
):
    plan = plan("run")
    with pytest.raises(Interruption):
        run(plan, cut_short := Watcher(at_step=at_step, at_point=at_point))
    watcher = run(plan)
    expected, undisturbed = left_alone
    # Saved after each step but an epoch's last, which is saved once the epoch's point is told.
    assert watcher.resumes == ([(resumed_at, ())] if resumed_at else [])
    assert_same_bits(final_state(plan), expected)
    # A point told again replaces the first.
    told = {probe[0]: probe for probe in [*probes(cut_short), *probes(watcher)]}
    assert [*told.values()] == probes(undisturbed)


def test_a_run_begun_with_overrides_alone_goes_on_with_the_whole_recipe(plan, left_alone):
    """Rows held the overrides alone before the API resolved them."""
    begun = plan("run")
    with pytest.raises(Interruption):
        run(begun, Watcher(at_step=6))
    whole = recipe_from_json(RECIPE).to_json()
    assert whole.keys() > RECIPE.keys()
    watcher = run(replace(begun, recipe=whole))
    assert watcher.resumes == [(5, ())]
    assert_same_bits(final_state(begun), left_alone[0])


def test_interrupted_at_every_step_it_still_ends_with_the_same_bits(plan, left_alone):
    plan = plan("run")
    for step in range(1, NUM_STEPS + 1):
        # One further at each try, or it would be interrupted at the same step for ever.
        with pytest.raises(Interruption):
            run(plan, Watcher(at_step=step))
    run(plan)
    assert_same_bits(final_state(plan), left_alone[0])


def test_a_finished_run_run_again_trains_no_further(plan, left_alone):
    plan = plan("run")
    run(plan)
    again = run(plan)
    assert again.steps == [NUM_STEPS]
    assert_same_bits(final_state(plan), left_alone[0])


def test_a_draining_worker_saves_the_step_it_stands_at(plan, left_alone):
    plan = plan("run", interval_s=1000.0)
    with pytest.raises(WorkerDrainingError):
        run(plan, Watcher(at_step=3, error=WorkerDrainingError))
    watcher = run(plan)
    assert watcher.resumes == [(3, ())]
    assert_same_bits(final_state(plan), left_alone[0])


def test_drained_amid_an_epochs_probe_it_tells_that_epoch_when_it_goes_on(plan, left_alone):
    plan = plan("run", interval_s=1000.0)

    class DrainedInProbe(Watcher):
        def check(self):
            raise WorkerDrainingError("between two batches")

    with pytest.raises(WorkerDrainingError):
        run(plan, DrainedInProbe())
    # The first epoch's point was not told, so nothing may say that it was trained.
    assert latest_checkpoint(plan.checkpoints) is None
    watcher = run(plan)
    assert probes(watcher) == probes(left_alone[1])
    assert_same_bits(final_state(plan), left_alone[0])


@pytest.fixture(scope="module")
def interrupted(digits, tmp_path_factory):
    """The checkpoints of a run that ended in its sixth step."""
    plan = plan_of(digits, tmp_path_factory.mktemp("interrupted") / "checkpoints")
    with pytest.raises(Interruption):
        run(plan, Watcher(at_step=6))
    return plan.checkpoints


@pytest.fixture
def half_done(interrupted, plan):
    """The plan of that run, its checkpoints free to be damaged."""
    plan = plan("run")
    shutil.copytree(interrupted, plan.checkpoints)
    return plan


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("weights.safetensors", "flipped"),
        ("weights.safetensors", "missing"),
        ("optimizer.safetensors", "cut"),
        ("state.json", "cut"),
    ],
)
def test_a_damaged_newest_checkpoint_is_put_aside_for_the_one_before(half_done, left_alone, file, damage):
    path = latest_checkpoint(half_done.checkpoints) / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 0xFF]) + content[-8:])
    watcher = run(half_done)
    assert watcher.resumes == [(4, ())]
    assert_same_bits(final_state(half_done), left_alone[0])


def test_a_checkpoint_of_a_newer_release_stops_the_run_and_stays(half_done):
    """Put aside as if it were damaged, its steps would be lost to the release that wrote it."""
    newest = latest_checkpoint(half_done.checkpoints)
    description = json.loads((newest / "state.json").read_text())
    (newest / "state.json").write_text(json.dumps({**description, "format": 99, "release": "9.0.0"}))
    with pytest.raises(NewerFormatError, match=r"format 99, written by release 9\.0\.0"):
        run(half_done)
    assert latest_checkpoint(half_done.checkpoints) == newest


def test_with_no_checkpoint_readable_it_begins_anew(half_done, left_alone):
    for checkpoint in half_done.checkpoints.glob("step-*"):
        (checkpoint / "state.json").write_text("{}")
    watcher = run(half_done)
    assert watcher.resumes == []
    assert_same_bits(final_state(half_done), left_alone[0])


def test_a_run_goes_on_with_the_number_of_threads_it_began_with(half_done, left_alone):
    watcher = run(replace(half_done, num_threads=2))
    assert watcher.resumes == [(5, ())]
    assert torch.get_num_threads() == 1
    assert_same_bits(final_state(half_done), left_alone[0])


def test_there_are_no_more_lanes_than_networks_in_a_step(plan):
    """Each has its share of the threads: those of one without a network would have nothing to do."""
    alone = replace(plan("spos"), num_threads=2, recipe={**RECIPE, "name": "spos"})
    before = torch.get_num_threads()
    try:
        run(alone)
    finally:
        torch.set_num_threads(before)
    environment = final_state(alone).environment
    assert (environment["threads"], environment["lanes"]) == (2, 1)


def edit_environment(plan, **changed):
    """As if the newest checkpoint had been made elsewhere; None leaves an entry out."""
    path = latest_checkpoint(plan.checkpoints) / "state.json"
    description = json.loads(path.read_text())
    merged = description["environment"] | changed
    description["environment"] = {name: value for name, value in merged.items() if value is not None}
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"cpu": "another"}, "step 5: cpu: another before, "),
        ({"torch": "1.0"}, "step 5: torch: 1.0 before, "),
        ({"numpy": "1.0"}, "step 5: numpy: 1.0 before, "),
        ({"memory_format": "contiguous"}, "step 5: memory_format: contiguous before, channels_last now"),
        (
            {"variables": {"MKL_CBWR": "COMPATIBLE"}},
            "step 5: variables: {'MKL_CBWR': 'COMPATIBLE'} before, {} now",
        ),
        ({"threads": None}, "step 5: threads: None before, 1 now"),
        ({"world_size": 2}, "step 5: world_size: 2 before, 1 now"),
    ],
)
def test_what_differs_is_told_allowed_and_kept(half_done, changed, told):
    edit_environment(half_done, **changed)
    ((step, departures),) = run(half_done).resumes
    assert step == 5
    (departure,) = departures
    assert departure.startswith(told)
    state = final_state(half_done)
    assert (state.step, state.departures) == (NUM_STEPS, departures)


def test_a_checkpoint_of_before_departures_were_kept_has_none(half_done):
    path = latest_checkpoint(half_done.checkpoints) / "state.json"
    description = json.loads(path.read_text())
    del description["departures"]
    path.write_text(json.dumps(description))
    assert run(half_done).resumes == [(5, ())]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you\nmore"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_told_with_what_to_do(plan, monkeypatch, error):
    def fail(self, step):
        raise error

    monkeypatch.setattr("supernet.training.trainer.Trainer.train_step", fail)
    with pytest.raises(
        NasError, match=r"too little memory, in a step of 64 images .*choose a smaller"
    ) as told:
        run(plan("run"))
    assert "\n" not in str(told.value)


def test_another_error_is_not_taken_for_too_little_memory(plan, monkeypatch):
    def fail(self, step):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("supernet.training.trainer.Trainer.train_step", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(plan("run"))
