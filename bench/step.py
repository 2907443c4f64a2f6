"""A sandwich step against the plain reference: same networks, same images, in turn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from bench.paired import time_paired
from bench.reference import ReferenceSupernet
from search_spaces import SPACES
from supernet.device import take_device
from supernet.network import Supernet
from supernet.training import tune_malloc

BATCH_SIZE = 64


def main(arguments: Sequence[str]) -> None:
    """CPU seconds of one step: largest, two random, smallest; forward and backward, in-place distillation."""
    parser = argparse.ArgumentParser(prog="bench step")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="times are CPU seconds, of all threads")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1 or auto; on CUDA the clock is timed"
    )
    parser.add_argument("--no-malloc-tuning", action="store_true", help="give neither side the tuned malloc")
    options = parser.parse_args(arguments)
    if not options.no_malloc_tuning:
        tune_malloc()
    torch.set_num_threads(options.threads)
    device = take_device(options.device)
    for name in ("micro", "ofa_mobilenetv3_32"):
        print(
            _compare(name, options.pairs, device).line(
                f"sandwich step, {name}, batch {BATCH_SIZE}, {options.threads} thread(s), {device}"
            )
        )


def _compare(name: str, pairs: int, device: torch.device):
    space = SPACES[name]
    rng = np.random.default_rng(0)
    architectures = [space.largest(), space.sample(rng), space.sample(rng), space.smallest()]
    layers = [space.lower(architecture, num_classes=10) for architecture in architectures]
    side = space.resolutions_px()[-1]
    images = torch.randn(BATCH_SIZE, 3, side, side).to(device)
    labels = torch.randint(0, 10, (BATCH_SIZE,)).to(device)
    nets = (Supernet(space, num_classes=10), ReferenceSupernet(space, num_classes=10))
    ours, plain = (net.to(device).train() for net in nets)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    return time_paired(
        lambda: sandwich(ours, channels_last, labels, architectures),
        lambda: sandwich(plain, images, labels, layers),
        pairs=pairs,
        device=device,
    )


def sandwich(net, images, labels, networks) -> None:
    """Gradients of one step, the first network teaching the others."""
    net.zero_grad(set_to_none=True)
    logits = net(images, networks[0])
    F.cross_entropy(logits, labels).backward()
    teacher = logits.detach().softmax(dim=1)
    for network in networks[1:]:
        F.cross_entropy(net(images, network), teacher).backward()
