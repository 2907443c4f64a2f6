"""A run's checkpoints on a rank other than 0: it reads what rank 0 has read, and judges nothing itself."""

from __future__ import annotations

import pytest

from supernet.training import save_checkpoint
from supernet.training.checkpoint import checkpoints
from supernet.training.formats import DamagedCheckpointError
from tests.training.toy import toy_trainer
from workers.checkpoints import RunCheckpoints
from workers.observer import SilentObserver


class SecondRank:
    """Hears from rank 0 always the same."""

    rank = 1
    world_size = 2

    def __init__(self, told: float) -> None:
        self._told = told

    def broadcast(self, tensor):
        tensor.fill_(self._told)


@pytest.fixture
def folder(tmp_path):
    trainer = toy_trainer()
    for _ in range(2):
        trainer.run(1)
        save_checkpoint(trainer.state(), tmp_path)
    return tmp_path


def newest(folder, told):
    return RunCheckpoints(folder, collective=SecondRank(told), observer=SilentObserver()).newest()


@pytest.mark.parametrize("step", [1, 2])
def test_it_reads_what_rank_0_has_read(folder, step):
    assert newest(folder, step).step == step


def test_it_reads_none_where_rank_0_found_none_or_another_folder(folder):
    assert newest(folder, -1) is None
    assert newest(folder, 3) is None


def test_what_is_damaged_to_it_alone_it_leaves_where_it_is(folder):
    (folder / "step-0000000002" / "state.json").write_text("{}")
    kept = checkpoints(folder)
    with pytest.raises(DamagedCheckpointError):
        newest(folder, 2)
    assert checkpoints(folder) == kept
