"""The bundle proves its own figures, and nothing false is published."""

import ast
import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.errors import ArtifactError
from nas.trial import Split, wilson_interval
from supernet.export import check_agreement, check_statistics, verify, write_bundle
from supernet.extract import extract

CONTENTS = ["card.json", "check.npz", "model.onnx", "model.py", "model.safetensors", "verify.py"]


def write(folder, example, **changed):
    arguments = {
        "network": example.network,
        "supernet_logits": example.supernet_logits,
        "card": example.card,
        "check": example.check,
    }
    return write_bundle(folder, **{**arguments, **changed})


@pytest.fixture(scope="module")
def written(example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write(folder, example)
    return folder


@pytest.fixture
def unzipped(written, tmp_path):
    """The bundle as its reader has it: what was in the zip, and no more."""
    with zipfile.ZipFile(written / "bundle.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def run_verify(folder, *arguments):
    """`python verify.py` as its reader runs it, with nothing of this project on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "verify.py", *arguments],
        cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def read_card(folder):
    return json.loads((folder / "card.json").read_text())


def write_card(folder, card):
    """The card with the hashes of the files as they now are: a forger's card."""
    for name in card["files"]:
        card["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def edit_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["head_classifier.linear.bias"][3] += 10
    save_file(weights, folder / "model.safetensors")


def edit_labels(folder, count=1):
    with np.load(folder / "check.npz") as arrays:
        content = dict(arrays)
    content["val_labels"][:count] = (content["val_labels"][:count] + 1) % 10
    np.savez_compressed(folder / "check.npz", **content)


# What the reader sees


def test_verify_reproduces_the_card_from_the_unzipped_folder_alone(unzipped, example):
    result = run_verify(unzipped)
    assert result.returncode == 0, result.stdout + result.stderr
    for split in Split:
        evaluation = example.card.evaluation(split)
        row = next(line for line in result.stdout.splitlines() if line.split()[:1] == [split.value])
        assert row.split()[1:4] == [
            str(evaluation.num_images), *[str(evaluation.num_correct)] * 2,
        ]  # fmt: skip
        assert evaluation.accuracy > 0.5  # else the counts would prove little
    assert "OK" in result.stdout


@pytest.mark.parametrize(("edit", "file"), [(edit_weights, "model.safetensors"), (edit_labels, "check.npz")])
def test_verify_tells_which_file_was_changed(unzipped, edit, file):
    edit(unzipped)
    result = run_verify(unzipped)
    assert result.returncode == 1
    assert f"FAILED  {file} is not the published file" in result.stdout


def test_verify_counts_for_itself(unzipped):
    """Were the hashes forged as well, the counts would still tell."""
    edit_weights(unzipped)
    write_card(unzipped, read_card(unzipped))
    result = run_verify(unzipped)
    assert result.returncode == 1
    assert "FAILED  val: the card says" in result.stdout


@pytest.mark.parametrize("edit", [lambda folder: edit_labels(folder, 1), edit_weights])
def test_changed_labels_or_weights_change_the_count(unzipped, edit):
    edit(unzipped)
    write_card(unzipped, read_card(unzipped))
    problems = [problem for result in verify.verify(unzipped) for problem in result.problems()]
    assert any(problem.startswith("val: the card says") for problem in problems)


def test_verify_refuses_onnx_counts_beyond_the_tolerance():
    result = verify.SplitResult("val", 5000, 4000, 4000, 4005, 1e-6, 0)
    assert result.problems() == []
    assert "model.onnx got 4006; at most 5" in replace(result, onnx_correct=4006).problems()[0]


@pytest.mark.parametrize("name", CONTENTS)
def test_verify_tells_which_file_is_missing(unzipped, name):
    (unzipped / name).unlink()
    with pytest.raises(verify.MismatchError, match=name):
        verify.verify(unzipped)


def test_count_does_not_depend_on_the_batch_size(unzipped):
    card = read_card(unzipped)
    card["verification"]["batch_size"] = 7
    write_card(unzipped, card)
    assert all(not result.problems() for result in verify.verify(unzipped))


def test_verify_needs_four_packages_only():
    tree = ast.parse(Path(verify.__file__).read_text())
    names = [
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign <= {"torch", "numpy", "safetensors", "onnxruntime"}


# Images beside the bundle


@pytest.fixture
def without_images(example, tmp_path):
    """(folder of the unzipped bundle, folder with the images)."""
    images_at = "https://images.example/check.npz"
    files = write(tmp_path / "written", example, images_at=images_at, max_images_in_zip_bytes=10)
    assert [file.name for file in files if not file.is_in_zip] == ["check.npz", "bundle.zip"]
    with zipfile.ZipFile(tmp_path / "written" / "bundle.zip") as archive:
        archive.extractall(tmp_path / "unzipped")
    return tmp_path / "unzipped", tmp_path / "written"


def test_large_images_stay_out_of_the_zip_and_the_card_says_where_they_are(without_images):
    folder, images = without_images
    assert not (folder / "check.npz").exists()
    expected = {"name": "check.npz", "is_in_bundle": False, "where": "https://images.example/check.npz"}
    assert read_card(folder)["verification"]["images"] == expected
    assert len(verify.verify(folder, str(images / "check.npz"))) == 2


def test_images_come_from_a_url(without_images, monkeypatch):
    folder, images = without_images
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            del arguments

    handler = functools.partial(Handler, directory=images)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        results = verify.verify(folder, f"http://127.0.0.1:{server.server_port}/check.npz")
        server.shutdown()
    assert all(not result.problems() for result in results)


def test_verify_asks_for_images_that_it_is_not_told_of(without_images):
    folder, _ = without_images
    card = read_card(folder)
    card["verification"]["images"]["where"] = None
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(verify.MismatchError, match="--images"):
        verify.verify(folder)


def test_images_that_a_service_has_are_told_with_what_to_type(without_images):
    folder, _ = without_images
    card = read_card(folder)
    card["verification"]["images"]["where"] = "/v1/subnets/sub_1/artifacts/check.npz"
    (folder / "card.json").write_text(json.dumps(card))
    command = r"python verify\.py --images http://HOST:PORT/v1/subnets/sub_1/artifacts/check\.npz"
    with pytest.raises(verify.MismatchError, match=command):
        verify.verify(folder)


@pytest.mark.parametrize("departures", [(), ("step 40: threads: 2 before, 1 now",)])
def test_the_card_says_whether_the_training_is_bit_for_bit_an_undisturbed_one(example, tmp_path, departures):
    write(tmp_path / "bundle", example, card=replace(example.card, resume_departures=departures))
    training = read_card(tmp_path / "bundle")["provenance"]["training"]
    assert training == {"is_exact": not departures, "resume_departures": list(departures)}


# What is written


def test_zip_holds_the_bundle_and_is_the_same_bytes_each_time(example, written, tmp_path):
    write(tmp_path / "again", example)
    with zipfile.ZipFile(written / "bundle.zip") as archive:
        assert archive.namelist() == CONTENTS
    assert (tmp_path / "again" / "bundle.zip").read_bytes() == (written / "bundle.zip").read_bytes()


def test_folder_holds_exactly_the_listed_files(example, tmp_path):
    files = write(tmp_path, example)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in files)
    assert all(file.path.is_file() for file in files)


def test_load_finds_the_weights_beside_the_source(unzipped, example):
    code = (
        "import torch, model\n"
        "network = model.load()\n"
        "assert not network.training\n"
        "print(model.CLASS_NAMES[3], tuple(network(torch.zeros(2, 1, 8, 8)).shape))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=unzipped, capture_output=True, text=True, check=True
    )
    assert result.stdout.split(maxsplit=1) == ["3", "(2, 10)\n"]


def test_card_tells_what_was_measured_and_from_what(written, example):
    card = read_card(written)
    evaluation = example.card.evaluation(Split.TEST)
    accuracy = card["accuracy"]["test"]
    assert accuracy["origin"] == "measured"
    assert accuracy["interval_95"] == list(wilson_interval(evaluation.num_correct, evaluation.num_images))
    assert sum(entry["num_correct"] for entry in accuracy["per_class"]) == evaluation.num_correct
    assert card["architecture"]["key"] == example.architecture.key
    assert example.supernet.space.parse(card["architecture"]["decisions"]) == example.architecture
    assert card["costs"]["macs"]["origin"] == "counted"
    data = card["provenance"]["data"]
    assert data["num_unreadable_left_out"] == example.card.num_unreadable == 2
    assert data["stored_as"] == example.card.stored_rule
    assert card["provenance"]["batch_norm_statistics"]["on"] == evaluation.calibration
    assert card["provenance"]["supernet"] == {"id": "sn_1", "checkpoint_sha256": "c" * 64}
    assert sorted(card["files"]) == [name for name in CONTENTS if name != "card.json"]


# The gates


def test_uncalibrated_network_is_not_published(example, tmp_path):
    network = extract(example.supernet, example.architecture)
    with pytest.raises(ArtifactError, match="never calibrated"):
        write(tmp_path, example, network=network)
    with pytest.raises(ArtifactError, match="never calibrated"):
        check_statistics(network)


def test_network_that_is_not_the_supernets_is_not_published(example, tmp_path):
    with pytest.raises(ArtifactError, match="the supernet"):
        write(tmp_path, example, supernet_logits=lambda images: example.supernet_logits(images) + 1e-3)
    assert not (tmp_path / "bundle.zip").exists()


def test_card_with_another_count_is_not_published(example, tmp_path):
    val, test = example.card.evaluations
    false = replace(example.card, evaluations=(replace(val, num_correct=val.num_correct - 1), test))
    with pytest.raises(ArtifactError, match="does not reproduce its card"):
        write(tmp_path, example, card=false)
    assert not (tmp_path / "bundle.zip").exists()


def test_images_of_another_size_are_not_published(example, tmp_path):
    images, labels = example.check[Split.VAL]
    check = {**example.check, Split.VAL: (images[..., 1:, 1:], labels)}
    with pytest.raises(ArtifactError, match="shape of the val images"):
        write(tmp_path, example, check=check)


def test_evaluations_of_different_networks_make_no_card(example):
    val, test = example.card.evaluations
    other = replace(test, architecture=example.supernet.space.largest())
    with pytest.raises(ArtifactError, match="the test evaluation is of architecture"):
        replace(example.card, evaluations=(val, other))
    with pytest.raises(ArtifactError, match="calibration"):
        replace(example.card, evaluations=(val, replace(test, calibration="none")))
    with pytest.raises(ArtifactError, match="one evaluation a split"):
        replace(example.card, evaluations=())


@pytest.mark.parametrize(
    ("extracted", "onnx", "message"),
    [(2e-5, 0.0, "the supernet"), (0.0, 2e-4, "ONNX Runtime"), (float("nan"), 0.0, "the supernet")],
)
def test_disagreeing_logits_are_refused(extracted, onnx, message):
    logits = torch.zeros(3, 10)
    check_agreement(supernet=logits, extracted=logits + 5e-6, onnx=logits + 5e-5)
    with pytest.raises(ArtifactError, match=message):
        check_agreement(supernet=logits, extracted=logits + extracted, onnx=logits + onnx)


def test_a_failed_bundle_leaves_no_old_zip(example, tmp_path):
    write(tmp_path, example)
    with pytest.raises(ArtifactError):
        write(tmp_path, example, supernet_logits=lambda images: example.supernet_logits(images) + 1)
    assert not (tmp_path / "bundle.zip").exists()


def test_stopped_before_any_of_its_steps_it_leaves_no_zip(example, tmp_path):
    class StoppedError(Exception):
        pass

    asked = []

    def count():
        asked.append(None)

    write(tmp_path / "whole", example, stop_check=count)
    # Before and after the images, before each split's only batch, and before the zip.
    assert len(asked) == 5
    for last in range(len(asked)):
        left = [None] * last

        def stop(left=left):
            if not left:
                raise StoppedError
            left.pop()

        with pytest.raises(StoppedError):
            write(tmp_path / "cut", example, stop_check=stop)
        assert not (tmp_path / "cut" / "bundle.zip").exists()


@pytest.mark.parametrize(("difference", "num_close_calls"), [(1, 0), (1, 1), (-1, 5)])
def test_no_rounding_excuses_a_count_that_is_not_the_cards(difference, num_close_calls):
    result = verify.SplitResult(
        split="test",
        num_images=1000,
        card_correct=900,
        torch_correct=900 - difference,
        onnx_correct=900,
        max_difference=0.0,
        num_close_calls=num_close_calls,
    )
    (problem,) = result.problems()
    assert f"{num_close_calls} images are so close" in problem
