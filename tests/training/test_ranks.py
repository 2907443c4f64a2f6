"""Two ranks: one reduction a step, gradients summed, replicas alike."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from supernet.training import SingleProcess, TorchCollective
from tests.training.toy import ToyBatches, gradients_of, toy_recipe, toy_trainer, wake_gammas

RECIPE = {"dropout": 0.0, "clip": "none", "warmup_fraction": 0.0}
NUM_STEPS = 2


class CountingCollective(TorchCollective):
    def __init__(self):
        self.num_reductions = 0

    def all_reduce_sum(self, flat):
        self.num_reductions += 1
        super().all_reduce_sum(flat)


class SecondHalf(SingleProcess):
    """Plays one of two ranks whose peer is silent."""

    world_size = 2

    def __init__(self, rank):
        self.rank = rank


def ready_trainer(collective=None):
    trainer = toy_trainer(recipe=toy_recipe(**RECIPE), dtype=torch.float64, collective=collective)
    wake_gammas(trainer.supernet)
    return trainer


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    collective = CountingCollective()
    trainer = ready_trainer()
    if rank == 1:
        # Rank 1 starts from other weights: it must take those of rank 0.
        with torch.no_grad():
            for parameter in trainer.supernet.parameters():
                parameter.add_(1.0)
    trainer = type(trainer)(
        trainer.supernet, ToyBatches(dtype=torch.float64), trainer.stack, collective=collective
    )
    losses = [trainer.train_step(step).slot_losses for step in range(NUM_STEPS)]
    result = {"losses": losses, "reductions": collective.num_reductions}
    result["gradients"] = gradients_of(trainer.supernet)
    result["weights"] = torch.cat([p.detach().flatten() for p in trainer.supernet.parameters()])
    torch.save(result, os.path.join(folder, f"rank{rank}.pt"))  # noqa: PTH118
    dist.destroy_process_group()


def expected_result():
    """The same by hand: each half of the batch alone, both gradients added, one update."""
    whole = ready_trainer()
    losses = []
    for step in range(NUM_STEPS):
        halves = []
        for rank in (0, 1):
            half = ready_trainer(SecondHalf(rank))
            half.supernet.load_state_dict(whole.supernet.state_dict())
            stats = half.train_step(step)
            halves.append((gradients_of(half.supernet), torch.tensor(stats.slot_losses)))
        losses.append((halves[0][1] + halves[1][1]).tolist())
        whole._gradients.start()
        whole._gradients.values.copy_(halves[0][0] + halves[1][0])
        whole._update((), step)
    return losses, whole


def test_two_ranks_equal_the_sum_of_both_halves_with_one_reduction_a_step(tmp_path):
    mp.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    assert torch.equal(ranks[0]["gradients"], ranks[1]["gradients"])
    assert ranks[0]["losses"] == ranks[1]["losses"]
    assert [rank["reductions"] for rank in ranks] == [NUM_STEPS, NUM_STEPS]

    losses, whole = expected_result()
    torch.testing.assert_close(ranks[0]["gradients"], gradients_of(whole.supernet), rtol=1e-10, atol=1e-12)
    weights = torch.cat([p.detach().flatten() for p in whole.supernet.parameters()])
    torch.testing.assert_close(ranks[0]["weights"], weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.tensor(ranks[0]["losses"]), torch.tensor(losses), rtol=1e-6, atol=1e-6)
