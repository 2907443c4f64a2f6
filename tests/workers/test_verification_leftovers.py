"""What verifications leave: nothing that their trainings may go on from goes before they have ended."""

from __future__ import annotations

import pytest

from nas.job import JobKind
from nas.store import evaluations, verifications
from nas.store.deletion import VERIFICATION, delete_resource
from nas.verification import PlannedRun, Training
from tests.api.worker import costs_of, measurement
from tests.workers.conftest import SPACE, expire_leases
from workers.leftovers import Leftovers
from workers.verify_job import verification_folder

RUNS = [PlannedRun(training=Training.ALONE, learning_rate=rate, epochs=1) for rate in (0.1, 0.2)]


@pytest.fixture
def leftovers(site) -> Leftovers:
    return Leftovers(site.queue, site.database, site.artifacts, site.home)


@pytest.fixture
def verification(site, supernet_id):
    return site.add_verification(supernet_id, [SPACE.smallest()], RUNS)


@pytest.fixture
def folder(site, verification):
    """With a checkpoint of one of its trainings, as it were."""
    folder = verification_folder(site.home, verification.row.id)
    (folder / "runs" / "0").mkdir(parents=True)
    return folder


def claim(site):
    return site.queue.claim("w", lease_s=60, kinds=[JobKind.VERIFY])


def put(site, verification, name):
    return site.artifacts.put(f"verifications/{verification.row.id}/{name}/weights.safetensors", b"w")


def test_checkpoints_stay_while_the_job_may_go_on_and_go_with_its_end(site, verification, folder, leftovers):
    for _ in range(2):
        claim(site)
        leftovers.remove()
        assert folder.exists()
        expire_leases(site.database)
        site.queue.sweep()
    leftovers.remove()
    assert folder.exists()
    site.queue.request_cancel(verification.job.id)
    leftovers.remove()
    assert not folder.exists()


def test_checkpoints_of_a_deleted_verification_go_as_well(site, verification, folder, leftovers):
    site.queue.request_cancel(verification.job.id)
    with site.database.begin() as session:
        delete_resource(session, VERIFICATION, verification.row.id)
    leftovers.remove()
    assert not folder.exists()


def test_weights_that_a_row_points_to_stay_and_those_of_lost_attempts_go(site, verification, leftovers):
    claim(site)
    lost = put(site, verification, "first-1")
    kept = put(site, verification, "first-0")
    with site.database.begin() as session:
        network = SPACE.smallest()
        row = verifications.get(session, verification.row.id).row
        evaluation_id, _ = evaluations.record(
            session, row.supernet_id, measurement(network, 150), costs_of(network)
        )
        verifications.record_run(
            session, verification.row.id, 0, evaluation_val_id=evaluation_id, weights_uri=kept.uri
        )
    expire_leases(site.database)
    site.queue.sweep()
    leftovers.remove()
    assert site.artifacts.exists(lost.uri)
    site.queue.fail(claim(site), "no more")
    leftovers.remove()
    assert site.artifacts.exists(kept.uri)
    assert not site.artifacts.exists(lost.uri)
