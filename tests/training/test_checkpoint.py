"""Checkpoints: a resumed run ends as an undisturbed one, and what cannot be resumed says why."""

import errno
import fcntl
import json
import os
import resource
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from supernet.training import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from supernet.training.checkpoint import checkpoint_of, newest_readable, rewind_checkpoints
from supernet.training.formats import DamagedCheckpointError
from supernet.training.strategy import Strategy
from tests.training.toy import toy_recipe, toy_trainer


def everything(trainer):
    state = trainer.state()
    return {**state.weights, **state.optimizer}


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
@pytest.mark.parametrize("clip", ["value", "norm"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, optimizer, clip):
    recipe = toy_recipe(optimizer=optimizer, clip=clip, base_learning_rate=0.02)
    undisturbed = toy_trainer(recipe=recipe)
    undisturbed.run(6)

    first = toy_trainer(recipe=recipe)
    first.run(3)
    path = save_checkpoint(first.state(), tmp_path)
    torch.rand(11)
    resumed = toy_trainer(recipe=recipe)
    resumed.run(1)
    assert resumed.restore(load_checkpoint(path)) == ()
    assert resumed.step == 3
    resumed.run(3)

    expected, found = everything(undisturbed), everything(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_state_before_the_first_step_can_be_restored(tmp_path):
    fresh, used = toy_trainer(), toy_trainer()
    path = save_checkpoint(fresh.state(), tmp_path)
    used.run(2)
    used.restore(load_checkpoint(path))
    assert used.step == 0
    assert everything(used).keys() == everything(fresh).keys()


def test_old_checkpoints_are_pruned_and_the_latest_is_found(tmp_path):
    trainer = toy_trainer()
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None
    for _ in range(4):
        trainer.run(1)
        path = save_checkpoint(trainer.state(), tmp_path)
        assert latest_checkpoint(tmp_path) == path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000000003", "step-0000000004"]


def test_what_somebody_laid_beside_the_checkpoints_is_none_of_them(tmp_path):
    path = save_checkpoint(toy_trainer().state(), tmp_path)
    for name in ("step-0000000005.bak", "steps", "step-x"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == newest_readable(tmp_path) == path
    save_checkpoint(toy_trainer().state(), tmp_path)
    assert (tmp_path / "step-0000000005.bak").exists()


def test_processes_that_write_to_one_folder_take_turns(tmp_path):
    """A worker that lost its job may still be writing; its unfinished files are not litter yet."""
    (tmp_path / ".step-0000000007.theirs").mkdir()
    saved = []
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        state = toy_trainer().state()
        thread = threading.Thread(target=lambda: saved.append(save_checkpoint(state, tmp_path)))
        thread.start()
        thread.join(0.5)
        assert (tmp_path / ".step-0000000007.theirs").exists()
        assert not saved
    finally:
        os.close(descriptor)
    thread.join(30)
    assert [path.name for path in tmp_path.iterdir()] == [saved[0].name]


def test_saving_a_step_again_replaces_it(tmp_path):
    trainer = toy_trainer()
    for _ in range(2):
        path = save_checkpoint(trainer.state(), tmp_path)
    assert load_checkpoint(path).step == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def with_learning_rate(state, rate):
    return replace(state, strategies={**state.strategies, "mark": {"rate": rate}})


def rate_of(path):
    return load_checkpoint(path).strategies["mark"]["rate"]


def killed_at_rename(number, call):
    """Call in a process of its own that dies before its rename of that number; whether it died."""
    child = os.fork()
    if child == 0:
        num_renames = 0
        rename = Path.rename

        def counted(self, target):
            nonlocal num_renames
            if num_renames == number:
                os._exit(9)
            num_renames += 1
            return rename(self, target)

        Path.rename = counted
        try:
            call()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_killed_at_any_moment_of_replacing_a_checkpoint_one_of_the_two_is_there(tmp_path):
    state = toy_trainer().state()
    old, new = with_learning_rate(state, 0.2), with_learning_rate(state, 0.1)
    found = []
    for number in range(10):
        folder = tmp_path / str(number)
        save_checkpoint(old, folder)
        if not killed_at_rename(number, lambda folder=folder: save_checkpoint(new, folder)):
            break
        (path,) = {latest_checkpoint(folder), checkpoint_of(folder, 0)}
        found.append(rate_of(path))
        # And whoever comes next neither loses it nor leaves two.
        newest = rewind_checkpoints(folder, 0)
        assert rate_of(newest) == found[-1]
        assert [path.name for path in folder.iterdir()] == ["step-0000000000"]
    assert found == [0.2, 0.1, 0.1]


def test_what_a_killed_process_left_is_no_checkpoint_and_is_cleared_away(tmp_path):
    litter = tmp_path / ".step-0000000009.0123"
    litter.mkdir()
    (litter / "weights.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    path = save_checkpoint(toy_trainer().state(), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_older_checkpoint_and_no_litter(tmp_path, monkeypatch):
    trainer = toy_trainer()
    path = save_checkpoint(trainer.state(), tmp_path)
    trainer.run(1)
    monkeypatch.setattr(
        "supernet.training.checkpoint_files.sync", lambda folder: (_ for _ in ()).throw(OSError(28))
    )
    with pytest.raises(CheckpointError, match="step 1 could not be written"):
        save_checkpoint(trainer.state(), tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path).step == 0


@contextmanager
def room_for(num_bytes):
    """Files of this process may grow no larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Else the kernel kills the process at the first byte too many.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_where_there_is_no_room_the_checkpoint_before_is_intact_and_the_error_says_so(tmp_path):
    trainer = toy_trainer()
    trainer.run(1)
    path = save_checkpoint(trainer.state(), tmp_path)
    trainer.run(1)
    with room_for(10_000), pytest.raises(CheckpointError) as refused:
        save_checkpoint(trainer.state(), tmp_path)
    message = str(refused.value)
    assert message.startswith("the checkpoint of step 2 could not be written")
    assert "File too large" in message
    assert message.endswith("make room there, then go on from step 1, which is intact")
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path).step == 1
    # And the run that met it can write as soon as there is room.
    save_checkpoint(trainer.state(), tmp_path)
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 2


@pytest.mark.parametrize(
    ("file", "damage", "named"),
    [
        ("weights.safetensors", "truncate", "weights.safetensors are not those that were written"),
        ("optimizer.safetensors", "flip", "optimizer.safetensors are not those that were written"),
        ("strategies.safetensors", "delete", "No such file or directory: strategies.safetensors"),
        ("state.json", "truncate", "state.json is no JSON"),
        ("state.json", "delete", "No such file or directory: state.json"),
    ],
)
def test_a_damaged_checkpoint_names_the_damaged_file(tmp_path, file, damage, named):
    path = save_checkpoint(toy_trainer().state(), tmp_path)
    content = bytearray((path / file).read_bytes())
    match damage:
        case "truncate":
            (path / file).write_bytes(content[: len(content) // 2])
        case "flip":
            content[-1] ^= 1
            (path / file).write_bytes(content)
        case "delete":
            (path / file).unlink()
    with pytest.raises(DamagedCheckpointError, match=rf"holds no readable checkpoint .*{named}.* delete it"):
        load_checkpoint(path)


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_a_checkpoint_that_the_system_does_not_give_is_not_called_damaged(tmp_path, monkeypatch, error):
    trainer = toy_trainer()
    paths = [save_checkpoint(trainer.state(), tmp_path)]
    trainer.run(1)
    paths.append(save_checkpoint(trainer.state(), tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", lambda path: open_refused(path, error))
        for read in (lambda: load_checkpoint(paths[1]), lambda: newest_readable(tmp_path)):
            with pytest.raises(CheckpointError, match=r"cannot be read .*was left as it is") as refused:
                read()
            assert not isinstance(refused.value, DamagedCheckpointError)
    assert newest_readable(tmp_path) == paths[1]


def open_refused(path, error):
    raise OSError(error, os.strerror(error), str(path))


@pytest.mark.parametrize("left_out", ["step", "identity", "sha256", "strategies"])
def test_a_description_that_lacks_something_names_it(tmp_path, left_out):
    path = save_checkpoint(toy_trainer().state(), tmp_path)
    description = json.loads((path / "state.json").read_text())
    del description[left_out]
    (path / "state.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=f"state.json lacks '{left_out}'"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"recipe": toy_recipe(epochs=3)}, "epochs"),
        ({"data_id": "other images"}, "data: "),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(other, named):
    state = toy_trainer().state()
    with pytest.raises(CheckpointError, match=f"another run.*{named}"):
        toy_trainer(**other).restore(state)


def without_recipe_field(path, field):
    """The checkpoint as a release from before the recipe had this field would have written it."""
    file = path / "state.json"
    description = json.loads(file.read_text())
    del description["identity"]["stack"]["recipe"][field]
    file.write_text(json.dumps(description))


@pytest.mark.parametrize("name", ["bignas", "spos"])
def test_a_checkpoint_from_before_a_recipe_field_is_resumed_with_the_same_bits(tmp_path, name):
    recipe = toy_recipe(name)
    undisturbed = toy_trainer(recipe=recipe)
    undisturbed.run(6)
    first = toy_trainer(recipe=recipe)
    first.run(3)
    path = save_checkpoint(first.state(), tmp_path)
    # Of a default that differs between the two recipes.
    without_recipe_field(path, "dropout")
    resumed = toy_trainer(recipe=recipe)
    assert resumed.restore(load_checkpoint(path)) == ()
    resumed.run(3)
    expected, found = everything(undisturbed), everything(resumed)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_from_before_a_field_is_another_run_where_the_field_is_not_the_default(tmp_path):
    recipe = toy_recipe(dropout=0.1)
    path = save_checkpoint(toy_trainer(recipe=recipe).state(), tmp_path)
    without_recipe_field(path, "dropout")
    with pytest.raises(CheckpointError, match="another run"):
        toy_trainer(recipe=recipe).restore(load_checkpoint(path))


def test_a_checkpoint_of_a_recipe_that_this_release_does_not_know_is_refused():
    trainer = toy_trainer()
    state = trainer.state()
    stack = state.identity["stack"]
    later = {**stack, "recipe": {**stack["recipe"], "field_of_a_later_release": 1}}
    with pytest.raises(CheckpointError, match=r"another run.*field_of_a_later_release"):
        trainer.restore(replace(state, identity={**state.identity, "stack": later}))


def test_a_checkpoint_of_another_space_is_refused():
    trainer = toy_trainer()
    state = trainer.state()
    foreign = replace(state, identity={**state.identity, "space_fingerprint": "0"})
    with pytest.raises(CheckpointError, match="space_fingerprint: 0 before"):
        trainer.restore(foreign)


def test_a_difference_in_the_environment_is_told_and_allowed():
    trainer = toy_trainer()
    state = trainer.state()
    elsewhere = replace(state, environment={**state.environment, "torch": "1.0", "threads": 96})
    assert trainer.restore(elsewhere) == (
        "threads: 96 before, 1 now",
        f"torch: 1.0 before, {torch.__version__} now",
    )


class Learned(Strategy):
    """Keeps a tensor and a number."""

    def __init__(self):
        self.state = {}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = dict(state)


def test_a_strategys_state_survives_tensors_included(tmp_path):
    state = toy_trainer().state()
    learned = {"sampler": {"scores": torch.arange(3.0), "epoch": 4}, "shrink": {}}
    loaded = load_checkpoint(save_checkpoint(replace(state, strategies=learned), tmp_path))
    strategy = Learned()
    strategy.load_state_dict(loaded.strategies["sampler"])
    assert strategy.state["epoch"] == 4
    assert torch.equal(strategy.state["scores"], torch.arange(3.0))
    assert loaded.strategies["shrink"] == {}


def test_a_strategy_without_state_refuses_one():
    with pytest.raises(ValueError, match=r"Strategy keeps no state.*scores"):
        Strategy().load_state_dict({"scores": 1})
