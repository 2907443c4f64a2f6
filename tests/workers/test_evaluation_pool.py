"""The pool of real actors: it measures in order, and stops within a round."""

from __future__ import annotations

import time

import numpy as np
import pytest
import ray

from nas.weights_file import WeightsDescription
from tests.workers.conftest import SPACE
from workers.context import JobCancelledError
from workers.evaluation_pool import RayEvaluator
from workers.weights import SupernetDescription, publish_weights

DESCRIPTION = SupernetDescription(
    search_space=SPACE.name, num_classes=10, in_channels=1, kernel_transform=False
)

WEIGHTS = WeightsDescription(
    search_space=SPACE.name,
    space_fingerprint=SPACE.fingerprint,
    in_channels=1,
    class_names=tuple("0123456789"),
    kernel_transform=False,
    data_fingerprint="f" * 64,
    recipe="bignas",
)


@pytest.fixture
def open_pool(site, digits, local_ray):
    """Makes a pool of one actor with fresh weights, closed at the end."""
    pools = []

    def make(check):
        stored = publish_weights(site.artifacts, "supernets/x/w", DESCRIPTION.build(), WEIGHTS)
        weights = b"".join(site.artifacts.open(stored.uri))
        pool = RayEvaluator(
            DESCRIPTION, weights, checkpoint=stored.sha256, data=digits, num_actors=1, check=check
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def sample(count):
    rng = np.random.default_rng(0)
    return [SPACE.canonical(SPACE.sample(rng)) for _ in range(count)]


def test_it_stops_within_a_round_and_its_actors_with_it(open_pool):
    told = []

    def check():
        if told:
            raise JobCancelledError("cancelled")

    pool = open_pool(check)
    results = []

    def cancel_at_third(evaluation):
        results.append(evaluation)
        if len(results) == 3:
            told.append(time.monotonic())

    with pytest.raises(JobCancelledError):
        pool.evaluate(sample(500), cancel_at_third)
    assert time.monotonic() - told[0] < 20
    assert len(results) == 3


def test_it_stops_while_its_actors_are_busy_with_something_long(open_pool):
    told = []

    def check():
        if told and time.monotonic() - told[0] > 0.5:
            raise JobCancelledError("cancelled")

    pool = open_pool(check)
    pool.evaluate(sample(1), lambda evaluation: None)
    # Behind this the round's only actor gets to none of its networks.
    blocked = pool._actors[0].__ray_call__.remote(lambda actor: time.sleep(300))
    told.append(time.monotonic())
    with pytest.raises(JobCancelledError):
        pool.evaluate(sample(2), lambda evaluation: None)
    assert time.monotonic() - told[0] < 30
    pool.close()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(blocked, timeout=60)
