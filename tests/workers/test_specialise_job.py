"""Publishing a network: card and row say one number, test is touched once, and a cancel is seen inside."""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select, update

from nas.errors import ArtifactError
from nas.job import JobState
from nas.store import evaluations, subnets
from nas.store.evaluations import EvaluationProtocol
from nas.store.tables import EvaluationRow
from nas.trial import Evaluation, Split
from supernet.evaluate import SubnetEvaluator
from supernet.export import verify
from tests.workers.conftest import SPACE
from workers import specialise_job
from workers.figures import allowed_differences, settle_figures


@pytest.fixture(scope="session")
def trained(lasting_site):
    """A supernet to take networks from."""
    site = lasting_site
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id)
    site.work([dataset.job.id, supernet.job.id])
    return SimpleNamespace(site=site, supernet_id=supernet.row.id)


@pytest.fixture
def architecture(request):
    """A network of this test's own: what is recorded of one network would reach into other tests."""
    rng = np.random.default_rng(sum(request.node.name.encode()))
    return SPACE.canonical(SPACE.sample(rng))


def specialise(trained, architecture):
    """Publish the network; its subnet's id and the ended job."""
    site = trained.site
    subnet = site.add_subnet(trained.supernet_id, architecture)
    site.work([subnet.job.id])
    return subnet.row.id, site.queue.get(subnet.job.id)


def published(trained, subnet_id):
    """(the card, the row's evaluation of each split)"""
    with trained.site.database.session() as session:
        row = subnets.get(session, subnet_id).row
        file = subnets.artifact(session, subnet_id, "card.json")
        ids = {Split.VAL: row.evaluation_val_id, Split.TEST: row.evaluation_test_id}
        rows = {split: evaluations.get(session, found) for split, found in ids.items()}
    return json.loads(b"".join(trained.site.artifacts.open(file.uri))), rows


def assert_card_says_what_the_rows_say(card, rows):
    for split, row in rows.items():
        told = card["accuracy"][split.value]
        assert (told["num_correct"], told["num_images"]) == (row.num_correct, row.num_images)
        assert [c["num_correct"] for c in told["per_class"]] == row.per_class_correct
        assert card["provenance"]["batch_norm_statistics"]["on"] == row.calibration


def download(trained, subnet_id, folder):
    with trained.site.database.session() as session:
        for file in subnets.artifacts(session, subnet_id):
            (folder / file.name).write_bytes(b"".join(trained.site.artifacts.open(file.uri)))


@pytest.fixture
def measured(monkeypatch):
    """The splits that are measured, as they are."""
    splits = []
    measure = SubnetEvaluator.measure

    def counting(self, logits_of, architecture, split, **fields):
        splits.append(split)
        return measure(self, logits_of, architecture, split, **fields)

    monkeypatch.setattr(SubnetEvaluator, "measure", counting)
    return splits


def test_published_again_a_network_is_not_measured_on_test_again(trained, architecture, measured, tmp_path):
    first, _ = specialise(trained, architecture)
    assert measured == [Split.VAL, Split.TEST]
    second, job = specialise(trained, architecture)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    assert measured == [Split.VAL, Split.TEST, Split.VAL]
    (_, rows), (card, again) = (published(trained, subnet_id) for subnet_id in (first, second))
    assert {split: row.id for split, row in again.items()} == {split: row.id for split, row in rows.items()}
    assert_card_says_what_the_rows_say(card, again)
    (event,) = trained.site.event_payloads(job.id, "measured")
    assert event["is_test_reused"]
    assert event["difference"] is None
    download(trained, second, tmp_path)
    assert [problem for result in verify.verify(tmp_path) for problem in result.problems()] == []


def flip_recorded(trained, architecture, num_images):
    """Make the recorded val evaluation one of a network that classifies the first images otherwise."""
    with trained.site.database.begin() as session:
        row = session.scalars(
            select(EvaluationRow).where(
                EvaluationRow.supernet_id == trained.supernet_id,
                EvaluationRow.architecture_key == architecture.key,
                EvaluationRow.split == Split.VAL,
            )
        ).one()
        bits = np.unpackbits(np.frombuffer(row.correct_bitmap, dtype=np.uint8))
        bits[:num_images] ^= 1
        changes = {"correct_bitmap": np.packbits(bits).tobytes(), "num_correct": int(bits.sum())}
        session.execute(update(EvaluationRow).where(EvaluationRow.id == row.id).values(**changes))
        return row.id, changes["num_correct"]


def forget_test(trained, architecture):
    """As if a search alone had measured the network."""
    with trained.site.database.begin() as session:
        row = session.scalars(
            select(EvaluationRow).where(
                EvaluationRow.supernet_id == trained.supernet_id,
                EvaluationRow.architecture_key == architecture.key,
                EvaluationRow.split == Split.TEST,
            )
        ).one()
        row.architecture_key = f"forgotten {row.id}"


