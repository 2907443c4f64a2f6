"""Resources and the jobs that make them."""

from __future__ import annotations

import pytest

from nas.errors import ConflictError, InvalidRequestError, NotFoundError
from nas.job import JobKind, JobState
from nas.search.predictor import Prediction
from nas.search.rounds import ForecastReport, Origin, StopReason
from nas.store import datasets, evaluations, searches, subnets, supernets
from nas.store.datasets import DatasetContents
from nas.store.ids import Prefix, new_id
from nas.store.subnets import Artifact
from nas.store.supernets import TrainingPoint

CONTENTS = DatasetContents(
    fingerprint="f00d",
    fingerprint_format=2,
    num_classes=2,
    in_channels=1,
    image_height=8,
    image_width=8,
    class_names=("zero", "one"),
    mean=(0.5,),
    std=(0.25,),
    num_train=80,
    num_calibration=10,
    num_val=10,
    num_test=10,
    num_unreadable=0,
    stored_rule="one channel, 8 x 8 pixels",
    given_splits=["train"],
)


def finish_next(queue):
    queue.succeed(queue.claim("worker-1", lease_s=60))


def create_search(session, supernet_id, **changed):
    values = {
        "display_name": "small",
        "labels": {},
        "supernet_id": supernet_id,
        "constraints": {"max_macs": 1000},
        "objectives": ["accuracy_val", "macs"],
        "num_trials": 10,
        "proposer": "nsga2",
        "seed": 1,
        "spec": {},
    }
    return searches.create(session, **values | changed)


