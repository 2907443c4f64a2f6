"""Every format that a release has written is still resumed from; what no release wrote says so."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file

from supernet.training import CheckpointError, NewerFormatError, load_checkpoint, save_checkpoint
from supernet.training.formats import FORMAT, UPGRADES, StoredState, release, upgrade
from tests.training.checkpoint_fixture import (
    FIXTURES,
    NUM_STEPS_AFTER,
    NUM_STEPS_BEFORE,
    tiny_trainer,
)

OLDER = sorted(UPGRADES)


def fixture_of(number):
    return FIXTURES / f"checkpoint-format-{number}"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed():
    trainer = tiny_trainer()
    trainer.run(NUM_STEPS_BEFORE + NUM_STEPS_AFTER)
    return trainer


def with_description(path, **fields):
    description = json.loads((path / "state.json").read_text()) | fields
    (path / "state.json").write_text(json.dumps(description))


def test_every_format_before_this_one_has_its_upgrade_and_a_checkpoint_of_its_time():
    assert list(range(1, FORMAT)) == OLDER
    for number in OLDER:
        description = json.loads((fixture_of(number) / "state.json").read_text())
        assert description["format"] == number


@pytest.mark.parametrize("number", OLDER)
def test_a_training_is_resumed_from_a_checkpoint_of_an_older_format(number, undisturbed):
    state = load_checkpoint(fixture_of(number))
    trainer = tiny_trainer()
    trainer.restore(state)
    assert trainer.step == NUM_STEPS_BEFORE
    stored = load_file(fixture_of(number) / "weights.safetensors")
    weights = trainer.supernet.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in stored.items())
    trainer.run(NUM_STEPS_AFTER)
    # Written on another machine: the very bits are promised on one machine alone.
    for name, value in undisturbed.supernet.state_dict().items():
        torch.testing.assert_close(trainer.supernet.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", OLDER)
def test_an_upgrade_changes_nothing_that_it_was_given(number):
    description = json.loads((fixture_of(number) / "state.json").read_text())
    state = StoredState(description=description, tensors={})
    before = deepcopy(description)
    assert upgrade(state).description["format"] == FORMAT
    assert description == before


def test_what_this_release_writes_needs_no_upgrade_and_names_it(tmp_path):
    path = save_checkpoint(tiny_trainer().state(), tmp_path)
    description = json.loads((path / "state.json").read_text())
    assert (description["format"], description["release"]) == (FORMAT, release())
    assert upgrade(StoredState(description=description, tensors={})).description == description


def test_a_run_of_before_warm_starts_is_not_one_with_a_warm_start():
    trainer = tiny_trainer(warm_start="0" * 64)
    with pytest.raises(CheckpointError, match="warm_start: None before, 0000"):
        trainer.restore(load_checkpoint(fixture_of(1)))


def test_a_checkpoint_of_a_newer_release_is_refused_by_the_names_of_both(tmp_path):
    path = tmp_path / "step-0000000003"
    shutil.copytree(fixture_of(1), path)
    # Whatever else there is in it is not looked at.
    (path / "weights.safetensors").unlink()
    with_description(path, format=FORMAT + 1, release="9.1.0")
    with pytest.raises(NewerFormatError) as refused:
        load_checkpoint(path)
    assert str(refused.value) == (
        f"{path} is no checkpoint for this release: it has format {FORMAT + 1}, written by release 9.1.0; "
        f"this release, {release()}, reads formats 1 to {FORMAT}; go on with release 9.1.0"
    )


@pytest.mark.parametrize("stated", [0, -1, "2", 1.5, True, None, [1]])
def test_a_format_that_no_release_wrote_is_refused(tmp_path, stated):
    path = tmp_path / "step-0000000003"
    shutil.copytree(fixture_of(1), path)
    with_description(path, format=stated)
    with pytest.raises(CheckpointError, match="which no release has written") as refused:
        load_checkpoint(path)
    assert not isinstance(refused.value, NewerFormatError)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"'])
def test_a_description_that_is_no_object_is_refused(tmp_path, content):
    path = tmp_path / "step-0000000003"
    shutil.copytree(fixture_of(1), path)
    (path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="states format None"):
        load_checkpoint(path)