def test_a_module_that_rounds_otherwise_than_the_search_is_published_with_its_own_figures_everywhere(
    trained, architecture
):
    specialise(trained, architecture)
    recorded_id, recorded_correct = flip_recorded(trained, architecture, 1)
    forget_test(trained, architecture)
    subnet_id, job = specialise(trained, architecture)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    card, rows = published(trained, subnet_id)
    assert_card_says_what_the_rows_say(card, rows)
    assert abs(rows[Split.VAL].num_correct - recorded_correct) == 1
    (event,) = trained.site.event_payloads(job.id, "measured")
    assert event["difference"] == {
        "num_images": rows[Split.VAL].num_images,
        "num_differing": 1,
        "num_allowed": 1,
        "num_correct_recorded": recorded_correct,
        "num_correct_published": rows[Split.VAL].num_correct,
    }
    # What the search saw stands as it was, and no frontier sees the network twice.
    with trained.site.database.session() as session:
        recorded = evaluations.get(session, recorded_id)
        assert recorded.num_correct == recorded_correct
        names = [field.name for field in fields(EvaluationProtocol)]
        known = evaluations.known(
            session, EvaluationProtocol(**{name: getattr(recorded, name) for name in names})
        )
    assert known[architecture.key].id == recorded_id != rows[Split.VAL].id
    # And its own test figures are measured once as well.
    again, job = specialise(trained, architecture)
    assert trained.site.event_payloads(job.id, "measured")[0]["is_test_reused"]
    assert published(trained, again)[1][Split.TEST].id == rows[Split.TEST].id


def test_a_module_that_is_another_network_than_the_recorded_one_is_not_published(
    trained, architecture, measured
):
    specialise(trained, architecture)
    flip_recorded(trained, architecture, 2)
    forget_test(trained, architecture)
    measured.clear()
    subnet_id, job = specialise(trained, architecture)
    assert job.state is JobState.FAILED
    assert "classifies 2 of 72 val images otherwise" in job.error
    assert "at most 1 may differ" in job.error
    assert measured == [Split.VAL]
    with trained.site.database.session() as session:
        assert subnets.artifacts(session, subnet_id) == []
        assert subnets.get(session, subnet_id).row.published_at is None


def test_what_another_job_records_meanwhile_cannot_make_row_and_card_differ(
    trained, architecture, monkeypatch
):
    write = specialise_job.write_bundle

    def write_while_another_records(*arguments, card, **fields):
        files = write(*arguments, card=card, **fields)
        val = card.evaluation(Split.VAL)
        other = replace(val, correct_bitmap=bytes(len(val.correct_bitmap)), num_correct=0)
        with trained.site.database.begin() as session:
            costs = {figure.name: int(figure.value) for figure in card.costs}
            evaluations.record(session, trained.supernet_id, other, costs)
        return files

    monkeypatch.setattr(specialise_job, "write_bundle", write_while_another_records)
    subnet_id, job = specialise(trained, architecture)
    assert job.state is JobState.FAILED
    assert "another job has meanwhile recorded 0 of 72 val images" in job.error
    with trained.site.database.session() as session:
        assert subnets.artifacts(session, subnet_id) == []


@pytest.mark.parametrize(
    ("owner", "name"), [(SubnetEvaluator, "statistics"), (SubnetEvaluator, "measure"), (verify, "verify")]
)
def test_a_cancel_is_seen_within_each_long_piece(trained, architecture, monkeypatch, owner, name):
    site = trained.site
    subnet = site.add_subnet(trained.supernet_id, architecture)
    real = getattr(owner, name)
    raised = []

    def cancelled_just_before(*arguments, **fields):
        site.queue.request_cancel(subnet.job.id)
        # Longer than a heartbeat: from now on whoever asks is told.
        time.sleep(1.5)
        try:
            return real(*arguments, **fields)
        except Exception as error:
            raised.append(type(error).__name__)
            raise

    monkeypatch.setattr(owner, name, cancelled_just_before)
    site.work([subnet.job.id])
    assert raised == ["JobCancelledError"]
    assert site.queue.get(subnet.job.id).state is JobState.CANCELLED
    with site.database.session() as session:
        assert subnets.artifacts(session, subnet.row.id) == []


# The rule by itself


def evaluation(split, bits, calibration="train[9]") -> Evaluation:
    return Evaluation(
        architecture=SPACE.smallest(),
        checkpoint="c",
        split=split,
        num_images=len(bits),
        calibration=calibration,
        num_correct=sum(bits),
        per_class_correct=(sum(bits),),
        per_class_images=(len(bits),),
        correct_bitmap=np.packbits(bits).tobytes(),
        duration_s=0.1,
    )


@pytest.mark.parametrize(("num_images", "allowed"), [(10, 1), (999, 1), (2000, 2), (10_000, 10)])
def test_one_image_in_a_thousand_may_differ_and_not_one_more(num_images, allowed):
    assert allowed_differences(num_images) == allowed
    bits = np.zeros(num_images, dtype=np.uint8)
    recorded = {(Split.VAL, "train[9]"): evaluation(Split.VAL, bits.tolist())}

    def settle(num_differing):
        own = bits.copy()
        own[:num_differing] = 1
        return settle_figures(
            lambda split: evaluation(split, own.tolist()),
            lambda split, calibration: recorded.get((split, calibration)),
            statistics_id="abc",
        )

    assert settle(0).difference is None
    assert settle(0).evaluations[Split.VAL].calibration == "train[9]"
    assert settle(allowed).difference.num_differing == allowed
    for told in settle(allowed).evaluations.values():
        assert (told.calibration, told.num_correct) == ("train[9],statistics=abc", allowed)
    with pytest.raises(ArtifactError, match=f"{allowed + 1} of {num_images} val images otherwise"):
        settle(allowed + 1)


def test_as_many_right_but_others_is_a_difference():
    recorded = evaluation(Split.VAL, [1, 0, 0, 0])
    with pytest.raises(ArtifactError, match="2 of 4 val images otherwise"):
        settle_figures(
            lambda split: evaluation(split, [0, 1, 0, 0]),
            lambda split, calibration: recorded if split is Split.VAL else None,
            statistics_id="abc",
        )
