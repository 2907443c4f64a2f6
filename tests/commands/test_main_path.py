"""From images to a downloaded network, on the command line."""

from __future__ import annotations

import json
import threading
import time
import zipfile

import pytest

from nas.job import JobKind
from nas.store import supernets
from tests.api.conftest import ACCURACIES, DIGITS, SPLIT_FILES
from tests.api.weights import bundle_file
from tests.api.worker import SPACE, costs_of, ladder

FILES = {"model.py": b"print('model')\n", "card.json": b"{}"}


def later(work) -> threading.Thread:
    """The worker's part, done beside the command as soon as there is a job to claim."""

    def run() -> None:
        for _ in range(300):
            try:
                work()
                return
            except AssertionError as error:
                assert "to claim" in str(error)
                time.sleep(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_whole_path_in_commands(nas, worker, tmp_path):
    helper = later(worker.import_dataset)
    added = nas(
        "dataset",
        "add",
        "digits",
        "--name",
        "digits",
        "--label",
        "team=vision",
        "--wait",
        "--timeout",
        "60",
        "-o",
        "json",
    )
    helper.join()
    dataset = added.json()
    assert (added.status, dataset["state"], added.err) == (0, "succeeded", "")
    assert (dataset["display_name"], dataset["labels"]) == ("digits", {"team": "vision"})
    helper = later(worker.train)
    trained = nas(
        "supernet", "train", dataset["id"], "micro_8", "--epochs", 3, "--batch-size", 32, "--seed", 7,
        "--set", "recipe.dropout=0.1", "--wait", "--timeout", "60", "-o", "id",
    )  # fmt: skip
    helper.join()
    supernet = trained.out.strip()
    assert (trained.status, trained.err) == (0, "")
    spec = nas("supernet", "get", supernet, "-o", "json").json()["spec"]
    assert (spec["recipe"]["epochs"], spec["recipe"]["batch_size"], spec["seed"]) == (3, 32, 7)
    assert spec["recipe"]["dropout"] == 0.1
    created = nas("search", "create", supernet, "--trials", 5, "--max-macs", "100%", "--seed", 3)
    assert created.status == 0
    assert "nas search watch se_" in created.err
    search = nas("search", "list", "-o", "id").out.strip()
    helper = later(lambda: worker.search(ladder(5), ACCURACIES))
    watched = nas("search", "watch", search, "--timeout", "60")
    helper.join()
    assert (watched.status, "succeeded" in watched.out) == (0, True)
    assert f"{search}  succeeded" in watched.err
    front = nas("search", "pareto", search, "-o", "json").json()
    assert [point["number"] for point in front] == [0, 1, 3, 4]
    best = nas("best", supernet, "--max-macs", "99%", "-o", "json").json()
    assert best["architecture"] == front[2]["architecture"]
    subnet = nas("subnet", "create", "--search", search, "--trial", 3, "-o", "json").json()
    assert subnet["architecture"] == front[2]["architecture"]
    worker.specialise(FILES)
    saved = nas("subnet", "download", subnet["id"], "-d", tmp_path / "net", "-o", "json")
    assert {file["path"] for file in saved.json()} == {str(tmp_path / "net" / name) for name in FILES}
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == FILES


def test_splits_and_weights_are_saved(nas, supernet, untrained, tmp_path):
    dataset = supernet["dataset_id"]
    saved = nas("dataset", "download", dataset, "--split", "val", "--split", "test", "-d", tmp_path / "data")
    assert (saved.status, saved.err) == (0, "")
    found = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert found == {name: SPLIT_FILES[name] for name in ("val.npz", "test.npz")}
    saved = nas("supernet", "download", supernet.id, "-d", tmp_path / "net", "-o", "json").json()
    (weights,) = supernet.artifacts()
    assert saved == [{**weights, "path": str(tmp_path / "net" / "supernet.safetensors")}]


def test_what_is_not_there_yet_is_not_saved(nas, client, tmp_path):
    waiting = client.supernets.create(client.datasets.create(DIGITS).id, "micro_8")
    for noun, found in (("supernet", waiting.id), ("dataset", waiting["dataset_id"])):
        ended = nas(noun, "download", found, "-d", tmp_path / "nothing")
        assert ended.status == 1
        assert found in ended.err
    assert not (tmp_path / "nothing").exists()


def test_best_downloads_when_told_to(nas, search, worker, tmp_path):
    helper = later(lambda: worker.specialise(FILES))
    got = nas(
        "best", search["supernet_id"], "--max-macs", "99%", "--download", tmp_path / "best", "--timeout", "60"
    )
    helper.join()
    assert got.status == 0, got.err
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == sorted(FILES)
    assert "python verify.py" in got.err


def test_a_subnet_is_chosen_by_architecture_or_by_bounds(nas, search):
    supernet = search["supernet_id"]
    smallest = SPACE.smallest()
    by_json = nas(
        "subnet",
        "create",
        "--supernet",
        supernet,
        "--architecture",
        json.dumps(smallest.to_json()),
        "-o",
        "json",
    )
    assert by_json.json()["architecture"] == smallest.to_json()
    bound = costs_of(ladder(5)[1])["macs"]
    by_bound = nas("subnet", "create", "--supernet", supernet, "--max-macs", bound, "-o", "json")
    assert by_bound.json()["costs"]["macs"] == bound
    both = nas("subnet", "create", "--supernet", supernet, "--search", search.id)
    assert both.status == 2
    assert "exactly one of these sets" in both.err


@pytest.mark.parametrize("output", ["table", "json", "id"])
def test_every_list_and_get_in_every_form(nas, subnet, search, output):
    supernet = search["supernet_id"]
    dataset = nas("supernet", "get", supernet, "-o", "json").json()["dataset_id"]
    named = {"dataset": dataset, "supernet": supernet, "search": search.id, "subnet": subnet.id}
    for noun, resource_id in {**named, "job": subnet.job_id, "space": "micro_8"}.items():
        listed, got = nas(noun, "list", "-o", output), nas(noun, "get", resource_id, "-o", output)
        assert (listed.status, got.status) == (0, 0), listed.err + got.err
        assert resource_id in listed.out
        assert resource_id in got.out
        if output == "json":
            assert resource_id in [item.get("id", item.get("name")) for item in listed.json()]
            assert got.json().get("id", got.json().get("name")) == resource_id
        if output == "id":
            assert got.out.split() == [resource_id]
    assert nas("search", "pareto", search.id, "-o", output).status == 0


def test_lists_are_cut_where_told_and_say_so(nas, client):
    ids = [client.datasets.create({"kind": "bundled", "name": "digits"}).id for _ in range(3)]
    cut = nas("dataset", "list", "--limit", 2)
    assert [line.split()[0] for line in cut.out.splitlines()] == ["ID", ids[2], ids[1]]
    assert "--limit" in cut.err
    assert nas("dataset", "list", "--limit", 3).err == ""
    assert len(nas("job", "list", "--state", "queued", "--state", "running", "-o", "json").json()) == 3
    assert nas("job", "list", "--state", "failed", "-o", "json").json() == []


def test_cancelling_is_told_and_may_be_repeated(nas, client):
    dataset = client.datasets.create({"kind": "bundled", "name": "digits"})
    for _ in range(2):
        assert nas("job", "cancel", dataset.job_id).out == f"{dataset.job_id} is cancelled\n"
    watched = nas("dataset", "watch", dataset.id)
    assert (watched.status, "was cancelled" in watched.err) == (1, True)


def test_a_failed_job_fails_the_command_with_its_reason(nas, client, worker):
    dataset = client.datasets.create({"kind": "bundled", "name": "digits"})
    worker.fail(JobKind.IMPORT_DATASET, "broken images")
    watched = nas("dataset", "watch", dataset.id)
    assert watched.status == 1
    assert "broken images" in watched.err
    assert f"nas dataset get {dataset.id}" in watched.err


def test_a_folder_is_sent_as_one_archive(nas, client, tmp_path, monkeypatch):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not decoded here")
    # The upload is what is looked at: whether archives can be imported, other tests say.
    ended = nas("dataset", "add", tmp_path / "pets", "--upload", "--progress")
    assert "pets.zip" in ended.err
    (upload,) = client.uploads.list()
    assert upload["display_name"] == "pets.zip"


def test_what_was_sent_is_listed_and_deleted(nas, tmp_path):
    (tmp_path / "bundle.zip").write_bytes(bundle_file())
    upload = nas("upload", "create", tmp_path / "bundle.zip", "-o", "id").out.strip()
    assert "bundle.zip" in nas("upload", "list").out
    assert nas("upload", "list", "-o", "id").out.split() == [upload]
    deleted = nas("upload", "delete", upload)
    assert (deleted.status, deleted.out) == (0, f"{upload} is deleted\n")
    assert nas("upload", "list", "-o", "json").json() == []
    again = nas("upload", "delete", upload)
    assert (again.status, "no upload" in again.err) == (1, True)


def test_a_downloaded_bundle_is_sent_and_trained_from(nas, client, search, tmp_path):
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(bundle_file())
    dataset = client.supernets.get(search["supernet_id"])["dataset_id"]
    started = nas("supernet", "train", dataset, "micro_8", "--warm-start", bundle, "-o", "json")
    assert started.status == 0, started.err
    (upload,) = client.uploads.list()
    assert upload["display_name"] == "bundle.zip"
    assert started.json()["warm_start"]["upload_id"] == upload["id"]
    refused = nas("supernet", "train", dataset, "micro_8", "--warm-start", "sub_x")
    assert (refused.status, "give its bundle.zip" in refused.err) == (2, True)


def test_a_recipes_field_that_was_changed_in_vain_is_told(nas, client, search):
    dataset = client.supernets.get(search["supernet_id"])["dataset_id"]
    started = nas("supernet", "train", dataset, "micro_8", "--set", "recipe.delay_fraction=0.3")
    assert started.status == 0
    assert "note: recipe.delay_fraction 0.3 has no effect: it needs schedule delayed_epsilon" in started.err
    told = nas("supernet", "train", dataset, "micro_8", "--recipe", "deps")
    assert (told.status, "note:" in told.err) == (0, False)


def test_what_is_packed_is_what_lies_there(tmp_path):
    from nas.commands.images import packed

    for name in ("cat/1.png", "dog/ä.png"):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with packed(tmp_path / "pets") as (file, name), zipfile.ZipFile(file) as archive:
        assert name == "pets.zip"
        assert {member: archive.read(member).decode() for member in archive.namelist()} == {
            "cat/1.png": "cat/1.png",
            "dog/ä.png": "dog/ä.png",
        }
    (tmp_path / "pets" / "eel").mkdir()
    with packed(tmp_path / "pets") as (file, _), zipfile.ZipFile(file) as archive:
        # A class without images is the service's to refuse, as it is where it reads the folder itself.
        assert "eel/" in archive.namelist()
    single = tmp_path / "images.npz"
    single.write_bytes(b"arrays")
    with packed(single) as (file, _), zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["images.npz"]
    with packed(tmp_path / "images.npz") as (file, _):
        archived = tmp_path / "pets.zip"
        archived.write_bytes(file.read())
    with packed(archived) as (file, name):
        assert (name, file.read()) == ("pets.zip", archived.read_bytes())


def test_what_has_ended_is_deleted_unless_something_hangs_on_it(nas, search):
    supernet = search["supernet_id"]
    refused = nas("supernet", "delete", supernet)
    assert refused.status == 1
    assert f"used by search {search.id}" in refused.err
    assert nas("search", "delete", search.id).out == f"{search.id} is deleted\n"
    assert nas("search", "get", search.id).status == 1
    assert nas("supernet", "delete", supernet, "-o", "json").json() == {"id": supernet, "deleted": True}
    assert nas("supernet", "list", "-o", "json").json() == []


def test_what_goes_on_is_not_deleted(nas, client):
    dataset = client.datasets.create({"kind": "bundled", "name": "digits"})
    refused = nas("dataset", "delete", dataset.id)
    assert (refused.status, "queued" in refused.err) == (1, True)
    assert nas("dataset", "get", dataset.id).status == 0


def test_a_search_is_extended(nas, search):
    longer = nas("search", "create", "--extends", search.id, "--trials", 8, "-o", "json").json()
    assert longer["supernet_id"] == search["supernet_id"]


def test_probes_are_shown_as_a_table_and_whole_as_json(nas, supernet):
    shown = nas("supernet", "probes", supernet.id)
    lines = shown.out.splitlines()
    assert (shown.status, shown.err) == (0, "after epoch 1\n")
    assert lines[0].split()[:3] == ["PROBE", "ROLE", "MACS"]
    assert [line.split()[:2] for line in lines[1:4]] == [["0", "largest"], ["1", "smallest"], ["2", "drawn"]]
    assert [line.endswith("yes") for line in lines[1:]] == [True, True, False, True, False]
    assert "95.0% (91.0% to 97.3%)" in lines[1]
    assert nas("supernet", "probes", supernet.id, "-o", "json").json() == supernet.probes()


def test_before_the_first_epoch_there_are_no_probes_to_show(nas, untrained):
    shown = nas("supernet", "probes", untrained.id)
    assert (shown.status, shown.out) == (0, "")
    assert "is queued; no epoch of it has been measured" in shown.err


def test_what_befell_a_training_is_told_while_it_is_watched(nas, supernet, database):
    rollback = {"step": 4, "from_step": 1006, "reason": "the loss is nan", "rate_factor": 0.5}
    with database.begin() as session:
        supernets.set_rollbacks(session, supernet.id, [rollback])
        supernets.get(session, supernet.id).row.probes_flat_at_epoch = 12
    told = nas("supernet", "watch", supernet.id).err.splitlines()
    assert told[0] == (
        f"{supernet.id}  rolled back from step 1,006 to 4, learning rate times 0.5: the loss is nan"
    )
    assert told[1].startswith(f"{supernet.id}  no probe has risen since epoch 12")
    assert told[2] == f"{supernet.id}  succeeded"
