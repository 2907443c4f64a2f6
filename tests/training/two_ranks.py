"""Two real processes that train together, and what they come to."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from supernet.training import TorchCollective

WORLD_SIZE = 2


class CountingCollective(TorchCollective):
    """Notes the length of everything that is summed."""

    def __init__(self):
        self.lengths = []

    def all_reduce_sum(self, flat):
        self.lengths.append(flat.numel())
        super().all_reduce_sum(flat)


def on_two_ranks(scenarios, folder):
    """What each of the functions, by name, returns on rank 0 and on rank 1, given a collective.

    One pair of processes for all of them: to start it takes longer than to train.
    """
    mp.spawn(_run_rank, args=(scenarios, str(folder)), nprocs=WORLD_SIZE)
    ranks = [torch.load(_result_of(folder, rank), weights_only=True) for rank in range(WORLD_SIZE)]
    return {name: [rank[name] for rank in ranks] for name in scenarios}


def _run_rank(rank, scenarios, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD_SIZE)
    results = {name: scenario(CountingCollective()) for name, scenario in scenarios.items()}
    torch.save(results, _result_of(folder, rank))
    dist.destroy_process_group()


def _result_of(folder, rank):
    return Path(folder) / f"rank{rank}.pt"
