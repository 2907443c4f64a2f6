"""Batches from outside on real actors: measured as the supernet measures, by one pool for all of them."""

from __future__ import annotations

import pytest
import torch

from nas.job import JobState
from nas.store import evaluation_batches, supernets
from supernet.data import ResizedSplits
from supernet.evaluate import SubnetEvaluator
from tests.api.worker import ladder
from tests.workers.conftest import RECIPE
from workers import wiring
from workers.datasets import dataset_reference
from workers.evaluation_pool import RayEvaluator
from workers.trained import describe_supernet
from workers.weights import fetch_weights, load_weights

NETWORKS = ladder(4)


class CountedPool(RayEvaluator):
    """Notes its making and its end."""

    told: list[str]

    def __init__(self, *arguments, **named) -> None:
        self.told.append("opened")
        super().__init__(*arguments, **named)

    def close(self) -> None:
        self.told.append("closed")
        super().close()


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What became of pools."""
    told: list[str] = []
    monkeypatch.setattr(CountedPool, "told", told, raising=False)
    monkeypatch.setattr(wiring, "RayEvaluator", CountedPool)
    return told


def test_batches_sent_one_after_the_other_are_measured_by_one_pool_and_as_alone(site, local_ray, told):
    dataset = site.add_dataset()
    trained = site.add_supernet(dataset.row.id, recipe={**RECIPE, "epochs": 1})
    site.work([dataset.job.id, trained.job.id])
    batches = [site.add_batch(trained.row.id, given) for given in (NETWORKS[:2], NETWORKS[1:], NETWORKS)]
    site.work([batch.job.id for batch in batches])
    assert {site.queue.get(batch.job.id).state for batch in batches} == {JobState.SUCCEEDED}
    assert told == ["opened", "closed"]
    with site.database.session() as session:
        found = [evaluation_batches.items(session, batch.row.id) for batch in batches]
        of = describe_supernet(session, supernets.get(session, trained.row.id).row)
    assert [[item.item.is_reused for item in items] for items in found] == [
        [False, False],
        [True, False, False],
        [True, True, True, True],
    ]
    torch.set_num_threads(1)
    data = dataset_reference(site.database, site.artifacts, site.home, dataset.row.id).load()
    weights = fetch_weights(site.artifacts, of.weights_uri, of.checkpoint)
    alone = SubnetEvaluator(
        load_weights(of.description, weights), ResizedSplits(data), checkpoint=of.checkpoint
    )
    for network, item in zip(NETWORKS, found[2], strict=True):
        measured = alone.evaluate(network)
        assert item.evaluation.correct_bitmap == measured.correct_bitmap
        assert item.evaluation.calibration == measured.calibration == of.calibration
