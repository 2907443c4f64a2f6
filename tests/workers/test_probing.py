"""Probes of a run: a fixed set, measured after every epoch at a bounded cost; they teach it nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.job import JobState
from nas.plateau import WINDOW
from nas.store import evaluations, probes, supernets
from supernet.training.shrink import StaticSchedule
from tests.workers.conftest import RECIPE, SPACE
from tests.workers.test_training_run import (
    STEPS_PER_EPOCH,
    Interruption,
    Watcher,
    assert_same_bits,
    final_state,
    plan_of,
    run,
)
from workers.probing import Probing

NUM_DRAWN = 3


@pytest.fixture(scope="module")
def left_alone(digits, tmp_path_factory):
    """Of a run with drawn probes: its final state and what it told."""
    plan = replace(plan_of(digits, tmp_path_factory.mktemp("alone") / "run"), num_probes=NUM_DRAWN)
    watcher = run(plan)
    return final_state(plan), watcher


def told(watcher):
    """Of each epoch the last measurement."""
    return {probes.epoch: (probes.networks, probes.results) for probes in watcher.probes}


def test_every_epoch_measures_the_same_networks_and_the_ends_are_those_of_the_curves(left_alone):
    _, watcher = left_alone
    assert [(found.epoch, found.step) for found in watcher.probes] == [(0, 4), (1, 8)]
    first, second = watcher.probes
    assert first.networks == second.networks
    assert len(first.networks) == len(first.results) == 2 + NUM_DRAWN
    assert first.networks[0].architecture == SPACE.largest()
    for found, point in zip(watcher.probes, watcher.points, strict=True):
        ends = [result.accuracy for result in found.results[:2]]
        assert ends == [point.accuracy_val_largest, point.accuracy_val_smallest]
        assert found.front


def test_probes_change_nothing_of_what_is_learned(digits, tmp_path, left_alone):
    plan = plan_of(digits, tmp_path / "run")
    run(plan)
    assert_same_bits(final_state(plan), left_alone[0])


@pytest.mark.parametrize("moment", [{"at_step": 5}, {"at_point": 1}])
def test_a_resumed_epoch_is_measured_again_and_alike(digits, tmp_path, left_alone, moment):
    plan = replace(plan_of(digits, tmp_path / "run"), num_probes=NUM_DRAWN)
    with pytest.raises(Interruption):
        run(plan, before := Watcher(**moment))
    assert {**told(before), **told(run(plan))} == told(left_alone[1])


def probing_of(digits, *, num_drawn=8, num_images_trained):
    splits = digits.load()
    watcher = Watcher()
    supernet = plan_of(digits, None).supernet.build(seed=0)
    return splits, Probing(
        supernet,
        splits,
        num_drawn=num_drawn,
        seed=0,
        num_images_trained=num_images_trained,
        stop_check=watcher.check,
    )


@pytest.mark.parametrize(
    ("num_images_trained", "num_images"),
    [
        # A twentieth of three passes, on 8 networks, half of it for their statistics.
        (20_000, round(0.05 * 3 * 20_000 / 8 / 2)),
        # So few that an accuracy would say nothing.
        (1000, 100),
        # More than there are.
        (10**6, None),
    ],
)
def test_what_drawn_probes_cost_is_bounded(all_digits, num_images_trained, num_images):
    splits, probing = probing_of(all_digits, num_images_trained=num_images_trained)
    results = probing.measure_drawn()
    assert {result.num_images for result in results} == {num_images or len(splits.val)}
    calibrated = {probing._of_drawn.calibration.partition("@")[0]}
    assert calibrated == {f"train[{num_images or len(splits.calibration)}]"}
    assert {result.num_images for result in probing.measure_ends()} == {len(splits.val)}


def test_chance_is_the_share_of_the_largest_class(digits):
    splits, probing = probing_of(digits, num_images_trained=1000)
    assert probing.chance == splits.val.class_counts.max() / splits.val.class_counts.sum()


# Whole jobs


def test_a_job_keeps_its_probes_as_rows_and_tells_them_as_events(site):
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id, num_probes=NUM_DRAWN)
    site.work([dataset.job.id, supernet.job.id])
    with site.database.session() as session:
        found = probes.curves(session, supernet.row.id)
        points = supernets.curve(session, supernet.row.id)
        row = supernets.get(session, supernet.row.id).row
        protocol = evaluations.EvaluationProtocol(
            supernet_id=row.id, checkpoint=row.checkpoint, split="val", num_images=1, calibration=""
        )
        assert evaluations.count(session, protocol, {}) == 0
    assert [network.role for network in found.networks] == ["largest", "smallest", *["drawn"] * NUM_DRAWN]
    assert list(found.results) == [0, 1]
    events = site.event_payloads(supernet.job.id, "probes")
    assert [event["epoch"] for event in events] == [0, 1]
    for event, results, point in zip(events, found.results.values(), points, strict=True):
        shown = event["probes"]
        assert [probe["accuracy_val"] for probe in shown] == [result.accuracy for result in results]
        assert shown[0]["accuracy_val"] == point.accuracy_val_largest
        assert [probe["macs"] for probe in shown] == [network.macs for network in found.networks]
        macs = [shown[number]["macs"] for number in event["front"]]
        assert macs == sorted(macs)
    assert site.event_payloads(supernet.job.id, "probes_flat") == []


@pytest.mark.slow
@pytest.mark.parametrize("first_epoch_of_last_phase", [0, 1])
def test_flat_probes_are_told_once_with_the_advice_and_never_of_a_phase_before_the_last(
    site, monkeypatch, first_epoch_of_last_phase
):
    measure = Probing.measure_ends

    def standing_still(self):
        return tuple(replace(result, num_correct=result.num_images // 2) for result in measure(self))

    monkeypatch.setattr(Probing, "measure_ends", standing_still)
    phase, last = StaticSchedule.phase, first_epoch_of_last_phase * STEPS_PER_EPOCH

    def changing(self, step):
        return replace(phase(self, step), num_random=2 if step >= last else 1)

    monkeypatch.setattr(StaticSchedule, "phase", changing)
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id, recipe={**RECIPE, "epochs": WINDOW + 2})
    site.work([dataset.job.id, supernet.job.id])
    assert site.queue.get(supernet.job.id).state is JobState.SUCCEEDED
    (flat,) = site.event_payloads(supernet.job.id, "probes_flat")
    flat_at = first_epoch_of_last_phase + WINDOW - 1
    assert (flat["epoch"], flat["num_epochs"]) == (flat_at, WINDOW)
    assert "warm_start" in flat["advice"]
    with site.database.session() as session:
        assert supernets.get(session, supernet.row.id).row.probes_flat_at_epoch == flat_at


def test_what_strategies_learn_is_told_with_the_epoch(site, monkeypatch):
    seen = {"probabilities": [0.25, 0.75]}
    monkeypatch.setattr("supernet.training.paths.UniformPaths.describe", lambda self: seen, raising=False)
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id)
    site.work([dataset.job.id, supernet.job.id])
    for kind in ("probes", "epoch"):
        for event in site.event_payloads(supernet.job.id, kind):
            assert event["strategies"] == {"sampler": seen}
