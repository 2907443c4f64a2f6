"""Probes as rows: an epoch measured again replaces its own, and flat ones are told once."""

from dataclasses import replace

import numpy as np
import pytest

from nas.plateau import WINDOW
from nas.probes import EpochProbes, ProbeResult, choose_probes
from nas.store import probes, supernets
from search_spaces import SPACES

NETWORKS = choose_probes(SPACES["micro_8"], 1, np.random.default_rng(0), num_classes=10, in_channels=1)


def measured(epoch, *num_correct):
    results = [
        ProbeResult(number=number, num_correct=count, num_images=1000)
        for number, count in enumerate(num_correct)
    ]
    return EpochProbes(
        epoch=epoch, step=epoch, networks=NETWORKS, results=tuple(results), strategies={}, is_settled=True
    )


@pytest.fixture
def record(database, supernet_id):
    def run(*found):
        with database.begin() as session:
            for each in found:
                probes.record(session, supernet_id, each)

    return run


def counts(database, supernet_id):
    with database.session() as session:
        found = probes.curves(session, supernet_id)
    assert [row.architecture_key for row in found.networks] in (
        [],
        [network.architecture.key for network in NETWORKS],
    )
    return {epoch: [result.num_correct for result in results] for epoch, results in found.results.items()}


def test_an_epoch_measured_again_replaces_its_own(database, supernet_id, record):
    assert counts(database, supernet_id) == {}
    record(measured(0, 1, 2, 3), measured(1, 4, 5, 6))
    record(measured(1, 7, 8, 9))
    assert counts(database, supernet_id) == {0: [1, 2, 3], 1: [7, 8, 9]}


def test_the_duration_of_the_ends_is_the_mean_over_the_latest_of_every_epoch(database, supernet_id, record):
    def timed(epoch, *durations_s):
        found = measured(epoch, 1, 2, 3)
        results = [replace(each, duration_s=s) for each, s in zip(found.results, durations_s, strict=True)]
        return replace(found, results=tuple(results))

    def mean_s():
        with database.session() as session:
            return probes.mean_duration_of_ends(session, supernet_id)

    assert mean_s() is None
    record(measured(0, 1, 2, 3))
    assert mean_s() is None
    record(timed(1, 9.0, 9.0, 9.0))
    record(timed(1, 3.0, 1.0, 0.5), timed(2, 5.0, 3.0, 0.5))
    assert mean_s() == pytest.approx(3)
    with database.session() as session:
        kept = probes.curves(session, supernet_id).results
    assert [result.duration_s for result in kept[1]] == [3.0, 1.0, 0.5]


def note(database, supernet_id, epoch):
    with database.begin() as session:
        return probes.note_if_flat(session, supernet_id, epoch)


def test_flat_probes_are_noted_once_and_not_before_there_are_enough_epochs(database, supernet_id, record):
    for epoch in range(WINDOW + 2):
        record(measured(epoch, 900, 500, 700))
        assert note(database, supernet_id, epoch) == (epoch == WINDOW - 1)
    with database.session() as session:
        assert supernets.get(session, supernet_id).row.probes_flat_at_epoch == WINDOW - 1


def test_after_a_rollback_probes_may_rise_and_be_flat_again(database, supernet_id, record):
    for epoch in range(WINDOW):
        record(measured(epoch, 900, 500, 700))
    assert note(database, supernet_id, WINDOW - 1)
    with database.begin() as session:
        supernets.set_rollbacks(session, supernet_id, [{"step": 1}])
        assert supernets.get(session, supernet_id).row.probes_flat_at_epoch is None
    record(measured(WINDOW, 900, 500, 700))
    assert note(database, supernet_id, WINDOW)


def test_one_probe_that_rises_is_enough(database, supernet_id, record):
    for epoch in range(WINDOW):
        record(measured(epoch, 900, 500, 700 + 10 * epoch))
    assert not note(database, supernet_id, WINDOW - 1)


def test_rollbacks_are_new_once(database, supernet_id):
    first, second = ({"step": step} for step in (1, 2))
    for told, news in (([first], [first]), ([first], []), ([first, second], [second])):
        with database.begin() as session:
            assert supernets.set_rollbacks(session, supernet_id, told) == news
