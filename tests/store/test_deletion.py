"""What may be deleted, what goes with it, and what a race between creating and deleting can end in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from sqlalchemy import func, select, text

from nas.errors import ConflictError, NotFoundError
from nas.job import JobKind
from nas.probes import EpochProbes, ProbeResult, choose_probes
from nas.search.rounds import Origin
from nas.store import (
    datasets,
    discards,
    evaluation_batches,
    evaluations,
    probes,
    searches,
    subnets,
    supernets,
    uploads,
)
from nas.store.artifacts import ArtifactStore
from nas.store.deletion import (
    DATASET,
    KINDS,
    SEARCH,
    SUBNET,
    SUPERNET,
    UPLOAD,
    ResourceInUseError,
    delete_resource,
    folder_of,
)
from nas.store.tables import (
    Base,
    DiscardedFolderRow,
    EvaluationRow,
    JobEventRow,
    JobRow,
    SearchRoundRow,
    TrialRow,
)
from nas.trial import Split
from search_spaces import SPACES

NAMES = {"display_name": "named", "labels": {}}


def add_dataset(session, source=None):
    return datasets.create(session, **NAMES, source=source or {"kind": "bundled"}, spec={}).row.id


def add_upload(session):
    upload_id = uploads.begin(session)
    stored = ArtifactStore("memory://uploads").put(uploads.key_of(upload_id), b"x")
    return uploads.create(session, upload_id, display_name="", stored=stored).id


def add_supernet(session, dataset_id):
    return supernets.create(
        session,
        **NAMES,
        dataset_id=dataset_id,
        search_space="micro",
        recipe={},
        seed=0,
        num_workers=1,
        spec={},
    ).row.id


def add_search(session, supernet_id, extends=None):
    return searches.create(
        session,
        **NAMES,
        supernet_id=supernet_id,
        constraints={},
        objectives=[],
        num_trials=1,
        proposer="random",
        seed=0,
        spec={},
        extends=extends,
    ).row.id


@pytest.fixture
def add_subnet(evaluation, costs):
    def add(session, supernet_id):
        return subnets.create(
            session,
            **NAMES,
            supernet_id=supernet_id,
            architecture=evaluation().architecture,
            costs=costs,
            spec={},
        ).row.id

    return add


@pytest.fixture
def add_batch(evaluation, costs):
    def add(session, supernet_id):
        network = evaluation_batches.GivenNetwork(
            architecture=evaluation().architecture, costs=costs, is_infeasible=False
        )
        return evaluation_batches.create(
            session,
            **NAMES,
            protocol=evaluations.EvaluationProtocol(
                supernet_id=supernet_id, checkpoint="c0", split=Split.VAL, num_images=100, calibration="all"
            ),
            constraints={},
            networks=[network],
            spec={},
        ).row.id

    return add


@pytest.fixture
def make(database):
    """Runs a creation in a transaction of its own."""

    def run(create, *args, **named):
        with database.begin() as session:
            return create(session, *args, **named)

    return run


@pytest.fixture
def delete(database):
    def run(kind, resource_id):
        with database.begin() as session:
            delete_resource(session, kind, resource_id)

    return run


@pytest.fixture
def end(queue):
    """Everything that waits is claimed and ends well."""

    def run():
        while lease := queue.claim("w", lease_s=60):
            queue.succeed(lease)

    return run


def count(database, model) -> int:
    with database.session() as session:
        return session.execute(select(func.count()).select_from(model)).scalar_one()


def users_of(refusal) -> list[tuple[str, str]]:
    return [(user.kind, user.id) for user in refusal.value.used_by]


def test_what_is_in_use_is_refused_with_the_list(make, delete, end, add_subnet):
    upload = make(add_upload)
    dataset = make(add_dataset, {"kind": "archive", "upload_id": upload})
    supernet = make(add_supernet, dataset)
    search, subnet = make(add_search, supernet), make(add_subnet, supernet)
    end()
    longer = make(add_search, supernet, extends=search)
    end()
    for kind, resource_id, expected in [
        (UPLOAD, upload, [("dataset", dataset)]),
        (DATASET, dataset, [("supernet", supernet)]),
        (SUPERNET, supernet, [("search", search), ("search", longer), ("subnet", subnet)]),
        (SEARCH, search, [("search", longer)]),
    ]:
        with pytest.raises(ResourceInUseError, match=expected[0][1]) as refusal:
            delete(kind, resource_id)
        assert users_of(refusal) == expected
        assert refusal.value.num_users == len(expected)
    for kind, resource_id in [
        (SEARCH, longer),
        (SEARCH, search),
        (SUBNET, subnet),
        (SUPERNET, supernet),
        (DATASET, dataset),
        (UPLOAD, upload),
    ]:
        delete(kind, resource_id)
        with pytest.raises(NotFoundError, match=resource_id):
            delete(kind, resource_id)


def test_a_long_list_is_cut_and_counted(make, delete, end, monkeypatch):
    monkeypatch.setattr("nas.store.deletion.MAX_LISTED", 2)
    dataset = make(add_dataset)
    made = [make(add_supernet, dataset) for _ in range(5)]
    end()
    with pytest.raises(ResourceInUseError, match=r"supernet sn_.* and 3 more; delete") as refusal:
        delete(DATASET, dataset)
    assert ([user.id for user in refusal.value.used_by], refusal.value.num_users) == (made[:2], 5)


def test_nothing_is_deleted_while_its_job_goes_on(make, delete, queue, database):
    dataset = make(add_dataset)
    with pytest.raises(ConflictError, match="is queued; cancel its job or wait"):
        delete(DATASET, dataset)
    lease = queue.claim("w", lease_s=60)
    with pytest.raises(ConflictError, match="is running"):
        delete(DATASET, dataset)
    queue.request_cancel(lease.job.id)
    with pytest.raises(ConflictError, match="is cancelling"):
        delete(DATASET, dataset)
    queue.cancelled(lease)
    delete(DATASET, dataset)
    assert [count(database, model) for model in (JobRow, JobEventRow)] == [0, 0]


def test_a_search_takes_its_trials_along_and_leaves_the_evaluations(
    database, make, delete, end, evaluation, costs
):
    supernet = make(add_supernet, make(add_dataset))
    search, other = make(add_search, supernet), make(add_search, supernet)
    end()
    with database.begin() as session:
        evaluation_id, _ = evaluations.record(session, supernet, evaluation(), costs)
        for search_id in (search, other):
            searches.record_trial(
                session,
                search_id,
                number=0,
                evaluation_id=evaluation_id,
                round=0,
                is_reused=False,
                origin=Origin.SEED,
            )
            searches.record_round(
                session,
                search_id,
                number=0,
                num_trials=1,
                num_measured=1,
                hypervolume=0.0,
                reference=[0.5, 1.0],
                forecasts=None,
            )
    delete(SEARCH, search)
    with database.session() as session:
        assert [row.search_id for row in session.scalars(select(TrialRow))] == [other]
        assert [row.search_id for row in session.scalars(select(SearchRoundRow))] == [other]
        assert evaluations.get(session, evaluation_id).supernet_id == supernet


def probes_of_an_epoch():
    networks = choose_probes(SPACES["micro_8"], 0, np.random.default_rng(0), num_classes=10, in_channels=1)
    results = tuple(ProbeResult(number=number, num_correct=1, num_images=9) for number in range(2))
    return EpochProbes(epoch=0, step=1, networks=networks, results=results, strategies={}, is_settled=False)


def test_a_supernet_takes_its_curves_and_evaluations_along(database, make, delete, end, evaluation, costs):
    dataset = make(add_dataset)
    gone, kept = make(add_supernet, dataset), make(add_supernet, dataset)
    end()
    for supernet in (gone, kept):
        with database.begin() as session:
            for width in range(1, 6):
                evaluations.record(session, supernet, evaluation(width), costs)
            supernets.record_point(
                session,
                supernet,
                supernets.TrainingPoint(
                    epoch=1, step=1, images_seen=1, train_loss=1.0, learning_rate=0.1, elapsed_s=1.0
                ),
            )
            probes.record(session, supernet, probes_of_an_epoch())
    delete(SUPERNET, gone)
    with database.session() as session:
        assert {row.supernet_id for row in session.scalars(select(EvaluationRow))} == {kept}
        assert probes.curves(session, gone).networks == []
        assert len(probes.curves(session, kept).results) == 1
        assert len(supernets.curve(session, kept)) == 1
    assert count(database, EvaluationRow) == 5


def test_a_subnet_takes_its_files_along_and_leaves_its_figures(
    database, make, delete, end, add_subnet, evaluation, costs
):
    supernet = make(add_supernet, make(add_dataset))
    subnet = make(add_subnet, supernet)
    end()
    with database.begin() as session:
        evaluation_id, _ = evaluations.record(session, supernet, evaluation(), costs)
        subnets.publish(
            session,
            subnet,
            evaluation_val_id=evaluation_id,
            evaluation_test_id=None,
            artifacts=[
                subnets.Artifact(name="a", size_bytes=1, sha256="s", media_type="x", uri="memory://a")
            ],
        )
    delete(SUBNET, subnet)
    with database.session() as session:
        assert subnets.published_uris(session, subnet) == set()
        assert evaluations.get(session, evaluation_id).split == Split.VAL


def test_every_table_that_refers_to_a_resource_is_a_user_or_a_part():
    """A table that is neither would make deletion fail on its rows, or leave them dangling."""
    known = {kind.model for kind in KINDS} | {part for kind in KINDS for part in kind.parts}
    resources = {kind.model.__tablename__ for kind in KINDS}
    for mapper in Base.registry.mappers:
        targets = {key.column.table.name for key in mapper.local_table.foreign_keys}
        assert not targets & resources or mapper.class_ in known, mapper.class_


def test_a_reference_that_the_rules_do_not_know_is_refused_too(database, make, delete, end):
    dataset = make(add_dataset)
    end()
    with database.begin() as session:
        session.execute(text("CREATE TABLE strangers (id text REFERENCES datasets (id))"))
        session.execute(text("INSERT INTO strangers VALUES (:id)"), {"id": dataset})
    try:
        with pytest.raises(ResourceInUseError, match="strangers"):
            delete(DATASET, dataset)
        with database.session() as session:
            assert datasets.get(session, dataset).row.id == dataset
    finally:
        with database.begin() as session:
            session.execute(text("DROP TABLE strangers"))


# Bytes


def test_a_crash_between_the_rows_and_the_bytes_leaves_what_the_sweep_removes(
    database, make, delete, end, tmp_path
):
    store = ArtifactStore(str(tmp_path))
    dataset = make(add_dataset)
    gone, kept = make(add_supernet, dataset), make(add_supernet, dataset)
    end()
    files = [store.put(f"{folder_of(SUPERNET, name)}/a/weights", b"w") for name in (gone, kept)]
    # The rows go, and whoever deleted them dies: nobody removes the bytes.
    delete(SUPERNET, gone)
    assert store.exists(files[0].uri)
    discards.remove_due(database, store)
    assert [store.exists(file.uri) for file in files] == [False, True]
    # A worker back from the dead writes into the folder: the note still stands.
    late = store.put(f"{folder_of(SUPERNET, gone)}/b/weights", b"w")
    discards.remove_due(database, store)
    assert not store.exists(late.uri)


def test_a_deletion_that_is_rolled_back_leaves_rows_and_bytes(database, make, end, tmp_path):
    store = ArtifactStore(str(tmp_path))
    supernet = make(add_supernet, make(add_dataset))
    end()
    file = store.put(f"{folder_of(SUPERNET, supernet)}/a/weights", b"w")
    with pytest.raises(ZeroDivisionError), database.begin() as session:
        delete_resource(session, SUPERNET, supernet)
        raise ZeroDivisionError
    discards.remove_due(database, store)
    assert store.exists(file.uri)
    assert count(database, DiscardedFolderRow) == 0


def test_notes_are_forgotten_after_a_month(database, make, delete, end, tmp_path):
    store = ArtifactStore(str(tmp_path))
    dataset = make(add_dataset)
    end()
    delete(DATASET, dataset)
    for days, left in ((29, 1), (2, 0)):
        with database.begin() as session:
            session.execute(text(f"UPDATE discarded_folders SET due_at = due_at - interval '{days} days'"))
        discards.remove_due(database, store)
        assert count(database, DiscardedFolderRow) == left


# Races


def pairs(add_subnet, add_batch):
    """What refers to what: how the first is made, and how the second is made to refer to it."""
    return {
        "a data set of an upload": (
            UPLOAD,
            add_upload,
            lambda session, of: (uploads.hold(session, of), add_dataset(session, {"upload_id": of})),
        ),
        "a supernet of a data set": (DATASET, add_dataset, add_supernet),
        "a search of a supernet": (SUPERNET, lambda s: add_supernet(s, add_dataset(s)), add_search),
        "a subnet of a supernet": (SUPERNET, lambda s: add_supernet(s, add_dataset(s)), add_subnet),
        "a batch of a supernet": (SUPERNET, lambda s: add_supernet(s, add_dataset(s)), add_batch),
        "a search that extends another": (
            SEARCH,
            lambda s: add_search(s, add_supernet(s, add_dataset(s))),
            lambda s, of: add_search(s, searches.get(s, of).row.supernet_id, extends=of),
        ),
    }


@pytest.fixture(params=[*pairs(None, None)])
def pair(request, add_subnet, add_batch):
    return pairs(add_subnet, add_batch)[request.param]


def test_a_reference_under_way_makes_the_deletion_wait_and_be_refused(database, make, delete, end, pair):
    kind, add, refer = pair
    resource_id = make(add)
    end()
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as session:
            refer(session, resource_id)
            deletion = pool.submit(delete, kind, resource_id)
            with pytest.raises(TimeoutError):
                deletion.result(timeout=0.3)
        with pytest.raises(ResourceInUseError):
            deletion.result(timeout=60)


def test_a_deletion_under_way_makes_the_reference_wait_and_find_nothing(database, make, end, pair):
    kind, add, refer = pair
    resource_id = make(add)
    end()
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as session:
            delete_resource(session, kind, resource_id)
            creation = pool.submit(make, refer, resource_id)
            with pytest.raises(TimeoutError):
                creation.result(timeout=0.3)
        with pytest.raises(NotFoundError, match=resource_id):
            creation.result(timeout=60)


def test_of_a_creation_and_a_deletion_at_once_one_finds_the_other(database, make, delete, end, pair):
    kind, add, refer = pair
    for _ in range(6):
        resource_id = make(add)
        end()
        start = Barrier(4)

        def attempt(act, *args, start=start):
            start.wait(10)
            try:
                act(*args)
            except (NotFoundError, ResourceInUseError) as error:
                return error
            return None

        with ThreadPoolExecutor(4) as pool:
            creations = [pool.submit(attempt, make, refer, resource_id) for _ in range(3)]
            deletion = pool.submit(attempt, delete, kind, resource_id)
            made = [future.result(60) is None for future in creations]
            is_deleted = deletion.result(60) is None
        assert is_deleted != any(made)
        end()


def test_two_deletions_at_once_delete_once(make, delete, end):
    for _ in range(5):
        dataset = make(add_dataset)
        end()

        def attempt(_, dataset=dataset):
            try:
                delete(DATASET, dataset)
            except NotFoundError:
                return 0
            return 1

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(attempt, range(4))) == 1


def test_a_job_queue_goes_on_after_a_deletion(make, delete, queue, end):
    dataset = make(add_dataset)
    end()
    delete(DATASET, dataset)
    other = make(add_dataset)
    assert queue.sweep() == 0
    lease = queue.claim("w", lease_s=60, kinds=[JobKind.IMPORT_DATASET])
    assert lease.job.resource_id == other
