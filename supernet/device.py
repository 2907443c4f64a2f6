"""The device that computes: the processor, or one CUDA device."""

from __future__ import annotations

import torch

from nas.errors import InvalidRequestError

AUTO = "auto"
"""CUDA where there is a device for it, else the processor."""
CPU = torch.device("cpu")


def take_device(wanted: str = AUTO) -> torch.device:
    """The device of this name (`auto`, `cpu`, `cuda`, `cuda:1`), set up to compute float32 in all its digits.

    InvalidRequestError where there is no such device.
    """
    name, _, number = wanted.partition(":")
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise InvalidRequestError(
            f"device '{wanted}' is not auto, cpu, cuda or cuda:<number>; name one of them"
        )
    if name == "cpu":
        return CPU
    num_devices = torch.cuda.device_count()
    if num_devices <= int(number or 0):
        raise InvalidRequestError(
            f"device '{wanted}' is not there: torch {torch.__version__} finds {num_devices} CUDA devices; "
            "choose auto or cpu, or install the driver and a torch for CUDA"
        )
    # By default cuDNN rounds the factors of float32 convolutions to ten bits (TF32), and what is measured
    # here would not be what is published.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", int(number or 0))


def room_bytes(device: torch.device) -> int:
    """What may be kept on the device beside the work: half of what is free now; 0 on the processor.

    There images stay where they are, in a memory map that processes share.
    """
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free // 2