def test_ids_say_what_they_name_and_do_not_repeat():
    ids = {new_id(Prefix.SUPERNET) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(name.startswith("sn_") and len(name) == 19 for name in ids)


def test_a_supernet_trains_only_after_its_data_set_is_imported(database, queue, supernet_id):
    importing = queue.claim("worker-1", lease_s=60)
    assert importing.job.kind == JobKind.IMPORT_DATASET
    assert queue.claim("worker-1", lease_s=60) is None
    queue.succeed(importing)
    assert queue.claim("worker-1", lease_s=60).job.resource_id == supernet_id


def test_a_resource_is_read_with_its_job(database, supernet_id):
    with database.session() as session:
        supernet = supernets.get(session, supernet_id)
    assert supernet.row.recipe == {"epochs": 3}
    assert supernet.row.labels == {"team": "vision"}
    assert (supernet.job.state, supernet.job.resource_id) == (JobState.QUEUED, supernet_id)


@pytest.mark.parametrize("kind", [datasets, supernets, searches, subnets])
def test_an_unknown_resource_is_not_found(database, kind):
    with database.session() as session, pytest.raises(NotFoundError, match="nowhere"):
        kind.get(session, "nowhere")


def test_the_import_fills_the_data_set_in(database, supernet_id):
    with database.begin() as session:
        dataset_id = supernets.get(session, supernet_id).row.dataset_id
        datasets.set_contents(session, dataset_id, CONTENTS)
    with database.session() as session:
        row = datasets.get(session, dataset_id).row
    assert (row.class_names, row.mean, row.num_val) == (["zero", "one"], [0.5], 10)


def test_pages_show_every_resource_once_newest_first(database):
    with database.begin() as session:
        made = [
            datasets.create(session, display_name=str(n), labels={}, source={}, spec={}).row.id
            for n in range(5)
        ]
    seen, after = [], None
    with database.session() as session:
        while page := datasets.list(session, page_size=2, after=after):
            seen += [dataset.row.id for dataset in page]
            after = page[-1].cursor
    assert seen == made[::-1]


def test_an_epoch_trained_again_replaces_its_point(database, supernet_id):
    point = TrainingPoint(epoch=1, step=10, images_seen=640, train_loss=2.0, learning_rate=0.1, elapsed_s=3.0)
    again = TrainingPoint(
        epoch=1,
        step=10,
        images_seen=640,
        train_loss=1.5,
        learning_rate=0.1,
        accuracy_val_largest=0.5,
        num_images_val=100,
        elapsed_s=4.0,
    )
    with database.begin() as session:
        supernets.record_point(session, supernet_id, point)
        supernets.record_point(session, supernet_id, again)
        assert supernets.curve(session, supernet_id) == [again]


def test_weights_are_set_once_training_ends(database, supernet_id):
    with database.begin() as session:
        supernets.set_weights(
            session, supernet_id, checkpoint="c0", weights_uri="file:///w", calibration="train[:256]/64"
        )
    with database.session() as session:
        assert supernets.get(session, supernet_id).row.checkpoint == "c0"


def test_trials_come_in_order_each_with_its_evaluation(database, supernet_id, evaluation, costs):
    with database.begin() as session:
        search_id = create_search(session, supernet_id).row.id
        for number in (2, 0, 1, 1):
            evaluation_id, is_new = evaluations.record(session, supernet_id, evaluation(number + 1), costs)
            searches.record_trial(
                session,
                search_id,
                number=number,
                evaluation_id=evaluation_id,
                round=0,
                is_reused=not is_new,
                origin=Origin.SEED,
            )
    with database.session() as session:
        trials = searches.trials(session, search_id)
        later = searches.trials(session, search_id, page_size=1, after_number=0)
    assert [(found.trial.number, found.evaluation.architecture) for found in trials] == [
        (0, {"width": 1}),
        (1, {"width": 2}),
        (2, {"width": 3}),
    ]
    assert [found.trial.number for found in later] == [1]


def test_what_was_predicted_before_a_trial_was_measured_stays_as_first_written(
    database, supernet_id, evaluation, costs
):
    unsure = Prediction(0.5, float("-inf"), float("inf"))
    predictions = [None, unsure, Prediction(0.5, 0.4, 0.625)]
    with database.begin() as session:
        search_id = create_search(session, supernet_id).row.id
        for again in (False, True):
            for number, prediction in enumerate(predictions):
                evaluation_id, _ = evaluations.record(session, supernet_id, evaluation(number), costs)
                searches.record_trial(
                    session,
                    search_id,
                    number=number,
                    evaluation_id=evaluation_id,
                    round=number,
                    is_reused=False,
                    origin=Origin.RANDOM if again else Origin.PROPOSED,
                    prediction=Prediction(0.9, 0.8, 1.0) if again else prediction,
                    predicted_from=None if prediction is None and not again else 7,
                )
    with database.session() as session:
        rows = [found.trial for found in searches.trials(session, search_id)]
    assert {row.origin for row in rows} == {Origin.PROPOSED}
    told = [(r.predicted_accuracy, r.predicted_low, r.predicted_high, r.predicted_from) for r in rows]
    # An interval that reaches everywhere is none.
    assert told == [(None, None, None, None), (0.5, None, None, 7), (0.5, 0.4, 0.625, 7)]


def record_rounds(session, search_id, numbers, *, hypervolume=0.0):
    for number in numbers:
        searches.record_round(
            session,
            search_id,
            number=number,
            num_trials=10 * number + 5,
            num_measured=number,
            hypervolume=hypervolume + number,
            reference=[0.25, 4e6],
            forecasts=None if number == 0 else ForecastReport(
                num_selected=number, coverage=None, num_ranked=0, within_bin_tau=None
            ),
        )  # fmt: skip


def test_rounds_come_in_order_and_the_latest_of_many_searches_at_once(database, supernet_id):
    with database.begin() as session:
        first, second, none = (create_search(session, supernet_id).row.id for _ in range(3))
        record_rounds(session, first, (1, 0, 2))
        record_rounds(session, second, (0,))
        # A round that is run again changes nothing.
        record_rounds(session, first, (1,), hypervolume=99.0)
    with database.session() as session:
        rows = searches.rounds(session, first)
        assert [(row.number, row.num_trials, row.hypervolume) for row in rows] == [
            (0, 5, 0.0),
            (1, 15, 1.0),
            (2, 25, 2.0),
        ]
        assert [(row.num_forecasts, row.coverage, row.reference) for row in rows[:2]] == [
            (0, None, [0.25, 4e6]),
            (1, None, [0.25, 4e6]),
        ]
        assert [row.number for row in searches.rounds(session, first, page_size=1, after_number=0)] == [1]
        latest = searches.latest_rounds(session, [first, second, none])
        assert {search_id: row.number for search_id, row in latest.items()} == {first: 2, second: 0}
        found = searches.get_round(session, first, 1)
        assert found is not None and found.num_trials == 15
        assert searches.get_round(session, second, 1) is None


def test_a_search_says_why_it_ended_once_it_has(database, supernet_id):
    with database.begin() as session:
        search_id = create_search(session, supernet_id).row.id
        assert searches.get(session, search_id).row.stop_reason is None
        searches.set_stop_reason(session, search_id, StopReason.FLAT)
    with database.session() as session:
        assert searches.get(session, search_id).row.stop_reason == "flat"


def test_what_a_search_knew_at_its_start_stays_frozen(database, supernet_id):
    with database.begin() as session:
        search_id = create_search(session, supernet_id).row.id
        assert searches.freeze_known(session, search_id, [3, 1]) == [3, 1]
        assert searches.freeze_known(session, search_id, [3, 1, 9]) == [3, 1]


def test_only_a_finished_search_of_the_same_supernet_is_extended(database, queue, supernet_id):
    with database.begin() as session:
        earlier = create_search(session, supernet_id)
        with pytest.raises(ConflictError, match="queued"):
            create_search(session, supernet_id, extends=earlier.row.id)
    queue.request_cancel(earlier.job.id)
    with database.begin() as session:
        assert create_search(session, supernet_id, extends=earlier.row.id).row.extends == earlier.row.id
        dataset_id = supernets.get(session, supernet_id).row.dataset_id
        other = supernets.create(
            session,
            display_name="other",
            labels={},
            dataset_id=dataset_id,
            search_space="micro",
            recipe={},
            seed=0,
            num_workers=1,
            spec={},
        )
        with pytest.raises(InvalidRequestError, match="same supernet"):
            create_search(session, other.row.id, extends=earlier.row.id)


def test_searches_and_subnets_are_listed_by_supernet(database, supernet_id, evaluation, costs):
    with database.begin() as session:
        search = create_search(session, supernet_id)
        assert [found.row.id for found in searches.list(session, page_size=5, supernet_id=supernet_id)] == [
            search.row.id
        ]
        assert searches.list(session, page_size=5, supernet_id="sn_other") == []
        assert subnets.list(session, page_size=5, supernet_id=supernet_id) == []


def test_a_bundle_appears_whole_when_it_is_published(database, supernet_id, evaluation, costs):
    files = [
        Artifact(name=name, size_bytes=3, sha256="ab", media_type="text/plain", uri=f"file:///{name}")
        for name in ("model.py", "card.json")
    ]
    with database.begin() as session:
        subnet = subnets.create(
            session,
            display_name="tiny",
            labels={},
            supernet_id=supernet_id,
            architecture=evaluation().architecture,
            costs=costs,
            spec={},
        )
        assert subnets.artifacts(session, subnet.row.id) == []
        evaluation_id, _ = evaluations.record(session, supernet_id, evaluation(), costs)
        subnets.publish(
            session,
            subnet.row.id,
            evaluation_val_id=evaluation_id,
            evaluation_test_id=None,
            artifacts=files,
        )
    with database.session() as session:
        row = subnets.get(session, subnet.row.id).row
        assert subnets.artifacts(session, row.id) == files[::-1]
        assert subnets.artifact(session, row.id, "model.py") == files[0]
        with pytest.raises(NotFoundError, match=r"model\.onnx"):
            subnets.artifact(session, row.id, "model.onnx")
    assert row.published_at is not None
    assert row.evaluation_val_id == evaluation_id
