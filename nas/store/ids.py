"""Names of resources: a prefix that says what it is, then letters nobody can guess."""

from __future__ import annotations

import secrets
from enum import StrEnum

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NUM_LETTERS = 16


class Prefix(StrEnum):
    """What an id names."""

    JOB = "job"
    DATASET = "ds"
    SUPERNET = "sn"
    SEARCH = "se"
    SUBNET = "sub"
    UPLOAD = "up"
    EVALUATION_BATCH = "eb"
    VERIFICATION = "ve"
    LATENCY_TABLE = "lt"
    MEASUREMENTS = "me"
    WORK_FILE = "wf"


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `sn_k3v…`: 80 random bits, in lower case so that it can be read aloud."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_NUM_LETTERS))
